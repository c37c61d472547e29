//! What cannot work is said in one clear line, and containers run all the same.

use anyhow::Result;
use integration::cri::proto::NamespaceMode;
use integration::{Criu, Node, NodeOptions, PodSpec, eventually, heart};

fn pod(name: &str) -> PodSpec {
    PodSpec::new("bad-input", name)
}

/// Waits for a line in the node's log that has all these words.
fn is_logged(node: &Node, words: &[&str]) -> Result<()> {
    let told = || {
        let log = node.log().unwrap_or_default();
        log.lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    };
    eventually(
        &format!("one line with {words:?} in {}", node.log_file().display()),
        told,
    )
}

/// With this config the container runs, and the log has one line with the words.
fn runs_and_tells(config: &str, words: &[&str]) -> Result<()> {
    let node = Node::start_with(&NodeOptions::with_config(config))?;
    let (_pod, container) = node.run_heart(&pod("web-1"))?;
    assert_eq!(container.exec(&["true"])?.code, 0);
    is_logged(&node, words)
}

#[test]
fn a_config_of_a_future_version_is_named_and_the_container_runs() -> Result<()> {
    runs_and_tells(
        "version = 99\n",
        &["/etc/reprise/config.toml", "version", "99"],
    )
}

#[test]
fn a_config_that_is_no_toml_is_named_and_the_container_runs() -> Result<()> {
    runs_and_tells("version = = 1", &["/etc/reprise/config.toml"])
}

#[test]
fn an_unknown_setting_is_named_and_the_container_runs() -> Result<()> {
    let config = "version = 1\n[restore]\nenabeld = true\n";
    runs_and_tells(config, &["/etc/reprise/config.toml", "enabeld"])
}

#[test]
fn an_unreadable_config_is_named_and_the_container_runs() -> Result<()> {
    let node = Node::start()?;
    std::fs::create_dir_all(node.path("/etc/reprise/config.toml"))?;
    let (_pod, _container) = node.run_heart(&pod("web-1"))?;
    is_logged(&node, &["/etc/reprise/config.toml"])
}

#[test]
fn the_config_can_turn_restore_off() -> Result<()> {
    let off = "version = 1\n[restore]\nenabled = false\n";
    let node = Node::start_with(&NodeOptions::with_config(off))?;
    let (_pod, first) = node.run_heart(&pod("web-1"))?;
    first.checkpoint()?;
    let (_pod, second) = node.run_heart(&pod("web-2"))?;
    assert_ne!(second.life()?, first.life()?);
    Ok(())
}

#[test]
fn unknown_options_are_refused_in_one_line() -> Result<()> {
    let node = Node::start()?;
    for program in ["containerd-shim-reprise-v2", "reprise"] {
        let done = node.run(program, ["--frobnicate"])?;
        assert_ne!(done.code, 0, "{program}");
        assert!(
            done.stderr.contains("frobnicate"),
            "{program}: {}",
            done.stderr
        );
        assert!(
            !done.stderr.contains("panicked"),
            "{program}: {}",
            done.stderr
        );
    }
    let done = node.run("reprise", ["checkpoint", "no-such-container"])?;
    assert_ne!(done.code, 0);
    assert!(done.stderr.contains("no-such-container"), "{}", done.stderr);
    Ok(())
}

#[test]
fn a_bundle_without_rootfs_is_a_clear_error() -> Result<()> {
    let node = Node::start()?;
    let nowhere = node.dir().join("nowhere").display().to_string();
    let runtime = "io.containerd.reprise.v2";
    let flags = ["run", "--rm", "--null-io", "--rootfs", "--runtime", runtime];
    let program = [&*nowhere, "no-rootfs", "/bin/true"];
    let cgroup = node.ctr_cgroup("no-rootfs");
    let words = flags.into_iter();
    let done = node.run(
        "ctr",
        words
            .chain(cgroup.iter().map(String::as_str))
            .chain(program),
    )?;
    assert_ne!(done.code, 0);
    assert!(
        done.stderr.contains("rootfs") || done.stderr.contains(&nowhere),
        "{}",
        done.stderr
    );
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
    Ok(())
}

/// A `criu` that is of no use: containers run, checkpoints say why not.
fn criu_is_of_no_use(criu: Criu, words: &[&str]) -> Result<()> {
    let node = Node::start_with(&NodeOptions::with_criu(criu))?;
    let (_pod, container) = node.run_heart(&pod("web-1"))?;
    let done = node.run("reprise", ["checkpoint", container.id()])?;
    assert_ne!(done.code, 0);
    for word in words {
        assert!(done.stderr.contains(word), "{word} in {}", done.stderr);
    }
    container.next_beat()?;
    assert!(!node.ctr(["task", "ls"])?.contains("PAUSED"));

    let (_pod, second) = node.run_heart(&pod("web-2"))?;
    assert_ne!(second.life()?, container.life()?);
    Ok(())
}

#[test]
fn a_missing_criu_is_named_and_containers_run() -> Result<()> {
    criu_is_of_no_use(Criu::Missing, &["criu", "install"])
}

#[test]
fn an_old_criu_is_named_and_containers_run() -> Result<()> {
    let old = "#!/bin/sh\necho 'Version: 3.11'\n[ \"$1\" = --version ]\n";
    criu_is_of_no_use(Criu::Script(old.to_owned()), &["criu"])
}

#[test]
fn a_criu_that_cannot_be_executed_is_named_and_containers_run() -> Result<()> {
    criu_is_of_no_use(Criu::NotExecutable, &["criu"])
}

#[test]
fn a_criu_that_vanishes_means_cold_starts() -> Result<()> {
    let node = Node::start()?;
    let (_pod, first) = node.run_heart(&pod("web-1"))?;
    first.take_checkpoint()?;
    std::fs::remove_file(node.dir().join("bin/criu"))?;

    let (_pod, second) = node.run_heart(&pod("web-2"))?;
    assert_ne!(second.life()?, first.life()?);
    assert!(second.reason_for_cold()?.contains("criu"));
    Ok(())
}

/// A pod whose PID namespace is not its own runs, but is not dumped.
fn is_not_dumped(mode: NamespaceMode) -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&pod("web-1").pid_namespace(mode))?;
    let container = pod.run(&heart::spec().pid_namespace(mode))?;
    container.next_beat()?;

    let done = node.run("reprise", ["checkpoint", container.id()])?;
    assert_ne!(done.code, 0);
    assert!(
        done.stderr.to_lowercase().contains("pid namespace"),
        "{}",
        done.stderr
    );
    let error = container
        .checkpoint()
        .expect_err("it was dumped")
        .to_string();
    assert!(error.to_lowercase().contains("pid namespace"), "{error}");
    container.next_beat()?;
    assert!(node.checkpoints()?.is_empty());
    Ok(())
}

#[test]
fn a_container_in_its_pods_pid_namespace_is_not_dumped() -> Result<()> {
    is_not_dumped(NamespaceMode::Pod)
}

#[test]
fn a_container_in_the_hosts_pid_namespace_is_not_dumped() -> Result<()> {
    is_not_dumped(NamespaceMode::Node)
}
