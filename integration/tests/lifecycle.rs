//! The order in which a kubelet starts and stops the containers of a pod: init
//! containers, sidecars, the app, and the time that each gets to end. All of
//! this is the same under runc's shim: `REPRISE_TEST_HANDLER=runc`.

use anyhow::Result;
use integration::{ContainerSpec, Node, Pod, PodSpec};
use std::fs;
use std::time::{Duration, Instant};

fn pod() -> PodSpec {
    PodSpec::new("lifecycle", "web-1")
}

/// A volume of the pod, as an emptyDir is.
fn volume(node: &Node) -> Result<String> {
    let volume = node.dir().join("tmp/volume");
    fs::create_dir_all(&volume)?;
    Ok(volume.display().to_string())
}

#[test]
fn init_containers_end_one_by_one_before_the_app_starts() -> Result<()> {
    let node = Node::start()?;
    let volume = volume(&node)?;
    let pod = node.run_pod(&pod())?;
    let step = |name: &str, script: &str| {
        ContainerSpec::shell(script)
            .name(name)
            .mount(&volume, "/work", false)
    };

    let first = pod.run(&step("first", "echo one >> /work/steps"))?;
    assert_eq!(first.wait()?, 0);
    // It fails once, and a kubelet starts it again under the same name.
    let script = "[ -e /work/tried ] || { touch /work/tried; exit 3; }; echo two >> /work/steps";
    let second = pod.run(&step("second", script))?;
    assert_eq!(second.wait()?, 3);
    let again = pod.run(&step("second", script).attempt(1))?;
    assert_eq!(again.wait()?, 0);
    second.remove()?;

    let app = pod.run(&step("app", "cat /work/steps; exec sleep 1000"))?;
    app.wait_for_log("one\ntwo\n")?;
    assert!(app.is_running()?);
    // What has ended stays to be looked at.
    assert_eq!(
        (first.status()?.exit_code, first.log()?),
        (0, String::new())
    );
    Ok(())
}

/// Serves a word on the pod's loopback, and ends with 5 on SIGTERM.
fn sidecar(pod: &Pod<'_>, attempt: u32) -> ContainerSpec {
    let script = format!(
        "mkdir -p /www; echo from {} try {attempt} > /www/word
         httpd -p 127.0.0.1:9000 -h /www; trap 'exit 5' TERM
         while :; do sleep 0.1; done",
        pod.name()
    );
    ContainerSpec::shell(&script)
        .name("sidecar")
        .attempt(attempt)
}

#[test]
fn a_sidecar_is_there_before_the_app_and_is_started_again_beside_it() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod())?;
    let first = pod.run(&sidecar(&pod, 0))?;
    let ask = "while :; do wget -q -O - http://127.0.0.1:9000/word; sleep 0.1; done";
    let app = pod.run(&ContainerSpec::shell(ask))?;
    app.wait_for_log("from web-1 try 0\n")?;
    let pid = app.pid()?;

    // Killed, it comes back under its name, and the app has not noticed.
    first.stop(0)?;
    assert_eq!(first.wait()?, 137);
    let second = pod.run(&sidecar(&pod, 1))?;
    app.wait_for_log("from web-1 try 1\n")?;
    assert_eq!(app.pid()?, pid);

    // The app goes first, the sidecar after it.
    app.stop(0)?;
    assert!(second.is_running()?);
    second.stop(20)?;
    assert_eq!(second.status()?.exit_code, 5);
    Ok(())
}

#[test]
fn whoever_does_not_end_on_sigterm_is_killed_after_its_grace_period() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod())?;
    let deaf = "trap 'echo asked to end' TERM; echo ready; while :; do sleep 0.1; done";
    let container = pod.run(&ContainerSpec::shell(deaf))?;
    container.wait_for_log("ready")?;

    let grace = Duration::from_secs(2);
    let begun = Instant::now();
    container.stop(2)?;
    assert!(begun.elapsed() >= grace, "{:?}", begun.elapsed());
    assert_eq!(container.status()?.exit_code, 137);
    assert_eq!(container.log()?, "ready\nasked to end\n");
    Ok(())
}
