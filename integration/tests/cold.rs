//! A container that is started from its image, and all that can be done with
//! it. All of this is the same under runc's shim: `REPRISE_TEST_HANDLER=runc`.

use anyhow::Result;
use integration::cri::proto::{ContainerState, NamespaceMode};
use integration::{ContainerSpec, Leftovers, Node, PodSpec, eventually, heart};

fn pod() -> PodSpec {
    PodSpec::new("cold", "web-1")
}

#[test]
fn a_container_runs_logs_and_ends_with_its_exit_code() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod())?;
    let script = "echo to stdout; echo to stderr >&2; exit 42";
    let container = pod.run(&ContainerSpec::shell(script))?;

    assert_eq!(container.wait()?, 42);
    let log = container.log()?;
    assert!(
        log.contains("to stdout\n") && log.contains("to stderr\n"),
        "{log}"
    );
    Ok(())
}

#[test]
fn all_output_is_there_when_the_container_has_ended() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod())?;
    let container = pod.run(&ContainerSpec::shell("seq 20000; echo the end"))?;

    assert_eq!(container.wait()?, 0);
    let log = container.log()?;
    assert_eq!(log.lines().count(), 20_001);
    assert!(log.ends_with("the end\n"));
    Ok(())
}

#[test]
fn a_created_container_does_not_run_before_its_start() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod())?;
    let container = pod.create(&heart::spec())?;
    assert_eq!(container.status()?.state(), ContainerState::Created);

    container.start()?;
    container.next_beat()?;
    assert_eq!(container.beats()?[0].count, 1);
    Ok(())
}

#[test]
fn sigterm_and_sigkill_end_it_with_exact_codes() -> Result<()> {
    let node = Node::start()?;
    let (pod, polite) = node.run_heart(&pod())?;
    polite.stop(20)?;
    assert_eq!(polite.status()?.exit_code, heart::EXIT_CODE);

    // As PID 1 without a handler it never sees a SIGTERM.
    let stubborn = pod.run(&ContainerSpec::shell("while :; do sleep 1; done").name("stubborn"))?;
    stubborn.stop(0)?;
    assert_eq!(stubborn.status()?.exit_code, 137);

    // A child's death by a signal is the shell's to tell.
    let aborted =
        pod.run(&ContainerSpec::shell("sh -c 'kill -ABRT $$'; exit $?").name("aborted"))?;
    assert_eq!(aborted.wait()?, 134);
    Ok(())
}

#[test]
fn exec_has_its_own_output_and_exit_code() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod())?;

    let done = container.exec(&["/bin/sh", "-c", "echo out; echo err >&2; exit 3"])?;
    assert_eq!(
        (done.code, &*done.stdout, &*done.stderr),
        (3, "out\n", "err\n")
    );

    let big = container.exec(&["/bin/sh", "-c", "seq 50000"])?;
    assert_eq!(big.stdout.lines().count(), 50_000);

    let missing = container.exec(&["/no/such/program"]);
    let told = missing.map_or_else(|error| error.to_string(), |done| done.stderr);
    assert!(
        told.contains("no such file") || told.contains("not found"),
        "{told}"
    );
    container.next_beat()?;
    Ok(())
}

#[test]
fn a_command_that_does_not_exist_is_a_clear_error() -> Result<()> {
    let node = Node::start()?;
    let before = Leftovers::of(&node)?;
    let pod = node.run_pod(&pod())?;
    let container = pod.create(&heart::spec().command(&["/no/such/program"]))?;
    let error = container.start().unwrap_err().to_string();
    assert!(error.contains("/no/such/program"), "{error}");

    pod.remove()?;
    node.is_as_before(&before)
}

#[test]
fn a_terminal_answers_and_knows_its_size() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod())?;
    let container = pod.run(&ContainerSpec::shell("exec sh").tty())?;

    let mut terminal = node.terminal(&format!("crictl attach -it {}", container.id()), 33, 77)?;
    terminal.types("echo sum $((40+2))")?;
    terminal.shows("sum 42")?;
    terminal.types("stty size")?;
    terminal.shows("33 77")?;
    terminal.types("exit 9")?;
    assert_eq!(container.wait()?, 9);
    Ok(())
}

#[test]
fn a_terminal_can_be_left_and_attached_again() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod())?;
    let container = pod.run(&ContainerSpec::shell("exec sh").tty())?;
    let attach = format!("crictl attach -it {}", container.id());

    let mut terminal = node.terminal(&attach, 24, 80)?;
    terminal.types("secret=4711; echo is $secret")?;
    terminal.shows("is 4711")?;
    drop(terminal);
    let mut terminal = node.terminal(&attach, 24, 80)?;
    terminal.types("echo still $secret")?;
    terminal.shows("still 4711")?;
    Ok(())
}

#[test]
fn exec_on_a_terminal_answers() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod())?;

    let mut terminal = node.terminal(&format!("crictl exec -it {} sh", container.id()), 20, 90)?;
    terminal.types("stty size; echo sum $((40+2)); exit 5")?;
    let screen = terminal.shows("sum 42")?;
    assert!(screen.contains("20 90"), "{screen}");
    terminal.ends()?;
    Ok(())
}

#[test]
fn standard_input_reaches_the_container_and_ends() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod())?;
    let mut spec = ContainerSpec::shell("while read word; do echo got $word; done; echo eof");
    spec.config.stdin = true;
    spec.config.stdin_once = true;
    let container = pod.run(&spec)?;

    let mut attached = node.conversation("crictl", &["attach", "-i", container.id()])?;
    attached.types("one")?;
    container.wait_for_log("got one")?;
    attached.closes_input();
    container.wait_for_log("eof")?;
    assert_eq!(container.wait()?, 0);
    Ok(())
}

#[test]
fn a_paused_container_stands_still_and_goes_on() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod())?;

    node.ctr(["task", "pause", container.id()])?;
    assert!(node.ctr(["task", "ls"])?.contains("PAUSED"));
    let log = container.log()?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(container.log()?, log, "it beats although it is paused");

    node.ctr(["task", "resume", container.id()])?;
    container.next_beat()?;
    Ok(())
}

#[test]
fn limits_stats_and_pids_are_those_of_its_cgroup() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod())?;
    let container = pod.run(&heart::spec().memory(64 << 20))?;
    container.next_beat()?;

    assert_eq!(container.memory_limit()?, (64 << 20).to_string());
    container.limit_memory(96 << 20)?;
    assert_eq!(container.memory_limit()?, (96 << 20).to_string());

    let used = || -> Result<u64> {
        let memory = node.cri().container_stats(container.id())?.memory;
        let used = memory.and_then(|memory| memory.working_set_bytes);
        Ok(used.unwrap_or_default().value)
    };
    eventually("memory in the stats", || used().is_ok_and(|used| used > 0))?;

    let processes = node.ctr(["task", "ps", container.id()])?;
    assert!(
        processes.contains(&container.pid()?.to_string()),
        "{processes}"
    );
    Ok(())
}

#[test]
fn a_container_that_needs_too_much_memory_is_told_to_be_oom_killed() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod())?;
    // A shell variable that grows until there is no memory left.
    let greedy = ContainerSpec::shell("x=0123456789; while :; do x=$x$x; done").memory(16 << 20);
    let container = pod.run(&greedy)?;

    assert_eq!(container.wait()?, 137);
    let told = || Ok::<_, anyhow::Error>(container.status()?.reason == "OOMKilled");
    eventually("the reason OOMKilled", || told().unwrap_or(false))
}

#[test]
fn events_come_in_order() -> Result<()> {
    let node = Node::start()?;
    let events = node.conversation("ctr", &["events"])?;
    // The watcher is connected when it shows an event.
    eventually("the watcher", || {
        node.ctr(["namespaces", "label", "k8s.io", "watched=yes"])
            .is_ok()
            && events.shows_now("/namespaces/update")
    })?;

    let pod = node.run_pod(&pod())?;
    let container = pod.run(&ContainerSpec::shell("sleep 0.1"))?;
    container.wait()?;
    container.remove()?;
    events.shows("/containers/delete")?;
    let screen = events.shows(container.id())?;
    let told: Vec<&str> = screen
        .lines()
        .filter(|line| line.contains(container.id()) && line.contains("/tasks/"))
        .filter_map(|line| {
            line.split_whitespace()
                .find(|word| word.starts_with("/tasks/"))
        })
        .collect();
    assert_eq!(
        told,
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exit",
            "/tasks/delete"
        ]
    );
    Ok(())
}

#[test]
fn containers_of_a_pod_share_its_pid_namespace_when_asked() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod().pid_namespace(NamespaceMode::Pod))?;
    let shared = heart::spec().pid_namespace(NamespaceMode::Pod);
    let container = pod.run(&shared)?;
    container.next_beat()?;
    assert_ne!(container.shell("readlink /proc/self/ns/pid")?, "");
    assert!(container.shell("cat /proc/1/cmdline")?.contains("pause"));
    Ok(())
}

#[test]
fn many_containers_start_and_end_at_the_same_time() -> Result<()> {
    let node = Node::start()?;
    let pods = (0..5)
        .map(|n| node.run_pod(&PodSpec::new("cold", &format!("web-{n}"))))
        .collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let codes: Vec<_> = pods
            .iter()
            .zip(10..)
            .map(|(pod, code)| {
                let script = format!("exit {code}");
                scope.spawn(move || pod.run(&ContainerSpec::shell(&script))?.wait())
            })
            .collect();
        for (thread, code) in codes.into_iter().zip(10..) {
            assert_eq!(thread.join().unwrap()?, code);
        }
        Ok(())
    })
}

#[test]
fn nothing_is_left_of_a_removed_pod() -> Result<()> {
    let node = Node::start()?;
    let before = Leftovers::of(&node)?;
    let (pod, container) = node.run_heart(&pod())?;
    container.exec(&["true"])?;
    pod.remove()?;
    node.is_as_before(&before)
}
