//! What an image says it is: a checkpoint of ours, one of Kubernetes' convention that
//! somebody else built, or none.

use std::collections::BTreeMap;

use reprise_runtime::error::Doing;
use reprise_runtime::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::client::Client;
use super::names::{self, criu, ours};
use super::{base, records};

/// What the manifest of a checkpoint image says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Announced {
    /// One that Reprise made.
    Ours(Ours),
    /// One whose layer is an archive of Kubernetes' convention, as `checkpointctl
    /// build` and buildah make it.
    Theirs {
        /// Digest of the image's config.
        config: String,
    },
}

/// What we say of a checkpoint of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ours {
    /// The checkpoint's id.
    pub(crate) id: String,
    /// Chain id of its base image.
    pub(crate) chain: String,
    /// Digest of the image's config.
    pub(crate) config: String,
    /// Why nothing can be restored from it: another engine made it.
    pub(crate) foreign: Option<String>,
}

#[derive(Deserialize)]
struct OciManifest {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    config: Option<OciDescriptor>,
}

#[derive(Deserialize)]
struct OciDescriptor {
    digest: String,
}

impl Announced {
    /// What an image is, by its manifest for this node; `None` if it is no checkpoint.
    ///
    /// # Errors
    /// NotFound: its manifest is not here, or not yet. Others: it is no manifest;
    /// containerd's.
    pub(crate) fn of_image(client: &Client, image: &records::Record) -> Result<Option<Self>> {
        let text = client.read_blob(&image.digest)?;
        if !base::is_index(&image.media_type) {
            return Self::of(&text);
        }
        let manifest = base::manifest_of(client, &image.name)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("Image {} is not here for this architecture", image.name),
            )
        })?;
        Self::of(&client.read_blob(&manifest.digest)?)
    }

    /// What a manifest says.
    fn of(text: &[u8]) -> Result<Option<Self>> {
        let manifest: OciManifest =
            serde_json::from_slice(text).doing("Cannot read an image's manifest")?;
        let Some(OciDescriptor { digest: config }) = manifest.config else {
            return Ok(None);
        };
        let said = |name: &str| manifest.annotations.get(name).cloned();
        if let Some(id) = said(ours::ID) {
            return Ok(Some(Self::Ours(Ours {
                id,
                chain: said(ours::BASE_CHAIN).unwrap_or_default(),
                config,
                foreign: said(names::FOREIGN),
            })));
        }
        let mut annotations = manifest.annotations.keys();
        let is_checkpoint =
            annotations.any(|name| name.starts_with(criu::PREFIX) || name == criu::OLD_NAME);
        Ok(is_checkpoint.then_some(Self::Theirs { config }))
    }

    /// The checkpoint's id. Theirs have none: theirs is made of what does not change
    /// while the image is on the node, and says when it came there, as the order of
    /// ids does ([`reprise_runtime::store::Stored::made_unix_ms`]).
    ///
    /// # Errors
    /// containerd's; the image has just gone.
    pub(crate) fn id(&self, client: &Client, image: &records::Record) -> Result<String> {
        if let Self::Ours(ours) = self {
            return Ok(ours.id.clone());
        }
        let blob = client.blob(&image.digest)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("Image {} has just gone", image.name),
            )
        })?;
        let namespace = client.namespace();
        Ok(names::their_id(
            &image.digest,
            namespace,
            blob.created_unix_ms,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_announces_itself_and_other_images_do_not() {
        let of = |text: &str| Announced::of(text.as_bytes());
        let ours = format!(
            r#"{{"config":{{"digest":"sha256:c"}},"annotations":{{"{}":"a-1","{}":"sha256:b"}}}}"#,
            ours::ID,
            ours::BASE_CHAIN
        );
        let announced = Announced::Ours(Ours {
            id: "a-1".to_owned(),
            chain: "sha256:b".to_owned(),
            config: "sha256:c".to_owned(),
            foreign: None,
        });
        assert_eq!(of(&ours), Ok(Some(announced)));
        assert_eq!(of(r#"{"config":{"digest":"sha256:c"}}"#), Ok(None));
        assert_eq!(of(r#"{"manifests":[],"annotations":{"a":"b"}}"#), Ok(None));
        assert!(of("tar").is_err());
    }

    #[test]
    fn an_archive_in_an_image_is_told_by_its_annotations() {
        let of = |annotation: &str| {
            let text = format!(
                r#"{{"config":{{"digest":"sha256:c"}},"annotations":{{"{annotation}":"app"}}}}"#
            );
            Announced::of(text.as_bytes()).unwrap()
        };
        let theirs = Some(Announced::Theirs {
            config: "sha256:c".to_owned(),
        });
        assert_eq!(of("org.criu.checkpoint.container.name"), theirs);
        assert_eq!(
            of("io.kubernetes.cri-o.annotations.checkpoint.name"),
            theirs
        );
        assert_eq!(of("org.criu.other"), None);
    }
}
