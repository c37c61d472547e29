//! Checkpoints as images in containerd's own store: what is written, what shares it,
//! who keeps it.

#![expect(
    clippy::print_stdout,
    reason = "figures and seeds are what one looks for in a test's output"
)]

use anyhow::{Context, Result};
use integration::programs::BUSYBOX;
use integration::store::{self, Store};
use integration::{
    Container, ContainerSpec, Decision, Node, NodeOptions, Pod, PodSpec, Program, heart,
    wait::patience, wait_for,
};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn pod(name: &str) -> PodSpec {
    PodSpec::new("publish", name)
}

/// A program with 300 MB that no file system could make smaller.
fn heavy() -> ContainerSpec {
    let script = "import os, time\nheld = os.urandom(300 << 20)\nprint('ready', flush=True)\n\
                  while True: time.sleep(1)";
    ContainerSpec::new(&Program::Python.image()).command(&["/usr/bin/python3", "-c", script])
}

fn run_heavy<'n>(node: &'n Node, name: &str) -> Result<(Pod<'n>, Container<'n>)> {
    let pod = node.run_pod(&pod(name))?;
    let container = pod.run(&heavy())?;
    container.wait_for_log("ready")?;
    Ok((pod, container))
}

/// Takes a checkpoint into the store alone; its image's name.
fn publish(node: &Node, container: &Container<'_>) -> Result<String> {
    let before = store::images(node)?;
    container.new_checkpoint(|| node.reprise(["checkpoint", container.id()]).map(drop))?;
    let after = store::images(node)?;
    after
        .difference(&before)
        .next()
        .cloned()
        .context("a new image")
}

#[test]
fn a_checkpoint_is_an_image_and_removing_that_frees_everything() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod("web-1"))?;
    let before = Store::of(&node)?;
    let image = publish(&node, &container)?;
    assert!(image.starts_with("reprise.local/publish/"), "{image}");
    let shown = node.crictl(["images"])?;
    assert!(shown.contains("reprise.local/publish/"), "{shown}");
    // The kubelet's collection must not take it.
    let listed = node.ctr(["images", "ls", &format!("name=={image}")])?;
    assert!(
        listed.contains("io.cri-containerd.pinned=pinned"),
        "{listed}"
    );

    // Garbage is collected without it being any.
    store::collect_garbage(&node)?;
    let (second_pod, second) = node.run_heart(&pod("web-2"))?;
    assert_eq!(second.life()?, container.life()?);
    second_pod.remove()?;

    node.ctr(["images", "rm", "--sync", &image])?;
    let left = Store::of(&node)?.since(&before);
    let records = |line: &&str| !line.starts_with("record ");
    let left: Vec<&str> = left.lines().filter(records).collect();
    assert!(left.is_empty(), "{left:?}");
    // Nothing is found any more, and nothing stands in the way.
    let (_pod, third) = node.run_heart(&pod("web-3"))?;
    assert!(!third.reason_for_cold()?.is_empty());
    Ok(())
}

#[test]
fn reprise_rm_removes_image_and_record() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod("web-1"))?;
    let before = Store::of(&node)?;
    let checkpoint = container.take_checkpoint()?;
    node.reprise(["rm", &checkpoint.id])?;
    store::is_as_before(&node, &before)
}

/// An image's only layer, unpacked once: a tar.
fn layer_of(node: &Node, image: &str) -> Result<String> {
    let shown = node.ctr(["images", "inspect", "--content", image])?;
    let layer = shown
        .lines()
        .find(|line| line.contains("layer.v1.tar+zstd @"));
    let digest = layer.and_then(|line| line.split("@sha256:").nth(1));
    let digest = digest.and_then(|rest| rest.get(..64)).context("a layer")?;
    let tar = node.dir().join("layer.tar").display().to_string();
    let unpack = format!("ctr content get sha256:{digest} | zstd -d > {tar}");
    node.run("bash", ["-o", "pipefail", "-c", &unpack])?.ok()?;
    Ok(tar)
}

#[test]
fn a_layer_is_made_when_it_is_asked_for() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod("web-1"))?;
    container.shell("rm /bin/true; echo kept > /kept")?;
    let before = Store::of(&node)?;
    let image = publish(&node, &container)?;
    node.reprise(["seal", &image])?;
    let layer = layer_of(&node, &image)?;
    let names = node.run("tar", ["-tf", &layer])?.ok()?;
    for name in ["checkpoint/inventory.img", "checkpoint/pages-1.img"] {
        assert!(names.lines().any(|line| line == name), "{names}");
    }
    for name in [
        "config.dump",
        "spec.dump",
        "manifest.json",
        "rootfs-diff.tar",
    ] {
        assert!(names.lines().any(|line| line == name), "{names}");
    }
    let shown = node.run("checkpointctl", ["show", &layer])?.ok()?;
    assert!(
        shown.contains(container.id().get(..12).context("an id")?),
        "{shown}"
    );
    let shown = node
        .run("checkpointctl", ["inspect", "--all", &layer])?
        .ok()?;
    assert!(shown.contains("Process tree"), "{shown}");
    // It is complete now, sealed only once, and still what pods start from.
    store::collect_garbage(&node)?;
    let checked = node.ctr(["images", "check", &format!("name=={image}")])?;
    assert!(checked.contains("complete (2/2)"), "{checked}");
    let sealed = node.reprise(["seal", &image])?;
    assert_eq!(node.reprise(["seal", &image])?, sealed);
    let (second_pod, second) = node.run_heart(&pod("web-2"))?;
    assert_eq!(second.life()?, container.life()?);
    second_pod.remove()?;

    node.ctr(["images", "rm", "--sync", &image])?;
    let left = Store::of(&node)?.since(&before);
    let left: Vec<&str> = left
        .lines()
        .filter(|line| !line.starts_with("record "))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn the_memory_is_written_once_and_shared_by_twenty() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = run_heavy(&node, "heavy-1")?;
    let before = store::bytes_on_disk(&node)?;
    let images = store::inodes_larger_than(&node, 100 << 20)?;
    let checkpoint =
        container.new_checkpoint(|| node.reprise(["checkpoint", container.id()]).map(drop))?;
    assert!(checkpoint.bytes > 300 << 20);
    let written = store::bytes_on_disk(&node)?.since(&before);
    println!("{written} bytes on disk for {} of images", checkpoint.bytes);
    assert!(written * 10 <= checkpoint.bytes * 11, "{written} bytes");

    let pages = node.checkpoint_images(&checkpoint)?.join("pages-1.img");
    let inode = fs::metadata(&pages)?.ino();
    let before = store::bytes_on_disk(&node)?;
    let mut replicas = Vec::new();
    for n in 0..20 {
        let pod = node.run_pod(&pod(&format!("replica-{n}")))?;
        let replica = pod.run(&heavy())?;
        let decided = replica.decision()?;
        assert!(matches!(decided, Decision::Restore { .. }), "{decided:?}");
        replicas.push((pod, replica));
    }
    // Logs and the like, and no copy of anything.
    let written = store::bytes_on_disk(&node)?.since(&before);
    println!("{written} bytes on disk for 20 replicas");
    assert!(written < 20 << 20, "{written} bytes");
    let mut large = store::inodes_larger_than(&node, 100 << 20)?;
    large.retain(|inode| !images.contains(inode));
    assert_eq!(large, [inode], "one file, one page cache");
    Ok(())
}

#[test]
fn a_large_checkpoint_is_found_at_once() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = run_heavy(&node, "heavy-1")?;
    // Of an hour in which others use the disk, too, the best moment counts.
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let before = node.log()?.len();
        let checkpoint =
            container.new_checkpoint(|| node.reprise(["checkpoint", container.id()]).map(drop))?;
        let published = store::publish_time(&node, before)?;
        println!("{published:?} from the end of the dump until it can be found");
        best = best.min(published);
        node.reprise(["rm", &checkpoint.id])?;
    }
    assert!(best <= Duration::from_millis(100) * patience(), "{best:?}");
    Ok(())
}

#[test]
fn a_restored_container_keeps_what_it_reads() -> Result<()> {
    let node = Node::start()?;
    let spec = heart::spec();
    let (first_pod, first) = node.run_beating(&pod("web-1"), &spec)?;
    first.shell("echo kept > /kept")?;
    let before = Store::of(&node)?;
    let image = publish(&node, &first)?;
    let (second_pod, second) = node.run_beating(&pod("web-2"), &spec)?;
    assert_eq!(second.life()?, first.life()?);
    wait_for("the container to hold its snapshots", SOON, || {
        let shown = node.ctr(["containers", "info", second.id()])?;
        Ok(shown.contains("/reprise-rootfs").then_some(()))
    })?;

    node.ctr(["images", "rm", "--sync", &image])?;
    store::collect_garbage(&node)?;
    assert_eq!(second.shell("cat /kept")?, "kept\n");
    second.next_beat()?;
    // It can be checkpointed itself, with all of its layers.
    second.shell("echo more > /more")?;
    first_pod.remove()?;
    publish(&node, &second)?;
    let (third_pod, third) = node.run_beating(&pod("web-3"), &spec)?;
    assert_eq!(third.life()?, second.life()?);
    assert_eq!(third.shell("cat /kept /more")?, "kept\nmore\n");

    third_pod.remove()?;
    second_pod.remove()?;
    let images = store::images(&node)?;
    let ours = images
        .iter()
        .filter(|name| name.starts_with("reprise.local/"));
    for image in ours {
        node.ctr(["images", "rm", "--sync", image])?;
    }
    store::collect_garbage(&node)?;
    let left = Store::of(&node)?.since(&before);
    assert!(!left.contains("reprise"), "{left}");
    assert!(!left.contains("snapshot "), "{left}");
    Ok(())
}

#[test]
fn an_image_that_cannot_be_made_leaves_nothing_and_the_dump_succeeds() -> Result<()> {
    let config = "version = 1\n[store]\npath = \"/proc/nowhere\"\n";
    let node = Node::start_with(&NodeOptions::with_config(config))?;
    let (_pod, container) = node.run_heart(&pod("web-1"))?;
    let before = Store::of(&node)?;
    let refused = node.run("reprise", ["checkpoint", container.id()])?;
    assert!(
        refused.code != 0 && refused.stderr.contains("/proc/nowhere"),
        "{refused:?}"
    );
    store::is_as_before(&node, &before)?;
    container.checkpoint()?;
    container.next_beat()?;
    store::is_as_before(&node, &before)
}

#[test]
fn a_layer_is_made_in_the_background_if_the_operator_wants_it() -> Result<()> {
    let config = "version = 1\n[images]\nseal = \"background\"\n";
    let node = Node::start_with(&NodeOptions::with_config(config))?;
    let (_pod, container) = run_heavy(&node, "heavy-1")?;
    let before = store::bytes_on_disk(&node)?;
    let checkpoint =
        container.new_checkpoint(|| node.reprise(["checkpoint", container.id()]).map(drop))?;
    // Others need not wait for it.
    is_restored(&node, "heavy-2")?;
    wait_for("the layer", Duration::from_secs(120) * patience(), || {
        // It fails on an image that changes while it looks.
        let checked = node.run("ctr", ["images", "check", "name~=reprise.local/publish"])?;
        Ok(checked.stdout.contains("complete (2/2)").then_some(()))
    })?;
    let written = store::bytes_on_disk(&node)?.since(&before);
    println!(
        "{written} bytes on disk for {} of images, sealed",
        checkpoint.bytes
    );
    wait_for("the publisher's lease to go", SOON, || {
        let leases = node.ctr(["leases", "ls", "-q"])?;
        let of_publishers = |line: &str| line.starts_with("reprise-");
        Ok((!leases.lines().any(of_publishers)).then_some(()))
    })?;
    is_restored(&node, "heavy-3")
}

/// Starts another pod of the heavy kind, which prints nothing again.
fn is_restored(node: &Node, name: &str) -> Result<()> {
    let pod = node.run_pod(&pod(name))?;
    let decided = pod.run(&heavy())?.decision()?;
    assert!(matches!(decided, Decision::Restore { .. }), "{decided:?}");
    Ok(())
}

#[test]
fn a_checkpoint_gets_the_name_that_one_gives_it() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&pod("web-1"))?;
    let name = "example.com/checkpoints/web:green";
    let take = |name: &str| {
        let words = ["checkpoint", "--image", name, container.id()];
        node.run("reprise", words)
    };
    let before = store::images(&node)?;
    let first = container.new_checkpoint(|| take(name)?.ok().map(drop))?;
    let now = store::images(&node)?;
    assert_eq!(now.difference(&before).collect::<Vec<_>>(), [name]);
    let (second_pod, second) = node.run_heart(&pod("web-2"))?;
    assert_eq!(second.life()?, container.life()?);
    second_pod.remove()?;

    // The name moves to the next one, and stays that one's.
    let next = container.new_checkpoint(|| take(name)?.ok().map(drop))?;
    assert_eq!(store::images(&node)?, now);
    node.reprise(["rm", &first.id])?;
    assert_eq!(store::images(&node)?, now);
    let (_pod, third) = node.run_heart(&pod("web-3"))?;
    let checkpoint = next.id;
    assert_eq!(third.decision()?, Decision::Restore { checkpoint });

    // It takes no other image's name, and says so before anything is dumped.
    let made = Store::of(&node)?;
    let refused = take(BUSYBOX)?;
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("is no checkpoint"), "{refused:?}");
    store::is_as_before(&node, &made)?;
    container.next_beat()?;
    Ok(())
}
