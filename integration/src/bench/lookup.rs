//! What a decision costs with a thousand checkpoints on the node: rows `lookup_miss`
//! and `lookup_hit`, in microseconds, as the shim logs them; and whether a restore
//! takes longer then.

use super::write;
use crate::checkpoints::Checkpoint;
use crate::heart;
use crate::measure::{Figures, millis};
use crate::node::{Node, NodeOptions};
use crate::pod::{ContainerSpec, PodSpec};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const DEBUG: &str = "version = 1\n[log]\nlevel = \"debug\"\n";
/// Checkpoints on the node.
const MANY: usize = 1000;
/// The most that a decision may take, in microseconds.
const MISS_US: f64 = 100.0;
/// See [`MISS_US`].
const HIT_US: f64 = 1000.0;

/// Starts containers that have a checkpoint and containers that have none, with one
/// checkpoint on the node and with a thousand.
#[allow(clippy::print_stdout, reason = "a benchmark talks to its user")]
pub(super) fn run(runs: usize) -> Result<()> {
    let node = Node::start_with(&NodeOptions::with_config(DEBUG))?;
    let (_pod, original) = node.run_heart(&PodSpec::new("bench", "original"))?;
    let checkpoint = original.take_checkpoint()?;
    let few = round(&node, runs)?;
    multiply(&node, &checkpoint)?;
    let known = node.checkpoints()?.len();
    if known != MANY {
        bail!("there are {known} checkpoints instead of {MANY}");
    }
    let many = round(&node, runs)?;

    println!("decisions with {MANY} checkpoints on the node, {runs} runs");
    let mut rows = Vec::new();
    for (name, unit, few, many) in [
        ("lookup_miss", "us", &few.miss, &many.miss),
        ("lookup_hit", "us", &few.hit, &many.hit),
        ("restore", "ms", &few.restore, &many.restore),
    ] {
        let (few, many) = (Figures::of(few), Figures::of(many));
        println!(
            "  {name:<12} {:>9.2} {unit}, p99 {:>9.2}   (with one checkpoint {:.2})",
            many.median, many.p99, few.median
        );
        rows.push(json!({ "name": name, "unit": unit, "one": few, "thousand": many }));
    }
    write("lookup.json", &serde_json::to_string_pretty(&rows)?)?;
    let (miss, hit) = (
        Figures::of(&many.miss).median,
        Figures::of(&many.hit).median,
    );
    if miss > MISS_US || hit > HIT_US {
        bail!("a miss takes {miss} us (at most {MISS_US}), a hit {hit} us (at most {HIT_US})");
    }
    Ok(())
}

/// Times of decisions in microseconds, and from Create to Start in milliseconds.
#[derive(Default)]
struct Times {
    miss: Vec<f64>,
    hit: Vec<f64>,
    restore: Vec<f64>,
}

fn round(node: &Node, runs: usize) -> Result<Times> {
    let mut times = Times::default();
    for run in 0..=runs {
        let other = heart::spec().env("RUN", &run.to_string());
        let miss = decide(node, &other, false)?;
        let hit = decide(node, &heart::spec(), true)?;
        // The first one warms the caches.
        if run > 0 {
            times.miss.push(miss.0);
            times.hit.push(hit.0);
            times.restore.push(hit.1);
        }
    }
    Ok(times)
}

/// Starts one in a pod of its own, as a pod's first container has a new shim.
fn decide(node: &Node, spec: &ContainerSpec, is_hit: bool) -> Result<(f64, f64)> {
    let name = if is_hit { "hit" } else { "miss" };
    let (_pod, container) = node.run_beating(&PodSpec::new("bench", name), spec)?;
    if container.reason_for_cold().is_ok() == is_hit {
        bail!("the {name} was decided otherwise");
    }
    let took = container.decided_in()?;
    Ok((
        took.as_secs_f64() * 1e6,
        millis(container.create_to_start()?),
    ))
}

/// Adds copies of a checkpoint's record, each with a fingerprint of its own, until
/// there are [`MANY`].
fn multiply(node: &Node, checkpoint: &Checkpoint) -> Result<()> {
    let original = node.checkpoint_dir(checkpoint);
    let all = original.parent().context("a parent")?;
    let index = all.with_file_name("index");
    let text = fs::read(original.join("manifest.json"))?;
    let (container, _) = checkpoint.id.rsplit_once('-').context("an id")?;
    for n in 1..MANY {
        let id = format!("{container}-{n}");
        let mut manifest: Value = serde_json::from_slice(&text)?;
        let fingerprint = format!("v2-{n:064x}");
        manifest["id"] = json!(id);
        manifest["fingerprint"] = json!(fingerprint);
        copy(&original, &all.join(&id))?;
        let place = all.join(&id).join("manifest.json");
        fs::remove_file(&place)?;
        fs::write(&place, manifest.to_string())?;
        symlink(
            Path::new("../checkpoints").join(&id),
            index.join(fingerprint),
        )?;
    }
    Ok(())
}

/// Copies a directory by hard links.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-al").arg(from).arg(to).status()?;
    if !status.success() {
        bail!("cp ended with {status}");
    }
    Ok(())
}
