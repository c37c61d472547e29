//! Control groups of a container: create, join, apply, freeze, stats, remove.

use std::os::fd::OwnedFd;

use oci_spec::runtime::{LinuxResources, Spec};

use crate::error::Result;

/// The cgroup (v1: one per controller; v2: one) of one container. Holds paths
/// only; making one does no I/O beyond learning the node's hierarchy once.
#[derive(Debug, Clone)]
pub struct Cgroup {}

/// Makes the first join cheap: on v1 the first write to a `cgroup.procs` waits
/// for an RCU grace period of 5-15 ms, so one's own pid is written into its own
/// cgroup at the beginning of Create. Errors do not matter.
pub fn prewarm() {}

impl Cgroup {
    /// The cgroup that the spec's `cgroupsPath` names; `/<id>` below the root
    /// when it is absent. A relative path is taken from the root, as runc does.
    ///
    /// # Errors
    /// A path that leaves the hierarchy, or one in systemd's form.
    pub fn of(_spec: &Spec, _id: &str) -> Result<Self> {
        unimplemented!()
    }

    /// Absolute path below every controller's root, for libcontainer's spec.
    #[must_use]
    pub fn path(&self) -> &str {
        unimplemented!()
    }

    /// Makes the directories (cpuset primed from the parents).
    ///
    /// # Errors
    /// I/O.
    pub fn create(&self) -> Result<()> {
        unimplemented!()
    }

    /// Moves a process (all its threads) in, in every hierarchy, `name=systemd`
    /// and the unified one included.
    ///
    /// # Errors
    /// I/O; the process is gone.
    pub fn join(&self, _pid: i32) -> Result<()> {
        unimplemented!()
    }

    /// Writes limits and device rules, as runc does for the same spec (default
    /// devices added, nothing given means deny).
    ///
    /// # Errors
    /// The kernel's refusal, with file, value and what it means.
    pub fn apply(&self, _resources: Option<&LinuxResources>) -> Result<()> {
        unimplemented!()
    }

    /// Changes limits of a running container; what is absent stays as it is.
    ///
    /// # Errors
    /// The kernel's refusal, with file and value.
    pub fn update(&self, _resources: &LinuxResources) -> Result<()> {
        unimplemented!()
    }

    /// Freezes all processes; back only when they are.
    ///
    /// # Errors
    /// I/O; not frozen within a second (then thawed again).
    pub fn freeze(&self) -> Result<()> {
        unimplemented!()
    }

    /// Thaws.
    ///
    /// # Errors
    /// I/O.
    pub fn thaw(&self) -> Result<()> {
        unimplemented!()
    }

    /// The directory of the freezer (v1) or the cgroup (v2), for CRIU.
    #[must_use]
    pub fn freezer_dir(&self) -> std::path::PathBuf {
        unimplemented!()
    }

    /// (mountpoint inside a container, directory of this cgroup) of every v1
    /// controller mount below `/sys/fs/cgroup`, or the single v2 one.
    #[must_use]
    pub fn mounts(&self) -> Vec<(std::path::PathBuf, std::path::PathBuf)> {
        unimplemented!()
    }

    /// All processes, those of child cgroups included.
    ///
    /// # Errors
    /// I/O.
    pub fn pids(&self) -> Result<Vec<i32>> {
        unimplemented!()
    }

    /// Kills every process, child cgroups included, thawing first, until none is
    /// left or a deadline passes. Nothing there is no error.
    ///
    /// # Errors
    /// Processes that do not die.
    pub fn kill_all(&self) -> Result<()> {
        unimplemented!()
    }

    /// What the container used.
    ///
    /// # Errors
    /// I/O.
    pub fn stats(&self) -> Result<Stats> {
        unimplemented!()
    }

    /// A descriptor that becomes readable (v1: an eventfd; v2: inotify on
    /// memory.events) when the OOM killer may have struck, and the count so far.
    ///
    /// # Errors
    /// I/O, or no memory controller.
    pub fn oom_watch(&self) -> Result<OwnedFd> {
        unimplemented!()
    }

    /// How often the OOM killer struck in this cgroup.
    ///
    /// # Errors
    /// I/O.
    pub fn oom_kills(&self) -> Result<u64> {
        unimplemented!()
    }

    /// Removes the directories, children first. Nothing there is no error.
    ///
    /// # Errors
    /// Still busy after a deadline.
    pub fn remove(&self) -> Result<()> {
        unimplemented!()
    }
}

/// Figures in the shape that containerd's metrics want.
#[derive(Debug, Clone)]
pub struct Stats {}
