//! What the driver asks of the runtime crate, as traits: the tests of the driver
//! put a stub in its place. Every call blocks.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::runtime::LinuxResources;
use reprise_runtime::Result;
use reprise_runtime::cgroup::Stats;
use reprise_runtime::worker::{
    Create, CriuConfig, Exec, Prepared, Remove, Restore, Started, Stdio,
};

use crate::request::{CheckpointRequest, CreateRequest};

/// Everything that the driver needs done.
pub(crate) trait Runtime: Debug + Send + Sync + 'static {
    /// What one checkpoint of this container will need, made at its creation.
    fn prewarm(&self);

    /// Reads the bundle and decides how the container starts.
    fn plan(&self, request: &CreateRequest) -> Result<Planned>;

    /// A worker process.
    fn spawn(&self) -> Result<Box<dyn Worker>>;

    /// Mounts the root file system alone.
    fn mount_rootfs(&self, request: &CreateRequest) -> Result<()>;

    /// Takes a checkpoint and the store's copy of it.
    fn checkpoint(&self, subject: &Subject, request: &CheckpointRequest) -> Result<Dumped>;

    /// How CRIU is driven.
    fn criu(&self) -> CriuConfig;
}

/// A worker process; see `reprise_runtime::worker::Worker`.
pub(crate) trait Worker: Debug + Send {
    fn pid(&self) -> i32;
    fn prepare(&mut self, create: Create, stdio: Stdio) -> Result<Prepared>;
    fn start(self: Box<Self>) -> Result<()>;
    fn exec(self: Box<Self>, exec: Exec, stdio: Stdio) -> Result<Started>;
    fn remove(self: Box<Self>, remove: Remove) -> Result<()>;
}

/// A container's cgroup; see `reprise_runtime::cgroup::Cgroup`.
pub(crate) trait Group: Debug + Send + Sync {
    fn update(&self, resources: &LinuxResources) -> Result<()>;
    fn freeze(&self) -> Result<()>;
    fn thaw(&self) -> Result<()>;
    fn pids(&self) -> Result<Vec<i32>>;
    fn kill_all(&self) -> Result<()>;
    fn stats(&self) -> Result<Stats>;
    fn oom_watch(&self) -> Result<OwnedFd>;
    fn oom_kills(&self) -> Result<u64>;
}

/// How a container is going to start, and what is kept of its spec.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) way: Way,
    /// A miss or a failed restore is an error instead of a cold start.
    pub(crate) required: bool,
    /// `<namespace>/<name>` of its pod, for the log.
    pub(crate) pod: String,
    pub(crate) group: Arc<dyn Group>,
    /// Its processes end with init by themselves.
    pub(crate) private_pids: bool,
    pub(crate) record: Arc<Record>,
}

/// Cold or restored.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// Cold, and why.
    Cold { why: String },
    /// From this checkpoint.
    Restore { checkpoint: String, from: Restore },
}

/// What a later checkpoint has to know of the container.
#[derive(Debug)]
pub(crate) struct Record {
    /// Who it is and what may stand in for it; absent when it cannot be stored.
    pub(crate) identity: Option<Identity>,
    /// Why it cannot be checkpointed at all.
    pub(crate) refusal: Option<reprise_runtime::Error>,
}

/// Who a container is.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) fingerprint: reprise_runtime::fingerprint::Fingerprint,
    /// A hash for each of its fields.
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) origin: reprise_runtime::checkpoint::Origin,
}

/// The container that is checkpointed.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) namespace: String,
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) bundle: PathBuf,
    pub(crate) state_root: PathBuf,
    /// Its writable layer, when it is an overlay.
    pub(crate) upper: Option<PathBuf>,
    /// Layers of the checkpoint that it was restored from, uppermost first.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) record: Arc<Record>,
}

/// A checkpoint was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dumped {
    /// Its id in the store, if it is there.
    pub(crate) stored: Option<String>,
    pub(crate) frozen_us: u64,
    pub(crate) image_bytes: u64,
}
