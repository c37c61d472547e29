//! A checkpoint's manifest: what `manifest.json` beside the images says.

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;

/// The format that this build writes; others are refused.
pub const MANIFEST_VERSION: u32 = 1;

/// What a checkpoint holds and what it is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// The checkpoint's own id: the container's id and the time in milliseconds.
    pub id: String,
    /// What a container must be to stand in for this one.
    pub fingerprint: Fingerprint,
    /// Who it was, for humans and logs.
    pub origin: Origin,
    /// Seconds since the epoch.
    pub created_unix_s: u64,
    /// What the node must offer.
    pub needs: Needs,
    /// Size of CRIU's images, in bytes.
    pub image_bytes: u64,
    /// How long the container stood still, in microseconds.
    pub frozen_us: u64,
    /// Names of the writable layers below `rootfs/`, uppermost first.
    pub layers: Vec<String>,
    /// Size and name of every file of CRIU's images, so that a missing or
    /// truncated one is noticed before CRIU starts.
    pub files: Vec<ImageFile>,
}

/// One file of CRIU's images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Name below `images/`.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// The container that was checkpointed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// containerd's namespace.
    pub namespace: String,
    /// Container id.
    pub container: String,
    /// Container name in its pod, if it is in one.
    pub name: Option<String>,
    /// Pod name.
    pub pod: Option<String>,
    /// Pod namespace.
    pub pod_namespace: Option<String>,
    /// Image, as the user named it.
    pub image: Option<String>,
}

/// What a node must offer for this checkpoint to be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// CPU features that were there (`/proc/cpuinfo` flags), all needed.
    pub cpu_features: Vec<String>,
    /// Kernel that made it, for the log.
    pub kernel: String,
    /// CRIU that made it, as `major * 10000 + minor * 100 + sublevel`.
    pub criu_version: u32,
    /// Memory that the processes held (resident at dump), in bytes.
    pub memory_bytes: u64,
}
