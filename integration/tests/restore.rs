//! A container that is started from a checkpoint: it is the one that was
//! dumped, in the pod that it was created for.

use anyhow::Result;
use integration::cri::proto::ContainerState;
use integration::{
    ContainerSpec, Criu, Decision, Leftovers, Node, NodeOptions, PodSpec, eventually, heart,
};
use std::fs;

fn pod(name: &str) -> PodSpec {
    PodSpec::new("restore", name)
}

#[test]
fn the_second_pod_goes_on_where_the_first_was_dumped() -> Result<()> {
    let node = Node::start()?;
    let (_first_pod, first) = node.run_heart(&pod("web-1"))?;
    let checkpoint = first.take_checkpoint()?;
    let dumped = first.beats()?;

    let (_second_pod, second) = node.run_heart(&pod("web-2"))?;
    let checkpoint = checkpoint.id;
    assert_eq!(second.decision()?, Decision::Restore { checkpoint });
    let restored = second.beats()?;
    assert_eq!(restored[0].life, dumped[0].life);
    assert!(restored[0].count > 1, "it begins anew: {restored:?}");
    assert!(restored[0].count <= dumped.len() as u64 + 1, "{restored:?}");

    // Both live their own lives from here.
    first.next_beat()?;
    second.next_beat()?;
    assert_ne!(first.pid()?, second.pid()?);
    Ok(())
}

#[test]
fn a_restored_container_is_in_its_own_pod() -> Result<()> {
    let node = Node::start()?;
    let (_first_pod, first) = node.run_heart(&pod("web-1"))?;
    first.take_checkpoint()?;
    let (second_pod, second) = node.run_heart(&pod("web-2"))?;
    assert_eq!(second.life()?, first.life()?);

    assert_eq!(second.beats()?[0].host, "web-2");
    assert_eq!(second.shell("hostname")?, "web-2\n");
    let ip = second_pod.ip().to_string();
    assert!(
        second
            .shell("ip -4 addr show eth0")?
            .contains(&format!("{ip}/"))
    );
    let hosts = second.shell("cat /etc/hosts")?;
    assert!(hosts.contains(&ip) && hosts.contains("web-2"), "{hosts}");
    assert!(!hosts.contains("web-1"), "{hosts}");
    assert!(second.shell("cat /etc/hostname")?.contains("web-2"));
    assert!(second.shell("cat /etc/resolv.conf")?.contains("10.96.0.10"));
    for namespace in ["net", "uts", "ipc", "mnt", "pid"] {
        let of = |pid: u32| fs::read_link(node.path(format!("/proc/{pid}/ns/{namespace}")));
        assert_ne!(of(first.pid()?)?, of(second.pid()?)?, "{namespace}");
    }
    // The first pod still is what it was.
    assert_eq!(first.next_beat()?.host, "web-1");
    assert_eq!(first.shell("hostname")?, "web-1\n");
    Ok(())
}

#[test]
fn a_restored_container_has_its_own_cgroup_and_limits() -> Result<()> {
    let node = Node::start()?;
    let (_first_pod, first) = node.run_heart(&pod("web-1"))?;
    first.take_checkpoint()?;
    let (_second_pod, second) = node.run_heart(&pod("web-2"))?;
    assert_eq!(second.life()?, first.life()?);

    for line in second.proc("cgroup")?.lines() {
        let path = line.splitn(3, ':').nth(2).unwrap_or_default();
        // A hybrid machine's unified hierarchy may have no controllers.
        assert!(
            path.contains(second.id()) || line.starts_with("0::"),
            "{line}"
        );
        assert!(!path.contains(first.id()), "{line}");
    }
    let processes = fs::read_to_string(second.cgroup("memory").join("cgroup.procs"))?;
    assert!(!processes.trim().is_empty());
    second.limit_memory(96 << 20)?;
    let used = || -> Result<u64> {
        let memory = node.cri().container_stats(second.id())?.memory;
        Ok(memory
            .and_then(|m| m.working_set_bytes)
            .unwrap_or_default()
            .value)
    };
    eventually("memory in the stats", || used().is_ok_and(|used| used > 0))?;
    let listed = node.ctr(["task", "ps", second.id()])?;
    assert!(listed.contains(&second.pid()?.to_string()), "{listed}");
    Ok(())
}

#[test]
fn the_writable_layer_comes_along_and_is_not_shared() -> Result<()> {
    let node = Node::start()?;
    let (_first_pod, first) = node.run_heart(&pod("web-1"))?;
    first.shell(
        "mkdir -p /data/deep && echo kept > /data/deep/file && ln -s file /data/deep/link \
         && rm /etc/passwd && chmod 640 /data/deep/file && chown 7:8 /data/deep/file \
         && mkfifo /data/pipe && truncate -s 100M /data/sparse && rm -r /home && mkdir /home",
    )?;
    let life = first.shell("cat /life")?;
    first.take_checkpoint()?;
    first.shell("echo changed > /data/deep/file")?;

    let (_second_pod, second) = node.run_heart(&pod("web-2"))?;
    assert_eq!(second.life()?, life.trim());
    assert_eq!(second.shell("cat /life")?, life);
    assert_eq!(second.shell("cat /data/deep/link")?, "kept\n");
    assert_eq!(
        second.shell("stat -c '%a %u %g' /data/deep/file")?,
        "640 7 8\n"
    );
    assert_eq!(second.shell("stat -c %F /data/pipe")?, "fifo\n");
    assert_eq!(second.shell("du -k /data/sparse | cut -f1")?, "0\n");
    assert_eq!(second.shell("ls /etc/passwd 2>/dev/null; ls /home")?, "");

    second.shell("echo second > /data/deep/file")?;
    let (_third_pod, third) = node.run_heart(&pod("web-3"))?;
    assert_eq!(third.shell("cat /data/deep/file")?, "kept\n");
    Ok(())
}

#[test]
fn its_process_runs_only_after_start() -> Result<()> {
    let node = Node::start()?;
    let (_first_pod, first) = node.run_heart(&pod("web-1"))?;
    first.take_checkpoint()?;

    let second_pod = node.run_pod(&pod("web-2"))?;
    let second = second_pod.create(&heart::spec())?;
    assert_eq!(second.status()?.state(), ContainerState::Created);
    assert!(second.beats().unwrap_or_default().is_empty());
    second.start()?;
    assert_eq!(second.life()?, first.life()?);
    Ok(())
}

#[test]
fn exec_works_in_a_restored_container() -> Result<()> {
    let node = Node::start()?;
    let (_first_pod, first) = node.run_heart(&pod("web-1"))?;
    first.take_checkpoint()?;
    let (_second_pod, second) = node.run_heart(&pod("web-2"))?;

    let done = second.exec(&["/bin/sh", "-c", "echo out; echo err >&2; exit 3"])?;
    assert_eq!(
        (done.code, &*done.stdout, &*done.stderr),
        (3, "out\n", "err\n")
    );
    // It is in the container's own namespaces: the heart is its PID 1.
    assert!(second.shell("cat /proc/1/cmdline")?.contains("beat"));
    let mut terminal = node.terminal(&format!("crictl exec -it {} sh", second.id()), 20, 90)?;
    terminal.types("stty size; exit")?;
    terminal.shows("20 90")?;
    Ok(())
}

#[test]
fn exit_codes_and_signals_of_a_restored_container_are_exact() -> Result<()> {
    let node = Node::start()?;
    let (_first_pod, first) = node.run_heart(&pod("web-1"))?;
    first.take_checkpoint()?;

    let (_second_pod, second) = node.run_heart(&pod("web-2"))?;
    second.stop(20)?;
    assert_eq!(second.status()?.exit_code, heart::EXIT_CODE);

    let (_third_pod, third) = node.run_heart(&pod("web-3"))?;
    third.stop(0)?;
    assert_eq!(third.status()?.exit_code, 137);
    assert!(third.status()?.finished_at > third.status()?.started_at);
    Ok(())
}

#[test]
fn a_restored_container_ends_by_itself() -> Result<()> {
    let node = Node::start()?;
    let spec =
        ContainerSpec::shell("echo waiting; while [ ! -e /end ]; do sleep 0.05; done; exit 23");
    let first_pod = node.run_pod(&pod("web-1"))?;
    let first = first_pod.run(&spec)?;
    first.wait_for_log("waiting")?;
    first.take_checkpoint()?;

    let second_pod = node.run_pod(&pod("web-2"))?;
    let second = second_pod.run(&spec)?;
    assert!(matches!(second.decision()?, Decision::Restore { .. }));
    second.shell("touch /end")?;
    assert_eq!(second.wait()?, 23);
    Ok(())
}

#[test]
fn a_restored_container_pauses_and_resumes() -> Result<()> {
    let node = Node::start()?;
    let (_first_pod, first) = node.run_heart(&pod("web-1"))?;
    first.take_checkpoint()?;
    let (_second_pod, second) = node.run_heart(&pod("web-2"))?;

    node.ctr(["task", "pause", second.id()])?;
    let log = second.log()?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(second.log()?, log, "it beats although it is paused");
    node.ctr(["task", "resume", second.id()])?;
    second.next_beat()?;
    Ok(())
}

#[test]
fn a_restored_container_can_be_dumped_and_restored_again() -> Result<()> {
    let node = Node::start()?;
    let (first_pod, first) = node.run_heart(&pod("web-1"))?;
    let life = first.life()?;
    first.shell("echo one > /generation")?;
    first.take_checkpoint()?;
    first_pod.remove()?;

    let (second_pod, second) = node.run_heart(&pod("web-2"))?;
    second.shell("echo two >> /generation")?;
    let second_count = second.next_beat()?.count;
    let checkpoint = second.take_checkpoint()?.id;
    second_pod.remove()?;

    let (_third_pod, third) = node.run_heart(&pod("web-3"))?;
    assert_eq!(third.decision()?, Decision::Restore { checkpoint });
    assert_eq!(third.life()?, life);
    assert!(third.beats()?[0].count >= second_count);
    assert_eq!(third.shell("cat /generation")?, "one\ntwo\n");
    Ok(())
}

#[test]
fn a_terminal_is_restored() -> Result<()> {
    let node = Node::start()?;
    let spec = ContainerSpec::shell("exec sh").tty();
    let first_pod = node.run_pod(&pod("web-1"))?;
    let first = first_pod.run(&spec)?;
    let mut terminal = node.terminal(&format!("crictl attach -it {}", first.id()), 24, 80)?;
    terminal.types("secret=4711; echo is $secret")?;
    terminal.shows("is 4711")?;
    drop(terminal);
    first.take_checkpoint()?;

    let second_pod = node.run_pod(&pod("web-2"))?;
    let second = second_pod.run(&spec)?;
    assert!(matches!(second.decision()?, Decision::Restore { .. }));
    let mut terminal = node.terminal(&format!("crictl attach -it {}", second.id()), 33, 77)?;
    terminal.types("echo was $secret in $(hostname)")?;
    terminal.shows("was 4711 in web-2")?;
    terminal.types("stty size")?;
    terminal.shows("33 77")?;
    terminal.types("exit 9")?;
    assert_eq!(second.wait()?, 9);
    Ok(())
}

#[test]
fn a_process_of_another_user_is_restored_with_its_user() -> Result<()> {
    // Dumping it needs CAP_SYS_RESOURCE, which this machine may not have.
    let node = Node::start_with(&NodeOptions::with_criu(Criu::Preloaded))?;
    let spec = ContainerSpec::shell(
        "read life < /proc/sys/kernel/random/uuid; n=0
         while :; do n=$((n+1)); echo beat $life $n host; sleep 0.05; done",
    )
    .user(1000);
    let (_first_pod, first) = node.run_beating(&pod("web-1"), &spec)?;
    first.take_checkpoint()?;

    let (_second_pod, second) = node.run_beating(&pod("web-2"), &spec)?;
    assert_eq!(second.life()?, first.life()?);
    assert_eq!(second.shell("id -u")?, "1000\n");
    for field in [
        "Uid:",
        "Gid:",
        "CapEff:",
        "CapBnd:",
        "NoNewPrivs:",
        "Seccomp:",
    ] {
        let of = |status: String| -> Vec<String> {
            let lines = status.lines().filter(|line| line.starts_with(field));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(of(second.proc("status")?), of(first.proc("status")?));
    }
    Ok(())
}

#[test]
fn ten_pods_are_restored_at_the_same_time() -> Result<()> {
    let node = Node::start()?;
    let (_first_pod, first) = node.run_heart(&pod("web-0"))?;
    first.take_checkpoint()?;
    let life = first.life()?;
    let pods = (1..=10)
        .map(|n| node.run_pod(&pod(&format!("web-{n}"))))
        .collect::<Result<Vec<_>>>()?;

    std::thread::scope(|scope| {
        let threads: Vec<_> = pods
            .iter()
            .map(|pod| scope.spawn(|| pod.run(&heart::spec())))
            .collect();
        for (thread, pod) in threads.into_iter().zip(&pods) {
            let container = thread.join().unwrap()?;
            let beat = container.next_beat()?;
            assert_eq!(beat.life, life);
            assert_eq!(beat.host, pod.name());
            assert!(
                container
                    .beats()?
                    .iter()
                    .all(|beat| beat.host == pod.name())
            );
            let hosts = container.shell("cat /etc/hosts")?;
            assert!(hosts.contains(&pod.ip().to_string()), "{hosts}");
            let addresses = container.shell("ip -4 addr show eth0")?;
            assert!(addresses.contains(&format!("{}/", pod.ip())), "{addresses}");
            assert!(container.proc("cgroup")?.contains(container.id()));
        }
        Ok(())
    })
}

#[test]
fn nothing_is_left_of_a_restored_pod() -> Result<()> {
    let node = Node::start()?;
    let (first_pod, first) = node.run_heart(&pod("web-1"))?;
    first.take_checkpoint()?;
    first_pod.remove()?;

    let before = Leftovers::of(&node)?;
    let (second_pod, second) = node.run_heart(&pod("web-2"))?;
    assert!(matches!(second.decision()?, Decision::Restore { .. }));
    second.exec(&["true"])?;
    second_pod.remove()?;
    node.is_as_before(&before)
}
