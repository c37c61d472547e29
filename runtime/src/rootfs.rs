//! The rootfs of a container, as containerd describes it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A mount of the rootfs, as containerd sends it in `CreateTaskRequest.rootfs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsMount {
    /// `overlay`, `bind`, ...
    pub typ: String,
    /// Source.
    pub source: String,
    /// Below the rootfs; empty is the rootfs itself.
    pub target: String,
    /// Options in fstab's words.
    pub options: Vec<String>,
}

impl RootfsMount {
    /// The whole rootfs as one overlay.
    #[must_use]
    pub fn overlay(options: Vec<String>) -> Self {
        Self {
            typ: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options,
        }
    }

    /// The writable layer of a rootfs, when that is an overlay with one.
    #[must_use]
    pub fn upper_dir(rootfs: &[Self]) -> Option<PathBuf> {
        let overlay = rootfs.iter().find(|mount| mount.typ == "overlay")?;
        let mut options = overlay.options.iter();
        let upper = options.find_map(|option| option.strip_prefix("upperdir="))?;
        Some(PathBuf::from(upper))
    }
}
