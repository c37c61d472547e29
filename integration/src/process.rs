//! A process of a node, seen from outside.

use crate::node::Node;
use crate::pod::Pod;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;

/// A process, by its `/proc` directory.
#[derive(Clone, Debug)]
pub struct Process(PathBuf);

/// What of a process is in memory, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Its share of everything: a page that n processes map counts 1/n.
    pub pss: u64,
    /// Of these what no file stands behind: heap, stacks, changed data.
    pub anonymous: u64,
}

impl Process {
    /// The process that a node knows by this pid.
    #[must_use]
    pub fn of(node: &Node, pid: u32) -> Self {
        Self(node.path(format!("/proc/{pid}")))
    }

    /// The shim of a pod: the parent of its first process.
    ///
    /// # Errors
    /// When the pod has no process.
    pub fn shim_of(pod: &Pod<'_>) -> Result<Self> {
        let status = fs::read_to_string(Self::of(pod.node(), pod.pid()?).0.join("status"))?;
        let parent = field(&status, "PPid:").context("no parent")?;
        Ok(Self::of(pod.node(), u32::try_from(parent)?))
    }

    /// What it holds in memory.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(&self) -> Result<Memory> {
        let text = fs::read_to_string(self.0.join("smaps_rollup"))?;
        let of = |key| field(&text, key).with_context(|| format!("no {key}"));
        Ok(Memory {
            pss: of("Pss:")?,
            anonymous: of("Pss_Anon:")?,
        })
    }

    /// How many descriptors it has open.
    ///
    /// # Errors
    /// When it is gone.
    pub fn open_files(&self) -> Result<usize> {
        Ok(fs::read_dir(self.0.join("fd"))?.count())
    }

    /// The file that it runs, as its own mount namespace knows it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn executable(&self) -> Result<PathBuf> {
        Ok(fs::read_link(self.0.join("exe"))?)
    }

    /// How many threads it has.
    ///
    /// # Errors
    /// When it is gone.
    pub fn threads(&self) -> Result<usize> {
        Ok(fs::read_dir(self.0.join("task"))?.count())
    }
}

/// The number after a key at the beginning of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "Rss:   9 kB\nPss:                2048 kB\nPss_Anon:    512 kB\n";
        assert_eq!(field(text, "Pss:"), Some(2048));
        assert_eq!(field(text, "Pss_Anon:"), Some(512));
        assert_eq!(field(text, "Pss_File:"), None);
    }
}
