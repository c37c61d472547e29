//! Breaking off a container in the making.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use libc::SIGKILL;
use reprise_runtime::{Error, ErrorKind, Result};

use crate::reaper::Reaper;

/// The way to break off a preparation.
#[derive(Debug)]
pub(super) struct Abort {
    reaper: Reaper,
    requested: AtomicBool,
    /// The worker at work, 0 when there is none.
    worker: AtomicI32,
    turn: std::sync::Mutex<()>,
}

impl Abort {
    pub(super) fn new(reaper: Reaper) -> Self {
        Self {
            reaper,
            requested: AtomicBool::new(false),
            worker: AtomicI32::new(0),
            turn: std::sync::Mutex::new(()),
        }
    }

    /// Kills the worker at work and keeps others from beginning.
    pub(super) fn request(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.requested.store(true, Ordering::Relaxed);
        let worker = self.worker.load(Ordering::Relaxed);
        // It may have ended by itself.
        self.reaper.signal(worker, SIGKILL).ok();
    }

    pub(super) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// From now on this worker is the one to kill.
    pub(super) fn watch(&self, pid: i32) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // The reaper vouches for pids that somebody awaits.
        drop(self.reaper.exit_of(pid));
        self.worker.store(pid, Ordering::Relaxed);
        if self.is_requested() {
            return Err(aborted());
        }
        Ok(())
    }
}

/// What a container that was killed in the making says.
pub(super) fn aborted() -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        "The container was killed while it was being created",
    )
}
