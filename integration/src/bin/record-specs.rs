//! Records the specs that a real containerd writes: `record-specs DIR` puts
//! `container.json` and `sandbox.json` (of a pod) and `ctr.json` (of `ctr run`)
//! there, as they lie in the bundles.

use anyhow::{Context, Result};
use integration::programs::BUSYBOX;
use integration::{ContainerSpec, Node, PodSpec};
use std::fs;
use std::path::{Path, PathBuf};

const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).map(PathBuf::from);
    let dir = dir.context("usage: record-specs DIR")?;
    fs::create_dir_all(&dir)?;
    let node = Node::start()?;
    let pod = node.run_pod(&PodSpec::new("recorded", "web-1").handler("runc"))?;
    let container = pod.run(&ContainerSpec::shell("sleep 1000").memory(64 << 20))?;
    copy(&node, pod.id(), &dir.join("sandbox.json"))?;
    copy(&node, container.id(), &dir.join("container.json"))?;
    let cgroup = format!("{}/bare", node.cgroup());
    let run = [
        "run",
        "--detach",
        "--null-io",
        "--runtime",
        "io.containerd.runc.v2",
    ];
    let what = ["--cgroup", &cgroup, BUSYBOX, "bare", "/bin/sleep", "1000"];
    node.ctr(run.iter().chain(&what))?;
    copy(&node, "bare", &dir.join("ctr.json"))?;
    node.ctr(["task", "delete", "--force", "bare"])?;
    node.ctr(["container", "rm", "bare"]).map(drop)
}

fn copy(node: &Node, id: &str, to: &Path) -> Result<()> {
    let from = node.path(format!("{BUNDLES}/{id}/config.json"));
    let text = fs::read(&from).with_context(|| format!("reading {}", from.display()))?;
    Ok(fs::write(to, text)?)
}
