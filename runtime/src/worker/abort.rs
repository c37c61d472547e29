//! Ends a restore at any point, so that nothing of it is left.
//!
//! Order matters. Killing CRIU sets the restored tasks running, so they die
//! first; but CRIU traces them, and until it is dead too nobody can reap them.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill as signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::criu::{Criu, LOG};
use super::{criu_log, trace};
use crate::cgroup::Cgroup;

/// How long killed children may take to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// Kills init (and with it its pid namespace), everything in the cgroup and CRIU,
/// and reaps what are the worker's children.
pub(super) fn kill(init: Option<i32>, cgroup: &Cgroup, criu: Option<&mut Criu>) {
    if let Some(init) = init {
        signal(Pid::from_raw(init), Signal::SIGKILL).ok();
    }
    if let Some(criu) = criu {
        kill_criu(criu);
    }
    // Before CRIU named init, only the cgroup knows it.
    if let Err(e) = cgroup.kill_all() {
        trace::note(&e.message);
    }
    reap();
}

/// Kills CRIU and reaps it.
pub(super) fn kill_criu(criu: &mut Criu) {
    // It may be in the cgroup, or not yet.
    signal(Pid::from_raw(criu.pid()), Signal::SIGKILL).ok();
    criu.kill();
}

/// Waits for all children: the worker has no others when it aborts.
fn reap() {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(1)),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return,
        }
    }
    trace::note("a child of the aborted restore does not end");
}

/// Removes the directories below /tmp that a killed CRIU left.
pub(super) fn remove_yards(work: &Path) {
    for yard in criu_log::leftover_yards(&work.join(LOG)) {
        // A mount on it was in namespaces that are gone, unless / is shared on this node.
        // Neither being there is as good.
        nix::mount::umount2(yard.as_str(), nix::mount::MntFlags::MNT_DETACH).ok();
        std::fs::remove_dir(yard).ok();
    }
}

/// Removes what was put into the pod's shared memory.
pub(super) fn remove(path: &Path) {
    let removed = if path.is_dir() && !path.is_symlink() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    if let Err(e) = removed {
        trace::note(&format!("cannot remove {}: {e}", path.display()));
    }
}
