//! What systemd is asked for, and what becomes of its answers.

use super::super::dbus::peer::{Asked, Manners, Peer};
use super::*;
use zbus::zvariant::{OwnedValue, Value as Theirs};

fn spec(extra: &serde_json::Value) -> Spec {
    let mut value = serde_json::json!({"ociVersion": "1.2.0"});
    for (key, part) in extra.as_object().unwrap() {
        value[key] = part.clone();
    }
    serde_json::from_value(value).unwrap()
}

fn unit(path: &str) -> Unit {
    let unit = Unit::of(path, &spec(&serde_json::json!({}))).unwrap();
    unit.unwrap()
}

fn systemd(manners: Manners) -> (Peer, Connection) {
    let peer = Peer::new(manners);
    let connection = Connection::private(&peer.socket).unwrap();
    (peer, connection)
}

fn find<'a>(properties: &'a [(String, OwnedValue)], name: &str) -> &'a Theirs<'static> {
    let mut found = properties.iter().filter(|(theirs, _)| theirs == name);
    let (_, value) = found
        .next()
        .unwrap_or_else(|| panic!("no {name} in {properties:?}"));
    assert!(found.next().is_none(), "{name} twice");
    value
}

#[test]
fn slices_lie_in_slices() {
    let path = |path: &str| unit(path).path().unwrap();
    assert_eq!(
        path("kubepods-besteffort-pod1_2.slice:cri-containerd:abc"),
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice/\
         cri-containerd-abc.scope"
    );
    assert_eq!(path(":runc:abc"), "/system.slice/runc-abc.scope");
    assert_eq!(path("-.slice:p:n"), "/p-n.scope");
    assert_eq!(path("a.slice::a-b.slice"), "/a.slice/a-b.slice");
    for bad in ["-a.slice", "a--b.slice", "a-.slice", ".slice"] {
        let made = Unit::of(&format!("{bad}:p:n"), &spec(&serde_json::json!({})));
        let error = made.unwrap_err();
        assert_eq!(error.message, format!("invalid slice name: {bad}"));
    }
}

#[test]
fn a_scope_is_started_around_its_first_process() {
    let (peer, mut systemd) = systemd(Manners::default());
    let unit = unit("kubepods-pod1.slice:cri-containerd:abc");
    unit.start_at(&mut systemd, 4711, true).unwrap();
    let [Asked::Start(name, mode, properties)] = &peer.asked()[..] else {
        panic!("not one start");
    };
    assert_eq!(
        (name.as_str(), mode.as_str()),
        ("cri-containerd-abc.scope", "replace")
    );
    let is = |name: &str, value: Theirs<'_>| assert_eq!(find(properties, name), &value);
    is("Slice", "kubepods-pod1.slice".into());
    is("PIDs", vec![4711_u32].into());
    for yes in [
        "Delegate",
        "MemoryAccounting",
        "CPUAccounting",
        "IOAccounting",
        "TasksAccounting",
    ] {
        is(yes, true.into());
    }
    is("DefaultDependencies", false.into());
    is("Description", "reprise container abc".into());
    assert_eq!(properties.len(), 9, "{properties:?}");
}

#[test]
fn v1_has_its_own_word_for_io_and_a_slice_has_no_processes() {
    let (peer, mut systemd) = systemd(Manners::default());
    unit("a.slice:p:n")
        .start_at(&mut systemd, 1, false)
        .unwrap();
    unit("a.slice:p:a-b.slice")
        .start_at(&mut systemd, 1, true)
        .unwrap();
    let [Asked::Start(_, _, scope), Asked::Start(name, _, slice)] = &peer.asked()[..] else {
        panic!("not two starts");
    };
    assert_eq!(find(scope, "BlockIOAccounting"), &true.into());
    assert_eq!(name, "a-b.slice");
    assert_eq!(find(slice, "Wants"), &vec!["a.slice"].into());
    assert!(
        !slice
            .iter()
            .any(|(name, _)| ["PIDs", "Delegate", "Slice"].contains(&name.as_str()))
    );
}

#[test]
fn annotations_and_the_oom_policy_are_said_at_the_start() {
    let spec = spec(&serde_json::json!({
        "annotations": {
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.TimeoutStopSec": "7",
            "other": "x",
        },
        "linux": {"resources": {"unified": {"memory.oom.group": "1"}}},
    }));
    let (peer, mut systemd) = systemd(Manners::default());
    let unit = Unit::of("a.slice:p:n", &spec).unwrap().unwrap();
    unit.start_at(&mut systemd, 1, true).unwrap();
    let [Asked::Start(_, _, properties)] = &peer.asked()[..] else {
        panic!("not one start");
    };
    assert_eq!(
        find(properties, "CollectMode"),
        &"inactive-or-failed".into()
    );
    assert_eq!(find(properties, "TimeoutStopUSec"), &7_000_000_u64.into());
    assert_eq!(find(properties, "OOMPolicy"), &"kill".into());
}

#[test]
fn a_failed_unit_of_the_same_name_is_forgotten_once() {
    let (peer, mut once) = systemd(Manners {
        exists: 1,
        ..Manners::default()
    });
    let unit = unit("a.slice:p:n");
    unit.start_at(&mut once, 1, true).unwrap();
    let asked = peer.asked();
    assert!(
        matches!(&asked[..], [Asked::Start(..), Asked::Forget(name), Asked::Start(..)]
            if name == "p-n.scope"),
        "{asked:?}"
    );
    let (_peer, mut twice) = systemd(Manners {
        exists: 2,
        ..Manners::default()
    });
    let error = unit.start_at(&mut twice, 1, true).unwrap_err();
    assert!(error.message.contains("Unit p-n.scope exists"), "{error}");
    let (_peer, mut fails) = systemd(Manners {
        result: Some("failed"),
        ..Manners::default()
    });
    let error = unit.start_at(&mut fails, 1, true).unwrap_err();
    assert!(error.message.contains("\"failed\""), "{error}");
}

#[test]
fn limits_and_device_rules_are_set_in_one_call() {
    let (peer, mut systemd) = systemd(Manners::default());
    let limits: LinuxResources = serde_json::from_str(
        r#"{"memory":{"limit":4096},"cpu":{"quota":5000,"period":10000,"cpus":"9"}}"#,
    )
    .unwrap();
    let rules = Rules::of(None, &[]).unwrap();
    let unit = unit("a.slice:p:n");
    unit.set_at(&mut systemd, &limits, Some(&rules), true)
        .unwrap();
    let [Asked::Set(name, true, properties)] = &peer.asked()[..] else {
        panic!("not one change until the next boot");
    };
    assert_eq!(name, "p-n.scope");
    assert_eq!(find(properties, "MemoryMax"), &4096_u64.into());
    assert_eq!(find(properties, "AllowedCPUs"), &vec![0_u8, 2].into());
    let given = properties.iter().filter(|(name, _)| name == "DeviceAllow");
    assert_eq!(given.count(), 2, "cleared, then set");
    // Nothing to say is not said.
    unit.set_at(&mut systemd, &LinuxResources::default(), None, true)
        .unwrap();
    unit.stop_at(&mut systemd).unwrap();
    assert!(matches!(
        &peer.asked()[..],
        [Asked::Stop(..), Asked::Forget(_)]
    ));
}

#[test]
fn what_systemd_refuses_is_the_users_to_read() {
    let (_peer, mut systemd) = systemd(Manners {
        refuses: true,
        ..Manners::default()
    });
    let limits = serde_json::from_str(r#"{"pids":{"limit":7}}"#).unwrap();
    let error = unit("a.slice:p:n").set_at(&mut systemd, &limits, None, true);
    let error = error.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument);
    assert!(error.message.contains("p-n.scope") && error.message.contains("out of range"));
}

#[test]
fn a_unit_that_is_gone_need_not_be_stopped() {
    let (peer, mut systemd) = systemd(Manners {
        knows_none: true,
        ..Manners::default()
    });
    unit("a.slice:p:n").stop_at(&mut systemd).unwrap();
    assert_eq!(
        peer.asked(),
        [Asked::Stop("p-n.scope".to_owned(), "replace".to_owned())]
    );
}
