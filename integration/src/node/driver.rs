//! Who makes the cgroups of a node's pods, and what they are called then.

use super::sweep;
use std::path::{Path, PathBuf};

/// A node's cgroup driver, as a kubelet knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// The runtime makes directories.
    Cgroupfs,
    /// The runtime asks systemd for scopes in slices.
    Systemd,
}

impl CgroupDriver {
    /// What `REPRISE_TEST_CGROUP_DRIVER=systemd` asks for; else cgroupfs.
    #[must_use]
    pub fn asked_for() -> Self {
        match std::env::var("REPRISE_TEST_CGROUP_DRIVER").as_deref() {
            Ok("systemd") => Self::Systemd,
            _ => Self::Cgroupfs,
        }
    }

    /// As containerd's and the scripts' configuration has it.
    pub(super) fn is_systemd(self) -> bool {
        self == Self::Systemd
    }

    /// The directory of all cgroups of a node. systemd nests a slice at each
    /// dash of its name.
    pub(super) fn top(self, node: &str) -> String {
        match self {
            Self::Cgroupfs => node.to_owned(),
            Self::Systemd => format!("{}.slice", node.replace('-', "_")),
        }
    }

    /// `linux.cgroupsPath` of a container.
    pub(super) fn cgroups_path(self, node: &str, id: &str) -> String {
        let top = self.top(node);
        match self {
            Self::Cgroupfs => format!("/{top}/{id}"),
            Self::Systemd => format!("{top}:test:{id}"),
        }
    }

    /// Where the cgroup of a pod's container is, from a hierarchy's root.
    pub(super) fn directory(self, node: &str, id: &str) -> PathBuf {
        let top = PathBuf::from(self.top(node));
        match self {
            Self::Cgroupfs => top.join(id),
            Self::Systemd => top.join(format!("cri-containerd-{id}.scope")),
        }
    }
}

/// The root of a controller's hierarchy (cgroup v1), or of the only one (v2).
pub(super) fn hierarchy(controller: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    match sweep::is_unified() {
        true => root.to_path_buf(),
        false => root.join(controller),
    }
}
