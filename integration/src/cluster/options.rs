//! What a cluster can be asked to be like.

use crate::node::NodeOptions;
use crate::tools::Tools;
use std::path::PathBuf;

/// The Kubernetes that most tests run on.
pub const DEFAULT_KUBERNETES: &str = "1.37";

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The Kubernetes minor version, such as `1.37`.
    pub kubernetes: String,
    /// How many worker nodes it has, 9 at most.
    pub workers: usize,
    /// What all of them are like; their network and what a kubelet needs is added. A
    /// cluster of pristine nodes has no RuntimeClasses yet.
    pub node: NodeOptions,
    /// The loopback's port at which its API server is reached; any free one if it is 0.
    pub port: u16,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            kubernetes: DEFAULT_KUBERNETES.to_owned(),
            workers: 1,
            node: NodeOptions::default(),
            port: 0,
        }
    }
}

impl ClusterOptions {
    /// The default with the Kubernetes that `$KUBERNETES` asks for, as the commands of
    /// `hack` hand it on.
    #[must_use]
    pub fn asked_for() -> Self {
        let asked = std::env::var("KUBERNETES");
        Self {
            kubernetes: asked.unwrap_or_else(|_| DEFAULT_KUBERNETES.to_owned()),
            ..Self::default()
        }
    }
}

/// The programs that a cluster is made of.
pub(super) fn programs(kubernetes: &str) -> Vec<PathBuf> {
    let mut programs = vec![Tools::etcd()];
    programs.extend(
        [
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubectl",
            "kubelet",
        ]
        .map(|name| Tools::kubernetes(kubernetes, name)),
    );
    programs
}
