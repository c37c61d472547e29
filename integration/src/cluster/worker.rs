//! A node with a kubelet and a kube-proxy.

use super::control::ControlPlane;
use super::credentials::User;
use super::daemon::Daemon;
use super::network::{self, DNS, PODS};
use super::options::ClusterOptions;
use crate::node::{CgroupDriver, Node, NodeOptions};
use crate::registry::Registry;
use crate::tools::Tools;
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A worker of a cluster.
#[derive(Debug)]
pub struct Worker {
    name: String,
    number: usize,
    kubernetes: String,
    node: Node,
    kubelet: Daemon,
    proxy: Daemon,
    registry: Registry,
    images: PathBuf,
}

/// Starts the node that becomes a worker.
pub(super) fn node(options: &ClusterOptions, number: usize) -> Result<Node> {
    Node::start_with(&NodeOptions {
        kubelet: true,
        pods: network::pods(number),
        cgroup_driver: CgroupDriver::Cgroupfs,
        ..options.node.clone()
    })
    .with_context(|| format!("node-{number}"))
}

/// Whether a node, as `kubectl` tells of it, may be given pods.
pub(super) fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions.is_some_and(|conditions| {
        conditions
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    });
    ready && node["spec"]["taints"].is_null()
}

impl Worker {
    /// Makes a node one of the cluster's.
    pub(super) fn join(
        control: &ControlPlane,
        options: &ClusterOptions,
        node: Node,
        number: usize,
    ) -> Result<Self> {
        network::connect(control.pid(), node.pid(), number)?;
        let name = format!("node-{number}");
        let images = control.dir().join("registry");
        let registry = Registry::serve(&node, &images)?;

        let (dir, file) = (node.dir(), |file: &str| node.dir().join(file));
        control.config_of(User::Kubelet(number), &file("kubelet.kubeconfig"))?;
        control.config_of(User::Proxy, &file("proxy.kubeconfig"))?;
        let ca = control.credentials().file("ca.crt").display().to_string();
        let kubelet = KUBELET.replace("@CA@", &ca).replace("@DNS@", DNS);
        fs::write(file("kubelet.yaml"), kubelet)?;
        let proxy = PROXY
            .replace("@DIR@", &dir.display().to_string())
            .replace("@NODE@", &name)
            .replace("@PODS@", PODS);
        fs::write(file("proxy.yaml"), proxy)?;

        let log = |name: &str| node.log_file().with_extension(format!("{name}.log"));
        let command = kubelet_command(&options.kubernetes, &node, number, &name);
        let kubelet = Daemon::start("kubelet", &log("kubelet"), command)?;
        let command = proxy_command(&options.kubernetes, &node);
        let proxy = Daemon::start("kube-proxy", &log("kube-proxy"), command)?;
        Ok(Self {
            name,
            number,
            kubernetes: options.kubernetes.clone(),
            node,
            kubelet,
            proxy,
            registry,
            images,
        })
    }

    /// Its name, such as `node-1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address in the cluster's network.
    #[must_use]
    pub fn address(&self) -> String {
        network::address(self.number)
    }

    /// Its first process, whose namespaces are the node's.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.node.pid().as_raw()
    }

    /// The node, with its containerd: `stop_containerd`, `start_containerd` and so on.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The kubelet's log.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn kubelet_log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.kubelet.log())?)
    }

    /// Ends the kubelet; pods go on.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn stop_kubelet(&self) -> Result<()> {
        self.kubelet.stop(Signal::SIGTERM)
    }

    /// Starts the kubelet again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_kubelet(&self) -> Result<()> {
        let command = kubelet_command(&self.kubernetes, &self.node, self.number, &self.name);
        self.kubelet.start_again(command)
    }

    pub(super) fn daemons(&self) -> [&Daemon; 2] {
        [&self.kubelet, &self.proxy]
    }

    pub(super) fn reboot(&mut self, control: &ControlPlane) -> Result<()> {
        self.node.reboot()?;
        network::connect(control.pid(), self.node.pid(), self.number)?;
        self.registry = Registry::serve(&self.node, &self.images)?;
        self.proxy.stop(Signal::SIGKILL)?;
        self.proxy
            .start_again(proxy_command(&self.kubernetes, &self.node))?;
        self.kubelet.stop(Signal::SIGKILL)?;
        self.start_kubelet()
    }
}

fn kubelet_command(kubernetes: &str, node: &Node, number: usize, name: &str) -> Command {
    let mut command = node.command(Tools::kubernetes(kubernetes, "kubelet"));
    let file = |name: &str| node.dir().join(name).display().to_string();
    command
        .arg(format!("--config={}", file("kubelet.yaml")))
        .arg(format!("--kubeconfig={}", file("kubelet.kubeconfig")))
        .arg(format!("--hostname-override={name}"))
        .arg(format!("--node-ip={}", network::address(number)));
    command
}

fn proxy_command(kubernetes: &str, node: &Node) -> Command {
    let mut command = node.command(Tools::kubernetes(kubernetes, "kube-proxy"));
    let config = node.dir().join("proxy.yaml");
    command.arg(format!("--config={}", config.display()));
    command
}

/// Images are the tests' own, some of them under two names, and cannot be pulled again.
/// The disk is others', too: nothing is to go because it is full. The rest is what this machine can bear: cgroup v1, and a root who may
/// not lower an oom_score_adj.
const KUBELET: &str = r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication:
  anonymous: { enabled: false }
  webhook: { enabled: true }
  x509: { clientCAFile: "@CA@" }
authorization: { mode: Webhook }
clusterDomain: cluster.local
clusterDNS: ["@DNS@"]
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
oomScoreAdj: 0
maxPods: 250
volumePluginDir: /var/lib/kubelet/volume-plugins
imageGCHighThresholdPercent: 100
imagePullCredentialsVerificationPolicy: NeverVerify
evictionHard:
  memory.available: 100Mi
  nodefs.available: 1%
  nodefs.inodesFree: 1%
  imagefs.available: 1%
"#;

/// It leaves alone what of connection tracking belongs to the whole machine.
const PROXY: &str = r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: "@NODE@"
clusterCIDR: "@PODS@"
nodePortAddresses: [primary]
clientConnection: { kubeconfig: "@DIR@/proxy.kubeconfig" }
oomScoreAdj: 0
conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s }
"#;
