//! Containers with a user namespace, compared with runc's where both can be, and
//! what containerd asks of them.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::unwrap_used,
    reason = "a test with a harness of its own"
)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use support::Case;
use support::compare::{bind, both_refuse, same, sh};

support::tests![
    the_tree_is_runcs,
    sources_behind_closed_doors,
    mapped_binds,
    what_is_refused,
    mapped_layers,
    an_exec_is_in_it_too,
    a_namespace_that_is_joined,
    a_terminal,
];

const ROOT: u32 = 100_000;

/// Puts the case into a user namespace. The image belongs to its root.
fn in_namespace(mut case: Case) -> Case {
    own(&case.dir.join("image"));
    with_namespace(&mut case);
    case
}

fn with_namespace(case: &mut Case) {
    for dir in ["upper", "work"] {
        chown(case.dir.join(dir), Some(ROOT), Some(ROOT)).unwrap();
    }
    let ids = json!([{"containerID": 0, "hostID": ROOT, "size": 65536}]);
    case.set("/linux/uidMappings", ids.clone());
    case.set("/linux/gidMappings", ids);
    let all = case.spec["linux"]["namespaces"].as_array_mut().unwrap();
    all.extend([json!({"type": "user"}), json!({"type": "cgroup"})]);
}

fn own(path: &Path) {
    std::os::unix::fs::lchown(path, Some(ROOT), Some(ROOT)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            own(&entry.unwrap().path());
        }
    }
}

fn the_tree_is_runcs() {
    for script in [
        "cat /proc/self/mountinfo",
        "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id; \
         stat -c '%n %a %u:%g' / /dev /dev/null /dev/pts /dev/shm /etc/passwd; \
         touch /x; mkdir /y; stat -c %u /x; echo > /dev/null; ls /dev",
        "grep -e Cap -e Groups /proc/self/status; cat /proc/self/oom_score_adj",
    ] {
        same(&mut in_namespace(sh(script)));
    }
    let mut case = in_namespace(sh("cat /proc/self/mountinfo; touch /x"));
    case.set("/root/readonly", json!(true));
    case.set("/linux/rootfsPropagation", json!("rslave"));
    same(&mut case);
}

fn sources_behind_closed_doors() {
    let mut case = in_namespace(sh(
        "cat /vol/file; grep ' /vol ' /proc/self/mountinfo; touch /vol/x",
    ));
    let closed = case.dir.join("closed");
    fs::create_dir_all(closed.join("vol")).unwrap();
    fs::write(closed.join("vol/file"), "inside\n").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    case.mount(bind(
        &closed.join("vol"),
        "/vol",
        &["rbind", "ro", "rprivate"],
    ));
    same(&mut case);
}

fn mapped_binds() {
    let ids = json!([{"containerID": 0, "hostID": ROOT, "size": 65536}]);
    for (options, own) in [
        (&["rbind"][..], true),
        (&["rbind", "idmap"], false),
        (&["rbind", "ridmap", "ro"], false),
        (&["rbind", "ridmap"], true),
    ] {
        let mut case = in_namespace(sh(
            "stat -c '%u:%g' /vol /vol/file; touch /vol/new; grep ' /vol ' /proc/self/mountinfo",
        ));
        let vol = case.dir.join("vol");
        fs::create_dir(&vol).unwrap();
        fs::write(vol.join("file"), "").unwrap();
        chown(vol.join("file"), Some(5), Some(6)).unwrap();
        let mut mount = bind(&vol, "/vol", options);
        if own {
            mount["uidMappings"] = ids.clone();
            mount["gidMappings"] = ids.clone();
        }
        case.mount(mount);
        let (_, out) = same(&mut case);
        assert!(out.starts_with("0:0\n5:6\n"), "{out}");
        if !options.contains(&"ro") {
            assert_eq!(fs::metadata(vol.join("new")).unwrap().uid(), 0);
        }
    }
    // Without a user namespace of the container's.
    let mut case = sh("stat -c '%u:%g' /vol");
    let vol = case.dir.join("vol");
    fs::create_dir(&vol).unwrap();
    let mut mount = bind(&vol, "/vol", &["rbind"]);
    mount["uidMappings"] = json!([{"containerID": 0, "hostID": 7, "size": 10}]);
    mount["gidMappings"] = mount["uidMappings"].clone();
    case.mount(mount);
    assert_eq!(same(&mut case).1, "7:7\n");
}

fn what_is_refused() {
    let mut case = sh("true");
    case.mount(bind(Path::new("/etc"), "/vol", &["rbind", "idmap"]));
    both_refuse(&mut case);
    let mut case = in_namespace(sh("true"));
    let mut mount = support::compare::tmpfs("/vol", &["idmap"]);
    mount["source"] = json!("tmpfs");
    case.mount(mount);
    both_refuse(&mut case);
}

/// As containerd mounts the rootfs of such a pod: the image stays root's.
fn mapped_layers() {
    let script = "stat -c '%n %u:%g' / /bin/busybox /etc/passwd; touch /x; echo >> /etc/passwd; stat -c %u /x";
    let mut case = sh(script);
    with_namespace(&mut case);
    case.rootfs_options = vec![
        format!("uidmap=0:{ROOT}:65536"),
        format!("gidmap=0:{ROOT}:65536"),
    ];
    let (code, out) = case.run();
    assert_eq!(
        (code, out.as_str()),
        (0, "/ 0:0\n/bin/busybox 0:0\n/etc/passwd 0:0\n0\n")
    );
    let owner = |path: &str| fs::metadata(case.dir.join(path)).unwrap().uid();
    assert_eq!(owner("upper/x"), ROOT);
    assert_eq!(owner("upper/etc/passwd"), ROOT);
    assert_eq!(owner("image/etc/passwd"), 0);
}

fn an_exec_is_in_it_too() {
    let mut case = in_namespace(Case::new(&["sleep", "100"]));
    let init = case.start();
    let script = "cat /proc/self/uid_map; readlink /proc/self/ns/user; readlink /proc/1/ns/user; touch /made; \
                  id -u; grep -e CapEff -e Groups /proc/self/status";
    let (code, out) = case.exec(case.process(&["sh", "-c", script]));
    assert_eq!(code, 0, "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536"]
    );
    assert_eq!(lines[1], lines[2]);
    assert_eq!(lines[3], "0");
    assert_eq!(
        fs::metadata(case.dir.join("upper/made")).unwrap().uid(),
        ROOT
    );
    let mut process = case.process(&["sh", "-c", "id -u; echo again > /dev/stdout"]);
    process["user"] = json!({"uid": 1000, "gid": 1000});
    assert_eq!(case.exec(process), (0, "1000\nagain\n".to_owned()));
    kill(Pid::from_raw(init.pid), Signal::SIGKILL).unwrap();
    support::exit_code(init.pid);
}

/// The containers of a pod join the namespace of its sandbox.
fn a_namespace_that_is_joined() {
    let mut sandbox = in_namespace(Case::new(&["sleep", "100"]));
    let pause = sandbox.start();
    let mut case = in_namespace(sh(
        "cat /proc/self/mountinfo; cat /proc/self/uid_map; id -u",
    ));
    let path = |name: &str| format!("/proc/{}/ns/{name}", pause.pid);
    let all = json!([{"type": "pid"}, {"type": "mount"}, {"type": "cgroup"},
        {"type": "user", "path": path("user")}, {"type": "network", "path": path("net")},
        {"type": "ipc", "path": path("ipc")}, {"type": "uts", "path": path("uts")}]);
    case.set("/linux/namespaces", all);
    let linux = case.spec["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    same(&mut case);
    kill(Pid::from_raw(pause.pid), Signal::SIGKILL).unwrap();
    support::exit_code(pause.pid);
}

fn a_terminal() {
    let mut case = in_namespace(sh("tty; stat -c '%u %t' /dev/console; echo > /dev/tty"));
    case.terminal = true;
    case.set("/process/terminal", json!(true));
    let (worker, prepared, _) = case.prepare();
    let prepared = prepared.unwrap();
    worker.start().unwrap();
    let out = support::text(prepared.console.unwrap());
    assert_eq!(support::exit_code(prepared.pid), 0, "{out}");
    assert!(out.starts_with("/dev/pts/0\r\n0 88\r\n"), "{out}");
}
