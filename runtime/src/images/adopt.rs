//! A checkpoint image in containerd's store becomes a record on this node.
//!
//! ```text
//!  manifest blob ─ annotations: a checkpoint? of which base?
//!  config blob ─── diff id = name of snapshot D, unpacked the ordinary way
//!                  label: snapshot R with the writable layers; made here, once, from
//!                  rootfs-diff.tar in D, if the image came from elsewhere
//!  base's chain ── its lower directories here -> the fingerprint on this node
//! ```

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use reprise_runtime::checkpoint::{ImageFile, Manifest};
use reprise_runtime::error::Doing;
use reprise_runtime::fingerprint::{Base, Fingerprint};
use reprise_runtime::maker::boot_id;
use reprise_runtime::store::{self, Record, SOURCE_VERSION, Source, Store};
use reprise_runtime::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::client::Client;
use super::names::{self, layer, ours};
use super::snapshots::{directory, lower_directories};
use super::{Labels, records};

/// What the manifest of an image says that is a checkpoint of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announced {
    /// The checkpoint's id.
    pub(crate) id: String,
    /// Chain id of its base image.
    chain: String,
    /// Digest of the image's config.
    config: String,
    /// Why nothing can be restored from it: another engine made it.
    foreign: Option<String>,
}

/// What came of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Adopted {
    /// Containers can be restored from it.
    Recorded,
    /// Not yet, and what is missing.
    Waiting(String),
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

#[derive(Deserialize)]
struct OciConfig {
    rootfs: OciRootfs,
}

#[derive(Deserialize)]
struct OciRootfs {
    diff_ids: Vec<String>,
}

impl Announced {
    /// What an image's manifest says; `None` if it is no checkpoint of ours.
    ///
    /// # Errors
    /// It is there and cannot be read as a manifest.
    pub(crate) fn of(text: &[u8]) -> Result<Option<Self>> {
        let manifest: OciManifest =
            serde_json::from_slice(text).doing("Cannot read an image's manifest")?;
        let said = |name: &str| manifest.annotations.get(name).cloned();
        Ok(match (said(ours::ID), manifest.config) {
            (Some(id), Some(config)) => Some(Self {
                id,
                chain: said(ours::BASE_CHAIN).unwrap_or_default(),
                config: config.digest,
                foreign: said(names::FOREIGN),
            }),
            _ => None,
        })
    }
}

/// Makes records of images in one of containerd's namespaces.
#[derive(Debug)]
pub(crate) struct Adopter<'a> {
    /// Under a lease.
    client: Client,
    store: &'a Store,
    /// What a base's chain id is here, by snapshotter and chain.
    bases: HashMap<(String, String), Option<Base>>,
    views: u32,
}

impl<'a> Adopter<'a> {
    /// `client` keeps what it makes under a lease.
    pub(crate) fn new(client: Client, store: &'a Store) -> Self {
        Self {
            client,
            store,
            bases: HashMap::new(),
            views: 0,
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
        let Some(announced) = Announced::of(&self.client.read_blob(&image.digest)?)? else {
            return Ok(waits("it is no checkpoint any more"));
        };
        if let Some(why) = &announced.foreign {
            return Ok(waits(format!("foreign: {why}")));
        }
        let Some((snapshotter, labels, data)) = self.unpacked(&announced)? else {
            return Ok(waits(
                "it is not unpacked; `ctr images pull` and `crictl pull` do that",
            ));
        };
        let Some(base) = self.base(&snapshotter, &announced.chain)? else {
            return Ok(waits(format!(
                "its base image, with chain id {}, is not on this node; pull that",
                announced.chain
            )));
        };
        let dir = self.directory(&snapshotter, &data)?;
        let mut manifest = read_manifest(&dir, id)?;
        if manifest.origin.namespace != self.client.namespace() {
            return Ok(waits(format!(
                "it is of containers in containerd's namespace {}; pull it there",
                manifest.origin.namespace
            )));
        }
        let known = labels.get(&names::keeps_rootfs(&snapshotter));
        let rootfs = self.rootfs(&announced, &snapshotter, known, &dir, &base)?;
        let below = self.directory(&snapshotter, &rootfs)?;
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
            durable: boot.is_none(),
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
        Ok(same
            && self
                .base(&source.snapshotter, &base.chain)?
                .is_some_and(|base| stored.manifest().fields.has_base(&base)))
    }

    /// Snapshotter, labels of the config, and name of the snapshot that the image's
    /// layer was unpacked into.
    fn unpacked(&self, announced: &Announced) -> Result<Option<(String, Labels, String)>> {
        let Some(blob) = self.client.blob(&announced.config)? else {
            return Ok(None);
        };
        let config: OciConfig = serde_json::from_slice(&self.client.read_blob(&announced.config)?)
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
        let Some((snapshotter, data)) = kept else {
            return Ok(None);
        };
        let there = self.client.snapshot(&snapshotter, &data)?.is_some();
        Ok(there.then_some((snapshotter, blob.labels, data)))
    }

    /// What a chain id is on this node.
    fn base(&mut self, snapshotter: &str, chain: &str) -> Result<Option<Base>> {
        let key = (snapshotter.to_owned(), chain.to_owned());
        if let Some(known) = self.bases.get(&key) {
            return Ok(known.clone());
        }
        let base = match chain {
            "" => None,
            chain => self.lower(snapshotter, chain)?.map(|dirs| {
                let shown = dirs.iter().map(|dir| dir.display().to_string());
                Base::Here(shown.collect())
            }),
        };
        self.bases.insert(key, base.clone());
        Ok(base)
    }

    /// Directory of a committed snapshot without a parent.
    fn directory(&mut self, snapshotter: &str, name: &str) -> Result<PathBuf> {
        let dirs = self.lower(snapshotter, name)?.unwrap_or_default();
        dirs.into_iter().next().ok_or_else(|| {
            Error::new(
                ErrorKind::FailedPrecondition,
                format!("Snapshotter {snapshotter} keeps {name} in no directory; use overlayfs"),
            )
        })
    }

    /// The directories that a committed snapshot and those below it are, uppermost
    /// first; `None` if there is no such snapshot.
    fn lower(&mut self, snapshotter: &str, name: &str) -> Result<Option<Vec<PathBuf>>> {
        if self.client.snapshot(snapshotter, name)?.is_none() {
            return Ok(None);
        }
        self.views += 1;
        let key = format!("reprise-look-{}-{}", std::process::id(), self.views);
        let mounts = self
            .client
            .view_snapshot(snapshotter, &key, name, &Labels::new())?;
        self.client.remove_snapshot(snapshotter, &key)?;
        Ok(lower_directories(&mounts))
    }

    /// Name of the snapshot with the writable layers, made if it is not there.
    fn rootfs(
        &mut self,
        announced: &Announced,
        snapshotter: &str,
        known: Option<&String>,
        data: &Path,
        base: &Base,
    ) -> Result<String> {
        if let Some(known) = known
            && self.client.snapshot(snapshotter, known)?.is_some()
        {
            return Ok(known.clone());
        }
        let name = names::rootfs_snapshot(&announced.id);
        if self.client.snapshot(snapshotter, &name)?.is_none() {
            self.unpack_rootfs(snapshotter, &name, &data.join(layer::ROOTFS_DIFF), base)?;
        }
        let keeps = Labels::from([(names::keeps_rootfs(snapshotter), name.clone())]);
        self.client.relabel_blob(&announced.config, &keeps)?;
        Ok(name)
    }

    /// Has containerd unpack the writable layer, as it unpacks any other: in a chroot,
    /// with overlay's own whiteouts.
    fn unpack_rootfs(&self, snapshotter: &str, name: &str, tar: &Path, base: &Base) -> Result<()> {
        let key = format!("{name}-new-{}", std::process::id());
        let mounts = self
            .client
            .prepare_snapshot(snapshotter, &key, "", &Labels::new())?;
        let made = directory(snapshotter, &mounts).and_then(|dir| {
            if !is_file(tar) {
                return Ok(()); // nothing was written
            }
            let lower = match base {
                Base::Here(dirs) => dirs.as_slice(),
                Base::Anywhere(_) => &[],
            };
            self.client.unpack_upper(tar, &dir.join("0"), lower)
        });
        let committed = made.and_then(|()| {
            self.client
                .commit_snapshot(snapshotter, name, &key, &Labels::new())
        });
        match committed {
            // Another one was faster.
            Err(error) if error.kind == ErrorKind::AlreadyExists => {
                self.client.remove_snapshot(snapshotter, &key)
            }
            Err(error) => {
                // The lease gives it up, if this does not.
                self.client.remove_snapshot(snapshotter, &key).ok();
                Err(error)
            }
            Ok(()) => Ok(()),
        }
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

fn is_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|about| about.is_file())
}

fn waits(why: impl Into<String>) -> Adopted {
    Adopted::Waiting(why.into())
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
        let announced = Announced {
            id: "a-1".to_owned(),
            chain: "sha256:b".to_owned(),
            config: "sha256:c".to_owned(),
            foreign: None,
        };
        assert_eq!(of(&ours), Ok(Some(announced)));
        assert_eq!(of(r#"{"config":{"digest":"sha256:c"}}"#), Ok(None));
        assert_eq!(of(r#"{"manifests":[],"annotations":{"a":"b"}}"#), Ok(None));
        assert!(of("tar").is_err());
    }

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
