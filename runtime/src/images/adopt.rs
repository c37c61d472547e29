//! A checkpoint image in containerd's store becomes a record on this node.
//!
//! ```text
//!  manifest blob ─ annotations: a checkpoint? of which base?
//!  config blob ─── diff id = name of the snapshot that its layer was unpacked into
//!     ours:   that is D; label: snapshot R with the writable layers; made here, once,
//!             from rootfs-diff.tar in D, if the image came from elsewhere
//!     theirs: an archive; labels: snapshots D and R, made of it here, once (adapt)
//!  base's chain ── its lower directories here -> the fingerprint on this node
//! ```

use std::collections::HashMap;
use std::path::Path;

use reprise_runtime::checkpoint::{ImageFile, Manifest};
use reprise_runtime::error::Doing;
use reprise_runtime::fingerprint::{Base, Fingerprint};
use reprise_runtime::maker::boot_id;
use reprise_runtime::store::{self, Record, SOURCE_VERSION, Source, Store};
use reprise_runtime::worker::foreign::Archive;
use reprise_runtime::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::adapt::{Place, Restorable, is_file};
use super::announced::{Announced, Ours};
use super::chain::shown;
use super::client::Client;
use super::names::{self, layer};
use super::{Labels, records};

/// What came of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Adopted {
    /// Containers can be restored from it.
    Recorded,
    /// Not yet, and what is missing.
    Waiting(String),
}

const NOT_UNPACKED: &str = "it is not unpacked; `ctr images pull` and `crictl pull` do that";

/// Where a checkpoint is on this node; why it is not, if it cannot be used.
type Placed = std::result::Result<Snapshots, String>;

/// The snapshots that a checkpoint is restored from.
struct Snapshots {
    snapshotter: String,
    data: String,
    rootfs: String,
    base: Base,
}

/// The snapshot that an image's layer was unpacked into.
struct Unpacked {
    snapshotter: String,
    name: String,
    /// Labels of the image's config.
    labels: Labels,
}

#[derive(Deserialize)]
struct OciConfig {
    rootfs: OciRootfs,
}

#[derive(Deserialize)]
struct OciRootfs {
    diff_ids: Vec<String>,
}

/// Makes records of images in one of containerd's namespaces.
#[derive(Debug)]
pub(crate) struct Adopter<'a> {
    /// Under a lease.
    client: Client,
    store: &'a Store,
    /// What a base's chain id is here, by snapshotter and chain.
    bases: HashMap<(String, String), Option<Base>>,
}

impl<'a> Adopter<'a> {
    /// `client` keeps what it makes under a lease.
    pub(crate) fn new(client: Client, store: &'a Store) -> Self {
        Self {
            client,
            store,
            bases: HashMap::new(),
        }
    }

    /// Makes a record of a checkpoint, unless the one that is there is right. `names`
    /// are those of all its images that are trusted.
    ///
    /// # Errors
    /// containerd's, I/O; the image is not what it says.
    pub(crate) fn adopt(
        &mut self,
        id: &str,
        image: &records::Record,
        names: &[String],
    ) -> Result<Adopted> {
        let boot = image.labels.get(names::BOOT);
        if boot.is_some_and(|boot| boot != boot_id()) {
            return Ok(waits("the node went down before it had reached the disk"));
        }
        if self.is_recorded(id, image, names)? {
            return Ok(Adopted::Recorded);
        }
        let placed = match Announced::of_image(&self.client, image)? {
            Some(Announced::Ours(ours)) => self.place_ours(&ours)?,
            Some(Announced::Theirs { config }) => self.place_theirs(id, &config)?,
            None => Err("it is no checkpoint any more".to_owned()),
        };
        match placed {
            Ok(snapshots) => self.record(id, image, names, snapshots),
            Err(why) => Ok(Adopted::Waiting(why)),
        }
    }

    /// Finds the snapshots of a checkpoint of ours, or makes what is missing.
    fn place_ours(&mut self, ours: &Ours) -> Result<Placed> {
        if let Some(why) = &ours.foreign {
            return Ok(Err(format!("foreign: {why}")));
        }
        let Some(unpacked) = self.unpacked(&ours.config)? else {
            return Ok(Err(NOT_UNPACKED.to_owned()));
        };
        let snapshotter = unpacked.snapshotter;
        let Some(base) = self.base(&snapshotter, &ours.chain)? else {
            return Ok(Err(format!(
                "its base image, with chain id {}, is not on this node; pull that",
                ours.chain
            )));
        };
        let known = unpacked.labels.get(&names::keeps_rootfs(&snapshotter));
        let rootfs = self.rootfs(ours, &snapshotter, known, &unpacked.name, &base)?;
        Ok(Ok(Snapshots {
            snapshotter,
            data: unpacked.name,
            rootfs,
            base,
        }))
    }

    /// Makes the snapshots of a checkpoint that is an archive in an image, unless they
    /// are there.
    fn place_theirs(&mut self, id: &str, config: &str) -> Result<Placed> {
        let Some(unpacked) = self.unpacked(config)? else {
            return Ok(Err(NOT_UNPACKED.to_owned()));
        };
        let snapshotter = &unpacked.snapshotter;
        let dir = self.client.directory_of(snapshotter, &unpacked.name)?;
        let archive = Archive::read(&dir)?;
        let Some(here) = self.client.base_here(&archive.base, snapshotter)? else {
            return Ok(Err(format!(
                "its base image {} is not on this node; pull that",
                shown(&archive.base)
            )));
        };
        let base = Base::Here(here.lower.clone());
        let keeps = [
            names::keeps_adapted(snapshotter),
            names::keeps_rootfs(snapshotter),
        ];
        let mut made = Vec::new();
        for name in keeps.iter().filter_map(|label| unpacked.labels.get(label)) {
            if self.client.snapshot(snapshotter, name)?.is_some() {
                made.push(name.clone());
            }
        }
        if let [data, rootfs] = made.as_slice() {
            return Ok(Ok(Snapshots {
                snapshotter: snapshotter.clone(),
                data: data.clone(),
                rootfs: rootfs.clone(),
                base,
            }));
        }
        let restorable = match Restorable::of(&archive, &dir) {
            Ok(restorable) => restorable,
            Err(error) if error.kind == ErrorKind::FailedPrecondition => {
                return Ok(Err(format!("foreign: {}", error.message)));
            }
            Err(error) => return Err(error),
        };
        let place = Place {
            id,
            snapshotter,
            base: &here,
        };
        let adapted = restorable.adapt(&self.client, &place)?;
        let (data, rootfs) = (adapted.data.0, adapted.rootfs.0);
        let kept = [data.clone(), rootfs.clone()];
        self.client
            .relabel_blob(config, &keeps.into_iter().zip(kept).collect())?;
        Ok(Ok(Snapshots {
            snapshotter: unpacked.snapshotter,
            data,
            rootfs,
            base,
        }))
    }

    /// Writes the record of a checkpoint whose snapshots are there.
    fn record(
        &self,
        id: &str,
        image: &records::Record,
        names: &[String],
        snapshots: Snapshots,
    ) -> Result<Adopted> {
        let Snapshots {
            snapshotter,
            data,
            rootfs,
            base,
        } = snapshots;
        let dir = self.client.directory_of(&snapshotter, &data)?;
        let mut manifest = read_manifest(&dir, id)?;
        if manifest.origin.namespace != self.client.namespace() {
            return Ok(waits(format!(
                "it is of containers in containerd's namespace {}; pull it there",
                manifest.origin.namespace
            )));
        }
        let below = self.client.directory_of(&snapshotter, &rootfs)?;
        let images = dir.join(layer::IMAGES);
        manifest.fields = manifest.fields.with_base(&base);
        manifest.fingerprint = Fingerprint::of(&manifest.fields);
        let made = std::mem::take(&mut manifest.files);
        store::complete(&mut manifest, &images, &below)?;
        if let Some(why) = damage(&made, &manifest.files) {
            return Ok(waits(why));
        }
        self.store.record(&Record {
            manifest,
            images,
            rootfs: below,
            source: Source {
                version: SOURCE_VERSION,
                namespace: self.client.namespace().to_owned(),
                names: names.to_vec(),
                digest: image.digest.clone(),
                snapshotter,
                data,
                rootfs,
            },
            durable: !image.labels.contains_key(names::BOOT),
        })?;
        Ok(Adopted::Recorded)
    }

    /// Whether the record that is there says all this already: nothing is asked then
    /// but what its base is here.
    fn is_recorded(&mut self, id: &str, image: &records::Record, names: &[String]) -> Result<bool> {
        let Ok(Some(stored)) = self.store.load(id) else {
            return Ok(false);
        };
        let (Ok(source), Some(base)) = (stored.source(), &stored.manifest().base) else {
            return Ok(false);
        };
        let same = source.digest == image.digest
            && source.names == names
            && source.namespace == self.client.namespace();
        if base.chain.is_empty() {
            // Its maker mounted a root file system without a snapshot: no image's, so it
            // is found on this node alone, as it was recorded.
            return Ok(same);
        }
        Ok(same
            && self
                .base(&source.snapshotter, &base.chain)?
                .is_some_and(|base| stored.manifest().fields.has_base(&base)))
    }

    /// The snapshot that an image's layer was unpacked into, by the image's config.
    fn unpacked(&self, config: &str) -> Result<Option<Unpacked>> {
        let Some(blob) = self.client.blob(config)? else {
            return Ok(None);
        };
        let config: OciConfig = serde_json::from_slice(&self.client.read_blob(config)?)
            .doing("Cannot read an image's config")?;
        if config.rootfs.diff_ids.len() != 1 {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                "It has more than one layer, which no checkpoint has",
            ));
        }
        // Unpacked, it is the layer's diff id; made here, it keeps the name that it had
        // before it was sealed.
        let kept = blob.labels.iter().find_map(|(name, data)| {
            let snapshotter = name.strip_prefix(&names::keeps_snapshot("", ""))?;
            (!snapshotter.contains('/')).then(|| (snapshotter.to_owned(), data.clone()))
        });
        let Some((snapshotter, name)) = kept else {
            return Ok(None);
        };
        let there = self.client.snapshot(&snapshotter, &name)?.is_some();
        Ok(there.then_some(Unpacked {
            snapshotter,
            name,
            labels: blob.labels,
        }))
    }

    /// What a chain id is on this node.
    fn base(&mut self, snapshotter: &str, chain: &str) -> Result<Option<Base>> {
        let key = (snapshotter.to_owned(), chain.to_owned());
        if let Some(known) = self.bases.get(&key) {
            return Ok(known.clone());
        }
        let base = match chain {
            "" => None,
            chain => self.client.lower(snapshotter, chain)?.map(Base::Here),
        };
        self.bases.insert(key, base.clone());
        Ok(base)
    }

    /// Name of the snapshot with the writable layers, made if it is not there.
    fn rootfs(
        &self,
        ours: &Ours,
        snapshotter: &str,
        known: Option<&String>,
        data: &str,
        base: &Base,
    ) -> Result<String> {
        if let Some(known) = known
            && self.client.snapshot(snapshotter, known)?.is_some()
        {
            return Ok(known.clone());
        }
        let name = names::rootfs_snapshot(&ours.id);
        let dir = self.client.directory_of(snapshotter, data)?;
        let tar = dir.join(layer::ROOTFS_DIFF);
        let lower = match base {
            Base::Here(dirs) => dirs.as_slice(),
            Base::Anywhere(_) => &[],
        };
        self.client
            .filled_snapshot(snapshotter, &name, &Labels::new(), |rootfs| {
                self.client.unpack_rootfs(&tar, rootfs, lower)
            })?;
        let keeps = Labels::from([(names::keeps_rootfs(snapshotter), name.clone())]);
        self.client.relabel_blob(&ours.config, &keeps)?;
        Ok(name)
    }
}

/// In what the files that are there are not those that were made, if at all.
fn damage(made: &[ImageFile], there: &[ImageFile]) -> Option<String> {
    made.iter().find_map(|file| {
        let name = &file.name;
        match there.iter().find(|other| other.name == *name) {
            Some(other) if other.bytes == file.bytes => None,
            Some(other) => Some(format!(
                "image {name} has {} bytes instead of {}",
                other.bytes, file.bytes
            )),
            None => Some(format!("image {name} cannot be found")),
        }
    })
}

/// Our manifest at the root of a layer. What lies there came from elsewhere, so no
/// link is followed.
fn read_manifest(dir: &Path, id: &str) -> Result<Manifest> {
    let path = dir.join(layer::MANIFEST);
    let bad = |why: String| {
        Error::new(
            ErrorKind::FailedPrecondition,
            format!("Checkpoint {id} cannot be used: {why}"),
        )
    };
    if !is_file(&path) {
        return Err(bad(format!("its layer has no {}", layer::MANIFEST)));
    }
    let images = std::fs::symlink_metadata(dir.join(layer::IMAGES));
    if !images.is_ok_and(|about| about.is_dir()) {
        return Err(bad(format!("its layer has no directory {}", layer::IMAGES)));
    }
    let text = std::fs::read(&path).doing(format_args!("Cannot read {}", path.display()))?;
    let manifest = Manifest::parse(&text).map_err(bad)?;
    if manifest.id == id {
        Ok(manifest)
    } else {
        Err(bad(format!("its manifest is of {:?}", manifest.id)))
    }
}

fn waits(why: impl Into<String>) -> Adopted {
    Adopted::Waiting(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_layer_links_to_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::write(&outside, "{}").unwrap();
        let layer = dir.path().join("layer");
        std::fs::create_dir_all(layer.join("checkpoint")).unwrap();
        let why = || read_manifest(&layer, "a-1").unwrap_err().message;
        assert!(
            why().ends_with("its layer has no manifest.json"),
            "{}",
            why()
        );
        std::os::unix::fs::symlink(&outside, layer.join("manifest.json")).unwrap();
        assert!(
            why().ends_with("its layer has no manifest.json"),
            "{}",
            why()
        );
        std::fs::remove_file(layer.join("manifest.json")).unwrap();
        std::fs::write(layer.join("manifest.json"), "{}").unwrap();
        assert!(why().contains("its manifest is not readable"), "{}", why());
        std::fs::remove_dir(layer.join("checkpoint")).unwrap();
        std::os::unix::fs::symlink(dir.path(), layer.join("checkpoint")).unwrap();
        assert!(why().ends_with("no directory checkpoint"), "{}", why());
    }

    #[test]
    fn damage_is_named_and_new_files_are_none() {
        let file = |name: &str, bytes| ImageFile {
            name: name.to_owned(),
            bytes,
        };
        let made = [file("core-1.img", 5), file("pages-1.img", 7)];
        assert_eq!(damage(&made, &made), None);
        assert_eq!(damage(&[], &made), None);
        let truncated = [file("core-1.img", 5), file("pages-1.img", 3)];
        let why = damage(&made, &truncated).unwrap();
        assert_eq!(why, "image pages-1.img has 3 bytes instead of 7");
        let why = damage(&made, &made[1..]).unwrap();
        assert_eq!(why, "image core-1.img cannot be found");
    }
}
