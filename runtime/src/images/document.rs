//! Config and manifest of a checkpoint image.

use std::collections::BTreeMap;

use reprise_runtime::Result;
use reprise_runtime::checkpoint::Manifest;
use reprise_runtime::error::Doing;
use reprise_runtime::node;
use reprise_runtime::timestamp::rfc3339;
use serde_json::json;

use super::base::Base;
use super::names::{CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE, criu, go_arch, ours};

/// A layer, as config and manifest name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Media type of the blob.
    pub(crate) media_type: String,
    /// Digest of the blob.
    pub(crate) digest: String,
    /// Its size in bytes.
    pub(crate) bytes: u64,
    /// Digest of the tar in it.
    pub(crate) diff_id: String,
    /// Whether the blob exists.
    pub(crate) sealed: bool,
}

impl Layer {
    /// The layer of a checkpoint that nobody has pushed yet: it stands for a snapshot
    /// of that name.
    pub(crate) fn unsealed(snapshot: &str, bytes: u64) -> Self {
        Self {
            media_type: LAYER_TYPE.to_owned(),
            digest: snapshot.to_owned(),
            bytes,
            diff_id: snapshot.to_owned(),
            sealed: false,
        }
    }
}

/// The image's config.
pub(crate) fn config(manifest: &Manifest, layer: &Layer) -> Result<Vec<u8>> {
    let created = rfc3339(manifest.created_unix_s);
    let by = format!("reprise {}", env!("CARGO_PKG_VERSION"));
    let config = json!({
        "created": created,
        "architecture": go_arch(&manifest.needs.arch),
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id] },
        "history": [{ "created": created, "created_by": by, "comment": "checkpoint" }],
    });
    serde_json::to_vec(&config).doing("Cannot write an image's config")
}

/// The image's manifest. `config` is digest and size of the config's blob.
pub(crate) fn manifest(
    layer: &Layer,
    config: (&str, usize),
    base: Option<&super::base::Descriptor>,
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut annotations = annotations.clone();
    annotations.insert(ours::SEALED.to_owned(), layer.sealed.to_string());
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": { "mediaType": CONFIG_TYPE, "digest": config.0, "size": config.1 },
        "layers": [{
            "mediaType": layer.media_type,
            "digest": layer.digest,
            "size": layer.bytes,
        }],
        "annotations": annotations,
    });
    if let Some(base) = base {
        // A registry lists the checkpoint among what refers to its base image.
        manifest["subject"] = json!({
            "mediaType": base.media_type,
            "digest": base.digest,
            "size": base.size,
        });
    }
    serde_json::to_vec(&manifest).doing("Cannot write an image's manifest")
}

/// What the manifest says of a checkpoint.
pub(crate) fn annotations(
    manifest: &Manifest,
    base: &Base,
    sandbox: Option<&str>,
    containerd: &str,
    runtime: &str,
) -> BTreeMap<String, String> {
    let (origin, needs) = (&manifest.origin, &manifest.needs);
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let owned = |text: &str| Some(text.to_owned());
    let known = [
        (criu::ENGINE, owned("containerd")),
        (criu::ENGINE_VERSION, owned(containerd)),
        (
            criu::NAME,
            owned(origin.name.as_ref().unwrap_or(&origin.container)),
        ),
        (criu::POD, origin.pod.clone()),
        (criu::POD_ID, sandbox.map(str::to_owned)),
        (criu::NAMESPACE, origin.pod_namespace.clone()),
        (criu::ROOTFS_IMAGE, owned(&base.name)),
        (criu::ROOTFS_REQUESTED, origin.image.clone()),
        (
            criu::ROOTFS_DIGEST,
            base.manifest.as_ref().map(|d| d.digest.clone()),
        ),
        (criu::RUNTIME, owned(runtime)),
        (criu::RUNTIME_VERSION, owned(env!("CARGO_PKG_VERSION"))),
        (criu::CRIU, Some(node::show(needs.criu_version))),
        (criu::ARCH, owned(go_arch(&needs.arch))),
        (criu::KERNEL, owned(&needs.kernel)),
        (criu::CGROUP, owned(if v2 { "v2" } else { "v1" })),
        (ours::ID, owned(&manifest.id)),
        (ours::FINGERPRINT, owned(manifest.fingerprint.as_str())),
        (ours::BASE_CHAIN, owned(&base.chain)),
        (ours::CPU_FEATURES, Some(needs.cpu_features.join(","))),
        (ours::MEMORY_BYTES, Some(needs.memory_bytes.to_string())),
        (ours::IMAGE_BYTES, Some(manifest.image_bytes.to_string())),
    ];
    known
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}
