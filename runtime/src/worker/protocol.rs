//! What shim and worker say to each other.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::Process;
use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error, Result};
use crate::rootfs::RootfsMount;

/// A request to the worker. One worker answers one command, save that
/// `Create` is followed by `Start`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Command {
    /// Make a container exist and hold it still. Stdio travels beside it.
    Create(Box<Create>),
    /// Let the prepared container go.
    Start,
    /// Run one more process in a running container. Stdio travels beside it.
    Exec(Box<Exec>),
    /// Take a checkpoint.
    Dump(Box<Dump>),
    /// Remove everything that a container left: libcontainer's state, mounts,
    /// cgroups, staging directories, and its processes if any live.
    Remove(Remove),
}

/// The worker's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// To `Create`. A console's master travels beside it.
    Prepared {
        /// Init's pid in the worker's pid namespace (the node's).
        pid: i32,
        /// How long each step took.
        timings: Vec<Timing>,
    },
    /// To `Exec`, with a console's master beside it.
    Started {
        /// The new process' pid in the node's pid namespace.
        pid: i32,
    },
    /// To `Dump`.
    Dumped(Dumped),
    /// To `Start` and `Remove`.
    Done,
    /// The command failed; everything it made is undone.
    Failed(Error),
}

/// How long a step took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// The step, in words that suit a log field (`criu_restore`).
    pub step: String,
    /// Microseconds.
    pub us: u64,
}

/// The three file descriptors that a container process gets. For a terminal all
/// are absent, since it gets a console. Absent without a terminal is /dev/null.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Read end of the pipe for standard input.
    pub stdin: Option<OwnedFd>,
    /// Write end of the pipe for standard output.
    pub stdout: Option<OwnedFd>,
    /// Write end of the pipe for standard error.
    pub stderr: Option<OwnedFd>,
}

/// What a stream is that nobody wants.
pub(super) fn open_null() -> Result<File> {
    let mut options = File::options();
    options.read(true).write(true);
    options.open("/dev/null").doing("Cannot open /dev/null")
}

/// Where CRIU is and how it is driven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CriuConfig {
    /// The executable, a path or a name looked up on PATH.
    pub path: PathBuf,
    /// Where CRIU's work directories (log, stats) go, one folder per operation:
    /// `<work_root>/<namespace>-<container>-<dump|restore>-<n>`. The log of a
    /// failed operation is kept, and the error names it.
    pub work_root: PathBuf,
    /// How long one operation may take, in milliseconds.
    pub timeout_ms: u64,
}

/// Make a container exist and hold it still.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Create {
    /// containerd's namespace.
    pub namespace: String,
    /// Container id.
    pub id: String,
    /// The bundle: `config.json` and `rootfs/`.
    pub bundle: PathBuf,
    /// Mounts of the rootfs; empty when it is in the bundle already.
    pub rootfs: Vec<RootfsMount>,
    /// Whether the process gets a console.
    pub terminal: bool,
    /// Where libcontainer keeps its states: one folder per container below.
    pub state_root: PathBuf,
    /// The checkpoint to restore; absent means cold.
    pub restore: Option<Restore>,
    /// How CRIU is driven (used when `restore` is there).
    pub criu: CriuConfig,
    /// `chroot` instead of `pivot_root` (for a rootfs on an initramfs).
    pub no_pivot_root: bool,
}

/// A checkpoint to restore from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// CRIU's images and `descriptors.json`, read-only to us.
    pub images: PathBuf,
    /// Writable layers of the checkpointed container, uppermost first, that go
    /// between the new container's writable layer and the image's.
    pub layers: Vec<PathBuf>,
}

/// Run one more process in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exec {
    /// containerd's namespace.
    pub namespace: String,
    /// Container id.
    pub id: String,
    /// Exec id.
    pub exec_id: String,
    /// The container's bundle.
    pub bundle: PathBuf,
    /// Where libcontainer keeps its states.
    pub state_root: PathBuf,
    /// What to run, as containerd sent it.
    pub process: Process,
}

/// Take a checkpoint of a container. Unless `exit` is set it goes on running,
/// or stays paused if it was, whether the dump succeeds or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own in containerd's request"
)]
pub struct Dump {
    /// containerd's namespace.
    pub namespace: String,
    /// Container id.
    pub id: String,
    /// Init's pid in the node's pid namespace.
    pub pid: i32,
    /// The container's bundle.
    pub bundle: PathBuf,
    /// Where libcontainer keeps its states.
    pub state_root: PathBuf,
    /// Existing empty directory (or one that holds other files) into which the
    /// images and `descriptors.json` go, flat.
    pub images: PathBuf,
    /// CRIU's work directory, if the caller asked for one (`--work-path`).
    pub work_path: Option<PathBuf>,
    /// How CRIU is driven.
    pub criu: CriuConfig,
    /// The container is killed after a successful dump.
    pub exit: bool,
    /// Keep established TCP connections in the image. Off: they are left out of
    /// the image so that the restored program sees them closed, while the
    /// original keeps them.
    pub open_tcp: bool,
    /// Dump unix sockets whose other end is outside.
    pub external_unix_sockets: bool,
    /// Dump file locks.
    pub file_locks: bool,
    /// Copies to make while the container stands still: its writable layer.
    pub copies: Vec<DiffCopy>,
}

/// A directory to copy as it is (owners, modes, xattrs, whiteouts, holes).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffCopy {
    /// An existing directory.
    pub from: PathBuf,
    /// Made by the copy; must not exist.
    pub to: PathBuf,
}

/// A checkpoint was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dumped {
    /// How long the container stood still, in microseconds.
    pub frozen_us: u64,
    /// Size of all image files, in bytes.
    pub image_bytes: u64,
    /// Memory in the images, in bytes: what a restore will take at least.
    #[serde(default)]
    pub memory_bytes: u64,
    /// How long each step took.
    pub timings: Vec<Timing>,
}

/// Remove what a container left behind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Remove {
    /// containerd's namespace.
    pub namespace: String,
    /// Container id.
    pub id: String,
    /// The container's bundle.
    pub bundle: PathBuf,
    /// Where libcontainer keeps its states.
    pub state_root: PathBuf,
    /// [`CriuConfig::work_root`]: what a killed CRIU left is told by its log.
    pub criu_work: PathBuf,
}

/// The container exists and stands still, held by its worker.
#[derive(Debug)]
pub struct Prepared {
    /// Init's pid in the node's pid namespace.
    pub pid: i32,
    /// The console's master, for a terminal.
    pub console: Option<OwnedFd>,
    /// How long each step took.
    pub timings: Vec<Timing>,
}

/// The exec'd process runs.
#[derive(Debug)]
pub struct Started {
    /// Its pid in the node's pid namespace.
    pub pid: i32,
    /// The console's master, for a terminal.
    pub console: Option<OwnedFd>,
}
