//! What base image an archive means, as this node has it.

use reprise_runtime::Result;
use reprise_runtime::error::Doing;
use reprise_runtime::worker::foreign::BaseImage;
use serde::Deserialize;

use super::base::{self, Base};
use super::client::Client;
use super::content::digest_of;

#[derive(Deserialize)]
struct Manifest {
    config: base::Descriptor,
}

#[derive(Deserialize)]
struct Config {
    rootfs: Rootfs,
}

#[derive(Deserialize)]
struct Rootfs {
    diff_ids: Vec<String>,
}

/// A base image that this node has unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Here {
    /// As images name it.
    pub(super) base: Base,
    /// The directories of its layers, uppermost first.
    pub(super) lower: Vec<String>,
}

impl Client {
    /// The base image of an archive, by the digest of its configuration or else by its
    /// name; `None` when this node does not have it unpacked.
    ///
    /// # Errors
    /// containerd's; something that is no image under that digest.
    pub(super) fn base_here(&self, image: &BaseImage, snapshotter: &str) -> Result<Option<Here>> {
        let name = image.name.as_deref().unwrap_or_default();
        let manifest = base::manifest_of(self, name)?;
        let config = match &image.config {
            Some(config) if self.blob(config)?.is_some() => Some(config.clone()),
            Some(_) => None,
            None => match &manifest {
                Some(manifest) => Some(self.config_of(&manifest.digest)?),
                None => None,
            },
        };
        let Some(config) = config else {
            return Ok(None);
        };
        let config: Config = serde_json::from_slice(&self.read_blob(&config)?).doing(
            format_args!("Cannot read the configuration of image {name}"),
        )?;
        let Some(chain) = chain_id(&config.rootfs.diff_ids) else {
            return Ok(None);
        };
        let lower = self.lower(snapshotter, &chain)?;
        Ok(lower.map(|lower| Here {
            base: Base {
                chain,
                name: name.to_owned(),
                manifest,
            },
            lower,
        }))
    }

    fn config_of(&self, manifest: &str) -> Result<String> {
        let manifest: Manifest = serde_json::from_slice(&self.read_blob(manifest)?)
            .doing(format_args!("Cannot read the manifest {manifest}"))?;
        Ok(manifest.config.digest)
    }
}

/// A base image in a message.
pub(super) fn shown(image: &BaseImage) -> String {
    format!(
        "{} ({})",
        image.name.as_deref().unwrap_or("without a name"),
        image.config.as_deref().unwrap_or("without a digest"),
    )
}

/// The name of the snapshot that layers with these digests are unpacked into, one on
/// the other (`identity.ChainID` of the OCI image specification).
fn chain_id(diff_ids: &[String]) -> Option<String> {
    let mut ids = diff_ids.iter();
    let first = ids.next()?.clone();
    Some(ids.fold(first, |chain, id| {
        digest_of(format!("{chain} {id}").as_bytes())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let ids = |ids: &[&str]| chain_id(&ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>());
        assert_eq!(ids(&[]), None);
        assert_eq!(ids(&["sha256:a"]).as_deref(), Some("sha256:a"));
        let two = digest_of(b"sha256:a sha256:b");
        assert_eq!(ids(&["sha256:a", "sha256:b"]), Some(two.clone()));
        let three = digest_of(format!("{two} sha256:c").as_bytes());
        assert_eq!(ids(&["sha256:a", "sha256:b", "sha256:c"]), Some(three));
    }
}
