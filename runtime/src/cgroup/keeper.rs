//! A process that does nothing but be the first in a unit's cgroup: systemd makes
//! no scope without one, and the container's own comes later.

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::error::{Doing, Result};
use crate::sys;

/// Keeps a new cgroup in being until it is dropped. The container's process has
/// to have joined by then.
#[derive(Debug)]
#[must_use = "the cgroup goes with its keeper, unless a process joined it"]
pub struct Keeper(Option<Pid>);

impl Keeper {
    /// Nothing has to be kept: a cgroup of cgroupfs stays by itself.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Forks one. Only in a process with one thread.
    pub(super) fn new() -> Result<Self> {
        let parent = nix::unistd::getpid();
        let Some(pid) = sys::fork().doing("Cannot fork a first process for the cgroup")? else {
            wait_for_the_end(parent);
        };
        Ok(Self(Some(Pid::from_raw(pid))))
    }

    /// Its pid; -1 when there is none.
    pub(super) fn pid(&self) -> i32 {
        self.0.map_or(-1, Pid::as_raw)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Killed already with the whole cgroup, and maybe reaped, is as good.
            kill(pid, Signal::SIGKILL).ok();
            waitpid(pid, None).ok();
        }
    }
}

fn wait_for_the_end(parent: Pid) -> ! {
    // It must not outlive the worker; should that be gone already, it ends here.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).ok();
    while nix::unistd::getppid() == parent {
        nix::unistd::pause();
    }
    sys::exit_now(0)
}
