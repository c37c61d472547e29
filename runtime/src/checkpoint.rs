//! A checkpoint's manifest: what `manifest.json` beside the images says.

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::cri::annotation;
use crate::fingerprint::{Fingerprint, Hashes, Shown};

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
    /// Names of the writable layers below `rootfs/`, uppermost first. Left empty,
    /// the store fills it in.
    pub layers: Vec<String>,
    /// Size and name of every file of CRIU's images, so that a missing or
    /// truncated one is noticed before CRIU starts. The store fills it in.
    pub files: Vec<ImageFile>,
    /// A hash for each field of the fingerprint, so that one can say in which a
    /// container differs, and find it on another node.
    #[serde(default)]
    pub fields: Hashes,
    /// The fields as people may see them.
    #[serde(default)]
    pub shown: Shown,
    /// The image that the container ran. The shim does not know it, since it asks
    /// nobody; who publishes the checkpoint fills it in.
    #[serde(default)]
    pub base: Option<BaseImage>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// Why it cannot be used: garbage, or a version that this build does not read.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        // The version first: a later one may well hold what this build calls
        // garbage.
        let head: Head = serde_json::from_slice(text)
            .map_err(|e| format!("its manifest is not readable ({e})"))?;
        if head.version != MANIFEST_VERSION {
            return Err(format!(
                "its manifest has version {}, and this build reads version {MANIFEST_VERSION}",
                head.version
            ));
        }
        let manifest: Self = serde_json::from_slice(text)
            .map_err(|e| format!("its manifest is not readable ({e})"))?;
        let mut names = manifest
            .layers
            .iter()
            .chain(manifest.files.iter().map(|f| &f.name));
        match names.find(|name| !is_file_name(name)) {
            Some(bad) => Err(format!("its manifest names a file {bad:?}")),
            None => Ok(manifest),
        }
    }
}

/// What every version of the manifest starts with.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

/// Whether a text names a file in a directory, and nothing else.
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains(['/', '\0'])
}

/// One file of CRIU's images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Name below `images/`.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// The image of the container that was checkpointed, as every node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseImage {
    /// Chain id of its layers, the name of the uppermost one's snapshot.
    pub chain: String,
    /// Digest of its manifest or index, as the user's name for it led there.
    pub digest: Option<String>,
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

impl Origin {
    /// What a spec says of its container.
    #[must_use]
    pub fn of(spec: &Spec, namespace: &str, id: &str) -> Self {
        let said = |name| annotation(spec, name).map(str::to_owned);
        Self {
            namespace: namespace.to_owned(),
            container: id.to_owned(),
            name: said("container-name"),
            pod: said("sandbox-name"),
            pod_namespace: said("sandbox-namespace"),
            image: said("image-name"),
        }
    }
}

/// What a node must offer for this checkpoint to be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// CPU features that were there (`/proc/cpuinfo` flags), all needed.
    pub cpu_features: Vec<String>,
    /// Release of the kernel that made it; an older one, by its first two numbers,
    /// may lack what CRIU found there.
    pub kernel: String,
    /// CRIU that made it, as `major * 10000 + minor * 100 + sublevel`.
    pub criu_version: u32,
    /// Memory that the processes held (resident at dump), in bytes.
    pub memory_bytes: u64,
}
