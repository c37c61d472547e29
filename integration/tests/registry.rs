//! A checkpoint of one node starts a pod on another one, by way of a registry.

use anyhow::{Context, Result, bail};
use integration::kubelet::Volume;
use integration::programs::{BUSYBOX, Program};
use integration::store::{self, Store};
use integration::{Container, ContainerSpec, Node, NodeOptions, Pod, PodSpec, Registry, heart};
use std::fs;
use std::path::Path;

const TRUSTED: &str = "reprise.dev/trusted=true";

fn pod(name: &str) -> PodSpec {
    PodSpec::new("registry", name)
}

/// A heart with a ConfigMap, laid out in a pod's directory as the kubelet does.
fn heart_with(node: &Node, uid: &str, mode: &str) -> Result<ContainerSpec> {
    let dir = Volume::ConfigMap.publish(node, uid, "settings", &[("mode", mode)])?;
    let mut spec = heart::spec().mount(&dir.display().to_string(), "/etc/app", true);
    // The other one's layer is that of pods' sandboxes, too, and stays on every node.
    spec.config.image.as_mut().context("an image")?.image = Program::Python.image();
    Ok(spec)
}

fn run<'n>(node: &'n Node, uid: &str, mode: &str) -> Result<(Pod<'n>, Container<'n>)> {
    node.run_beating(&pod(uid), &heart_with(node, uid, mode)?)
}

/// A node on which the test images lie in other directories than on any other.
fn other_node() -> Result<Node> {
    let node = Node::start()?;
    remove_images(&node)?;
    import(&node, "busybox")?;
    import(&node, "python")?;
    Ok(node)
}

/// Removes all images but the one of pods' sandboxes, so that their layers go: they
/// have some in common.
fn remove_images(node: &Node) -> Result<()> {
    let all = node.ctr(["images", "ls"])?;
    let column = |line: &str, n: usize| line.split_whitespace().nth(n).map(str::to_owned);
    let pause = all.lines().find(|line| line.contains("/pause:"));
    let pause = pause.and_then(|line| column(line, 2)).context("a digest")?;
    for line in all.lines().skip(1).filter(|line| !line.contains(&pause)) {
        let name = column(line, 0).context("a name")?;
        node.ctr(["images", "rm", "--sync", &name])?;
    }
    Ok(())
}

fn import(node: &Node, image: &str) -> Result<()> {
    let tar = node.tools().image(image).display().to_string();
    node.ctr(["images", "import", &tar])?;
    Ok(())
}

/// Where its image lies, as the only checkpoint of a node has it.
fn base_of_checkpoint(node: &Node) -> Result<String> {
    let checkpoints = node.checkpoints()?;
    let [checkpoint] = checkpoints.as_slice() else {
        bail!("not one: {checkpoints:?}");
    };
    let said: serde_json::Value = node
        .run("reprise", ["inspect", "--json", &checkpoint.id])?
        .json()?;
    let hash = said[0]["fields"]["image"].as_str();
    Ok(hash.context("a hash")?.to_owned())
}

/// Takes a checkpoint and pushes it; the image's name in the registry.
fn push(node: &Node, container: &Container<'_>, storage: &Path) -> Result<String> {
    let checkpoint = container.take_checkpoint()?;
    let name = Registry::image("checkpoints/heart:1");
    let _registry = Registry::serve(node, storage)?;
    let pushed = node.reprise(["push", &checkpoint.id, &name])?;
    assert!(pushed.starts_with(&format!("{name}@sha256:")), "{pushed}");
    Ok(name)
}

fn pull(node: &Node, image: &str, storage: &Path, options: &[&str]) -> Result<()> {
    let _registry = Registry::serve(node, storage)?;
    let mut words = vec!["images", "pull", "--plain-http"];
    words.extend(options);
    words.push(image);
    node.ctr(words)?;
    Ok(())
}

#[test]
fn the_first_pod_of_another_node_is_restored() -> Result<()> {
    let here = Node::start()?;
    let there = other_node()?;
    let storage = here.dir().join("registry");
    let (_pod, original) = run(&here, "original", "green")?;
    original.shell("echo kept > /note; mkdir /made")?;
    let image = push(&here, &original, &storage)?;
    let life = original.life()?;

    pull(&there, &image, &storage, &["--label", TRUSTED])?;
    let (_pod, first) = run(&there, "first", "green")?;
    assert_eq!(
        first.life()?,
        life,
        "{}",
        first.reason_for_cold().unwrap_or_default()
    );
    assert_eq!(
        first.shell("cat /note; ls -d /made; cat /etc/app/mode")?,
        "kept\n/made\ngreen"
    );

    assert_ne!(base_of_checkpoint(&here)?, base_of_checkpoint(&there)?);

    // A node that forgets what it knew asks containerd.
    for entry in fs::read_dir(there.path("/var/lib/reprise"))? {
        fs::remove_dir_all(entry?.path())?;
    }
    let (_pod, second) = run(&there, "second", "green")?;
    assert_eq!(second.life()?, life);

    // Another configuration, and another image.
    let (_pod, blue) = run(&there, "blue", "blue")?;
    assert_ne!(blue.life()?, life);
    assert_eq!(blue.differs_in()?, ["volumes"]);
    let mut other = heart_with(&there, "busybox", "green")?;
    other.config.image.as_mut().context("an image")?.image = BUSYBOX.to_owned();
    let (_pod, other) = there.run_beating(&pod("busybox"), &other)?;
    assert_ne!(other.life()?, life);
    assert!(other.differs_in()?.contains(&"image".to_owned()));
    assert!(other.reason_for_cold()?.contains("no checkpoint matches"));
    Ok(())
}

#[test]
fn what_was_pulled_must_be_trusted() -> Result<()> {
    let here = Node::start()?;
    let there = other_node()?;
    let storage = here.dir().join("registry");
    let (_pod, original) = run(&here, "original", "green")?;
    let image = push(&here, &original, &storage)?;
    let life = original.life()?;

    // As the kubelet pulls.
    {
        let _registry = Registry::serve(&there, &storage)?;
        there.crictl(["pull", &image])?;
    }
    let (_pod, cold) = run(&there, "cold", "green")?;
    assert_ne!(cold.life()?, life);
    let said = there.reprise(["refresh"])?;
    assert!(
        said.contains(&image) && said.contains("not trusted"),
        "{said}"
    );
    there.reprise(["trust", &image])?;
    let (_pod, restored) = run(&there, "restored", "green")?;
    assert_eq!(restored.life()?, life);
    Ok(())
}

#[test]
fn a_checkpoint_waits_for_its_base_image() -> Result<()> {
    let here = Node::start()?;
    // Unpacking what the image wrote takes longer than a pod should wait by default
    // when others use the machine, too; the pod after it would be restored.
    let patient = "version = 1\n[images]\nrefresh_wait_ms = 20000\n";
    let there = Node::start_with(&NodeOptions::with_config(patient))?;
    remove_images(&there)?;
    let storage = here.dir().join("registry");
    let (_pod, original) = run(&here, "original", "green")?;
    let image = push(&here, &original, &storage)?;

    pull(&there, &image, &storage, &["--label", TRUSTED])?;
    let said = there.reprise(["refresh"])?;
    assert!(
        said.contains("its base image") && said.contains("is not on this node"),
        "{said}"
    );
    import(&there, "python")?;
    let (_pod, first) = run(&there, "first", "green")?;
    assert_eq!(first.life()?, original.life()?);
    Ok(())
}

#[test]
fn a_push_says_who_one_is_and_leaves_nothing() -> Result<()> {
    let node = Node::start()?;
    let storage = node.dir().join("registry");
    let (_pod, container) = node.run_heart(&pod("original"))?;
    let checkpoint = container.take_checkpoint()?;
    let images = store::images(&node)?;
    node.reprise(["seal", &checkpoint.id])?;
    let before = Store::of(&node)?;
    let name = Registry::image("checkpoints/heart:1");

    // What leads nowhere is refused before anything is done.
    let refused = node.run("reprise", ["push", &checkpoint.id])?;
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("names no registry"), "{refused:?}");
    let refused = node.run("reprise", ["push", &checkpoint.id, &name])?;
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("connection refused"), "{refused:?}");

    let _registry = Registry::serve_to_user(&node, &storage, "ci")?;
    let refused = node.run("reprise", ["push", &checkpoint.id, &name])?;
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("401"), "{refused:?}");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    let push = |login: &[&str]| {
        let words = [&["push", "--json", &checkpoint.id, &name], login].concat();
        node.run("reprise", words)
    };
    assert_eq!(push(&["--user", "ci:wrong"])?.code, 1);
    let said: Vec<serde_json::Value> = push(&["--user", "ci:pa ss:word"])?.json()?;
    assert_eq!(said[0]["pushed"], name.as_str());
    let script = format!(
        "printf 'pa ss:word\\n' | reprise push --user ci --password-stdin {} {name}",
        checkpoint.id
    );
    node.run("sh", ["-c", &script])?.ok()?;
    store::is_as_before(&node, &before)?;
    assert_eq!(store::images(&node)?, images);
    Ok(())
}
