//! The chart on a real cluster: `helm install`, `upgrade` under running pods, `uninstall`.
//! No part of `cargo test`: `hack/cluster test`.

use anyhow::{Context, Result, ensure};
use integration::cluster::{DeployedPod, Deployment, Template};
use integration::installed::Files;
use integration::node::{Finished, SERVICE_RESTART};
use integration::programs::BUSYBOX;
use integration::tools::{self, DEFAULT_CONTAINERD};
use integration::{
    Cluster, ClusterOptions, Kubectl, Leftovers, Node, NodeOptions, eventually, wait_for,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: reprise\n  \
    labels: {pod-security.kubernetes.io/enforce: privileged}\n";

/// How many pods run through the upgrade, under each runtime.
const PODS: usize = 10;

/// Within how long a kubelet has forgotten pods that are gone: it looks once a minute.
const FORGETS: Duration = Duration::from_secs(150);

/// Makes the image that the chart installs, of the programs under test.
fn image(node: &Node, dir: &Path) -> Result<()> {
    let archive = dir.join("installer.tar");
    let programs = node.tools().program("reprise");
    let programs = programs.parent().context("a directory")?;
    // Packages are where the tests' other images have them from.
    let images = std::fs::canonicalize(node.tools().image("busybox"))?;
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
    let copied = Command::new("cp").arg("-r").arg(from).arg(&to).status()?;
    ensure!(copied.success(), "copying the chart");
    let file = to.join("templates/daemonset.yaml");
    let bin_dir = "- --bin-dir=";
    let text = std::fs::read_to_string(&file)?;
    ensure!(text.contains(bin_dir), "{text}");
    let more = format!("- --version-name={version}\n            {bin_dir}");
    std::fs::write(file, text.replace(bin_dir, &more))?;
    Ok(to)
}

struct Helm<'a> {
    kubectl: &'a Kubectl,
    node: &'a Node,
    dir: &'a Path,
}

impl Helm<'_> {
    fn run(&self, words: &[&str]) -> Result<Finished> {
        let helm = tools::workspace().join("target/tools/bin/helm");
        let mut command = Command::new("timeout");
        command.arg("300").arg(helm).args(words);
        command.args(["--namespace", "reprise", "--kubeconfig"]);
        command.arg(self.kubectl.kubeconfig());
        for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(home, self.dir.join("helm"));
        }
        Finished::of(format!("helm {}", words.join(" ")), &mut command)
    }

    /// `install` or `upgrade`, until the nodes have it.
    fn apply(&self, what: &str, chart: &Path) -> Result<()> {
        let containerd = self.node.tools().program("containerd");
        let containerd = format!("installer.containerd={}", containerd.display());
        let restart = format!("installer.restartCommand={SERVICE_RESTART}");
        let chart = chart.display().to_string();
        let words = [
            what,
            "reprise",
            &chart,
            "--set-string",
            &containerd,
            "--set-literal",
            &restart,
        ];
        self.run(&words)?.ok()?;
        let status = [
            "rollout",
            "status",
            "daemonset/reprise-installer",
            "--timeout=100s",
        ];
        let done = self
            .kubectl
            .call([&["-n", "reprise"], &status[..]].concat());
        done.with_context(|| self.told()).map(drop)
    }

    fn told(&self) -> String {
        let pods = ["describe", "pods", "-n", "reprise"];
        self.kubectl.call(pods).unwrap_or_default()
    }
}

fn sleepers<'c>(cluster: &'c Cluster, class: &str) -> Result<Deployment<'c>> {
    let template = Template {
        container: ", command: [sleep, infinity]".to_owned(),
        ..Template::new(&format!("under-{class}"), class, BUSYBOX)
    };
    Deployment::apply(cluster, cluster.kubectl(), &template, PODS)
}

fn is_as_before(deployment: &Deployment<'_>, before: &[DeployedPod]) -> Result<()> {
    assert_eq!(deployment.ready(PODS)?, before);
    assert!(before.iter().all(|pod| pod.restarts == 0), "{before:?}");
    Ok(())
}

#[test]
fn pods_live_through_install_upgrade_and_uninstall() -> Result<()> {
    let options = ClusterOptions {
        node: NodeOptions::pristine(DEFAULT_CONTAINERD),
        ..ClusterOptions::asked_for()
    };
    if let Some(missing) = Cluster::missing(&options.kubernetes) {
        println!("skipped: {missing}");
        return Ok(());
    }
    let cluster = Cluster::start(&options)?;
    let (kubectl, node) = (cluster.kubectl(), cluster.worker("node-1")?.node());
    let dir = tempfile::tempdir()?;
    image(node, dir.path())?;
    let helm = Helm {
        kubectl,
        node,
        dir: dir.path(),
    };
    kubectl.apply(NAMESPACE)?;
    kubectl.apply(
        "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: runc}\nhandler: runc\n",
    )?;
    kubectl.call(["label", "node", "node-1", "reprise.dev/runtime=true"])?;
    let runc = sleepers(&cluster, "runc")?;
    let under_runc = runc.ready(PODS)?;
    let files = Files::of(node)?;
    let leftovers = Leftovers::of(node)?;

    helm.apply("install", &chart_of("1.0.0", dir.path())?)?;
    eventually("CRI", || node.cri().ready())?;
    let reprise = sleepers(&cluster, "reprise")?;
    let under_reprise = reprise.ready(PODS)?;
    is_as_before(&runc, &under_runc)?;

    let containerd = node.containerd_pid()?;
    helm.apply("upgrade", &chart_of("2.0.0", dir.path())?)?;
    let status = node.reprise_node("status", &["--json"])?;
    let status: serde_json::Value = status.json()?;
    assert_eq!(status["installed"], "2.0.0", "{status}");
    assert_eq!(status["running"]["1.0.0"], PODS, "{status}");
    assert_eq!(
        node.containerd_pid()?,
        containerd,
        "no restart for an upgrade"
    );
    is_as_before(&runc, &under_runc)?;
    is_as_before(&reprise, &under_reprise)?;

    // As long as one of them runs it stays, and Helm says so.
    let refused = helm.run(&["uninstall", "reprise", "--timeout=15s"])?;
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(helm.told().contains("still run: 10"), "{}", helm.told());
    is_as_before(&reprise, &under_reprise)?;

    reprise.delete()?;
    let gone = helm.run(&["uninstall", "reprise", "--timeout=200s"])?;
    gone.ok().with_context(|| helm.told())?;
    is_as_before(&runc, &under_runc)?;
    let classes = kubectl.call(["get", "runtimeclasses", "-o", "name"])?;
    assert_eq!(classes.trim(), "runtimeclass.node.k8s.io/runc");
    assert_eq!(files.diff(&Files::of(node)?), "");
    let mut left = String::new();
    let clean = wait_for("the node to be as before", FORGETS, || {
        left = Leftovers::of(node)?.since(&leftovers);
        // It was restarted twice.
        let restarted = |line: &str| line.contains("containerd --config");
        Ok(left.lines().all(restarted).then_some(()))
    });
    clean.with_context(|| left.clone())?;
    is_as_before(&runc, &under_runc)
}
