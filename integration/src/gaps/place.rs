//! Where one container of one case lives, and the words that differ from one
//! container to the next.

use super::stand::Stand;
use crate::Runtime;
use crate::containerd::Output;
use crate::wait::patience;
use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of the node, an id, and what both are called in reports.
#[derive(Debug)]
pub struct Place<'s> {
    stand: &'s Stand,
    runtime: Runtime,
    id: String,
    dir: PathBuf,
}

impl<'s> Place<'s> {
    /// A new place, for a container under this runtime.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn new(stand: &'s Stand, runtime: Runtime) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        // Some of their cgroups are beside those of other harnesses.
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("gap-{}-{next:04}", std::process::id());
        let dir = stand.node().dir().join("gaps").join(&id);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self {
            stand,
            runtime,
            id,
            dir,
        })
    }

    /// The container's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The runtime it is made with.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// What it stands on.
    #[must_use]
    pub fn stand(&self) -> &'s Stand {
        self.stand
    }

    /// Its directory on the node.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its cgroup.
    #[must_use]
    pub fn cgroup(&self) -> String {
        format!("{}/{}", self.stand.node().cgroup(), self.id)
    }

    /// A text of a case with this place's words filled in: `@P@`, `@ID@`,
    /// `@CGROUP@` and `@NODECG@`, the parent of all cgroups.
    #[must_use]
    pub fn fill(&self, text: &str) -> String {
        text.replace("@P@", &self.dir.display().to_string())
            .replace("@ID@", &self.id)
            .replace("@CGROUP@", &self.cgroup())
            .replace(
                "@NODECG@",
                self.stand.node().cgroup().trim_start_matches('/'),
            )
    }

    /// A text that was seen, with this place's words taken out.
    #[must_use]
    pub fn plain(&self, text: &str) -> String {
        let node = self.stand.node().cgroup();
        let plain = text
            .replace(&self.dir.display().to_string(), "@P@")
            .replace(&self.id, "@ID@")
            .replace(&self.stand.node().dir().display().to_string(), "@NODE@")
            .replace(node.trim_start_matches('/'), "@NODE@");
        // Each container has layers of its own.
        super::words::without_numbers(&plain, "/snapshots/")
    }

    /// The same, line by line.
    #[must_use]
    pub fn lines(&self, text: &str) -> Value {
        let plain = self.plain(text);
        json!(plain.lines().collect::<Vec<_>>())
    }

    /// Runs a shell script on the node, with the variables of a case.
    ///
    /// # Errors
    /// When it fails.
    pub fn sh(&self, script: &str, pid: u32) -> Result<String> {
        let mut command = self.stand.node().command("timeout");
        let output = command
            .args([
                &(20 * patience()).to_string(),
                "sh",
                "-c",
                &format!("cd \"$P\"\n. \"$FACTS\"\n{script}"),
            ])
            .env("P", &self.dir)
            .env("FACTS", self.stand.facts())
            .env("ID", &self.id)
            .env("PID", pid.to_string())
            .env("CGROUP", self.cgroup())
            .env("RUNTIME", self.runtime.name())
            .output()?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            bail!("`{script}` ended with {}: {words}", output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What is left of the container and must not be: cgroups, mounts, its bundle.
    ///
    /// # Errors
    /// When the node cannot be looked at.
    pub fn left(&self) -> Result<Vec<String>> {
        let node = self.stand.node();
        let mut left = Vec::new();
        for group in node.cgroups() {
            if group.ends_with(&self.id) {
                left.push(format!("cgroup {}", group.display()));
            }
        }
        for dir in [
            "/run/containerd/io.containerd.runtime.v2.task/k8s.io",
            "/run/reprise/k8s.io",
        ] {
            let dir = format!("{dir}/{}", self.id);
            if node.path(&dir).exists() {
                left.push(format!("file {dir}"));
            }
            left.extend(self.mounts(&dir)?.iter().map(|at| format!("mount {at}")));
        }
        Ok(left.iter().map(|line| self.plain(line)).collect())
    }

    /// The node's mounts at and below a directory.
    fn mounts(&self, dir: &str) -> Result<Vec<String>> {
        let table = fs::read_to_string(self.stand.node().path("/proc/1/mountinfo"))?;
        let places = table.lines().filter_map(|line| line.split(' ').nth(4));
        let below = places.filter(|place| {
            let rest = place.strip_prefix(dir);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        Ok(below.map(str::to_owned).collect())
    }

    /// Pipes for the output of a process, one for a terminal.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn output(&self, name: &str, terminal: bool) -> Result<Heard> {
        let names: &[&'static str] = match terminal {
            true => &["terminal"],
            false => &["stdout", "stderr"],
        };
        let mut streams = Vec::new();
        let mut paths = Vec::new();
        for stream in names {
            let pipe = self.dir.join(format!("{name}.{stream}"));
            nix::unistd::mkfifo(&pipe, Mode::from_bits_truncate(0o600))?;
            // Open before anybody writes: what is written then stays in the pipe.
            let reader = fs::File::options()
                .read(true)
                .custom_flags(OFlag::O_NONBLOCK.bits())
                .open(&pipe)?;
            fcntl(reader.as_raw_fd(), FcntlArg::F_SETPIPE_SZ(1 << 20))?;
            streams.push((*stream, reader));
            paths.push(pipe.display().to_string());
        }
        let mut paths = paths.into_iter();
        let output = Output {
            stdout: paths.next().unwrap_or_default(),
            stderr: paths.next().unwrap_or_default(),
            terminal,
        };
        Ok(Heard { output, streams })
    }
}

impl Drop for Place<'_> {
    /// Best effort: the node takes everything with it.
    fn drop(&mut self) {
        let mounts = self.mounts(&self.dir.display().to_string());
        for _ in mounts.iter().flatten() {
            self.sh(
                "grep -o \" $P[^ ]*\" /proc/self/mountinfo | sort -r | xargs -r umount -l",
                0,
            )
            .ok();
        }
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// What a process writes.
#[derive(Debug)]
pub struct Heard {
    /// As containerd is told.
    pub output: Output,
    streams: Vec<(&'static str, fs::File)>,
}

impl Heard {
    /// What was written, by stream. Complete once the process is deleted.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(self, place: &Place<'_>) -> Result<Value> {
        let mut heard = json!({});
        for (stream, mut pipe) in self.streams {
            let mut bytes = Vec::new();
            match pipe.read_to_end(&mut bytes) {
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    return Err(error.into());
                }
                _ => {}
            }
            if !bytes.is_empty() {
                heard[stream] = place.lines(&String::from_utf8_lossy(&bytes));
            }
        }
        Ok(heard)
    }
}
