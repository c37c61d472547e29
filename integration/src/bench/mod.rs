//! Benchmarks over a real containerd, always against runc's shim on the same node
//! and in the same run; `hack/bench/` calls them, docs/performance.md explains them.

pub(crate) mod bundle;
mod calls;
mod cluster;
mod cluster_soak;
mod cold;
mod crowd;
mod direct;
mod lookup;
mod memory;
mod options;
mod pairs;
mod report;
mod starts;

pub use options::Options;

use crate::node::Node;
use crate::soak::soak;
use crate::tools;
use anyhow::{Result, bail};
use options::What;
use std::fs;
use std::path::PathBuf;

/// Runs what was asked for, prints it and writes it to `target/bench`.
///
/// # Errors
/// When something does not work, and when a shim has grown.
pub fn run(options: &Options) -> Result<()> {
    match options.what {
        What::Cluster => cluster::run(options.scales),
        What::ClusterSoak => cluster_soak::run(options),
        What::Cold => cold::run(options),
        What::Lookup => lookup::run(options.runs),
        What::Miss => starts::miss(options.runs),
        What::RestoreBusybox => starts::restore_busybox(options.runs),
        What::Soak => run_soak(options.cycles),
    }
}

#[allow(clippy::print_stdout, reason = "a benchmark talks to its user")]
fn run_soak(cycles: usize) -> Result<()> {
    let node = Node::start()?;
    let seen = soak(&node, "reprise", cycles)?;
    println!(
        "soak: {cycles} containers through one shim: {} -> {} KiB, {} -> {} descriptors, {} -> {} threads; nothing left on the node",
        seen.before.anonymous_kib,
        seen.after.anonymous_kib,
        seen.before.open_files,
        seen.after.open_files,
        seen.before.threads,
        seen.after.threads,
    );
    write("soak.json", &serde_json::to_string_pretty(&seen)?)?;
    if seen.growth_kib() > MOST_GROWTH_KIB || seen.after.open_files > seen.before.open_files {
        bail!("the shim has grown");
    }
    Ok(())
}

/// What the stacks of threads that are kept for the next ones, and an allocator, may
/// come to in another order of the same requests. A leak of half a kilobyte for each
/// container goes beyond that in a thousand.
pub const MOST_GROWTH_KIB: u64 = 256;

/// Writes one of the reports.
#[allow(clippy::print_stdout, reason = "a benchmark talks to its user")]
fn write(name: &str, text: &str) -> Result<()> {
    let file = dir()?.join(name);
    fs::write(&file, text)?;
    println!("written: {}", file.display());
    Ok(())
}

fn dir() -> Result<PathBuf> {
    let dir = tools::workspace().join("target/bench");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}
