//! A container goes on in another pod, and the original as before.

use std::fs;
use std::path::Path;

use crate::ground::*;
use crate::support::{Case, exit_code};
use reprise_runtime::worker::Stdio;
use serde_json::json;

pub(super) fn it_goes_on_in_another_pod() {
    let (old, new) = (Pod::new("old"), Pod::new("new"));
    let mut case = old.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let lines = Lines::of(output.stdout);
    let seen = (0..5).map(|_| lines.next_count()).next_back().unwrap();
    assert_eq!(seen.1, "old");
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    lines.drain();
    let later = lines.next_count();
    assert!(later.0 > seen.0, "the original stands still");

    let mut copy = new.case(&["sh", "-c", COUNT]);
    let (pid, lines) = restore(&mut copy, &checkpoint);
    let first = lines.next_count();
    assert!(first.0 > seen.0 && first.0 <= later.0, "{first:?} {seen:?}");
    assert!((0..5).any(|_| lines.next_count().1 == "new"));
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(
        cgroup.lines().all(|line| line.ends_with(&copy.id)),
        "{cgroup}"
    );
    let process = copy.process(&["sh", "-c", "cat /proc/sys/kernel/hostname /proc/1/fd/8; cat /sys/fs/cgroup/memory/memory.limit_in_bytes"]);
    assert_eq!(copy.exec(process), (0, "new\nkept\n268435456\n".to_owned()));
    finish(pid);
    finish(output.pid);
}

/// Of a container that had streams, as one whose output nobody wants.
pub(super) fn it_goes_on_without_standard_streams() {
    let pod = Pod::new("pod");
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);
    let mut copy = pod.case(&["sh", "-c", COUNT]);
    let mut request = copy.create_request();
    request.criu = criu_config(&copy.dir);
    request.restore = Some(checkpoint.restore());
    let mut worker = copy.worker();
    let nothing = Stdio {
        stdin: None,
        stdout: None,
        stderr: None,
    };
    let prepared = worker.prepare(request, nothing);
    let prepared = prepared.unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
    worker.start().unwrap();
    for fd in 1..3 {
        let path = format!("/proc/{}/fd/{fd}", prepared.pid);
        assert_eq!(fs::read_link(path).unwrap(), Path::new("/dev/null"), "{fd}");
    }
    finish(prepared.pid);
}

pub(super) fn it_keeps_a_cgroup_namespace() {
    let pod = Pod::new("pod");
    let add = |case: &mut Case| {
        let all = case.spec["linux"]["namespaces"].as_array_mut().unwrap();
        all.push(json!({"type": "cgroup"}));
    };
    let mut case = pod.case(&["sh", "-c", COUNT]);
    add(&mut case);
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);
    let mut copy = pod.case(&["sh", "-c", COUNT]);
    add(&mut copy);
    let (pid, lines) = restore(&mut copy, &checkpoint);
    lines.next_count();
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/cgroup")).unwrap();
    assert_ne!(namespace(&pid.to_string()), namespace("self"));
    // Its own cgroup is the root of what it sees, and an exec sees the same.
    let process = copy.process(&["busybox", "cat", "/proc/1/cgroup", "/proc/self/cgroup"]);
    let (code, seen) = copy.exec(process);
    assert_eq!(code, 0);
    assert!(seen.lines().all(|line| line.ends_with(":/")), "{seen}");
    let limit = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
    if Path::new(limit).exists() {
        let process = copy.process(&["busybox", "cat", limit]);
        assert_eq!(copy.exec(process), (0, "268435456\n".to_owned()));
    }
    finish(pid);
}

pub(super) fn restored_again() {
    let pod = Pod::new("pod");
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let first = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);
    let mut second = pod.case(&["sh", "-c", COUNT]);
    let (pid, lines) = restore(&mut second, &first);
    let seen = lines.next_count().0;
    let again = Checkpoint::of(&mut second, pid);
    finish(pid);
    let mut third = pod.case(&["sh", "-c", COUNT]);
    let mut from = again.restore();
    from.layers.push(first.layer());
    let (worker, prepared, out) = try_restore(&mut third, from, None);
    let pid = prepared.unwrap().pid;
    worker.start().unwrap();
    assert!(Lines::of(out).next_count().0 >= seen);
    finish(pid);
}

pub(super) fn a_paused_container_stays_paused() {
    let pod = Pod::new("pod");
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let lines = Lines::of(output.stdout);
    lines.next();
    if !Path::new("/sys/fs/cgroup/freezer").exists() {
        finish(output.pid);
        return;
    }
    fs::write(freezer(&case), "FROZEN").unwrap();
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    crate::support::eventually(|| fs::read_to_string(freezer(&case)).unwrap() == "FROZEN\n");
    fs::write(freezer(&case), "THAWED").unwrap();
    lines.drain();
    lines.next();
    finish(output.pid);
    let mut copy = pod.case(&["sh", "-c", COUNT]);
    let (pid, lines) = restore(&mut copy, &checkpoint);
    lines.next();
    finish(pid);
}

pub(super) fn exit_ends_the_original() {
    let pod = Pod::new("pod");
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let checkpoint = Checkpoint::new();
    checkpoint
        .dump(&mut case, output.pid, |dump| dump.exit = true)
        .unwrap();
    assert_eq!(exit_code(output.pid), 137);
}

pub(super) fn processes_of_an_exec_are_left_alone() {
    let pod = Pod::new("pod");
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let process = case.process(&["sleep", "1000"]);
    let (started, _out) = case.try_exec(process);
    let exec = started.unwrap().pid;
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    crate::support::eventually(|| {
        let state = fs::read_to_string(format!("/proc/{exec}/status")).unwrap();
        state.contains("State:\tS")
    });
    let mut copy = pod.case(&["sh", "-c", COUNT]);
    let (pid, lines) = restore(&mut copy, &checkpoint);
    lines.next();
    finish(pid);
    finish(exec);
    finish(output.pid);
}
