//! What `reprise explain` says of containers that were not restored, and of one that
//! was.

use anyhow::{Context, Result};
use integration::kubelet::Volume;
use integration::{Container, Node, PodSpec, heart};
use serde_json::Value;
use std::fs;

fn pod(name: &str) -> PodSpec {
    PodSpec::new("explain", name)
}

/// What is said of one container.
fn explained(node: &Node, whom: &str) -> Result<Value> {
    let mut all: Vec<Value> = node.run("reprise", ["explain", "--json", whom])?.json()?;
    anyhow::ensure!(all.len() == 1, "{whom}: {all:?}");
    all.pop().context("one")
}

fn fields(said: &Value) -> Vec<&str> {
    let fields = said["nearest"]["fields"].as_array();
    fields
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[test]
fn the_differing_fields_of_the_nearest_checkpoint_are_named() -> Result<()> {
    let node = Node::start()?;
    let volume = node.dir().join("volume").display().to_string();
    fs::create_dir_all(&volume)?;
    let (_pod, original) = node.run_heart(&pod("original"))?;
    assert!(explained(&node, original.id())?["nearest"].is_null());
    let checkpoint = original.take_checkpoint()?;

    let mut other_script = heart::spec();
    other_script.config.command[2].push_str("\n# another comment");
    let mut other_name = heart::spec().name("another");
    other_name.config.command[2].push_str("\n# another comment");
    let secret = heart::spec().env("PASSWORD", "hunter2");
    for (n, (expected, pod, container)) in [
        (vec!["args"], pod("other"), other_script),
        (vec!["env"], pod("other"), secret),
        (
            vec!["mounts"],
            pod("other"),
            heart::spec().mount(&volume, "/volume", true),
        ),
        (vec!["user"], pod("other"), heart::spec().user(65_534)),
        (
            vec!["capabilities"],
            pod("other"),
            heart::spec().capability("NET_ADMIN"),
        ),
        (
            vec!["pod_namespace"],
            PodSpec::new("elsewhere", "other"),
            heart::spec(),
        ),
        (vec!["args", "container_name"], pod("other"), other_name),
    ]
    .into_iter()
    .enumerate()
    {
        let (_pod, other) = node.run_beating(&pod, &container)?;
        let said = explained(&node, other.id())?;
        assert_eq!(fields(&said), expected, "{n}: {said:#}");
        assert_eq!(said["nearest"]["checkpoint"], checkpoint.id.as_str());
        assert_eq!(said["decision"]["why"], "no_match");
        let page = node.reprise(["explain", "other"])?;
        assert!(page.contains("cold: no checkpoint matches"), "{page}");
        assert!(!page.contains("hunter2") && !said.to_string().contains("hunter2"));
        for field in expected {
            assert!(page.contains(field), "{field}: {page}");
        }
    }

    let (_pod, same) = node.run_heart(&pod("same"))?;
    let said = explained(&node, "explain/same")?;
    assert_eq!(said["decision"]["plan"], "restore");
    assert_eq!(said["decision"]["checkpoint"], checkpoint.id.as_str());
    assert_eq!(fields(&said), Vec::<&str>::new());
    let page = node.reprise(["explain", same.id()])?;
    assert!(
        page.contains(&format!("restored from {}", checkpoint.id)),
        "{page}"
    );
    let none = node.run("reprise", ["explain", "nobody"])?;
    assert!(
        none.ok()
            .unwrap_err()
            .to_string()
            .contains("no pod or container nobody")
    );
    Ok(())
}

#[test]
fn an_older_configuration_does_not_come_back() -> Result<()> {
    let node = Node::start()?;
    let run = |uid: &str, mode: &str| -> Result<(_, Container<'_>)> {
        let dir = Volume::ConfigMap.publish(&node, uid, "settings", &[("mode", mode)])?;
        let dir = dir.display().to_string();
        node.run_beating(&pod(uid), &heart::spec().mount(&dir, "/etc/app", true))
    };
    let (_pod, original) = run("original", "green")?;
    original.take_checkpoint()?;

    let (_pod, same) = run("same", "green")?;
    assert_eq!(same.life()?, original.life()?);
    assert_eq!(same.shell("cat /etc/app/mode")?, "green");

    let (_pod, other) = run("other", "blue")?;
    assert_ne!(other.life()?, original.life()?);
    let said = explained(&node, other.id())?;
    assert_eq!(fields(&said), ["volumes"]);
    assert_eq!(said["nearest"]["differences"][0]["what"], "/etc/app mode");

    // It changes under a running container: what that remembers is unknown.
    Volume::ConfigMap.publish(&node, "other", "settings", &[("mode", "red")])?;
    let refused = node.run("reprise", ["checkpoint", other.id()])?;
    let refused = refused.ok().unwrap_err().to_string();
    assert!(
        refused.contains("/etc/app mode") && refused.contains("restart it"),
        "{refused}"
    );
    let known = node.checkpoints()?.len();
    other.checkpoint()?;
    assert_eq!(node.checkpoints()?.len(), known);
    assert!(other.is_running()?);
    Ok(())
}
