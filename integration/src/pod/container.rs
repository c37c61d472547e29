//! A container and what can be done with it.

use crate::cri::proto::{ContainerState, ContainerStatus, LinuxContainerResources};
use crate::node::Node;
use crate::wait::{patience, wait_for};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// A container of a pod.
#[derive(Clone, Debug)]
pub struct Container<'n> {
    node: &'n Node,
    id: String,
    log: PathBuf,
}

/// What a command in a container did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl<'n> Container<'n> {
    pub(super) fn new(node: &'n Node, id: String, log: PathBuf) -> Self {
        Self { node, id, log }
    }

    /// The container's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The node it is on.
    #[must_use]
    pub fn node(&self) -> &'n Node {
        self.node
    }

    /// Starts it.
    ///
    /// # Errors
    /// containerd's.
    pub fn start(&self) -> Result<()> {
        self.node.cri().start_container(&self.id)
    }

    /// Stops it, with SIGKILL after so many seconds.
    ///
    /// # Errors
    /// containerd's.
    pub fn stop(&self, timeout: i64) -> Result<()> {
        self.node.cri().stop_container(&self.id, timeout)
    }

    /// Removes it.
    ///
    /// # Errors
    /// containerd's.
    pub fn remove(&self) -> Result<()> {
        self.node.cri().remove_container(&self.id)
    }

    /// What containerd says about it.
    ///
    /// # Errors
    /// containerd's.
    pub fn status(&self) -> Result<ContainerStatus> {
        let answer = self.node.cri().container_status(&self.id)?;
        answer.status.context("no status")
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// containerd's.
    pub fn is_running(&self) -> Result<bool> {
        Ok(self.status()?.state() == ContainerState::Running)
    }

    /// The pid of its first process, as the node sees it.
    ///
    /// # Errors
    /// When it has none.
    pub fn pid(&self) -> Result<u32> {
        super::pid_in(&self.node.cri().container_status(&self.id)?.info)
    }

    /// A file of its first process's `/proc` directory.
    ///
    /// # Errors
    /// When it has no process.
    pub fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.pid()?);
        fs::read_to_string(self.node.path(&path)).with_context(|| path)
    }

    /// Where a link in its first process's `/proc` directory leads.
    ///
    /// # Errors
    /// When it has no process.
    pub fn proc_link(&self, link: &str) -> Result<PathBuf> {
        let path = format!("/proc/{}/{link}", self.pid()?);
        fs::read_link(self.node.path(&path)).with_context(|| path)
    }

    /// Waits until it has ended and returns its exit code.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait(&self) -> Result<i32> {
        wait_for("the container's end", Duration::from_secs(30), || {
            let status = self.status()?;
            Ok((status.state() == ContainerState::Exited).then_some(status.exit_code))
        })
    }

    /// Runs a command in it.
    ///
    /// # Errors
    /// containerd's; the command's own failure is in the answer.
    pub fn exec(&self, command: &[&str]) -> Result<Executed> {
        let answer = self.node.cri().exec_sync(&self.id, command)?;
        Ok(Executed {
            code: answer.exit_code,
            stdout: String::from_utf8_lossy(&answer.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&answer.stderr).into_owned(),
        })
    }

    /// Runs a shell script in it and returns its output.
    ///
    /// # Errors
    /// When the script fails.
    pub fn shell(&self, script: &str) -> Result<String> {
        let done = self.exec(&["/bin/sh", "-c", script])?;
        if done.code != 0 {
            bail!("`{script}` ended with {}: {}", done.code, done.stderr);
        }
        Ok(done.stdout)
    }

    /// What it has written to its log, without times and stream names.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        let mut text = String::new();
        for line in fs::read_to_string(&self.log)?.lines() {
            let mut parts = line.splitn(4, ' ');
            let (tag, words) = (parts.nth(2), parts.next());
            text.push_str(words.unwrap_or_default());
            if tag == Some("F") {
                text.push('\n');
            }
        }
        Ok(text)
    }

    /// Waits until its log contains some words, and returns the log.
    ///
    /// # Errors
    /// When they do not come.
    pub fn wait_for_log(&self, words: &str) -> Result<String> {
        wait_for(
            &format!("{words:?} in the log"),
            Duration::from_secs(20),
            || {
                let log = self.log()?;
                Ok(log.contains(words).then_some(log))
            },
        )
    }

    /// Takes a checkpoint with `crictl checkpoint` and returns its archive.
    ///
    /// # Errors
    /// When it fails.
    pub fn checkpoint(&self) -> Result<PathBuf> {
        let archive = self.node.dir().join(format!("{}.tar", self.id));
        let export = format!("--export={}", archive.display());
        let limit = format!("--timeout={}s", 60 * patience());
        self.node
            .crictl([&limit, "checkpoint", &export, &self.id])?;
        Ok(archive)
    }

    /// Gives it another memory limit.
    ///
    /// # Errors
    /// containerd's.
    pub fn limit_memory(&self, bytes: i64) -> Result<()> {
        self.limit(LinuxContainerResources {
            memory_limit_in_bytes: bytes,
            ..LinuxContainerResources::default()
        })
    }

    /// Gives it other limits.
    ///
    /// # Errors
    /// containerd's.
    pub fn limit(&self, limits: LinuxContainerResources) -> Result<()> {
        self.node.cri().update_container(&self.id, limits)
    }

    /// Its memory limit in bytes, as its cgroup has it.
    ///
    /// # Errors
    /// When it has no cgroup.
    pub fn memory_limit(&self) -> Result<String> {
        let cgroup = self.cgroup("memory");
        let v1 = cgroup.join("memory.limit_in_bytes");
        let file = match v1.exists() {
            true => v1,
            false => cgroup.join("memory.max"),
        };
        let limit = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(limit.trim().to_owned())
    }

    /// Its cgroup directory in a controller (cgroup v1) or at all (v2).
    #[must_use]
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        self.node.cgroup_of(&self.id, controller)
    }
}
