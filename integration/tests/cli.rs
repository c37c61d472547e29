//! What operators see of checkpoints with `reprise`.

use anyhow::{Context, Result};
use integration::wait::wait_for;
use integration::{ContainerSpec, Decision, Node, NodeOptions, PodSpec};
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Listens, has a file open, and says when both are so.
const LISTENER: &str = "\
exec 7>/tmp/open
nc -l -p 4711 &
until grep -q :1267 /proc/net/tcp /proc/net/tcp6; do sleep 0.05; done
echo ready
wait";

#[test]
fn inspect_shows_what_is_in_a_checkpoint() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&PodSpec::new("cli", "listener"))?;
    let container = pod.run(&ContainerSpec::shell(LISTENER))?;
    container.wait_for_log("ready")?;
    let checkpoint = container.take_checkpoint()?;

    let shown: Value = node
        .run("reprise", ["inspect", "--json", &checkpoint.id])?
        .json()?;
    let contents = &shown[0]["contents"];
    let processes = contents["processes"].as_array().context("processes")?;
    let shell = processes
        .iter()
        .find(|p| p["pid"] == 1)
        .context("the init process")?;
    assert_eq!(
        (&shell["command"], &shell["state"]),
        (&"sh".into(), &"running".into())
    );
    assert!(shell["memory_bytes"].as_u64() > Some(0), "{shell}");
    let files = shell["files"].as_array().context("files")?;
    let open = files.iter().find(|f| f["fd"] == 7).context("fd 7")?;
    assert_eq!(
        (&open["kind"], &open["what"]),
        (&"file".into(), &"/tmp/open".into())
    );
    let listener = processes
        .iter()
        .find(|p| p["command"] == "nc")
        .context("nc")?;
    assert_eq!(listener["parent"], 1);
    let mounts = contents["mounts"].as_array().context("mounts")?;
    let at = |path: &str| mounts.iter().find(|m| m["path"] == path);
    assert_eq!(at("/").context("root")?["external"], false);
    assert_eq!(at("/etc/hosts").context("hosts")?["external"], true);

    let page = node.run("reprise", ["inspect", &checkpoint.id])?.ok()?;
    assert!(page.contains("listening:  tcp "), "{page}");
    assert!(page.contains(":4711 listening"), "{page}");
    Ok(())
}

#[test]
fn inspect_says_what_is_damaged() -> Result<()> {
    let node = Node::start()?;
    let (_pod, container) = node.run_heart(&PodSpec::new("cli", "damaged"))?;
    let checkpoint = container.take_checkpoint()?;
    let image = node.checkpoint_images(&checkpoint)?.join("core-1.img");
    let size = std::fs::metadata(&image)?.len();
    std::fs::write(&image, vec![0xff; usize::try_from(size)?])?;
    let said = node.run("reprise", ["inspect", &checkpoint.id])?;
    assert_ne!(said.code, 0);
    let said = said.stderr;
    assert!(said.contains("checkpoint is damaged: core-1.img"), "{said}");
    Ok(())
}

#[test]
fn check_looks_at_containerd() -> Result<()> {
    let node = Node::start()?;
    let config = node.dir().join("containerd.toml").display().to_string();
    let check = |config: &str| -> Result<Vec<Value>> {
        let args = ["check", "--json", "--containerd-config", config];
        Ok(serde_json::from_str(&node.run("reprise", args)?.stdout)?)
    };
    let found = check(&config)?;
    let text_of = |name: &str| {
        let line = found.iter().find(|line| line["check"] == name);
        line.map(|line| (line["ok"] == true, line["text"].to_string()))
            .with_context(|| format!("{name} in {found:?}"))
    };
    for name in [
        "containerd",
        "handler",
        "annotations",
        "snapshotter",
        "criu",
    ] {
        let (ok, text) = text_of(name)?;
        assert!(ok, "{name}: {text}");
    }
    assert!(text_of("containerd")?.1.contains("v2.3."));
    let without = check("/dev/null")?;
    let handler = without.iter().find(|line| line["check"] == "handler");
    let handler = handler.context("handler")?;
    assert_eq!(handler["ok"], false);
    assert!(
        handler["text"].to_string().contains("runtimes.reprise"),
        "{handler}"
    );
    Ok(())
}

/// How a checkpoint is listed.
fn listed(node: &Node, id: &str) -> Result<Option<Value>> {
    let all: Vec<Value> = node.run("reprise", ["list", "--json"])?.json()?;
    Ok(all.into_iter().find(|row| row["id"] == id))
}

#[test]
fn restores_are_counted_and_limits_take_the_least_used() -> Result<()> {
    let limits = "version = 1\n[limits]\nnode_count = 2\n";
    let node = Node::start_with(&NodeOptions::with_config(limits))?;
    let mut checkpoints = Vec::new();
    for name in ["first", "second"] {
        let (pod, container) = node.run_heart(&PodSpec::new(name, "heart"))?;
        checkpoints.push(container.take_checkpoint()?);
        pod.remove()?;
    }
    let (pod, restored) = node.run_heart(&PodSpec::new("first", "heart-2"))?;
    let from = Decision::Restore {
        checkpoint: checkpoints[0].id.clone(),
    };
    assert_eq!(restored.decision()?, from);
    let row = wait_for("the restore in the list", SOON, || {
        let row = listed(&node, &checkpoints[0].id)?.context("the checkpoint")?;
        Ok((row["restores"] == 1).then_some(row))
    })?;
    assert!(row["restored"].is_string(), "{row}");
    pod.remove()?;

    // A third one: the second, which nothing was restored from, has to go.
    let (_pod, container) = node.run_heart(&PodSpec::new("third", "heart"))?;
    let third = container.take_checkpoint()?;
    wait_for("the limit", SOON, || {
        Ok(listed(&node, &checkpoints[1].id)?.is_none().then_some(()))
    })?;
    assert!(listed(&node, &checkpoints[0].id)?.is_some());
    assert!(listed(&node, &third.id)?.is_some());
    let images = node.ctr(["images", "ls", "-q"])?;
    assert!(images.contains(&third.id), "{images}");
    assert!(!images.contains(&checkpoints[1].id), "{images}");
    assert_eq!(node.reprise(["prune", "--json"])?.trim(), "[]");
    Ok(())
}

/// Works until somebody says that it is enough.
const BUSY: &str = "until [ -e /tmp/enough ]; do :; done; echo enough; exec sleep 1000";

#[test]
fn a_checkpoint_waits_until_the_container_is_idle() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&PodSpec::new("cli", "busy"))?;
    let container = pod.run(&ContainerSpec::shell(BUSY))?;

    let refused = node.run("reprise", ["checkpoint", "--when-idle=2", container.id()])?;
    assert_eq!(refused.code, 1);
    let said = refused.stderr;
    assert!(said.contains("is not idle after 2 s: it uses"), "{said}");
    assert!(container.is_running()?);
    assert!(node.checkpoints()?.is_empty());

    std::thread::scope(|scope| {
        let soon = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(2));
            container.shell("touch /tmp/enough")
        });
        node.reprise(["checkpoint", "--when-idle=60", container.id()])?;
        assert!(container.log()?.contains("enough"));
        soon.join().expect("no panic").map(drop)
    })?;
    assert_eq!(node.checkpoints()?.len(), 1);
    Ok(())
}
