//! Processes that end quickly, come in numbers, or leave children behind. All
//! of this is the same under runc's shim: `REPRISE_TEST_HANDLER=runc`.

use anyhow::{Context, Result};
use integration::{ContainerSpec, Node, PodSpec, eventually, heart};
use std::fs;

fn pod() -> PodSpec {
    PodSpec::new("processes", "web-1")
}

#[test]
fn an_exec_that_ends_before_its_start_is_answered_keeps_its_code_and_output() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod())?;
    for round in 0..30 {
        let code = round % 7;
        let done = container.exec(&["/bin/sh", "-c", &format!("echo {round}; exit {code}")])?;
        assert_eq!((done.code, done.stdout), (code, format!("{round}\n")));
    }
    Ok(())
}

#[test]
fn a_hundred_execs_at_once_have_each_their_own_end() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod())?;
    let before = open_files(&node)?;
    std::thread::scope(|scope| -> Result<()> {
        let execs: Vec<_> = (0..100)
            .map(|number| {
                let (container, script) = (&container, format!("echo {number}; exit {number}"));
                scope.spawn(move || container.exec(&["/bin/sh", "-c", &script]))
            })
            .collect();
        for (number, exec) in execs.into_iter().enumerate() {
            let done = exec
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            assert_eq!(done.stdout, format!("{number}\n"));
            assert_eq!(usize::try_from(done.code)?, number);
        }
        Ok(())
    })?;
    container.next_beat()?;
    eventually("hardly more open files than before", || {
        open_files(&node).is_ok_and(|after| after <= before + SOME_FILES)
    })
}

/// What connections of containerd's may be open in addition.
const SOME_FILES: usize = 20;

/// How many files the shims hold open.
fn open_files(node: &Node) -> Result<usize> {
    let count = "for shim in $(pgrep -f '^[^ ]*containerd-shim-[a-z]*-v2 '); do
        ls /proc/$shim/fd
        done | wc -l";
    Ok(node.run("bash", ["-c", count])?.ok()?.trim().parse()?)
}

#[test]
fn containers_that_end_at_once_are_told_with_their_codes() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod())?;
    for round in 0..20 {
        let name = format!("short-{round}");
        let container = pod.run(&ContainerSpec::shell(&format!("exit {round}")).name(&name))?;
        assert_eq!(container.wait()?, round);
        let status = container.status()?;
        assert!(
            status.started_at > 0 && status.finished_at > 0,
            "{status:?}"
        );
        container.remove()?;
    }
    Ok(())
}

#[test]
fn an_oom_kill_is_told_as_an_event() -> Result<()> {
    let node = Node::start()?;
    let events = node.conversation("ctr", &["events"])?;
    eventually("the watcher", || {
        node.ctr(["namespaces", "label", "k8s.io", "watched=yes"])
            .is_ok()
            && events.shows_now("/namespaces/update")
    })?;
    let pod = node.run_pod(&pod())?;
    let greedy = ContainerSpec::shell("x=0123456789; while :; do x=$x$x; done").memory(16 << 20);
    let container = pod.run(&greedy)?;
    assert_eq!(container.wait()?, 137);
    let screen = events.shows("/tasks/oom")?;
    let told = screen.lines().find(|line| line.contains("/tasks/oom"));
    assert!(
        told.is_some_and(|line| line.contains(container.id())),
        "{told:?}"
    );
    Ok(())
}

#[test]
fn orphans_of_a_container_without_a_pid_namespace_leave_no_zombies() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod().on_the_node())?;
    let container = pod.run(&heart::spec().on_the_node())?;
    container.next_beat()?;
    // Its parent ends first; the shim, a subreaper, becomes its parent.
    let orphan = container.shell("(sh -c 'sleep 0.3' >/dev/null 2>&1 & echo $!)")?;
    let orphan = orphan.trim().to_owned();
    let status = node.path(format!("/proc/{orphan}/stat"));
    assert!(
        fs::read_to_string(&status).is_ok(),
        "the orphan {orphan} is running"
    );
    eventually("nothing left of the orphan", || !status.exists())?;
    container.next_beat()?;
    Ok(())
}

#[test]
fn a_pod_on_the_node_has_the_nodes_namespaces() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod().on_the_node())?;
    let container = pod.run(&heart::spec().on_the_node())?;
    container.next_beat()?;
    for kind in ["net", "pid", "ipc"] {
        let ours = container.proc_link(&format!("ns/{kind}"))?;
        let nodes = fs::read_link(node.path(format!("/proc/1/ns/{kind}")))?;
        assert_eq!(ours, nodes, "{kind}");
    }
    let mounts = container.proc_link("ns/mnt")?;
    assert_ne!(mounts, fs::read_link(node.path("/proc/1/ns/mnt"))?);
    // It sees containerd beside itself.
    assert!(container.shell("ps")?.contains("containerd"));
    Ok(())
}

#[test]
fn an_ephemeral_container_sees_its_targets_processes() -> Result<()> {
    let node = Node::start()?;
    let (pod, target) = node.run_heart(&pod())?;
    let script = "tr '\\0' ' ' </proc/1/cmdline; echo; sleep 60";
    let debugger = ContainerSpec::shell(script)
        .name("debugger")
        .beside(target.id());
    let debugger = pod.run(&debugger)?;
    let first = target.proc("cmdline")?.replace('\0', " ");
    let first = first
        .lines()
        .next()
        .context("no command line")?
        .trim()
        .to_owned();
    debugger.wait_for_log(&first)?;
    assert_eq!(debugger.proc_link("ns/pid")?, target.proc_link("ns/pid")?);

    // Its end is its own.
    debugger.stop(0)?;
    assert_eq!(debugger.status()?.exit_code, 137);
    target.next_beat()?;
    Ok(())
}
