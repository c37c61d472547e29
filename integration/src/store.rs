//! What containerd's store and the node's records hold.

use crate::checkpoints::fields_of;
use crate::node::Node;
use crate::wait::wait_for;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CONTENT: &str = "/var/lib/containerd/io.containerd.content.v1.content";
const SNAPSHOTS: &str = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";

/// Everything in containerd's store and in ours, by name.
#[derive(Debug)]
pub struct Store(BTreeSet<String>);

impl Store {
    /// What is there now.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn of(node: &Node) -> Result<Self> {
        let mut found = BTreeSet::new();
        for (what, words) in [
            ("lease", ["leases", "ls", "-q"]),
            ("image", ["images", "ls", "-q"]),
            ("blob", ["content", "ls", "-q"]),
        ] {
            for line in node.ctr(words)?.lines() {
                found.insert(format!("{what} {line}"));
            }
        }
        for line in node.ctr(["snapshots", "ls"])?.lines().skip(1) {
            let name = line.split_whitespace().next().unwrap_or_default();
            found.insert(format!("snapshot {name}"));
        }
        for (what, dir) in [
            ("record", "/var/lib/reprise/checkpoints".to_owned()),
            ("staging", "/var/lib/reprise/staging".to_owned()),
            ("ingest", format!("{CONTENT}/ingest")),
            ("directory", SNAPSHOTS.to_owned()),
        ] {
            for name in names(&node.path(&dir)) {
                let place = node.path(&dir).join(&name);
                // Of what is being written the name says nothing.
                let of = fs::read_to_string(place.join("ref")).unwrap_or_default();
                if what == "ingest" && of.is_empty() && !place.join("data").exists() {
                    // A containerd that is killed before it has noted what it is about
                    // to write knows nothing of this directory for ever ("failed to
                    // read ingest ref" in its log): no blob, and nobody's to remove.
                    continue;
                }
                found.insert(format!("{what} {name} {of}").trim_end().to_owned());
            }
        }
        Ok(Self(found))
    }

    /// What is here and was not there before, one a line.
    #[must_use]
    pub fn since(&self, before: &Self) -> String {
        let new: Vec<&str> = self.0.difference(&before.0).map(String::as_str).collect();
        new.join("\n")
    }
}

/// Waits until there is nothing that was not there before.
///
/// # Errors
/// Names what is left after ten seconds.
pub fn is_as_before(node: &Node, before: &Store) -> Result<()> {
    let mut left = String::new();
    let clean = wait_for("the store to be as before", Duration::from_secs(10), || {
        left = Store::of(node)?.since(before);
        Ok(left.is_empty().then_some(()))
    });
    clean.with_context(|| format!("left behind:\n{left}"))
}

/// Has containerd collect what nothing keeps.
///
/// # Errors
/// containerd's.
pub fn collect_garbage(node: &Node) -> Result<()> {
    node.ctr(["leases", "create", "--id", "collect-garbage"])?;
    node.ctr(["leases", "delete", "--sync", "collect-garbage"])
        .map(drop)
}

/// Names of all images.
///
/// # Errors
/// When they cannot be listed.
pub fn images(node: &Node) -> Result<BTreeSet<String>> {
    let listed = node.ctr(["images", "ls", "-q"])?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// Bytes on disk of every file of containerd and ours, by inode.
#[derive(Debug)]
pub struct OnDisk(BTreeMap<(u64, u64), u64>);

impl OnDisk {
    /// What has come since: new files, and growth of old ones.
    #[must_use]
    pub fn since(&self, before: &Self) -> u64 {
        let grown = |(inode, bytes): (&(u64, u64), &u64)| {
            bytes.saturating_sub(before.0.get(inode).copied().unwrap_or(0))
        };
        self.0.iter().map(grown).sum()
    }
}

/// Bytes on disk now.
///
/// # Errors
/// When they cannot be listed.
pub fn bytes_on_disk(node: &Node) -> Result<OnDisk> {
    // Blocks of what was written just now are allocated late.
    nix::unistd::sync();
    let mut found = BTreeMap::new();
    each_file(node, &mut |about| {
        found.insert((about.dev(), about.ino()), about.blocks() * 512);
    })?;
    Ok(OnDisk(found))
}

/// Inodes of all files that are larger.
///
/// # Errors
/// When they cannot be listed.
pub fn inodes_larger_than(node: &Node, bytes: u64) -> Result<Vec<u64>> {
    let mut found = BTreeSet::new();
    each_file(node, &mut |about| {
        if about.len() > bytes {
            found.insert(about.ino());
        }
    })?;
    Ok(found.into_iter().collect())
}

fn each_file(node: &Node, each: &mut impl FnMut(&fs::Metadata)) -> Result<()> {
    let mut dirs: Vec<PathBuf> = ["/var/lib/containerd", "/var/lib/reprise", "/run"]
        .map(|dir| node.path(dir))
        .to_vec();
    dirs.push(node.dir().join("tmp"));
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let entry = entry?;
            // What goes while we look is not what we look for.
            let Ok(about) = fs::symlink_metadata(entry.path()) else {
                continue;
            };
            if about.is_dir() {
                if !is_mounted(&entry.path()) {
                    dirs.push(entry.path());
                }
            } else if about.is_file() {
                each(&about);
            }
        }
    }
    Ok(())
}

/// A container's root file system shows files that are elsewhere, too.
fn is_mounted(dir: &Path) -> bool {
    dir.ends_with("rootfs")
}

/// How long it took from the end of a dump until the checkpoint could be found, as a
/// shim has logged it after so many bytes of log.
///
/// # Errors
/// When there is no such log line.
pub fn publish_time(node: &Node, after: usize) -> Result<Duration> {
    wait_for(
        "the shim's line in the log",
        Duration::from_secs(10),
        || {
            let log = node.log()?;
            let mut lines = log.get(after..).unwrap_or_default().lines();
            let Some(line) = lines.find(|line| line.contains("container checkpointed")) else {
                return Ok(None);
            };
            let us = fields_of(line).remove("publish_us");
            let us = us.context("a time")?.parse()?;
            Ok(Some(Duration::from_micros(us)))
        },
    )
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
