//! `images.seal = "background"`: a checkpoint's layer is made when nobody waits for the
//! checkpoint any more.
//!
//! containerd packs it, in its own process and at its own priority; what is ours to give
//! up is our own, and that one checkpoint at a time is packed on a node.

use std::fs::File;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use reprise_runtime::error::Doing;
use reprise_runtime::sys::{Scheduling, set_io_priority, set_scheduling};
use reprise_runtime::{Error, ErrorKind, Result};

use super::meter::Meter;
use super::publish::Published;
use super::seal::seal;

/// `SCHED_IDLE` of `sched(7)`.
const IDLE: u32 = 5;
/// `IOPRIO_CLASS_IDLE` of `ioprio_set(2)`.
const IO_IDLE: i32 = 3;
/// Below the store.
const LOCK: &str = "staging/.seal";

/// Makes the layer of a checkpoint that has just been published, after those that came
/// before it.
///
/// # Errors
/// containerd's, I/O. The image is as it was then.
pub(crate) fn seal_published(published: &Published, store: &Path) -> Result<()> {
    give_way();
    let lock = store.join(LOCK);
    let doing = || format!("Cannot lock {}", lock.display());
    let file = File::create(&lock).doing(doing())?;
    let _turn =
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| Error::because(doing(), &e))?;
    match seal(&published.client, &published.image, &Meter::default()) {
        // It was removed meanwhile.
        Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
        sealed => sealed.map(drop),
    }
}

/// Lets everybody else go first. Where that is refused it is done all the same.
fn give_way() {
    let idle = Scheduling {
        policy: IDLE,
        ..Scheduling::default()
    };
    set_scheduling(idle).ok();
    set_io_priority(IO_IDLE, 0).ok();
}
