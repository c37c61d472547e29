//! Taking a checkpoint: what is in it, and that the container does not mind.

use anyhow::{Context, Result};
use integration::{Criu, Leftovers, Node, NodeOptions, PodSpec, heart};
use std::collections::BTreeSet;
use std::process::Command;

fn pod() -> PodSpec {
    PodSpec::new("checkpoint", "web-1")
}

/// The names in a tar archive.
fn names_in(archive: &std::path::Path) -> Result<BTreeSet<String>> {
    let listed = Command::new("tar").arg("-tf").arg(archive).output()?;
    let names = String::from_utf8(listed.stdout)?;
    Ok(names.lines().map(str::to_owned).collect())
}

#[test]
fn the_archive_is_what_containerd_expects() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod())?;
    let archive = container.checkpoint()?;

    let names = names_in(&archive)?;
    for name in [
        "spec.dump",
        "config.dump",
        "status.dump",
        "status",
        "rootfs-diff.tar",
        "container.log",
    ] {
        assert!(names.contains(name), "{name} in {names:?}");
    }
    for name in [
        "inventory.img",
        "descriptors.json",
        "core-1.img",
        "pages-1.img",
    ] {
        assert!(
            names.contains(&format!("checkpoint/{name}")),
            "{name} in {names:?}"
        );
    }
    let nested = names
        .iter()
        .filter_map(|name| name.strip_prefix("checkpoint/"))
        .find(|name| name.trim_end_matches('/').contains('/'));
    assert_eq!(nested, None, "containerd flattens directories");
    Ok(())
}

#[test]
fn checkpointctl_reads_the_archive() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod())?;
    let archive = container.checkpoint()?.display().to_string();

    let shown = node.run("checkpointctl", ["show", &archive])?.ok()?;
    assert!(shown.contains("docker.io/reprise/busybox"), "{shown}");

    let all = node
        .run("checkpointctl", ["inspect", "--all", &archive])?
        .ok()?;
    for part in ["Process tree", "CRIU dump statistics", "Overview of mounts"] {
        assert!(all.contains(part), "{part} in {all}");
    }
    Ok(())
}

#[test]
fn the_container_goes_on_as_if_nothing_had_happened() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod())?;
    let (life, pid) = (container.life()?, container.pid()?);
    container.checkpoint()?;

    assert_eq!((container.life()?, container.pid()?), (life, pid));
    assert!(node.ctr(["task", "ls"])?.contains("RUNNING"));
    assert!(!node.ctr(["task", "ls"])?.contains("PAUSED"));
    let counts: Vec<u64> = container.beats()?.iter().map(|beat| beat.count).collect();
    let all: Vec<u64> = (1..).take(counts.len()).collect();
    assert_eq!(counts, all, "no beat is lost and none comes twice");
    assert_eq!(container.exec(&["true"])?.code, 0);
    container.stop(20)?;
    assert_eq!(container.status()?.exit_code, heart::EXIT_CODE);
    Ok(())
}

#[test]
fn a_checkpoint_can_be_taken_again_and_again() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod())?;
    for _ in 0..3 {
        container.checkpoint()?;
        container.next_beat()?;
    }
    Ok(())
}

#[test]
fn the_checkpoint_is_listed_with_what_it_is_of() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod())?;
    assert!(node.checkpoints()?.is_empty());

    let checkpoint = container.take_checkpoint()?;
    assert_eq!(checkpoint.container, container.id());
    assert_eq!(checkpoint.namespace, "checkpoint");
    assert!(
        checkpoint.image.contains("reprise/busybox"),
        "{checkpoint:?}"
    );
    assert!(checkpoint.bytes > 0);
    Ok(())
}

#[test]
fn ctr_task_checkpoint_makes_an_image_and_the_container_goes_on() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod())?;
    let image = node.ctr(["task", "checkpoint", container.id()])?;
    assert!(node.ctr(["images", "ls", "-q"])?.contains(image.trim()));
    container.next_beat()?;
    Ok(())
}

#[test]
fn ctr_task_checkpoint_with_exit_ends_the_container() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod())?;
    node.ctr(["task", "checkpoint", "--exit", container.id()])?;
    container.wait()?;
    Ok(())
}

#[test]
fn a_paused_container_is_dumped_and_stays_paused() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod())?;
    node.ctr(["task", "pause", container.id()])?;
    node.ctr(["task", "checkpoint", container.id()])?;
    assert!(node.ctr(["task", "ls"])?.contains("PAUSED"));

    node.ctr(["task", "resume", container.id()])?;
    container.next_beat()?;
    Ok(())
}

#[test]
fn a_failed_dump_changes_nothing_for_the_container() -> Result<()> {
    // Good enough for containerd, which asks for the version, and for nothing else.
    let criu = "#!/bin/sh\n[ \"$1\" != swrk ] || { [ -e /run/criu-is-broken ] && exit 1; }\nexec REAL \"$@\"\n";
    let real = integration::tools::Tools::find("2.3")?.program("criu");
    let criu = criu.replace("REAL", &real.display().to_string());
    let node = Node::start_with(&NodeOptions::with_criu(Criu::Script(criu)))?;
    let (_pod, container) = node.run_heart(&pod())?;
    // Containerd asks its criu once, by swrk too.
    container.checkpoint().context("with a criu that works")?;
    let before = Leftovers::of(&node)?;

    std::fs::write(node.path("/run/criu-is-broken"), "")?;
    assert!(container.checkpoint().is_err());
    assert!(!node.ctr(["task", "ls"])?.contains("PAUSED"));
    container.next_beat()?;
    node.is_as_before(&before)?;

    std::fs::remove_file(node.path("/run/criu-is-broken"))?;
    container.checkpoint()?;
    container.next_beat()?;
    Ok(())
}

#[test]
fn an_ended_container_cannot_be_dumped() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod())?;
    container.stop(20)?;
    assert!(container.checkpoint().is_err());
    Ok(())
}
