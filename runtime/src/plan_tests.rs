use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::checkpoint::{Needs, Origin};
use crate::fingerprint::{Fingerprint, Hashes, Shown};

fn spec(pid: Option<&str>, sandbox: bool, limit: i64) -> Spec {
    let pid = pid.map(|path| match path {
        "" => json!({"type": "pid"}),
        path => json!({"type": "pid", "path": path}),
    });
    let kind = if sandbox { "sandbox" } else { "container" };
    serde_json::from_value(json!({
        "ociVersion": "1.1.0",
        "annotations": {"io.kubernetes.cri.container-type": kind},
        "linux": {
            "namespaces": pid.into_iter().collect::<Vec<_>>(),
            "resources": {"memory": {"limit": limit}},
        },
    }))
    .unwrap()
}

fn manifest() -> Manifest {
    Manifest {
        version: 1,
        id: "abc-1".to_owned(),
        fingerprint: Fingerprint::try_from(format!("v2-{:064x}", 1)).unwrap(),
        origin: Origin {
            namespace: String::new(),
            container: String::new(),
            name: None,
            pod: None,
            pod_namespace: None,
            image: None,
        },
        created_unix_s: 0,
        needs: Needs {
            arch: "x86_64".to_owned(),
            cpu_features: vec!["avx".to_owned(), "sse".to_owned()],
            kernel: "6.12.8".to_owned(),
            criu_version: 40_200,
            memory_bytes: 1000,
        },
        image_bytes: 0,
        frozen_us: 0,
        layers: Vec::new(),
        files: Vec::new(),
        fields: Hashes::default(),
        shown: Shown::default(),
        base: None,
    }
}

fn node() -> NodeFacts {
    NodeFacts {
        arch: "x86_64".to_owned(),
        cpu_features: ["avx", "sse", "x"].map(ToOwned::to_owned).into(),
        kernel: "6.12.1-amd64".to_owned(),
        criu: Ok(40_201),
    }
}

#[test]
fn what_no_checkpoint_holds_starts_cold() {
    let on = Config::default();
    let with = |linux: &serde_json::Value| -> Spec {
        let mut spec = json!({"ociVersion": "1.1.0", "linux": {"namespaces": [{"type": "pid"}]}});
        spec["linux"]
            .as_object_mut()
            .unwrap()
            .extend(linux.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    };
    for (what, linux) in [
        (
            "a seccomp agent",
            json!({"seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}}),
        ),
        (
            "a memory policy",
            json!({"memoryPolicy": {"mode": "MPOL_LOCAL"}}),
        ),
        (
            "a personality",
            json!({"personality": {"domain": "LINUX32"}}),
        ),
        (
            "network devices of the node",
            json!({"netDevices": {"eth1": {}}}),
        ),
    ] {
        let spec = with(&linux);
        let known = Known {
            spec: &spec,
            config: Ok(&on),
            policy: RestorePolicy::Auto,
            has_subject: true,
            is_fresh: true,
        };
        assert_eq!(before_lookup(&known), Some(Why::Beyond(what)));
    }
}

#[test]
fn each_reason_of_the_spec_is_told() {
    let off = Config {
        restore: crate::policy::RestoreConfig { enabled: false },
        ..Config::default()
    };
    let on = Config::default();
    let bad = Error::internal("Config file x: no");
    let own = spec(Some(""), false, 0);
    let why = |spec: &Spec, config, policy, has_subject| {
        before_lookup(&Known {
            spec,
            config,
            policy,
            has_subject,
            is_fresh: true,
        })
    };
    use RestorePolicy::{Auto, Never};
    assert_eq!(why(&own, Ok(&on), Auto, true), None);
    assert_eq!(why(&own, Ok(&off), Auto, true), Some(Why::Disabled));
    assert_eq!(why(&own, Ok(&on), Never, true), Some(Why::Never));
    assert_eq!(why(&own, Ok(&on), Auto, false), Some(Why::NoSharedLayers));
    let unreadable = Some(Why::ConfigUnreadable("Config file x: no".to_owned()));
    assert_eq!(why(&own, Err(&bad), Auto, true), unreadable);
    let joined = spec(Some("/proc/1/ns/pid"), false, 0);
    assert_eq!(
        why(&joined, Ok(&on), Auto, true),
        Some(Why::SharedPidNamespace)
    );
    let host = spec(None, false, 0);
    assert_eq!(why(&host, Ok(&on), Auto, true), Some(Why::HostPidNamespace));
    assert_eq!(
        why(&spec(Some(""), true, 0), Ok(&on), Auto, true),
        Some(Why::Sandbox)
    );
    let user: Spec = serde_json::from_value(json!({
        "ociVersion": "1.1.0",
        "linux": {"namespaces": [{"type": "pid"}, {"type": "user"}]},
    }))
    .unwrap();
    assert_eq!(why(&user, Ok(&on), Auto, true), Some(Why::UserNamespace));
    let with = |what: serde_json::Value| -> Spec {
        let mut value = json!({"ociVersion": "1.1.0", "linux": {"namespaces": [{"type": "pid"}]}});
        for (name, part) in what.as_object().unwrap() {
            match part.as_object().filter(|_| name == "linux") {
                Some(part) => value["linux"].as_object_mut().unwrap().extend(part.clone()),
                None => value[name] = part.clone(),
            }
        }
        serde_json::from_value(value).unwrap()
    };
    let sysctls = with(json!({"linux": {"sysctl": {"net.core.somaxconn": "9"}}}));
    assert_eq!(why(&sysctls, Ok(&on), Auto, true), Some(Why::Sysctls));
    for kind in ["prestart", "createRuntime", "startContainer", "poststop"] {
        let hooks = with(json!({"hooks": {kind: [{"path": "/bin/true"}]}}));
        assert_eq!(why(&hooks, Ok(&on), Auto, true), Some(Why::Hooks), "{kind}");
    }
    assert_eq!(
        why(
            &with(json!({"hooks": {"prestart": []}})),
            Ok(&on),
            Auto,
            true
        ),
        None
    );
    let filled = Known {
        spec: &own,
        config: Ok(&on),
        policy: Auto,
        has_subject: true,
        is_fresh: false,
    };
    assert_eq!(before_lookup(&filled), Some(Why::FilledLayer));
    assert!(checkpointable(&own).is_ok());
    for (bad, mend) in [
        (&joined, "shareProcessNamespace: false"),
        (&host, "hostPID: false"),
        (&user, "hostUsers: true"),
    ] {
        let error = checkpointable(bad).unwrap_err();
        assert_eq!(error.kind, ErrorKind::FailedPrecondition);
        assert!(error.message.contains(mend), "{error}");
    }
}

#[test]
fn each_unfitness_of_the_node_is_told() {
    let (spec, manifest) = (spec(Some(""), false, 999), manifest());
    let why = |change: fn(&mut NodeFacts)| {
        let mut node = node();
        change(&mut node);
        before_restore(&spec, &manifest, &node).unwrap()
    };
    assert_eq!(
        why(|n| n.criu = Err("CRIU is missing".to_owned())).label(),
        "no_criu"
    );
    assert_eq!(why(|n| n.criu = Ok(40_100)).label(), "criu_older");
    assert!(
        why(|n| n.criu = Ok(40_100))
            .to_string()
            .contains("install 4.2 or later")
    );
    assert_eq!(
        why(|n| n.arch = "aarch64".to_owned()).label(),
        "architecture"
    );
    let missing = why(|n| n.cpu_features = BTreeSet::new());
    assert!(missing.to_string().ends_with("avx sse"), "{missing}");
    let older = why(|n| n.kernel = "6.9.99".to_owned());
    assert_eq!(older.label(), "kernel_older");
    assert!(older.to_string().contains("Linux 6.12.8"), "{older}");
    assert_eq!(why(|n| n.kernel = "7.0".to_owned()).label(), "memory_limit");
    assert_eq!(why(|_| {}).label(), "memory_limit");
    let enough = super::tests::spec(Some(""), false, 1000);
    assert_eq!(before_restore(&enough, &manifest, &node()), None);
}

fn anything() -> impl Strategy<Value = (Spec, bool, RestorePolicy, bool, u8)> {
    let pid = prop_oneof![Just(None), Just(Some("")), Just(Some("/proc/9/ns/pid"))];
    let policy = prop_oneof![
        Just(RestorePolicy::Auto),
        Just(RestorePolicy::Never),
        Just(RestorePolicy::Require)
    ];
    (
        pid,
        any::<bool>(),
        any::<bool>(),
        policy,
        any::<bool>(),
        0..2_u8,
    )
        .prop_map(|(pid, sandbox, enabled, policy, subject, found)| {
            (spec(pid, sandbox, 0), enabled, policy, subject, found)
        })
}

proptest! {
    #[test]
    fn a_miss_or_trouble_refuses_only_what_must_be_restored(
        (spec, enabled, policy, has_subject, outcome) in anything()
    ) {
        let mut config = Config::default();
        config.restore.enabled = enabled;
        let known = Known { spec: &spec, config: Ok(&config), policy, has_subject, is_fresh: true };
        let asked = std::cell::Cell::new(false);
        let plan = decide(
            &known,
            || {
                asked.set(true);
                match outcome {
                    0 => Ok(None),
                    _ => Err(Why::Unusable("broken".to_owned())),
                }
            },
            || panic!("the node is asked only when there is a checkpoint"),
        );
        // Nothing is looked up when the answer is known, and always otherwise.
        prop_assert_eq!(asked.get(), before_lookup(&known).is_none());
        match plan {
            Plan::Restore(_) => prop_assert!(false, "restored from nothing"),
            Plan::Refuse(why) => {
                prop_assert_eq!(policy, RestorePolicy::Require);
                prop_assert!(!is_sandbox(&spec));
                prop_assert!(!why.to_string().is_empty());
            }
            Plan::Cold(why) => {
                prop_assert!(policy != RestorePolicy::Require || is_sandbox(&spec));
                prop_assert!(!why.to_string().contains('\n'));
            }
        }
    }

    #[test]
    fn a_fit_node_has_everything_that_is_needed(
        have in proptest::collection::btree_set("[a-d]", 0..4),
        need in proptest::collection::vec("[a-d]", 0..4),
        criu in 40_100..40_400_u32,
        made_by in 40_100..40_400_u32,
        limit in 0..2000_i64,
    ) {
        let mut manifest = manifest();
        manifest.needs.cpu_features = need.clone();
        manifest.needs.criu_version = made_by;
        let node = NodeFacts { cpu_features: have.clone(), criu: Ok(criu), ..node() };
        let fit = need.iter().all(|f| have.contains(f))
            && criu >= made_by
            && (limit == 0 || limit >= 1000);
        let why = before_restore(&spec(Some(""), false, limit), &manifest, &node);
        prop_assert_eq!(why.is_none(), fit);
    }
}
