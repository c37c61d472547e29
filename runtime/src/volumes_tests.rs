use std::os::unix::fs::symlink;

use serde_json::json;
use tempfile::TempDir;

use super::*;

const POD: &str = "var/lib/kubelet/pods/0f5e";

/// A kubelet's directory of one pod.
struct Kubelet(TempDir);

impl Kubelet {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn pod(&self) -> PathBuf {
        self.0.path().join(POD)
    }

    /// A volume as the kubelet's atomic writer lays it out.
    fn volume(&self, plugin: &str, name: &str, turn: u32, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.pod().join("volumes").join(plugin).join(name);
        let data = dir.join(format!("..2026_11_24_{turn}"));
        for (file, text) in files {
            let path = data.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            let first = file.split('/').next().unwrap();
            symlink(Path::new(DATA).join(first), dir.join(first)).ok();
        }
        fs::remove_file(dir.join(DATA)).ok();
        symlink(data.file_name().unwrap(), dir.join(DATA)).unwrap();
        dir
    }
}

fn spec(mounts: &[(&Path, &str)]) -> Spec {
    let mounts: Vec<_> = mounts
        .iter()
        .map(|(source, to)| json!({"destination": to, "type": "bind", "source": source}))
        .collect();
    serde_json::from_value(json!({"ociVersion": "1.1.0", "mounts": mounts})).unwrap()
}

fn token(claims: &Value) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!(
        "{}.{}.{}",
        part("{}"),
        part(&claims.to_string()),
        part("signature")
    )
}

/// What the API server issues for a pod.
fn claims(account: &str, pod: &str, audience: &str) -> Value {
    json!({
        "iss": "https://kubernetes.default.svc", "aud": [audience], "exp": pod.len(),
        "sub": format!("system:serviceaccount:default:{account}"),
        "kubernetes.io": {"namespace": "default", "pod": {"name": pod, "uid": pod},
            "serviceaccount": {"name": account}},
    })
}

#[test]
fn kinds_are_told_by_the_path_alone() {
    let kind = |path: &str| kind_of(Path::new(path));
    let volumes = |rest: &str| kind(&format!("/{POD}/volumes/{rest}"));
    let is = |kind| Some(Source::Volume(kind));
    assert_eq!(volumes("kubernetes.io~configmap/cfg"), is(Kind::ConfigMap));
    assert_eq!(volumes("kubernetes.io~secret/pods"), is(Kind::Secret));
    assert_eq!(
        volumes("kubernetes.io~projected/kube-api-access-x"),
        is(Kind::Projected)
    );
    assert_eq!(
        kind("/snap/k/pods/1/volumes/kubernetes.io~secret/s"),
        is(Kind::Secret)
    );
    for other in [
        "kubernetes.io~empty-dir/x",
        "kubernetes.io~downward-api/x",
        "kubernetes.io~csi/pvc-1/mount",
        "kubernetes.io~secret",
    ] {
        assert_eq!(volumes(other), None, "{other}");
    }
    assert_eq!(kind("/var/lib/kubelet/pods"), None);
    assert_eq!(kind(&format!("/{POD}/etc-hosts")), None);
    let part = kind(&format!("/{POD}/volume-subpaths/cfg/web/0"));
    let Some(Source::Part(places)) = part else {
        panic!("{part:?}");
    };
    let at = format!("/{POD}/volumes/kubernetes.io~configmap/cfg");
    assert_eq!(places[0], (Kind::ConfigMap, PathBuf::from(at)));
}

#[test]
fn content_counts_and_the_writers_turns_do_not() {
    let node = Kubelet::new();
    let files = [("app.conf", "mode=a"), ("more/x", "1")];
    let one = node.volume("kubernetes.io~configmap", "one", 1, &files);
    let same = node.volume("kubernetes.io~configmap", "same", 7, &files);
    let gather = |dir: &Path| gather(&spec(&[(dir, "/etc/app")])).unwrap();
    let original = gather(&one);
    assert_eq!(original, gather(&same));
    let names: Vec<_> = original.volumes["/etc/app"].keys().collect();
    assert_eq!(names, ["app.conf", "more", "more/x"]);

    node.volume(
        "kubernetes.io~configmap",
        "one",
        2,
        &[("app.conf", "mode=b"), ("more/x", "1")],
    );
    let changed = gather(&one);
    assert_ne!(original, changed);
    assert_eq!(
        original.volumes["/etc/app"]["more/x"],
        changed.volumes["/etc/app"]["more/x"]
    );
    node.volume(
        "kubernetes.io~configmap",
        "one",
        3,
        &[("app.conf", "mode=a")],
    );
    assert_ne!(original, gather(&one));
}

#[test]
fn parts_of_volumes_count_and_other_volumes_do_not() {
    let node = Kubelet::new();
    node.volume(
        "kubernetes.io~configmap",
        "cfg",
        1,
        &[("app.conf", "mode=a")],
    );
    let part = |volume: &str, text: &str| {
        let at = node
            .pod()
            .join("volume-subpaths")
            .join(volume)
            .join("web/0");
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(&at, text).unwrap();
        gather(&spec(&[(&at, "/etc/app.conf")])).unwrap()
    };
    let original = part("cfg", "mode=a");
    assert_eq!(
        original.volumes["/etc/app.conf"].keys().collect::<Vec<_>>(),
        ["."]
    );
    assert_ne!(original, part("cfg", "mode=b"));
    assert_eq!(part("scratch", "a"), Contents::default());
    let scratch = node.pod().join("volumes/kubernetes.io~empty-dir/scratch");
    fs::create_dir_all(&scratch).unwrap();
    fs::write(scratch.join("x"), "x").unwrap();
    assert_eq!(
        gather(&spec(&[(&scratch, "/tmp")])).unwrap(),
        Contents::default()
    );
}

#[test]
fn tokens_count_by_whose_they_are() {
    let node = Kubelet::new();
    let mut turn = 0;
    let mut with = |claims: &Value, authority: &str| {
        turn += 1;
        let files = [
            ("token", &*token(claims)),
            ("ca.crt", authority),
            ("namespace", "default"),
        ];
        let dir = node.volume("kubernetes.io~projected", "kube-api-access-x", turn, &files);
        gather(&spec(&[(
            &dir,
            "/var/run/secrets/kubernetes.io/serviceaccount",
        )]))
        .unwrap()
    };
    let original = with(&claims("default", "web-1", "api"), "CA");
    assert_eq!(
        original.service_account.as_deref(),
        Some("system:serviceaccount:default:default")
    );
    assert_eq!(original, with(&claims("default", "web-22", "api"), "CA"));
    assert_ne!(original, with(&claims("default", "web-1", "vault"), "CA"));
    assert_ne!(
        original,
        with(&claims("default", "web-1", "api"), "another CA")
    );
    let other = with(&claims("admin", "web-1", "api"), "CA");
    assert_eq!(original.volumes, other.volumes);
    assert_ne!(original.service_account, other.service_account);
    // A token that no pod is named in is content like any other.
    let mut forever = claims("default", "web-1", "api");
    forever["kubernetes.io"]
        .as_object_mut()
        .unwrap()
        .remove("pod");
    let one = with(&forever, "CA");
    forever["exp"] = json!(99);
    assert_ne!(one, with(&forever, "CA"));
    assert_eq!(one.service_account, None);
}

#[test]
fn too_much_is_not_read_and_links_are_not_followed() {
    let node = Kubelet::new();
    let half = "x".repeat(usize::try_from(MAX_BYTES / 2).unwrap());
    let big = |name| node.volume("kubernetes.io~secret", name, 1, &[("a", &half), ("b", "x")]);
    let (one, two) = (big("one"), big("two"));
    assert!(gather(&spec(&[(&one, "/one")])).is_ok());
    let error = gather(&spec(&[(&one, "/one"), (&two, "/two")])).unwrap_err();
    assert_eq!(error.kind, ErrorKind::FailedPrecondition);
    assert!(error.message.contains("/two cannot be compared"), "{error}");
    assert!(error.message.contains("more than 4 MiB"), "{error}");

    let secret = node.0.path().join("elsewhere");
    fs::write(&secret, "a").unwrap();
    let dir = node.volume("kubernetes.io~secret", "link", 1, &[("a", "x")]);
    symlink(&secret, dir.join("..2026_11_24_1").join("b")).unwrap();
    let before = gather(&spec(&[(&dir, "/s")])).unwrap();
    fs::write(&secret, "b").unwrap();
    assert_eq!(before, gather(&spec(&[(&dir, "/s")])).unwrap());
    fs::remove_file(dir.join(DATA)).unwrap();
    symlink(node.0.path(), dir.join(DATA)).unwrap();
    assert!(gather(&spec(&[(&dir, "/s")])).is_err());
    assert!(gather(&spec(&[(&dir.join("none"), "/s")])).is_err());
}
