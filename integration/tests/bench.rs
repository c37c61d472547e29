//! `reprise bench`: restores in scratch containers, of which nothing stays.

#![expect(
    clippy::print_stdout,
    reason = "figures are what one looks for in a test's output"
)]

use anyhow::{Context, Result};
use integration::kubelet::Volume;
use integration::store::{self, Store};
use integration::{Node, PodSpec, heart};
use serde_json::Value;
use std::fs;

#[test]
fn a_checkpoint_is_restored_often_and_nothing_stays() -> Result<()> {
    let node = Node::start()?;
    let (pod, container) = node.run_heart(&PodSpec::new("bench", "web"))?;
    let checkpoint = container.take_checkpoint()?;
    let image = store::images(&node)?;
    let image = image.iter().find(|name| name.starts_with("reprise.local/"));
    let image = image.context("an image")?.clone();
    let before = Store::of(&node)?;
    let bench = |what: &str, more: &[&str]| -> Result<Value> {
        let words = [&["bench", "--json", "--count", "4", what], more].concat();
        let all: Vec<Value> = node.run("reprise", words)?.json()?;
        all.into_iter().next().context("a report")
    };
    let check = |said: &Value| -> Result<()> {
        assert_eq!(
            (&said["count"], &said["checkpoint"]),
            (&4.into(), &checkpoint.id.as_str().into())
        );
        for what in ["create_us", "start_us"] {
            let us = |which: &str| said[what][which].as_u64().context("a time");
            assert!(us("min")? > 0 && us("min")? <= us("median")?, "{said}");
            assert!(us("median")? <= us("p99")?, "{said}");
        }
        Ok(())
    };
    // While the original runs, which notices nothing, and when its pod has gone.
    check(&bench(&checkpoint.id, &[])?)?;
    container.next_beat()?;
    assert_eq!(container.shell("ls /dev/shm")?, "");
    pod.remove()?;
    check(&bench(&image, &["--parallel", "2"])?)?;
    let page = node.reprise(["bench", "-n", "20", &checkpoint.id])?;
    println!("{page}");
    assert!(
        page.contains("restored") && page.contains("MEDIAN"),
        "{page}"
    );
    store::is_as_before(&node, &before)?;
    assert_eq!(node.ctr(["containers", "ls", "-q"])?, "");
    let run = fs::read_dir(node.path("/run"))?;
    let left = run.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let left: Vec<String> = left.filter(|name| name.contains("bench")).collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn what_cannot_be_restored_here_is_said_and_leaves_nothing() -> Result<()> {
    let node = Node::start()?;
    let dir = Volume::Secret.publish(&node, "web", "given", &[("password", "x")])?;
    let spec = heart::spec().mount(&dir.display().to_string(), "/given", true);
    let (_pod, container) = node.run_beating(&PodSpec::new("bench", "web"), &spec)?;
    let checkpoint = container.take_checkpoint()?;
    let before = Store::of(&node)?;
    node.reprise(["bench", "-n", "1", &checkpoint.id])?;
    let fails = |why: &str| -> Result<()> {
        let done = node.run("reprise", ["bench", "-n", "1", &checkpoint.id])?;
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stderr.contains(why), "{}", done.stderr);
        store::is_as_before(&node, &before)
    };
    // Another Secret than the one that the program has read.
    Volume::Secret.publish(&node, "web", "given", &[("password", "y")])?;
    fails("no checkpoint matches this container")?;
    fs::remove_dir_all(dir)?;
    fails("at /given has gone with its pod")
}
