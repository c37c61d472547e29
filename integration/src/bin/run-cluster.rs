//! Runs a Kubernetes cluster until it is told to end; `hack/cluster` calls it:
//! `run-cluster [--kubernetes 1.37] [--nodes 1] [--containerd 2.3] [--port 0] --dir DIR`
//!
//! Once pods can be started, DIR/kubeconfig leads to it and DIR/nodes tells how to enter
//! its nodes.

use anyhow::{Context, Result, bail};
use integration::{Cluster, ClusterOptions};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> Result<()> {
    let (options, dir) = parse(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _entered = runtime.enter();
    // A signal that comes early is remembered until the cluster is there: only then is
    // all of it removed in one go.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let cluster = Cluster::start(&options)?;
    tell(&cluster, &dir)?;
    runtime.block_on(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    fs::remove_file(dir.join("kubeconfig")).ok();
    Ok(())
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<(ClusterOptions, PathBuf)> {
    let mut options = ClusterOptions::default();
    let mut dir = None;
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} what?"))?;
        match word.as_str() {
            "--kubernetes" => options.kubernetes = value,
            "--nodes" => options.workers = value.parse().context("--nodes")?,
            "--containerd" => options.node.containerd = value,
            "--port" => options.port = value.parse().context("--port")?,
            "--dir" => dir = Some(PathBuf::from(value)),
            other => bail!("unknown option {other}"),
        }
    }
    Ok((options, dir.context("--dir is missing")?))
}

/// The kubeconfig comes last, and whole: by it others see that the cluster is there.
fn tell(cluster: &Cluster, dir: &Path) -> Result<()> {
    let mut nodes = String::new();
    for worker in cluster.workers() {
        let (name, pid) = (worker.name(), worker.pid());
        writeln!(nodes, "{name} {pid} {}", worker.node().dir().display())?;
    }
    fs::write(dir.join("nodes"), nodes)?;
    let partial = dir.join("kubeconfig.partial");
    fs::copy(cluster.kubectl().kubeconfig(), &partial)?;
    Ok(fs::rename(partial, dir.join("kubeconfig"))?)
}
