//! The chart as its users meet it: by Helm, on nodes that have never seen Reprise.

use super::{Cluster, ClusterOptions, Kubectl};
use crate::node::{Finished, Node, NodeOptions, SERVICE_RESTART};
use crate::tools::{self, DEFAULT_CONTAINERD};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The node that gets it.
const NODE: &str = "node-1";

/// The installer is privileged.
const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: reprise\n  \
    labels: {pod-security.kubernetes.io/enforce: privileged}\n";

/// One node that has never seen Reprise, and the Kubernetes that was asked for.
#[must_use]
pub fn pristine() -> ClusterOptions {
    ClusterOptions {
        node: NodeOptions::pristine(DEFAULT_CONTAINERD),
        ..ClusterOptions::asked_for()
    }
}

/// Makes the image that the chart installs, of the programs under test.
fn image(node: &Node, dir: &Path) -> Result<()> {
    let archive = dir.join("installer.tar");
    let programs = node.tools().program("reprise");
    let programs = programs.parent().context("a directory")?;
    // Packages are where the tests' other images have them from.
    let images = fs::canonicalize(node.tools().image("busybox"))?;
    let cache = images.ancestors().nth(2).context("the cache")?;
    let made = Command::new(tools::workspace().join("hack/images/build"))
        .arg("installer")
        .arg(&archive)
        .env("REPRISE_BIN", programs)
        .env("CRIU", node.tools().program("criu"))
        .env("REPRISE_IMAGE_APT", cache.join("apt"))
        .output()?;
    ensure!(made.status.success(), "{made:?}");
    node.ctr(["images", "import", &archive.display().to_string()])?;
    Ok(())
}

/// The chart, with what makes it another version of Reprise's to install.
fn chart_of(version: &str, dir: &Path) -> Result<PathBuf> {
    let (from, to) = (
        tools::workspace().join("hack/deploy/chart"),
        dir.join(version),
    );
    if to.exists() {
        return Ok(to);
    }
    let copied = Command::new("cp").arg("-r").arg(from).arg(&to).status()?;
    ensure!(copied.success(), "copying the chart");
    let file = to.join("templates/daemonset.yaml");
    let bin_dir = "- --bin-dir=";
    let text = fs::read_to_string(&file)?;
    ensure!(text.contains(bin_dir), "{text}");
    let more = format!("- --version-name={version}\n            {bin_dir}");
    fs::write(file, text.replace(bin_dir, &more))?;
    Ok(to)
}

/// Helm, for a cluster of pristine nodes, the first of which gets Reprise.
#[derive(Debug)]
pub struct Helm<'a> {
    kubectl: &'a Kubectl,
    node: &'a Node,
    dir: TempDir,
}

impl<'a> Helm<'a> {
    /// Brings the image to the cluster's only node, and makes the namespace.
    ///
    /// # Errors
    /// When either fails.
    pub fn on(cluster: &'a Cluster) -> Result<Self> {
        let helm = Self {
            kubectl: cluster.kubectl(),
            node: cluster.worker(NODE)?.node(),
            dir: tempfile::tempdir()?,
        };
        image(helm.node, helm.dir.path())?;
        helm.kubectl.apply(NAMESPACE)?;
        Ok(helm)
    }

    /// Runs it; its own failure is in the answer.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, words: &[&str]) -> Result<Finished> {
        let helm = tools::workspace().join("target/tools/bin/helm");
        let mut command = Command::new("timeout");
        command.arg("300").arg(helm).args(words);
        command.args(["--namespace", "reprise", "--kubeconfig"]);
        command.arg(self.kubectl.kubeconfig());
        for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(home, self.dir.path().join("helm"));
        }
        Finished::of(format!("helm {}", words.join(" ")), &mut command)
    }

    /// `install` or `upgrade` to a version, until the node has it.
    ///
    /// # Errors
    /// When Helm refuses, or the node does not get it.
    pub fn apply(&self, what: &str, version: &str) -> Result<()> {
        self.begin(what, version)?;
        self.rolled_out()
    }

    /// The same, without waiting for the node.
    ///
    /// # Errors
    /// When Helm refuses.
    pub fn begin(&self, what: &str, version: &str) -> Result<()> {
        let containerd = self.node.tools().program("containerd");
        let containerd = format!("installer.containerd={}", containerd.display());
        let restart = format!("installer.restartCommand={SERVICE_RESTART}");
        let chart = chart_of(version, self.dir.path())?.display().to_string();
        let words = [
            what,
            "reprise",
            &chart,
            "--set-string",
            &containerd,
            "--set-literal",
            &restart,
        ];
        self.run(&words)?.ok().map(drop)
    }

    /// Waits until the installer is done.
    ///
    /// # Errors
    /// When it is not within 100 s, with what it said.
    pub fn rolled_out(&self) -> Result<()> {
        let installer = "daemonset/reprise-installer";
        let status = ["rollout", "status", installer, "--timeout=100s"];
        let done = self
            .kubectl
            .call([&["-n", "reprise"], &status[..]].concat());
        done.with_context(|| self.told()).map(drop)
    }

    /// Has the installer try at once, and not when the kubelet would.
    ///
    /// # Errors
    /// When its pod cannot be deleted.
    pub fn try_again(&self) -> Result<()> {
        let pods = ["pods", "-n", "reprise", "--all", "--grace-period=1"];
        self.kubectl.delete(&pods)
    }

    /// What the installer says.
    #[must_use]
    pub fn told(&self) -> String {
        let pods = ["describe", "pods", "-n", "reprise"];
        self.kubectl.call(pods).unwrap_or_default()
    }

    /// The node's label and annotation of ours; null where it has none.
    ///
    /// # Errors
    /// When the node cannot be asked for.
    pub fn marks(&self) -> Result<[Value; 2]> {
        let node = self.kubectl.get(["node", NODE])?;
        let metadata = &node["metadata"];
        Ok([
            metadata["labels"]["reprise.dev/runtime"].clone(),
            metadata["annotations"]["reprise.dev/version"].clone(),
        ])
    }

    /// The node's events with a reason: how often, and in which words.
    ///
    /// # Errors
    /// When they cannot be asked for.
    pub fn events(&self, reason: &str) -> Result<Vec<(u64, String)>> {
        let fields = format!("--field-selector=involvedObject.name={NODE},reason={reason}");
        let events = self.kubectl.get(["events", &fields])?;
        let events = events["items"].as_array().context("a list")?.iter();
        let event = |event: &Value| {
            let words = event["message"].as_str().unwrap_or_default();
            (event["count"].as_u64().unwrap_or(0), words.to_owned())
        };
        Ok(events.map(event).collect())
    }
}
