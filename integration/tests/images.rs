//! Checkpoint images in containerd's store: what a node knows of them is a cache.

use anyhow::{Context, Result};
use integration::{Container, Node, PodSpec};
use std::fs;

const LABEL: &str = "reprise.dev/trusted";

fn pod(name: &str) -> PodSpec {
    PodSpec::new("images", name)
}

/// Everything that the node knows of checkpoints goes.
fn forget(node: &Node) -> Result<()> {
    for entry in fs::read_dir(node.path("/var/lib/reprise"))? {
        fs::remove_dir_all(entry?.path())?;
    }
    Ok(())
}

/// The image that a container's checkpoint has become.
fn image_of(node: &Node, container: &Container<'_>) -> Result<String> {
    let checkpoint = container.take_checkpoint()?.id;
    let filter = format!("labels.\"reprise.dev/checkpoint\"=={checkpoint}");
    let names = node.ctr(["images", "ls", "-q", &filter])?;
    Ok(names.lines().next().context("an image")?.to_owned())
}

#[test]
fn what_a_node_forgets_is_found_again() -> Result<()> {
    let node = Node::start()?;
    let (_pod, original) = node.run_heart(&pod("original"))?;
    image_of(&node, &original)?;

    forget(&node)?;
    let (_pod, first) = node.run_heart(&pod("first"))?;
    assert_eq!(first.life()?, original.life()?);

    // Half written, and wrong.
    let index = node.path("/var/lib/reprise/index");
    for entry in fs::read_dir(&index)? {
        fs::remove_file(entry?.path())?;
    }
    fs::write(index.join(".asof"), "{\"changed_ns\":")?;
    let (_pod, second) = node.run_heart(&pod("second"))?;
    assert_eq!(second.life()?, original.life()?);

    forget(&node)?;
    node.reprise(["verify"])?;
    assert_eq!(node.checkpoints()?.len(), 1);
    Ok(())
}

#[test]
fn an_image_that_nobody_trusts_is_not_restored() -> Result<()> {
    let node = Node::start()?;
    let (_pod, original) = node.run_heart(&pod("original"))?;
    let image = image_of(&node, &original)?;

    node.ctr(["images", "label", &image, &format!("{LABEL}=")])?;
    forget(&node)?;
    let (_pod, cold) = node.run_heart(&pod("cold"))?;
    assert_ne!(cold.life()?, original.life()?);
    assert!(cold.reason_for_cold()?.contains("no checkpoint matches"));
    let said = node.reprise(["refresh"])?;
    assert!(
        said.contains("not trusted; `reprise trust IMAGE`"),
        "{said}"
    );

    node.reprise(["trust", &image])?;
    let (_pod, restored) = node.run_heart(&pod("restored"))?;
    assert_eq!(restored.life()?, original.life()?);

    node.reprise(["trust", "--not", &image])?;
    let (_pod, again) = node.run_heart(&pod("again"))?;
    assert_ne!(again.life()?, original.life()?);
    Ok(())
}

#[test]
fn an_image_that_goes_is_not_restored_any_more() -> Result<()> {
    let node = Node::start()?;
    let (_pod, original) = node.run_heart(&pod("original"))?;
    let image = image_of(&node, &original)?;
    let (_pod, restored) = node.run_heart(&pod("restored"))?;
    assert_eq!(restored.life()?, original.life()?);

    node.ctr(["images", "rm", "--sync", &image])?;
    node.reprise(["refresh"])?;
    assert!(node.checkpoints()?.is_empty());
    let (_pod, cold) = node.run_heart(&pod("cold"))?;
    assert_ne!(cold.life()?, original.life()?);
    // What was restored goes on.
    restored.next_beat()?;
    Ok(())
}
