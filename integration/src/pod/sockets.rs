//! Waiting until a service has put its closed connections away.

use super::Container;
use crate::wait::wait_for;
use anyhow::Result;
use std::collections::HashSet;
use std::fs;
use std::time::Duration;

/// `LISTEN` in `/proc/net/tcp`.
const LISTENING: &str = "0A";

impl Container<'_> {
    /// Waits until every socket it holds listens or is no internet socket.
    /// Containerd's own restore fails on any other.
    ///
    /// # Errors
    /// When it keeps a connection.
    pub fn wait_until_no_connection(&self) -> Result<()> {
        let limit = Duration::from_secs(20);
        wait_for("the last connection's end", limit, || {
            let held = self.held_sockets()?;
            let harmless = self.harmless_sockets()?;
            Ok(held.is_subset(&harmless).then_some(()))
        })
    }

    /// The inodes of its sockets.
    fn held_sockets(&self) -> Result<HashSet<String>> {
        let fds = self.node().path(format!("/proc/{}/fd", self.pid()?));
        let mut inodes = HashSet::new();
        for entry in fs::read_dir(fds)? {
            // A descriptor may be closed between listing and reading it.
            let Ok(target) = fs::read_link(entry?.path()) else {
                continue;
            };
            let target = target.to_string_lossy();
            if let Some(inode) = target.strip_prefix("socket:[") {
                inodes.insert(inode.trim_end_matches(']').to_owned());
            }
        }
        Ok(inodes)
    }

    /// The inodes of listening and of unix sockets in its network namespace.
    fn harmless_sockets(&self) -> Result<HashSet<String>> {
        let mut inodes = HashSet::new();
        for table in ["net/tcp", "net/tcp6"] {
            for line in self.proc(table)?.lines() {
                let mut words = line.split_whitespace();
                if words.nth(3) == Some(LISTENING) {
                    inodes.extend(words.nth(5).map(str::to_owned));
                }
            }
        }
        for line in self.proc("net/unix")?.lines() {
            inodes.extend(line.split_whitespace().nth(6).map(str::to_owned));
        }
        Ok(inodes)
    }
}
