//! The worker: a single-threaded process of our own binary that makes one
//! container exist, runs one exec, or takes one checkpoint. This file is the
//! parent's side: spawn, ask, wait with a deadline, kill.
//!
//! ```text
//!  Worker::spawn ─┬─ prepare ── Prepared { pid } ── start ── (worker exits)
//!                 ├─ exec ───── Started { pid }              (worker exits)
//!                 ├─ dump ───── Dumped                       (worker exits)
//!                 └─ remove ─── ()                           (worker exits)
//! ```
//!
//! Requests and replies are JSON datagrams over a `SEQPACKET` socket pair; file
//! descriptors travel beside them. All calls block: the shim makes them on a
//! blocking thread. The worker ends when its socket closes; a container that was
//! prepared but not started dies with it. Its exit is reaped by the shim.

mod protocol;

pub use protocol::{
    Command, Create, CriuConfig, DiffCopy, Dump, Dumped, Exec, Prepared, Remove, Reply, Restore,
    RootfsMount, Started, Stdio, Timing,
};

use std::path::Path;
use std::time::Duration;

use crate::error::Result;

/// A worker process, idle or holding a prepared container still. Dropping it
/// closes its socket: it undoes what it holds and exits.
#[derive(Debug)]
pub struct Worker {}

impl Worker {
    /// Spawns a worker from our own executable (`/proc/self/exe`, through a
    /// detached read-only mount so that no container can write to it).
    ///
    /// # Errors
    /// The process cannot be made.
    pub fn spawn(_deadline: Duration) -> Result<Self> {
        unimplemented!()
    }

    /// The worker's own pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        unimplemented!()
    }

    /// Makes a container exist, cold or from a checkpoint, and holds it still.
    ///
    /// # Errors
    /// It could not; everything is undone. With `restore` set, the caller may try
    /// again cold.
    pub fn prepare(&mut self, _create: Create, _stdio: Stdio) -> Result<Prepared> {
        unimplemented!()
    }

    /// Lets the prepared container go.
    ///
    /// # Errors
    /// It could not be started (execve failed, a hook failed, the worker died);
    /// the container is dead then.
    pub fn start(self) -> Result<()> {
        unimplemented!()
    }

    /// Runs one more process in a running container.
    ///
    /// # Errors
    /// It could not be started.
    pub fn exec(self, _exec: Exec, _stdio: Stdio) -> Result<Started> {
        unimplemented!()
    }

    /// Takes a checkpoint.
    ///
    /// # Errors
    /// It could not; the container is as before.
    pub fn dump(self, _dump: Dump) -> Result<Dumped> {
        unimplemented!()
    }

    /// Removes what a container left behind.
    ///
    /// # Errors
    /// Something could not be removed; everything else was.
    pub fn remove(self, _remove: Remove) -> Result<()> {
        unimplemented!()
    }
}

/// The worker's face of the binary: serves one command on the socket that the
/// parent left at descriptor 3. Returns the exit code.
#[must_use]
pub fn run_child() -> u8 {
    unimplemented!()
}
