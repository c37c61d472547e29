//! Files and images as layers that containerd unpacks. We unpack nothing ourselves:
//! containerd does it in a chroot, as it does with every image.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use containerd_client::types::{Descriptor, Mount};
use reprise_runtime::error::Doing;
use reprise_runtime::{Error, ErrorKind, Result};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::adapt::is_file;
use super::client::Client;
use super::meter::Meter;
use super::names::{LAYER_GZIP_TYPE, LAYER_TYPE, LAYER_ZSTD_TYPE};
use super::{Labels, base};

/// A tar's block, whose 257th byte begins the magic word.
const BLOCK: usize = 512;

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<base::Descriptor>,
}

impl Client {
    /// Writes a tar, compressed or not, as a blob that the lease keeps.
    ///
    /// # Errors
    /// InvalidArgument: it is no tar.
    pub(super) fn layer_of_file(&self, path: &Path, meter: &Meter) -> Result<Descriptor> {
        let doing = || format!("Cannot read {}", path.display());
        let mut file = File::open(path).doing(doing())?;
        let media_type = media_type(&mut file, path)?;
        file.rewind().doing(doing())?;
        // It is read twice: hashed, then written.
        let total = file.metadata().doing(doing())?.len().saturating_mul(2);
        meter.set(0, total);
        let mut hash = Sha256::new();
        let mut counted = Counted {
            file: &mut file,
            meter,
        };
        let bytes = std::io::copy(&mut counted, &mut hash).doing(doing())?;
        let mut digest = "sha256:".to_owned();
        for byte in hash.finalize() {
            // Writing to a string cannot fail.
            write!(digest, "{byte:02x}").ok();
        }
        file.rewind().doing(doing())?;
        let reference = format!("reprise-layer-{}-{digest}", std::process::id());
        let seen = |written| meter.set(bytes.saturating_add(written), total);
        self.write_stream(&reference, file, bytes, &digest, &Labels::new(), &seen)?;
        Ok(Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size: i64::try_from(bytes).unwrap_or(i64::MAX),
            ..Descriptor::default()
        })
    }

    /// Has containerd unpack a container's writable layer into `0` below `rootfs`: in a
    /// chroot, with overlay's own whiteouts. What is missing of a file's parents it
    /// takes from `lower`, the directories of the image, uppermost first. Without a tar
    /// nothing was written.
    ///
    /// # Errors
    /// containerd's, I/O; InvalidArgument: it is no tar.
    pub(super) fn unpack_rootfs(&self, tar: &Path, rootfs: &Path, lower: &[String]) -> Result<()> {
        if !is_file(tar) {
            return Ok(());
        }
        let upper = rootfs.join("0");
        std::fs::create_dir(&upper).doing(format_args!("Cannot make {}", upper.display()))?;
        let blob = self.layer_of_file(tar, &Meter::default())?;
        self.apply(&blob, vec![overlay(&upper, lower)]).map(drop)
    }

    /// The layer of an image that has one alone, as `checkpointctl build` and buildah
    /// make them.
    ///
    /// # Errors
    /// NotFound; FailedPrecondition: it has more, or none.
    pub(super) fn layer_of_image(&self, name: &str) -> Result<Descriptor> {
        let manifest = base::manifest_of(self, name)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "There is no image {name} in containerd's namespace {}; \
                     `ctr images pull` or `ctr images import` brings it",
                    self.namespace()
                ),
            )
        })?;
        let text = self.read_blob(&manifest.digest)?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .doing(format_args!("Cannot read the manifest of image {name}"))?;
        match manifest.layers.as_slice() {
            [layer] => Ok(Descriptor {
                media_type: layer.media_type.clone(),
                digest: layer.digest.clone(),
                size: i64::try_from(layer.size).unwrap_or(i64::MAX),
                ..Descriptor::default()
            }),
            layers => Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "Image {name} has {} layers, and a checkpoint has one",
                    layers.len()
                ),
            )),
        }
    }
}

/// A file that says how much of it was read.
struct Counted<'a> {
    file: &'a mut File,
    meter: &'a Meter,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.meter.add(read as u64);
        Ok(read)
    }
}

/// The mount by which containerd's differ writes into a directory as overlay would.
fn overlay(upper: &Path, lower: &[String]) -> Mount {
    Mount {
        r#type: "overlay".to_owned(),
        source: "overlay".to_owned(),
        options: vec![
            format!("upperdir={}", upper.display()),
            format!("lowerdir={}", lower.join(":")),
        ],
        ..Mount::default()
    }
}

/// What a file is by its first bytes.
fn media_type(file: &mut File, path: &Path) -> Result<&'static str> {
    let mut head = Vec::with_capacity(BLOCK);
    file.take(BLOCK as u64)
        .read_to_end(&mut head)
        .doing(format_args!("Cannot read {}", path.display()))?;
    if head.starts_with(&[0x1f, 0x8b]) {
        Ok(LAYER_GZIP_TYPE)
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Ok(LAYER_ZSTD_TYPE)
    } else if head.get(257..262) == Some(b"ustar") || is_empty(&head) {
        Ok(LAYER_TYPE)
    } else {
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "{} is no tar archive, plain or compressed with gzip or zstd",
                path.display()
            ),
        ))
    }
}

/// A tar without any file is blocks of zeroes.
fn is_empty(head: &[u8]) -> bool {
    head.len() == BLOCK && head.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writable_layer_is_unpacked_as_an_overlay() {
        let lower = ["/s/2/fs", "/s/1/fs"].map(str::to_owned);
        let mount = overlay(Path::new("/s/9/fs/0"), &lower);
        let options = ["upperdir=/s/9/fs/0", "lowerdir=/s/2/fs:/s/1/fs"];
        assert_eq!(mount.options, options);
    }

    #[test]
    fn files_are_told_by_their_first_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let typ = |bytes: &[u8]| {
            let path = dir.path().join("x");
            std::fs::write(&path, bytes).unwrap();
            media_type(&mut File::open(&path).unwrap(), &path)
        };
        let mut tar = vec![0; 1024];
        assert_eq!(typ(&tar).unwrap(), LAYER_TYPE);
        tar.splice(257..262, *b"ustar");
        assert_eq!(typ(&tar).unwrap(), LAYER_TYPE);
        assert_eq!(typ(&[0x1f, 0x8b, 8]).unwrap(), LAYER_GZIP_TYPE);
        assert_eq!(typ(&[0x28, 0xb5, 0x2f, 0xfd, 0]).unwrap(), LAYER_ZSTD_TYPE);
        for garbage in [&b""[..], b"ustar", &[7; 600]] {
            assert_eq!(typ(garbage).unwrap_err().kind, ErrorKind::InvalidArgument);
        }
    }
}
