//! How a start with restores on compares: a miss, and a restored shell.
//!
//! Medians of interleaved runs, as ratios against runc's shim in the same run. A
//! time is that of the CRI's StartContainer call, in which containerd calls the
//! shim's Create and Start; `Create to Start` is what the shim sees of it.

use super::write;
use crate::measure::{median, millis};
use crate::node::{Node, NodeOptions};
use crate::pod::{ContainerSpec, Pod, PodSpec};
use crate::{heart, programs};
use anyhow::{Result, bail};
use std::time::Instant;

const DEBUG: &str = "version = 1\n[log]\nlevel = \"debug\"\n";
const ON: &str = "version = 1\n[restore]\nenabled = true\n";
const OFF: &str = "version = 1\n[restore]\nenabled = false\n";

/// A kind of start and its times in milliseconds.
type Times = (&'static str, Vec<f64>);

/// A cold start of `true`: runc's shim, ours with restore off, ours with
/// restore on and a checkpoint of something else on the node.
pub(super) fn miss(runs: usize) -> Result<()> {
    let off = Node::start_with(&NodeOptions::with_config(OFF))?;
    let on = Node::start_with(&NodeOptions::with_config(ON))?;
    let (_pod, other) = on.run_heart(&PodSpec::new("bench", "other"))?;
    other.take_checkpoint()?;
    drop(_pod);

    let mut kinds = [
        (
            "runc",
            off.run_pod(&PodSpec::new("bench", "runc").handler("runc"))?,
            Vec::new(),
        ),
        (
            "restore off",
            off.run_pod(&PodSpec::new("bench", "off"))?,
            Vec::new(),
        ),
        (
            "restore on, miss",
            on.run_pod(&PodSpec::new("bench", "on"))?,
            Vec::new(),
        ),
    ];
    let spec = ContainerSpec::new(programs::BUSYBOX).command(&["/bin/true"]);
    for run in 0..=runs {
        for (_, pod, times) in &mut kinds {
            let took = start_once(pod, &spec, run)?;
            // The first one warms the caches.
            if run > 0 {
                times.push(took);
            }
        }
    }
    let results = kinds.map(|(kind, _, times)| (kind, times));
    report("miss", runs, &results)
}

/// A shell: cold under runc's shim, cold under ours, restored.
pub(super) fn restore_busybox(runs: usize) -> Result<()> {
    let node = Node::start_with(&NodeOptions::with_config(DEBUG))?;
    let (_pod, original) = node.run_heart(&PodSpec::new("bench", "original"))?;
    original.take_checkpoint()?;
    let life = original.life()?;
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let mut within_shim = Vec::new();
    for run in 0..=runs {
        let pods = [
            PodSpec::new("bench", "runc").handler("runc"),
            PodSpec::new("bench", "cold").restore("never"),
            PodSpec::new("bench", "restored").restore("require"),
        ];
        for (spec, times) in pods.iter().zip(&mut times) {
            let pod = node.run_pod(spec)?;
            let container = pod.create(&heart::spec())?;
            let begun = Instant::now();
            container.start()?;
            let took = millis(begun.elapsed());
            let is_restored = container.life()? == life;
            if is_restored != (pod.name() == "restored") {
                bail!("pod {} restored: {is_restored}", pod.name());
            }
            if run > 0 {
                times.push(took);
            }
            if run > 0 && is_restored {
                within_shim.push(millis(container.create_to_start()?));
            }
        }
    }
    let [runc, cold, restored] = times;
    let results = [
        ("runc", runc),
        ("cold", cold),
        ("restored", restored),
        ("  Create to Start", within_shim),
    ];
    report("restore-busybox", runs, &results)
}

/// Starts a container that ends at once; the time of StartContainer.
fn start_once(pod: &Pod<'_>, spec: &ContainerSpec, run: usize) -> Result<f64> {
    let container = pod.create(&spec.clone().name(&format!("run-{run}")))?;
    let begun = Instant::now();
    container.start()?;
    let took = millis(begun.elapsed());
    container.wait()?;
    container.remove()?;
    Ok(took)
}

#[allow(clippy::print_stdout, reason = "a benchmark talks to its user")]
fn report(name: &str, runs: usize, results: &[Times]) -> Result<()> {
    let runc = results.first().map_or(0.0, |(_, times)| median(times));
    println!("{name}: StartContainer, medians of {runs} in ms");
    let mut rows = Vec::new();
    for (kind, times) in results {
        let value = median(times);
        let ratio = value / runc;
        println!("  {kind:<18} {value:>7.2}   {ratio:.2} of runc's shim");
        rows.push(serde_json::json!({ "kind": kind, "ms": value, "of_runc": ratio }));
    }
    let file = format!("{name}.json");
    write(&file, &serde_json::to_string_pretty(&rows)?)
}
