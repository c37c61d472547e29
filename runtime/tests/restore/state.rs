//! What a restored container has: streams, mounts, sockets, and no more rights than its spec.

use std::fs::{self, File};
use std::io::{Read, Write};

use crate::ground::*;
use serde_json::json;

pub(super) fn open_connections_are_kept_by_the_original() {
    let (old, new) = (Pod::new("old"), Pod::new("new"));
    let server = ["busybox", "nc", "-ll", "-p", "8080", "-e", "cat"];
    let mut case = old.case(&server);
    let output = case.start();
    let mut client = old.connect(8080);
    let mut echo = |text: &[u8]| {
        let mut answer = vec![0; text.len()];
        client.write_all(text).unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, text);
    };
    echo(b"before");
    for open_tcp in [false, true] {
        let checkpoint = Checkpoint::new();
        let dumped = checkpoint.dump(&mut case, output.pid, |dump| dump.open_tcp = open_tcp);
        dumped.unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
        echo(b"after");
        let mut copy = new.case(&server);
        let (pid, _lines) = restore(&mut copy, &checkpoint);
        let mut other = new.connect(8080);
        other.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        other.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        echo(b"still");
        finish(pid);
    }
    finish(output.pid);
}

pub(super) fn a_terminal() {
    let pod = Pod::new("pod");
    let script = [
        "sh",
        "-c",
        "stty -echo; echo ready; while read x; do echo got $x; done",
    ];
    let mut case = pod.case(&script);
    case.terminal = true;
    case.set("/process/terminal", json!(true));
    let (worker, prepared, _) = case.prepare();
    let prepared = prepared.unwrap();
    worker.start().unwrap();
    let master = prepared.console.unwrap();
    let lines = Lines::of(master.try_clone().unwrap());
    assert_eq!(lines.next(), "ready");
    let checkpoint = Checkpoint::of(&mut case, prepared.pid);
    File::from(master).write_all(b"one\n").unwrap();
    assert_eq!(lines.next(), "got one");

    let mut copy = pod.case(&script);
    copy.terminal = true;
    copy.set("/process/terminal", json!(true));
    let (worker, restored, _) = try_restore(&mut copy, checkpoint.restore(), None);
    let restored = restored.unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
    worker.start().unwrap();
    let master = restored.console.expect("no console");
    let lines = Lines::of(master.try_clone().unwrap());
    File::from(master).write_all(b"two\n").unwrap();
    assert_eq!(lines.next(), "got two");
    finish(restored.pid);
    finish(prepared.pid);
}

pub(super) fn binds_and_shared_memory() {
    let pod = Pod::new("pod");
    let script = "echo mine >/dev/shm/own; exec 7</dev/shm/own; echo ready; \
        while :; do cat /etc/hosts /var/run/secrets/token /dev/shm/own; busybox usleep 20000; done";
    let make = |word: &str| {
        let mut case = pod.case(&["sh", "-c", script]);
        std::os::unix::fs::symlink("/run", case.dir.join("image/var-run")).unwrap();
        fs::create_dir_all(case.dir.join("image/var")).unwrap();
        fs::create_dir_all(case.dir.join("image/run")).unwrap();
        std::os::unix::fs::symlink("../run", case.dir.join("image/var/run")).unwrap();
        let at = |name: &str| case.dir.join(name);
        for dir in ["secrets", "shm"] {
            fs::create_dir(at(dir)).unwrap();
        }
        fs::write(at("hosts"), format!("hosts {word}\n")).unwrap();
        fs::write(at("secrets/token"), format!("token {word}\n")).unwrap();
        let (hosts, secrets, shm) = (at("hosts"), at("secrets"), at("shm"));
        bind(
            &mut case,
            "/etc/hosts",
            &hosts,
            &["rbind", "rprivate", "rw"],
        );
        bind(
            &mut case,
            "/var/run/secrets",
            &secrets,
            &["rbind", "rprivate", "ro"],
        );
        bind(&mut case, "/dev/shm", &shm, &["rbind", "rprivate", "rw"]);
        case
    };
    let mut case = make("old");
    let output = case.start();
    let lines = Lines::of(output.stdout);
    assert_eq!([lines.next(), lines.next()], ["ready", "hosts old"]);
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);
    let mut copy = make("new");
    let (pid, lines) = restore(&mut copy, &checkpoint);
    let words: Vec<String> = (0..9).map(|_| lines.next()).collect();
    for word in ["hosts new", "token new", "mine"] {
        assert!(words.iter().any(|have| have == word), "{words:?}");
    }
    // A read-only mount that the image has writable is refused.
    let mut other = make("other");
    let hosts = other.dir.join("hosts");
    bind(
        &mut other,
        "/etc/hosts",
        &hosts,
        &["rbind", "rprivate", "ro"],
    );
    let (_, refused, _) = try_restore(&mut other, checkpoint.restore(), None);
    let error = refused.unwrap_err();
    assert!(
        error.message.contains("the mount at /etc/hosts is not ro"),
        "{error}"
    );
    assert_eq!(fs::read_dir(other.dir.join("shm")).unwrap().count(), 0);
    finish(pid);
}

pub(super) fn a_user() {
    let preload = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/tools/lib/criu-rlimit-preload.so"
    );
    let pod = Pod::new("pod");
    let user = json!({"uid": 1000, "gid": 1001, "additionalGids": [7]});
    let script = "i=0; while :; do i=$((i+1)); echo $i; busybox usleep 20000; done";
    let make = || {
        let mut case = pod.case(&["sh", "-c", script]);
        case.set("/process/user", user.clone());
        case
    };
    let mut case = make();
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let checkpoint = Checkpoint::new();
    let wrapper = wrapper(&case, &format!("LD_PRELOAD={preload} exec criu \"$@\""));
    let dumped = checkpoint.dump(&mut case, output.pid, |dump| dump.criu.path = wrapper);
    dumped.unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
    finish(output.pid);
    let mut copy = make();
    let (pid, lines) = restore(&mut copy, &checkpoint);
    lines.next();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(
        status.contains("Uid:\t1000\t1000") && status.contains("Gid:\t1001"),
        "{status}"
    );
    finish(pid);
    let mut other = make();
    other.set(
        "/process/user",
        json!({"uid": 1001, "gid": 1001, "additionalGids": [7]}),
    );
    let (_, refused, _) = try_restore(&mut other, checkpoint.restore(), None);
    let error = refused.unwrap_err();
    assert!(error.message.contains("it runs as user [1000"), "{error}");
}

pub(super) fn seccomp_comes_back() {
    let pod = Pod::new("pod");
    let make = |with: bool| {
        let mut case = pod.case(&["sh", "-c", COUNT]);
        if with {
            case.set("/linux/seccomp", crate::support::no_mkdir());
        }
        case
    };
    let mut case = make(true);
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let filtered = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);
    let mut copy = make(true);
    let (pid, lines) = restore(&mut copy, &filtered);
    lines.next();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
    finish(pid);

    let mut case = make(false);
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let free = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);
    let mut copy = make(true);
    let (_, refused, _) = try_restore(&mut copy, free.restore(), None);
    let error = refused.unwrap_err();
    assert!(error.message.contains("no seccomp filter"), "{error}");
    assert_restartable(&mut copy);
}

pub(super) fn more_than_the_spec_allows() {
    let pod = Pod::new("pod");
    let checkpoint = counting(&pod);
    let fewer = json!(["CAP_CHOWN", "CAP_SETUID"]);
    let changes = [
        (
            "/process/capabilities",
            json!({"bounding": fewer, "effective": fewer, "permitted": fewer}),
            "CapBnd",
        ),
        ("/root/readonly", json!(true), "the mount at / is writable"),
        (
            "/linux/maskedPaths",
            json!([
                "/proc/kcore",
                "/proc/keys",
                "/sys/firmware",
                "/proc/timer_list"
            ]),
            "not covered",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}]),
            "shares its pid namespace",
        ),
    ];
    for (pointer, value, expected) in changes {
        let mut case = pod.case(&["sh", "-c", COUNT]);
        case.set(pointer, value);
        let (_, refused, _) = try_restore(&mut case, checkpoint.restore(), None);
        let error = refused.expect_err(pointer);
        println!("  {error}");
        assert!(error.message.contains(expected), "{error}");
        case.assert_clean();
    }
}
