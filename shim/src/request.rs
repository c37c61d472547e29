//! What containerd asks for, in our own types: `protocol` makes them, the driver
//! and the runtime behind it serve them.

use std::path::PathBuf;

use oci_spec::runtime::Process;
use reprise_runtime::Result;
use reprise_runtime::rootfs::RootfsMount;

use crate::folder::Folder;
use crate::stdio::Paths;

/// A container is to be made.
#[derive(Debug, Clone)]
pub(crate) struct CreateRequest {
    pub(crate) id: String,
    pub(crate) namespace: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: Vec<RootfsMount>,
    pub(crate) stdio: Paths,
    /// Restore from CRIU's images there, at Start.
    pub(crate) checkpoint: Option<PathBuf>,
    pub(crate) no_pivot_root: bool,
    /// The engine says that the cgroup is systemd's to make; its path says so too.
    pub(crate) systemd_cgroup: bool,
    /// Who owns the pipes at first, as the host numbers users: a user namespace's
    /// root could not take them from us.
    pub(crate) io_owner: Option<(u32, u32)>,
    /// Where runc's state of it would be, if `Root` is given.
    pub(crate) folder: Option<Folder>,
}

/// A process is to be added to a container.
#[derive(Debug, Clone)]
pub(crate) struct ExecRequest {
    pub(crate) exec: String,
    /// What is wrong with it is told when it is started.
    pub(crate) process: Result<Process>,
    pub(crate) stdio: Paths,
}

/// A checkpoint is to be taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are containerd's CheckpointOptions, independent of each other"
)]
pub(crate) struct CheckpointRequest {
    /// Where CRIU's images go besides the store; absent for the store alone.
    pub(crate) path: Option<PathBuf>,
    pub(crate) work_path: Option<PathBuf>,
    /// Name of the image that it becomes, if it is to have another one than ours.
    pub(crate) image: Option<String>,
    pub(crate) exit: bool,
    pub(crate) open_tcp: bool,
    pub(crate) external_unix_sockets: bool,
    pub(crate) file_locks: bool,
}
