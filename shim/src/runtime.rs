//! What goes between the driver and the house: how a container starts, what is
//! checkpointed, what came of it.

use std::path::PathBuf;
use std::sync::Arc;

use reprise_runtime::cgroup::Cgroup;
use reprise_runtime::rootfs::RootfsMount;
use reprise_runtime::worker::Restore;

/// How a container is going to start, and what is kept of its spec while it lives.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) way: Way,
    /// A miss or a failed restore is an error instead of a cold start.
    pub(crate) required: bool,
    /// `<namespace>/<name>` of its pod, for the log.
    pub(crate) pod: String,
    pub(crate) group: Arc<Cgroup>,
    /// Its processes end with init by themselves.
    pub(crate) private_pids: bool,
}

/// Cold or restored.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// Cold, and why.
    Cold { why: String },
    /// From this checkpoint.
    Restore { checkpoint: String, from: Restore },
}

/// The container that is checkpointed.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) namespace: String,
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) bundle: PathBuf,
    pub(crate) state_root: PathBuf,
    pub(crate) rootfs: Vec<RootfsMount>,
    /// Layers of the checkpoint that it was restored from, uppermost first.
    pub(crate) layers: Vec<PathBuf>,
}

/// A checkpoint was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dumped {
    /// Its id in the store, if it is there.
    pub(crate) stored: Option<String>,
    pub(crate) frozen_us: u64,
    pub(crate) image_bytes: u64,
}
