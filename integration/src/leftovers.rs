//! What a node holds besides its programs: to tell that nothing was left.

use crate::node::Node;
use crate::wait::wait_for;
use anyhow::Result;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Processes, mounts, cgroups, network namespaces and files of a node's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers(BTreeSet<String>);

impl Leftovers {
    /// What is there now.
    ///
    /// # Errors
    /// When the node cannot be looked at.
    pub fn of(node: &Node) -> Result<Self> {
        let mut found = BTreeSet::new();
        processes(node, &mut found)?;
        for line in fs::read_to_string(node.mountinfo())?.lines() {
            let place = line.split(' ').nth(4).unwrap_or_default();
            found.insert(format!("mount {place}"));
        }
        for cgroup in node.cgroups() {
            found.insert(format!("cgroup {}", cgroup.display()));
        }
        for dir in [
            "/run/netns",
            "/run/reprise/k8s.io",
            "/run/containerd/s",
            "/run/containerd/fifo",
            "/run/containerd/io.containerd.runtime.v2.task/k8s.io",
            "/run/containerd/io.containerd.grpc.v1.cri/containers",
            "/run/containerd/io.containerd.grpc.v1.cri/sandboxes",
            "/var/lib/containerd/io.containerd.runtime.v2.task/k8s.io",
            "/var/lib/containerd/io.containerd.grpc.v1.cri/containers",
            "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes",
            "/var/lib/containerd/tmpmounts",
            "/var/lib/cni/networks/node",
            "/var/lib/reprise/checkpoints",
            "/var/lib/reprise/staging",
        ] {
            files(node, dir, &mut found);
        }
        files(
            node,
            &node.dir().join("tmp").display().to_string(),
            &mut found,
        );
        Ok(Self(found))
    }

    /// What is here and was not there before, one a line.
    #[must_use]
    pub fn since(&self, before: &Self) -> String {
        let new: Vec<&str> = self.0.difference(&before.0).map(String::as_str).collect();
        new.join("\n")
    }
}

impl Node {
    /// Waits until there is nothing that was not there before.
    ///
    /// # Errors
    /// Names what is left after ten seconds.
    pub fn is_as_before(&self, before: &Leftovers) -> Result<()> {
        self.is_as_before_but(before, Duration::from_secs(10), |_| false)
    }

    /// Waits until all lines that were not there before are another's.
    ///
    /// # Errors
    /// Names what is left after that time.
    pub fn is_as_before_but(
        &self,
        before: &Leftovers,
        within: Duration,
        is_anothers: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let mut left = String::new();
        let clean = wait_for("the node to be as before", within, || {
            left = Leftovers::of(self)?.since(before);
            Ok(left.lines().all(&is_anothers).then_some(()))
        });
        clean.map_err(|error| error.context(format!("left behind:\n{left}")))
    }
}

fn processes(node: &Node, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(node.path("/proc"))? {
        let entry = entry?;
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid.parse::<u32>().is_err() {
            continue;
        }
        let Ok(words) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        if !node.has_process(&entry.path()) {
            continue;
        }
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        found.insert(format!("process {pid} {words}"));
    }
    Ok(())
}

/// Not every directory exists on every node.
fn files(node: &Node, dir: &str, found: &mut BTreeSet<String>) {
    // Caches that outlive the pods they were made for.
    let kept = ["last_reserved_ip.0", "lock"];
    for entry in fs::read_dir(node.path(Path::new(dir)))
        .into_iter()
        .flatten()
    {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        if !kept.contains(&name.as_str()) {
            found.insert(format!("file {dir}/{name}"));
        }
    }
}
