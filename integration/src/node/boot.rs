//! A node's first process: its start makes the node, and its end is the node's.

use super::cgroups::OwnCgroups;
use super::driver::CgroupDriver;
use super::{NodeOptions, Place, sweep};
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// While it is in a node's directory, the directory outlives the node.
const KEEP: &str = "keep";

/// How a node is made from what is in its directory, each time that it boots.
#[derive(Debug)]
pub(super) struct Plan {
    place: Place,
    driver: CgroupDriver,
    cgroups: Option<OwnCgroups>,
    words: Vec<OsString>,
}

impl Plan {
    pub(super) fn new(
        place: &Place,
        (root, template): (&Path, Option<&Path>),
        cni: &Path,
        options: &NodeOptions,
    ) -> Self {
        let flag = |wanted: bool, word: &str| OsString::from(if wanted { word } else { "" });
        let words = vec![
            place.dir.join("init.sh").into(),
            place.dir.clone().into(),
            root.into(),
            template.unwrap_or(Path::new("")).into(),
            options.cgroup_driver.top(&place.id).into(),
            cni.into(),
            flag(options.own_cgroups(), "own"),
            flag(options.pristine, "/opt /usr/local"),
            flag(options.kubelet, "kubelet"),
        ];
        Self {
            place: place.clone(),
            driver: options.cgroup_driver,
            cgroups: options.own_cgroups().then(|| OwnCgroups::new(&place.id)),
            words,
        }
    }

    /// Whether what enters the node has to join its cgroups.
    pub(super) fn has_own_cgroups(&self) -> bool {
        self.cgroups.is_some()
    }

    /// Starts the first process.
    pub(super) fn boot(&self) -> Result<Init> {
        let mut unshare = match &self.cgroups {
            Some(cgroups) => cgroups.unshare(),
            None => Command::new("unshare"),
        };
        let mut unshare = unshare
            .args(["--mount", "--net", "--fork"])
            .args(own_processes(self.driver))
            .arg("bash")
            .args(&self.words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::options().append(true).open(&self.place.log)?)
            .process_group(0)
            .spawn()
            .context("starting `unshare`")?;
        let lifeline = unshare.stdin.take();
        let pid = wait_until_ready(&mut unshare)
            .with_context(|| format!("the node did not start, see {}", self.place.log.display()))?;
        Ok(Init {
            pid,
            network: File::open(format!("/proc/{pid}/ns/net"))?,
            unshare,
            lifeline,
        })
    }

    /// Ends the node, but leaves what is on its disk.
    pub(super) fn halt(&self, init: &mut Init) -> Result<()> {
        let keep = self.place.dir.join(KEEP);
        File::create(&keep)?;
        init.end();
        fs::remove_file(&keep)?;
        if self.has_own_cgroups() {
            sweep::remove_cgroups_named(&self.place.id);
        }
        Ok(())
    }
}

/// The first process of a node that is up.
#[derive(Debug)]
pub(super) struct Init {
    pub(super) pid: Pid,
    pub(super) network: File,
    unshare: Child,
    lifeline: Option<ChildStdin>,
}

impl Init {
    /// Lets it remove the node, and waits for it.
    pub(super) fn end(&mut self) {
        drop(self.lifeline.take());
        let gone = wait_for("the node's end", Duration::from_secs(30), || {
            Ok(self.unshare.try_wait()?)
        });
        if gone.is_err() {
            kill(self.pid, Signal::SIGKILL).ok();
            self.unshare.wait().ok();
        }
    }
}

/// A node has processes of its own, but not when systemd is asked for scopes: a
/// runtime names the process by its pid, and systemd knows its own pids only.
fn own_processes(driver: CgroupDriver) -> &'static [&'static str] {
    match driver {
        CgroupDriver::Cgroupfs => &["--pid", "--mount-proc"],
        CgroupDriver::Systemd => &[],
    }
}

/// Reads init's "ready" and returns its pid.
pub(crate) fn wait_until_ready(unshare: &mut Child) -> Result<Pid> {
    let stdout = unshare.stdout.take().context("no pipe from init")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim() != "ready" {
        bail!("init ended before it was ready");
    }
    only_child(unshare.id())
}

/// The child of a process that has exactly one.
pub(crate) fn only_child(parent: u32) -> Result<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let pid = children
        .split_whitespace()
        .next()
        .with_context(|| format!("process {parent} has no child"))?;
    Ok(Pid::from_raw(pid.parse()?))
}
