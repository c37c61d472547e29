//! Which checkpoint a container is started from, and from which it is not.

use anyhow::Result;
use integration::programs::BUSYBOX;
use integration::{Decision, Leftovers, Node, PodSpec, eventually, heart};
use std::fs;

fn pod(name: &str) -> PodSpec {
    PodSpec::new("matching", name)
}

#[test]
fn whatever_makes_another_container_is_not_restored() -> Result<()> {
    let node = Node::start()?;
    let volume = node.dir().join("volume").display().to_string();
    fs::create_dir_all(&volume)?;
    let (_pod, original) = node.run_heart(&pod("original"))?;
    original.take_checkpoint()?;
    let life = original.life()?;

    let mut other_script = heart::spec();
    other_script.config.command[2].push_str("\n# another comment");
    let elsewhere = PodSpec::new("another-namespace", "other");
    let same = || pod("other");
    for (what, pod, container) in [
        ("args", same(), other_script),
        ("env", same(), heart::spec().env("COLOUR", "green")),
        (
            "mounts",
            same(),
            heart::spec().mount(&volume, "/volume", true),
        ),
        ("user", same(), heart::spec().user(65_534)),
        (
            "capabilities",
            same(),
            heart::spec().capability("NET_ADMIN"),
        ),
        ("pod namespace", elsewhere, heart::spec()),
    ] {
        // Another user may not write /life, which its heart survives.
        let (_pod, other) = node.run_beating(&pod, &container)?;
        assert_ne!(other.life()?, life, "{what}");
        assert!(!other.reason_for_cold()?.is_empty(), "{what}");
        assert_eq!(other.beats()?[0].count, 1, "{what}");
    }

    let (_pod, same) = node.run_heart(&pod("same"))?;
    assert_eq!(same.life()?, life);
    Ok(())
}

#[test]
fn another_image_under_the_same_name_is_not_restored() -> Result<()> {
    let node = Node::start()?;
    let moving = "docker.io/reprise/moving:latest";
    let mut spec = heart::spec();
    spec.config.image.as_mut().unwrap().image = moving.to_owned();
    let image = || {
        node.crictl([
            "inspecti",
            "-o",
            "go-template",
            "--template",
            "{{.status.id}}",
            moving,
        ])
    };

    node.ctr(["images", "tag", BUSYBOX, moving])?;
    eventually("the image in CRI", || image().is_ok())?;
    let was = image()?;
    let (_pod, original) = node.run_beating(&pod("original"), &spec)?;
    original.take_checkpoint()?;
    let (_pod, same) = node.run_beating(&pod("same"), &spec)?;
    assert_eq!(same.life()?, original.life()?);

    node.ctr([
        "images",
        "tag",
        "--force",
        "docker.io/reprise/python:latest",
        moving,
    ])?;
    eventually("the tag to move", || image().is_ok_and(|now| now != was))?;
    let (_pod, other) = node.run_beating(&pod("other"), &spec)?;
    assert_ne!(other.life()?, original.life()?);
    other.reason_for_cold()?;
    Ok(())
}

#[test]
fn what_differs_in_every_pod_does_not_matter() -> Result<()> {
    let node = Node::start()?;
    let (_pod, original) = node.run_heart(&pod("original"))?;
    original.take_checkpoint()?;

    // A kubelet's annotations, service variables and limits.
    let mut spec = heart::spec()
        .annotation("io.kubernetes.container.restartCount", "3")
        .memory(128 << 20);
    spec.config.metadata.as_mut().unwrap().attempt = 3;
    let (_pod, restarted) = node.run_beating(&pod("restarted"), &spec)?;
    assert_eq!(restarted.life()?, original.life()?);
    assert_eq!(restarted.memory_limit()?, (128 << 20).to_string());
    Ok(())
}

#[test]
fn the_content_of_a_volume_is_the_new_pods() -> Result<()> {
    let node = Node::start()?;
    let volume = |name: &str| -> Result<String> {
        let dir = node.dir().join(name);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("who"), name)?;
        Ok(dir.display().to_string())
    };
    let spec = |volume: &str| heart::spec().mount(volume, "/volume", false);
    let (_pod, first) = node.run_beating(&pod("first"), &spec(&volume("volume-1")?))?;
    first.take_checkpoint()?;
    let (_pod, second) = node.run_beating(&pod("second"), &spec(&volume("volume-2")?))?;

    assert_eq!(second.life()?, first.life()?);
    assert_eq!(second.shell("cat /volume/who")?, "volume-2");
    assert_eq!(first.shell("cat /volume/who")?, "volume-1");
    Ok(())
}

#[test]
fn a_pod_can_forbid_its_restore() -> Result<()> {
    let node = Node::start()?;
    let (_pod, original) = node.run_heart(&pod("original"))?;
    original.take_checkpoint()?;

    let (_pod, never) = node.run_heart(&pod("never").restore("never"))?;
    assert_ne!(never.life()?, original.life()?);
    assert!(never.reason_for_cold()?.contains("never"));
    Ok(())
}

#[test]
fn a_pod_can_require_its_restore() -> Result<()> {
    let node = Node::start()?;
    let before = Leftovers::of(&node)?;
    let required = node.run_pod(&pod("required").restore("require"))?;
    let error = required.run(&heart::spec()).unwrap_err().to_string();
    assert!(error.contains("reprise.dev/restore"), "{error}");
    assert!(error.contains("no checkpoint"), "{error}");
    required.remove()?;
    node.is_as_before(&before)?;

    let (_pod, original) = node.run_heart(&pod("original"))?;
    original.take_checkpoint()?;
    let (_pod, required) = node.run_heart(&pod("required").restore("require"))?;
    assert_eq!(required.life()?, original.life()?);
    assert!(matches!(required.decision()?, Decision::Restore { .. }));
    Ok(())
}

#[test]
fn the_newest_of_several_checkpoints_is_taken() -> Result<()> {
    let node = Node::start()?;
    let (_pod, original) = node.run_heart(&pod("original"))?;
    original.take_checkpoint()?;
    let count = original.next_beat()?.count;
    let checkpoint = original.take_checkpoint()?.id;

    let (_pod, restored) = node.run_heart(&pod("restored"))?;
    assert_eq!(restored.decision()?, Decision::Restore { checkpoint });
    assert!(restored.beats()?[0].count > count);
    Ok(())
}
