//! What goes between the driver and the house: how a container starts, what is
//! checkpointed, what came of it.

use std::path::PathBuf;
use std::sync::Arc;

use reprise_runtime::cgroup::Cgroup;
use reprise_runtime::checkpoint::Origin;
use reprise_runtime::fingerprint::Subject as Likeness;
use reprise_runtime::plan::Why;
use reprise_runtime::rootfs::RootfsMount;
use reprise_runtime::worker::Restore;

/// How a container is going to start, and what is kept of its spec while it lives.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) way: Way,
    /// How long it took to decide, in microseconds: the volumes that count read, the
    /// spec hashed, the store asked.
    pub(crate) decide_us: u64,
    /// What it is, for a note; none for a pod's sandbox.
    pub(crate) identity: Option<Identity>,
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
    Cold { why: Why },
    /// From this checkpoint.
    Restore { checkpoint: String, from: Restore },
}

/// Who a container is, and what must be equal for another to stand in for it.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) origin: Origin,
    /// Absent when its image or its volumes cannot be compared.
    pub(crate) likeness: Option<Likeness>,
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
    /// containerd's socket.
    pub(crate) containerd: PathBuf,
}

/// A checkpoint was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dumped {
    /// Its id in the store, if it is there.
    pub(crate) stored: Option<String>,
    pub(crate) frozen_us: u64,
    pub(crate) image_bytes: u64,
    /// From the end of the dump until it could be found.
    pub(crate) publish_us: u64,
}
