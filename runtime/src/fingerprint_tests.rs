use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::volumes::Contents;

/// A container as Kubernetes and containerd make it, as JSON.
pub(crate) fn base() -> Value {
    json!({
        "ociVersion": "1.1.0",
        "hostname": "pod-1",
        "root": {"path": "rootfs", "readonly": false},
        "process": {
            "terminal": false,
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [5, 7]},
            "args": ["java", "-jar", "app.jar"],
            "cwd": "/srv",
            "env": ["PATH=/bin", "HOSTNAME=pod-1", "MODE=prod", "HTTP_PORT=8080",
                "KUBERNETES_SERVICE_HOST=10.0.0.1", "KUBERNETES_SERVICE_PORT=443",
                "KUBERNETES_SERVICE_PORT_HTTPS=443",
                "KUBERNETES_PORT=tcp://10.0.0.1:443",
                "KUBERNETES_PORT_443_TCP=tcp://10.0.0.1:443",
                "KUBERNETES_PORT_443_TCP_ADDR=10.0.0.1"],
            "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 10, "soft": 5},
                {"type": "RLIMIT_CORE", "hard": 0, "soft": 0}],
            "noNewPrivileges": true,
            "oomScoreAdj": 100,
            "apparmorProfile": "cri-containerd.apparmor.d"
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec"]},
            {"destination": "/etc/hosts", "type": "bind", "source": "/var/lib/kubelet/1/hosts",
                "options": ["rbind", "rw"]}
        ],
        "annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": "web",
            "io.kubernetes.cri.sandbox-namespace": "default",
            "io.kubernetes.cri.sandbox-name": "pod-1",
            "io.kubernetes.cri.sandbox-id": "aaa"
        },
        "linux": {
            "cgroupsPath": "/kubepods/pod1/aaa",
            "resources": {"memory": {"limit": 1000},
                "devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "mount"},
                {"type": "network", "path": "/proc/77/ns/net"}],
            "maskedPaths": ["/proc/acpi", "/proc/kcore"],
            "readonlyPaths": ["/proc/bus"],
            "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
            "sysctl": {"net.core.somaxconn": "1024", "kernel.shm_rmid_forced": "0"},
            "rootfsPropagation": "private",
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"}]}
        }
    })
}

pub(crate) fn overlay(lower: &str) -> Vec<RootfsMount> {
    vec![RootfsMount::overlay(vec![
        "index=off".to_owned(),
        "workdir=/s/9/work".to_owned(),
        "upperdir=/s/9/fs".to_owned(),
        format!("lowerdir={lower}"),
    ])]
}

pub(crate) fn subject(spec: &Value) -> Subject {
    let spec: Spec = serde_json::from_value(spec.clone()).unwrap();
    of(&spec, "k8s.io", &overlay("/s/2/fs:/s/1/fs")).unwrap()
}

/// The subject of a container without volumes that count.
fn of(spec: &Spec, namespace: &str, rootfs: &[RootfsMount]) -> Option<Subject> {
    Subject::of(spec, namespace, rootfs, &Contents::default())
}

fn fingerprint(spec: &Value) -> Fingerprint {
    subject(spec).fingerprint()
}

fn differences(a: &Subject, b: &Subject) -> Vec<String> {
    a.hashes().differences(&b.hashes())
}

pub(crate) fn set(spec: &mut Value, path: &str, value: Value) {
    *spec
        .pointer_mut(path)
        .unwrap_or_else(|| panic!("no {path}")) = value;
}

/// One change of everything that must be equal, with the field it is part of.
pub(crate) fn changes() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        (
            "pod_namespace",
            "/annotations/io.kubernetes.cri.sandbox-namespace",
            json!("other"),
        ),
        (
            "container_name",
            "/annotations/io.kubernetes.cri.container-name",
            json!("other"),
        ),
        ("rootfs_readonly", "/root/readonly", json!(true)),
        ("terminal", "/process/terminal", json!(true)),
        ("args", "/process/args/2", json!("other.jar")),
        ("cwd", "/process/cwd", json!("/")),
        ("env", "/process/env/2", json!("MODE=test")),
        ("env", "/process/env/3", json!("HTTP_PORT=8081")),
        ("user", "/process/user/uid", json!(0)),
        ("user", "/process/user/gid", json!(0)),
        ("user", "/process/user/additionalGids", json!([5])),
        ("capabilities", "/process/capabilities/effective", json!([])),
        ("rlimits", "/process/rlimits/0/soft", json!(6)),
        (
            "no_new_privileges",
            "/process/noNewPrivileges",
            json!(false),
        ),
        ("apparmor", "/process/apparmorProfile", json!("unconfined")),
        ("mounts", "/mounts/1/destination", json!("/etc/host")),
        ("mounts", "/mounts/1/type", json!("tmpfs")),
        ("mounts", "/mounts/1/options", json!(["rbind", "ro"])),
        (
            "device_rules",
            "/linux/resources/devices/0/allow",
            json!(true),
        ),
        (
            "namespaces",
            "/linux/namespaces/2",
            json!({"type": "network"}),
        ),
        ("namespaces", "/linux/namespaces/2", json!({"type": "ipc"})),
        ("masked_paths", "/linux/maskedPaths", json!(["/proc/acpi"])),
        ("readonly_paths", "/linux/readonlyPaths", json!([])),
        ("devices", "/linux/devices/0/minor", json!(1)),
        ("sysctl", "/linux/sysctl/net.core.somaxconn", json!("1")),
        (
            "rootfs_propagation",
            "/linux/rootfsPropagation",
            json!("rslave"),
        ),
        (
            "seccomp",
            "/linux/seccomp/syscalls/0/names",
            json!(["read"]),
        ),
        (
            "seccomp",
            "/linux/seccomp/defaultAction",
            json!("SCMP_ACT_ALLOW"),
        ),
    ]
}

#[test]
fn every_field_that_must_match_is_seen_and_named() {
    let original = subject(&base());
    for (field, path, value) in changes() {
        let mut spec = base();
        set(&mut spec, path, value);
        let changed = subject(&spec);
        assert_ne!(original.fingerprint(), changed.fingerprint(), "{path}");
        assert_eq!(differences(&original, &changed), [field], "{path}");
    }
    let spec: Spec = serde_json::from_value(base()).unwrap();
    let other = of(&spec, "moby", &overlay("/s/2/fs:/s/1/fs")).unwrap();
    assert_eq!(differences(&original, &other), ["namespace"]);
    let other = of(&spec, "k8s.io", &overlay("/s/3/fs:/s/1/fs")).unwrap();
    assert_eq!(differences(&original, &other), ["image"]);
}

#[test]
fn a_rootfs_without_shared_layers_has_no_subject() {
    let spec: Spec = serde_json::from_value(base()).unwrap();
    assert!(of(&spec, "k8s.io", &[]).is_none());
    let mut bind = overlay("/a");
    bind[0].typ = "bind".to_owned();
    assert!(of(&spec, "k8s.io", &bind).is_none());
    let mut two = overlay("/a");
    two.extend(overlay("/b"));
    assert!(of(&spec, "k8s.io", &two).is_none());
}

#[test]
fn a_users_own_variables_count_even_with_service_like_names() {
    let of = |env: &[&str]| {
        let mut spec = base();
        set(&mut spec, "/process/env", json!(env));
        fingerprint(&spec)
    };
    assert_ne!(of(&["HTTP_PORT=1"]), of(&["HTTP_PORT=2"]));
    assert_ne!(
        of(&["KUBERNETES_NAMESPACE=a"]),
        of(&["KUBERNETES_NAMESPACE=b"])
    );
    assert_ne!(of(&["DB_SERVICE_HOST=db"]), of(&["DB_SERVICE_HOST=db2"]));
    let service = [
        "A_SERVICE_HOST=10.0.0.1",
        "A_SERVICE_PORT=1",
        "A_PORT=tcp://10.0.0.1:1",
    ];
    assert_eq!(of(&service), of(&[]));
    let with = |more| of(&[service[0], service[1], service[2], more]);
    assert_eq!(with("A_PORT_53_UDP_PROTO=udp"), of(&[]));
    assert_ne!(with("A_PORT_NAME=x"), of(&[]));
    assert_ne!(with("AB_PORT=tcp://10.0.0.1:1"), of(&[]));
}

#[test]
fn what_the_volumes_hold_counts() {
    let spec: Spec = serde_json::from_value(base()).unwrap();
    let with = |contents: &Contents| {
        Subject::of(&spec, "k8s.io", &overlay("/s/2/fs:/s/1/fs"), contents).unwrap()
    };
    let files = |word: &str| BTreeMap::from([("mode".to_owned(), word.to_owned())]);
    let volumes = |word| BTreeMap::from([("/etc/app".to_owned(), files(word))]);
    let contents = |word, account: &str| Contents {
        volumes: volumes(word),
        service_account: Some(account.to_owned()),
    };
    let original = with(&contents("0644 aa", "system:serviceaccount:a:b"));
    let changed = with(&contents("0644 bb", "system:serviceaccount:a:b"));
    assert_eq!(differences(&original, &changed), ["volumes"]);
    let other = with(&contents("0644 aa", "system:serviceaccount:a:c"));
    assert_eq!(differences(&original, &other), ["service_account"]);
    let shown = original
        .shown()
        .differences(&changed.shown(), &["volumes".to_owned()]);
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].what.as_deref(), Some("/etc/app mode"));
    assert!(!shown[0].here.to_string().contains("aa"), "{shown:?}");
}

#[test]
fn the_format_is_pinned() {
    let digest = |text: &str| -> String {
        Sha256::digest(text)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    };
    let subject = Subject(BTreeMap::from([
        ("b", json!({"y": 1, "x": [null]})),
        ("a", json!("z")),
    ]));
    let (a, b) = (
        digest(r#"["a","z"]"#),
        digest(r#"["b",{"x":[null],"y":1}]"#),
    );
    let whole = format!(r#"{{"fields":{{"a":"{a}","b":"{b}"}},"version":2}}"#);
    assert_eq!(
        subject.fingerprint().as_str(),
        format!("v2-{}", digest(&whole))
    );
}

#[test]
fn a_fingerprint_travels_by_exchanging_its_base() {
    let here = subject(&base()).hashes();
    let local = Base::here(&overlay("/s/2/fs:/s/1/fs")).unwrap();
    assert!(here.has_base(&local));
    let portable = here.with_base(&Base::Anywhere("sha256:abc".to_owned()));
    assert_eq!(here.differences(&portable), ["image"]);
    // The other node has other numbers for the same layers.
    let there = Base::here(&overlay("/t/7/fs:/t/5/fs")).unwrap();
    let spec: Spec = serde_json::from_value(base()).unwrap();
    let same = of(&spec, "k8s.io", &overlay("/t/7/fs:/t/5/fs")).unwrap();
    assert_eq!(
        Fingerprint::of(&portable.with_base(&there)),
        same.fingerprint()
    );
    assert_eq!(portable.with_base(&local), here);
}

#[test]
fn only_well_formed_fingerprints_are_read() {
    let good = fingerprint(&base()).to_string();
    assert!(serde_json::from_value::<Fingerprint>(json!(good)).is_ok());
    for bad in [
        "",
        "v2-",
        "v2-zz",
        "../../etc/passwd",
        &good[..66],
        &good.to_uppercase(),
    ] {
        assert!(
            serde_json::from_value::<Fingerprint>(json!(bad)).is_err(),
            "{bad}"
        );
    }
}

proptest! {
    #[test]
    fn what_may_differ_makes_no_difference(
        name in "[a-z][a-z0-9-]{0,20}",
        pid in 2..9999_u32,
        limit in 1..i64::MAX,
        address in any::<[u8; 4]>(),
        score in -1000..1000_i32,
        turn in 0..10_usize,
    ) {
        let mut spec = base();
        let ip = std::net::Ipv4Addr::from(address);
        set(&mut spec, "/hostname", json!(name));
        set(&mut spec, "/annotations/io.kubernetes.cri.sandbox-name", json!(name));
        set(&mut spec, "/annotations/io.kubernetes.cri.sandbox-id", json!(name));
        set(&mut spec, "/linux/cgroupsPath", json!(format!("/kubepods/{name}")));
        set(&mut spec, "/linux/resources/memory/limit", json!(limit));
        set(&mut spec, "/linux/namespaces/2/path", json!(format!("/proc/{pid}/ns/net")));
        set(&mut spec, "/mounts/1/source", json!(format!("/var/lib/kubelet/{name}/hosts")));
        set(&mut spec, "/process/oomScoreAdj", json!(score));
        set(&mut spec, "/process/env/1", json!(format!("HOSTNAME={name}")));
        set(&mut spec, "/process/env/4", json!(format!("KUBERNETES_SERVICE_HOST={ip}")));
        set(&mut spec, "/process/env/7", json!(format!("KUBERNETES_PORT=tcp://{ip}:443")));
        // Sets in another order.
        let env = spec.pointer_mut("/process/env").unwrap().as_array_mut().unwrap();
        env.rotate_left(turn);
        for path in ["/linux/maskedPaths", "/process/rlimits", "/linux/namespaces", "/mounts",
            "/process/capabilities/bounding", "/process/user/additionalGids",
            "/linux/seccomp/architectures", "/linux/seccomp/syscalls/0/names",
            "/mounts/0/options", "/mounts/1/options"]
        {
            spec.pointer_mut(path).unwrap().as_array_mut().unwrap().rotate_left(turn % 2);
        }
        prop_assert_eq!(fingerprint(&spec), fingerprint(&base()));
    }

    #[test]
    fn any_other_change_makes_another(which in 0..28_usize, also in 0..28_usize) {
        let mut spec = base();
        for (_, path, value) in [which, also].map(|n| changes().swap_remove(n)) {
            set(&mut spec, path, value);
        }
        prop_assert_ne!(fingerprint(&spec), fingerprint(&base()));
    }
}
