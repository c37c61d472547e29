//! The image that a container was made from.

use reprise_runtime::Result;
use reprise_runtime::checkpoint::BaseImage;
use reprise_runtime::error::Doing;
use serde::Deserialize;

use super::client::Client;
use super::containers::Container;
use super::names::go_arch;

/// What is known of a base image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    /// Its chain id: the name of the snapshot that the container's lies on.
    pub(crate) chain: String,
    /// Its name, as containerd has it.
    pub(crate) name: String,
    /// Its manifest for this node's architecture, when that is in containerd.
    pub(crate) manifest: Option<Descriptor>,
}

/// What points at a blob, as OCI's documents write it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    /// Media type.
    pub(crate) media_type: String,
    /// `sha256:<hex>`.
    pub(crate) digest: String,
    /// Size in bytes.
    pub(crate) size: u64,
    /// For which platform, in an index.
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

impl Base {
    /// The base image of a container.
    ///
    /// # Errors
    /// containerd's. An image whose record or index has gone is no error.
    pub(crate) fn of(client: &Client, container: &Container) -> Result<Self> {
        let snapshot = match container.snapshot_key.as_str() {
            "" => None,
            key => client.snapshot(&container.snapshotter, key)?,
        };
        Ok(Self {
            chain: snapshot.map(|s| s.parent).unwrap_or_default(),
            name: container.image.clone(),
            // Which one it is says an annotation; nothing depends on it.
            manifest: manifest_of(client, &container.image).unwrap_or_default(),
        })
    }

    /// What a checkpoint's manifest says of it.
    pub(super) fn noted(&self) -> BaseImage {
        BaseImage {
            chain: self.chain.clone(),
            digest: self.manifest.as_ref().map(|d| d.digest.clone()),
        }
    }
}

/// Whether it names manifests for several platforms.
pub(super) fn is_index(media_type: &str) -> bool {
    media_type.ends_with(".index.v1+json") || media_type.contains("manifest.list")
}

/// The manifest that an image's record leads to on this node.
pub(super) fn manifest_of(client: &Client, name: &str) -> Result<Option<Descriptor>> {
    if name.is_empty() {
        return Ok(None); // made from a directory
    }
    let Some(record) = client.image(name)? else {
        return Ok(None);
    };
    if !is_index(&record.media_type) {
        return Ok(Some(Descriptor {
            media_type: record.media_type,
            digest: record.digest,
            size: record.bytes,
            platform: None,
        }));
    }
    let text = client.read_blob(&record.digest)?;
    let index: Index = serde_json::from_slice(&text)
        .doing(format_args!("Cannot read the index of image {name}"))?;
    let here = go_arch(std::env::consts::ARCH);
    for descriptor in index.manifests {
        let fits = descriptor
            .platform
            .as_ref()
            .is_none_or(|platform| platform.os == "linux" && platform.architecture == here);
        // Of other platforms the node has only the index's word.
        if fits && client.blob(&descriptor.digest)?.is_some() {
            return Ok(Some(descriptor));
        }
    }
    Ok(None)
}
