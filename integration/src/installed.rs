//! Installing Reprise on a node that has never seen it, as an operator does, and what
//! of the node's files that may change.

use crate::node::{Finished, Node, SERVICE_RESTART};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where an installation may change anything.
const TOUCHED: [&str; 7] = [
    "/etc/containerd",
    "/etc/reprise",
    "/opt",
    "/usr/local/bin",
    "/usr/local/lib",
    "/var/lib/reprise",
    "/run/reprise",
];

/// Bytes from which on a file's content is not read.
const LARGE: u64 = 1 << 20;

impl Node {
    /// Runs `reprise node ...` from where it was built, restarting containerd as this
    /// node does.
    ///
    /// # Errors
    /// When it cannot be started; its own failure is in the answer.
    pub fn reprise_node(&self, command: &str, args: &[&str]) -> Result<Finished> {
        let program = self.tools().program("reprise").display().to_string();
        let mut all = vec!["node", command];
        let restarts = args.iter().any(|arg| arg.contains("restart"));
        if command != "status" && !restarts {
            all.extend(["--restart-command", SERVICE_RESTART]);
        }
        all.extend(args);
        self.run(&program, all)
    }

    /// Installs under a version name, and returns what was said.
    ///
    /// # Errors
    /// When it fails.
    pub fn install(&self, version: &str) -> Result<String> {
        let said = self.reprise_node("install", &["--version-name", version])?;
        let said = said.ok()?;
        crate::eventually("CRI", || self.cri().ready())?;
        Ok(said)
    }

    /// The pid of the containerd that runs: another one after each restart.
    ///
    /// # Errors
    /// When there is none.
    pub fn containerd_pid(&self) -> Result<u32> {
        let text = fs::read_to_string(self.path("/run/containerd.pid"))?;
        text.trim().parse().context("/run/containerd.pid")
    }
}

/// Files, links and directories, with their content, permissions and owners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<String, String>);

impl Files {
    /// Those of a node that an installation may touch.
    ///
    /// # Errors
    /// I/O.
    pub fn of(node: &Node) -> Result<Self> {
        let mut files = Self::default();
        for top in TOUCHED {
            files.add(node, Path::new(top))?;
        }
        ensure!(files.0.len() > TOUCHED.len(), "nothing was looked at");
        Ok(files)
    }

    fn add(&mut self, node: &Node, inside: &Path) -> Result<()> {
        let path = node.path(inside);
        let Ok(about) = fs::symlink_metadata(&path) else {
            return Ok(());
        };
        let what = if about.is_symlink() {
            format!("-> {}", fs::read_link(&path)?.display())
        } else if about.is_dir() {
            "directory".to_owned()
        } else {
            let mut hasher = DefaultHasher::new();
            // The machine's own large programs: whether they were written tells enough.
            match about.len() {
                0..LARGE => fs::read(&path)?.hash(&mut hasher),
                size => (size, about.mtime(), about.mtime_nsec()).hash(&mut hasher),
            }
            format!("file {:x}", hasher.finish())
        };
        let (mode, uid, gid) = (about.mode() & 0o7777, about.uid(), about.gid());
        let line = format!("{what} {mode:o} {uid}:{gid}");
        self.0.insert(inside.display().to_string(), line);
        if about.is_dir() {
            for entry in fs::read_dir(&path)? {
                self.add(node, &inside.join(entry?.file_name()))?;
            }
        }
        Ok(())
    }

    /// Where they differ, one path a line.
    #[must_use]
    pub fn diff(&self, other: &Self) -> String {
        let mut paths: Vec<&String> = self.0.keys().chain(other.0.keys()).collect();
        paths.sort_unstable();
        paths.dedup();
        let differing = paths
            .into_iter()
            .filter(|path| self.0.get(*path) != other.0.get(*path));
        differing
            .map(|path| format!("{path}: {:?} {:?}\n", self.0.get(path), other.0.get(path)))
            .collect()
    }
}
