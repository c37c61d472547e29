//! What a node can be asked to be like.

use super::{CgroupDriver, config};
use crate::tools::{DEFAULT_CONTAINERD, Tools};
use anyhow::Result;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The containerd minor version, such as `2.3`.
    pub containerd: String,
    /// The content of `/etc/reprise/config.toml`; no file when `None`.
    pub config: Option<String>,
    /// Which `criu` is found on the node's PATH.
    pub criu: Criu,
    /// The handler of pods that name none.
    pub default_runtime: String,
    /// Environment variables of containerd and everything else on the node.
    pub environment: Vec<(String, String)>,
    /// Whether it is as the suites of others expect a node: with cgroups of its
    /// own, since they choose paths; host ports; containerd with the settings
    /// of its own test script, and started again whenever it ends.
    pub suites: bool,
    /// Who makes the pods' cgroups.
    pub cgroup_driver: CgroupDriver,
    /// Whether it is one that has never seen Reprise: no handler, no programs of
    /// ours on its PATH, containerd's configuration where packages put it, and
    /// `/opt` and `/usr/local` of its own.
    pub pristine: bool,
    /// Whether a kubelet is to run on it: with cgroups of its own, host ports, mounts
    /// that propagate as they do where systemd made them, and `/var/lib/kubelet` and
    /// `/var/log` of its own.
    pub kubelet: bool,
    /// The subnet of its pods.
    pub pods: String,
    /// Use this containerd root as it is, without any image.
    pub(crate) images_root: Option<PathBuf>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            containerd: DEFAULT_CONTAINERD.to_owned(),
            config: None,
            criu: Criu::Real,
            default_runtime: "runc".to_owned(),
            environment: Vec::new(),
            suites: false,
            cgroup_driver: CgroupDriver::asked_for(),
            pristine: false,
            kubelet: false,
            pods: "10.88.0.0/16".to_owned(),
            images_root: None,
        }
    }
}

impl NodeOptions {
    /// Whether it is in a cgroup namespace of its own.
    pub(super) fn own_cgroups(&self) -> bool {
        self.suites || self.kubelet
    }

    /// A node with this `/etc/reprise/config.toml`.
    #[must_use]
    pub fn with_config(config: &str) -> Self {
        Self {
            config: Some(config.to_owned()),
            ..Self::default()
        }
    }

    /// A node with this containerd minor version.
    #[must_use]
    pub fn with_containerd(version: &str) -> Self {
        Self {
            containerd: version.to_owned(),
            ..Self::default()
        }
    }

    /// A node with this containerd that has never seen Reprise.
    #[must_use]
    pub fn pristine(containerd: &str) -> Self {
        Self {
            pristine: true,
            ..Self::with_containerd(containerd)
        }
    }

    /// A node with this `criu`.
    #[must_use]
    pub fn with_criu(criu: Criu) -> Self {
        Self {
            criu,
            ..Self::default()
        }
    }
}

/// The `criu` on a node's PATH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Criu {
    /// The one that `make setup` installed.
    Real,
    /// The same, able to dump other users' processes without
    /// `CAP_SYS_RESOURCE`.
    Preloaded,
    /// None at all.
    Missing,
    /// A file that cannot be executed.
    NotExecutable,
    /// A script.
    Script(String),
}

impl Criu {
    /// Puts it into a directory that already holds the real one.
    pub(super) fn install(&self, bin: &Path, tools: &Tools) -> Result<()> {
        let place = bin.join("criu");
        let (text, mode) = match self {
            Self::Real => return Ok(()),
            Self::Missing => return Ok(fs::remove_file(place)?),
            Self::Preloaded => (
                config::criu_with_preload(&tools.rlimit_preload(), &tools.program("criu")),
                0o755,
            ),
            Self::NotExecutable => ("#!/bin/sh\n".to_owned(), 0o644),
            Self::Script(text) => (text.clone(), 0o755),
        };
        fs::remove_file(&place)?;
        fs::write(&place, text)?;
        Ok(fs::set_permissions(
            &place,
            fs::Permissions::from_mode(mode),
        )?)
    }
}
