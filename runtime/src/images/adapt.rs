//! An unpacked archive of Kubernetes' convention becomes the two snapshots that
//! containers are restored from, without a copy of its pages.
//!
//! ```text
//!  the archive, unpacked ─ read ─> who it was, what has to be changed
//!    rootfs-diff.tar ── unpacked ──> snapshot R
//!    links to all other files ──┬──> snapshot D
//!    few files anew, manifest ──┘
//! ```

use std::io;
use std::path::{Path, PathBuf};

use reprise_runtime::checkpoint::{MANIFEST_VERSION, Manifest, Origin};
use reprise_runtime::error::Doing;
use reprise_runtime::fingerprint::{self, Fingerprint, Subject};
use reprise_runtime::rootfs::RootfsMount;
use reprise_runtime::store;
use reprise_runtime::volumes::{self, Contents};
use reprise_runtime::worker::foreign::{self, Archive, Changes};
use reprise_runtime::{Error, ErrorKind, Result};

use super::chain::Here;
use super::client::Client;
use super::names::{self, layer};
use super::{Labels, copy};

/// An unpacked archive that containers can be restored from.
#[derive(Debug)]
pub(super) struct Restorable<'a> {
    archive: &'a Archive,
    /// Where it is unpacked. Nothing is written there.
    dir: &'a Path,
    changes: Changes,
    given: Given,
}

/// What tells who the container was, besides its spec.
#[derive(Debug)]
enum Given {
    /// A manifest of ours that came along.
    Manifest(Box<Manifest>),
    /// What is in its volumes.
    Volumes(Contents),
}

/// Where its snapshots go.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// The checkpoint's id.
    pub(super) id: &'a str,
    pub(super) snapshotter: &'a str,
    /// Its base image.
    pub(super) base: &'a Here,
}

/// Its snapshots, committed and on the disk.
#[derive(Debug)]
pub(super) struct Adapted {
    pub(super) manifest: Manifest,
    /// Name of the snapshot with CRIU's images, and its directory.
    pub(super) data: (String, PathBuf),
    /// Name of the one with the writable layers, and its directory.
    pub(super) rootfs: (String, PathBuf),
}

impl<'a> Restorable<'a> {
    /// Reads an archive that is unpacked in `dir`.
    ///
    /// # Errors
    /// FailedPrecondition: why nothing can be restored from it. InvalidArgument: it is
    /// damaged. I/O.
    pub(super) fn of(archive: &'a Archive, dir: &'a Path) -> Result<Self> {
        if let Some(why) = archive.beyond {
            return Err(Error::new(ErrorKind::FailedPrecondition, why));
        }
        let images = dir.join(layer::IMAGES);
        if !std::fs::symlink_metadata(&images).is_ok_and(|about| about.is_dir()) {
            let why = format!("It has no directory {}", layer::IMAGES);
            return Err(Error::new(ErrorKind::InvalidArgument, why));
        }
        Ok(Self {
            archive,
            dir,
            changes: foreign::adapt(&images, &archive.spec)?,
            given: given(archive, dir)?,
        })
    }

    /// Makes its snapshots.
    ///
    /// # Errors
    /// containerd's, I/O. What has been made is the lease's to give up.
    pub(super) fn adapt(self, client: &Client, place: &Place<'_>) -> Result<Adapted> {
        let labels = Labels::from([(names::CHECKPOINT.to_owned(), place.id.to_owned())]);
        let tar = self.dir.join(layer::ROOTFS_DIFF);
        let name = names::rootfs_snapshot(place.id);
        let fill = |dir: &Path| client.unpack_rootfs(&tar, dir, &place.base.lower);
        client.filled_snapshot(place.snapshotter, &name, &labels, fill)?;
        let rootfs = (name.clone(), client.directory_of(place.snapshotter, &name)?);

        let name = names::data_snapshot(place.id);
        let mut manifest = self.manifest(client.namespace(), place)?;
        client.filled_snapshot(place.snapshotter, &name, &labels, |dir| {
            self.fill(dir, &rootfs.1, &mut manifest)
        })?;
        let data = (name.clone(), client.directory_of(place.snapshotter, &name)?);
        Ok(Adapted {
            manifest,
            data,
            rootfs,
        })
    }

    fn fill(&self, data: &Path, rootfs: &Path, manifest: &mut Manifest) -> Result<()> {
        copy::link_content(self.dir, data)
            .doing(format_args!("Cannot take {} in", self.dir.display()))?;
        for name in [layer::ROOTFS_DIFF, layer::MANIFEST] {
            // Links, of which the archive keeps its own.
            match std::fs::remove_file(data.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::because(format_args!("Cannot take {name} in"), &e));
                }
                _ => {}
            }
        }
        let images = data.join(layer::IMAGES);
        self.changes.write(&images)?;
        store::complete(manifest, &images, rootfs)?;
        let text = serde_json::to_vec_pretty(manifest).doing("Cannot write a manifest")?;
        let path = data.join(layer::MANIFEST);
        std::fs::write(&path, text).doing(format_args!("Cannot write {}", path.display()))?;
        for dir in [data, rootfs] {
            copy::sync_tree(dir).doing(format_args!("Cannot flush {}", dir.display()))?;
        }
        Ok(())
    }

    /// What the checkpoint is on this node.
    fn manifest(&self, namespace: &str, place: &Place<'_>) -> Result<Manifest> {
        let manifest = match &self.given {
            Given::Manifest(manifest) => carried_over(manifest, place.base),
            Given::Volumes(contents) => self.of_spec(namespace, place.base, contents)?,
        };
        Ok(Manifest {
            id: place.id.to_owned(),
            origin: Origin {
                namespace: namespace.to_owned(),
                ..manifest.origin
            },
            base: Some(place.base.base.noted()),
            ..manifest
        })
    }

    /// What the archive's spec makes of it, as Create would.
    fn of_spec(&self, namespace: &str, here: &Here, contents: &Contents) -> Result<Manifest> {
        let archive = self.archive;
        let lower = format!("lowerdir={}", here.lower.join(":"));
        let rootfs = [RootfsMount::overlay(vec![lower])];
        let subject = Subject::of(&archive.spec, namespace, &rootfs, contents);
        let subject = subject.ok_or_else(|| Error::internal("Its base image has no layers"))?;
        Ok(Manifest {
            version: MANIFEST_VERSION,
            id: String::new(),
            fingerprint: subject.fingerprint(),
            origin: archive.origin.clone(),
            created_unix_s: archive.created_unix_s,
            needs: archive.needs.clone(),
            image_bytes: 0,
            frozen_us: 0,
            layers: Vec::new(),
            files: Vec::new(),
            fields: subject.hashes(),
            shown: subject.shown(),
            base: None,
        })
    }
}

/// One of ours, on this node's layers.
fn carried_over(manifest: &Manifest, here: &Here) -> Manifest {
    let base = fingerprint::Base::Here(here.lower.clone());
    let fields = manifest.fields.with_base(&base);
    Manifest {
        fingerprint: Fingerprint::of(&fields),
        fields,
        ..manifest.clone()
    }
}

fn given(archive: &Archive, dir: &Path) -> Result<Given> {
    let path = dir.join(layer::MANIFEST);
    if !is_file(&path) {
        // What was in its volumes is not in the archive. They may still be there.
        let contents = volumes::gather(&archive.spec);
        let contents = contents.map_err(|e| e.with_kind(ErrorKind::FailedPrecondition));
        return contents.map(Given::Volumes);
    }
    let text = std::fs::read(&path).doing("Cannot read the archive's manifest")?;
    let manifest = Manifest::parse(&text);
    let manifest = manifest.map_err(|why| Error::new(ErrorKind::InvalidArgument, why));
    manifest.map(|manifest| Given::Manifest(Box::new(manifest)))
}

/// A regular file, and no link to one.
pub(super) fn is_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|about| about.is_file())
}
