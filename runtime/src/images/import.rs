//! What other engines and other nodes made becomes a checkpoint image here.
//!
//! ```text
//!  archive or image ─ blob ─ containerd unpacks it ─ snapshot D ─ what differs from
//!      our images is written into it ─ rootfs-diff.tar, unpacked ─ snapshot R ─
//!      config, manifest, record: as if it had been published here
//! ```
//!
//! What cannot be restored becomes an image all the same, with the archive as its
//! layer and the reason in its manifest.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use containerd_client::types::Descriptor;
use reprise_runtime::checkpoint::{self, MANIFEST_VERSION, Manifest, Origin};
use reprise_runtime::cri::annotation;
use reprise_runtime::error::Doing;
use reprise_runtime::fingerprint::{Fingerprint, Hashes, Subject};
use reprise_runtime::maker::Maker;
use reprise_runtime::rootfs::RootfsMount;
use reprise_runtime::store::{self, Record, SOURCE_VERSION, Source, Store};
use reprise_runtime::timestamp::rfc3339;
use reprise_runtime::volumes::{self, Contents};
use reprise_runtime::worker::foreign::{self, Archive};
use reprise_runtime::{Error, ErrorKind, Result};

use super::base::Base;
use super::chain::Here;
use super::client::Client;
use super::document::{self, Layer};
use super::names::{self, criu, layer};
use super::publish::{image_labels, write_documents};
use super::snapshots::directory;
use super::{Labels, copy, records, sweep};

/// When containerd itself gives an import's lease up, should no sweep come.
const EXPIRES_AFTER_S: u64 = 24 * 3600;

/// Where a checkpoint comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum From<'a> {
    /// A file of Kubernetes' checkpoint convention.
    Archive(&'a Path),
    /// An image with the same content, in containerd.
    Image(&'a str),
}

/// How it is to be imported.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) from: From<'a>,
    /// The image's name, if it is to have another one than ours.
    pub(crate) name: Option<&'a str>,
    pub(crate) snapshotter: &'a str,
}

/// One that was imported.
#[derive(Debug)]
pub(crate) struct Imported {
    pub(crate) id: String,
    pub(crate) image: String,
    pub(crate) engine: String,
    pub(crate) origin: Origin,
    /// Why nothing can be restored from it.
    pub(crate) foreign: Option<String>,
}

/// Imports a checkpoint.
///
/// # Errors
/// It is none, or damaged; its base image is not on this node; containerd's. Nothing
/// is left then.
pub(crate) fn import(client: &Client, store: &Store, wanted: &Wanted<'_>) -> Result<Imported> {
    sweep::dead_publishers(client)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let lease = format!("reprise-import-{}", Maker::me());
    let expires = now.unwrap_or_default().as_secs() + EXPIRES_AFTER_S;
    let labels = Labels::from([
        (names::PUBLISHER.to_owned(), Maker::me().to_string()),
        (names::EXPIRE.to_owned(), rfc3339(expires)),
    ]);
    client.create_lease(&lease, &labels)?;
    let importing = client.under(&lease).and_then(|client| {
        Import {
            client,
            store,
            wanted,
        }
        .run()
    });
    // What is held by an image stays; of a failure everything goes at once.
    let given_back = client.remove_lease(&lease, importing.is_err());
    let imported = importing?;
    given_back.map(|()| imported)
}

struct Import<'a> {
    client: Client,
    store: &'a Store,
    wanted: &'a Wanted<'a>,
}

/// Both snapshots, active.
struct Places {
    data: PathBuf,
    rootfs: PathBuf,
}

/// What tells who the container was, besides its spec.
enum Given {
    /// A manifest of ours that came along.
    Manifest(Box<Manifest>),
    /// What is in its volumes.
    Volumes(Contents),
}

impl Import<'_> {
    fn run(&self) -> Result<Imported> {
        let blob = match self.wanted.from {
            From::Archive(file) => self.client.layer_of_file(file)?,
            From::Image(name) => self.client.layer_of_image(name)?,
        };
        let places = self.prepare()?;
        let mounts = self
            .client
            .snapshot_mounts(self.wanted.snapshotter, &data_key())?;
        let unpacked = self.client.apply(&blob, mounts)?;
        let archive = Archive::read(&places.data)?;
        let id = self.store.new_id(&archive.origin.container)?;
        match self.adapt(&archive, &places) {
            Ok(given) => self.publish(&id, &archive, given, &places),
            // Damage is an error, and so is what somebody can mend.
            Err(error) if error.kind == ErrorKind::FailedPrecondition => {
                self.keep(&id, &archive, &blob, &unpacked.digest, error.message)
            }
            Err(error) => Err(error),
        }
    }

    fn prepare(&self) -> Result<Places> {
        let snapshotter = self.wanted.snapshotter;
        let made = |key: &str| {
            let mounts = self
                .client
                .prepare_snapshot(snapshotter, key, "", &Labels::new())?;
            directory(snapshotter, &mounts)
        };
        Ok(Places {
            data: made(&data_key())?,
            rootfs: made(&rootfs_key())?,
        })
    }

    /// Makes the images ours.
    fn adapt(&self, archive: &Archive, places: &Places) -> Result<Given> {
        if let Some(why) = archive.beyond {
            return Err(Error::new(ErrorKind::FailedPrecondition, why));
        }
        let images = places.data.join(layer::IMAGES);
        foreign::adapt(&images, &archive.spec)?.write(&images)?;
        let path = places.data.join(layer::MANIFEST);
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

    fn publish(
        &self,
        id: &str,
        archive: &Archive,
        given: Given,
        places: &Places,
    ) -> Result<Imported> {
        let here = self.base(archive)?;
        let mut manifest = match given {
            Given::Manifest(manifest) => self.carried_over(*manifest, &here),
            Given::Volumes(contents) => self.manifest(archive, &here, &contents)?,
        };
        id.clone_into(&mut manifest.id);
        self.unpack_rootfs(places, &here)?;
        let images = places.data.join(layer::IMAGES);
        store::complete(&mut manifest, &images, &places.rootfs)?;
        let text = serde_json::to_vec_pretty(&manifest).doing("Cannot write a manifest")?;
        let path = places.data.join(layer::MANIFEST);
        // Not through a link that came along.
        std::fs::remove_file(&path).ok();
        std::fs::write(&path, text).doing(format_args!("Cannot write {}", path.display()))?;
        for dir in [&places.data, &places.rootfs] {
            copy::sync_tree(dir).doing(format_args!("Cannot flush {}", dir.display()))?;
        }
        let source = self.commit(id)?;
        let unsealed = Layer::unsealed(&source.data, manifest.image_bytes);
        let annotations = self.annotations(archive, &manifest, &here.base)?;
        let (digest, bytes) = write_documents(
            &self.client,
            &manifest,
            &unsealed,
            &annotations,
            here.base.manifest.as_ref(),
            &source,
        )?;
        let image = self.record_image(&manifest, &digest, bytes)?;
        let imported = Imported {
            id: id.to_owned(),
            image: image.clone(),
            engine: archive.engine.to_string(),
            origin: manifest.origin.clone(),
            foreign: None,
        };
        self.store.record(&Record {
            manifest,
            images,
            rootfs: places.rootfs.clone(),
            source: Source {
                names: vec![image],
                digest,
                ..source
            },
            durable: true,
        })?;
        Ok(imported)
    }

    fn base(&self, archive: &Archive) -> Result<Here> {
        let here = self
            .client
            .base_here(&archive.base, self.wanted.snapshotter)?;
        here.ok_or_else(|| {
            let base = &archive.base;
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "Its base image {} ({}) is not on this node; pull that and import it again",
                    base.name.as_deref().unwrap_or("without a name"),
                    base.config.as_deref().unwrap_or("without a digest"),
                ),
            )
        })
    }

    /// What the archive's spec makes of it, as Create would.
    fn manifest(&self, archive: &Archive, here: &Here, contents: &Contents) -> Result<Manifest> {
        let rootfs = [RootfsMount {
            typ: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options: vec![format!("lowerdir={}", here.lower.join(":"))],
        }];
        let namespace = self.client.namespace();
        let subject = Subject::of(&archive.spec, namespace, &rootfs, contents);
        let subject = subject.ok_or_else(|| Error::internal("Its base image has no layers"))?;
        Ok(Manifest {
            version: MANIFEST_VERSION,
            id: String::new(),
            fingerprint: subject.fingerprint(),
            origin: Origin {
                namespace: namespace.to_owned(),
                ..archive.origin.clone()
            },
            created_unix_s: archive.created_unix_s,
            needs: archive.needs.clone(),
            image_bytes: 0,
            frozen_us: 0,
            layers: Vec::new(),
            files: Vec::new(),
            fields: subject.hashes(),
            shown: subject.shown(),
            base: Some(base_image(&here.base)),
        })
    }

    /// One of ours, on this node's layers.
    fn carried_over(&self, manifest: Manifest, here: &Here) -> Manifest {
        let base = reprise_runtime::fingerprint::Base::Here(here.lower.clone());
        let fields = manifest.fields.with_base(&base);
        Manifest {
            fingerprint: Fingerprint::of(&fields),
            fields,
            origin: Origin {
                namespace: self.client.namespace().to_owned(),
                ..manifest.origin
            },
            base: Some(base_image(&here.base)),
            ..manifest
        }
    }

    /// Has containerd unpack the writable layer, as it unpacks any other, with
    /// overlay's own whiteouts.
    fn unpack_rootfs(&self, places: &Places, here: &Here) -> Result<()> {
        let tar = places.data.join(layer::ROOTFS_DIFF);
        if !is_file(&tar) {
            return Ok(());
        }
        let upper = places.rootfs.join("0");
        self.client.unpack_upper(&tar, &upper, &here.lower)?;
        std::fs::remove_file(&tar).doing(format_args!("Cannot remove {}", tar.display()))
    }

    fn commit(&self, id: &str) -> Result<Source> {
        let snapshotter = self.wanted.snapshotter;
        let labels = Labels::from([(names::CHECKPOINT.to_owned(), id.to_owned())]);
        let (data, rootfs) = (names::data_snapshot(id), names::rootfs_snapshot(id));
        for (name, key) in [(&data, data_key()), (&rootfs, rootfs_key())] {
            self.client
                .commit_snapshot(snapshotter, name, &key, &labels)?;
        }
        Ok(Source {
            version: SOURCE_VERSION,
            namespace: self.client.namespace().to_owned(),
            names: Vec::new(),
            digest: String::new(),
            snapshotter: snapshotter.to_owned(),
            data,
            rootfs,
        })
    }

    fn annotations(&self, archive: &Archive, manifest: &Manifest, base: &Base) -> Result<Labels> {
        let mut annotations = document::annotations(
            manifest,
            base,
            annotation(&archive.spec, "sandbox-id"),
            &self.client.version()?,
            &archive.runtime,
        );
        annotations.insert(criu::ENGINE.to_owned(), archive.engine.to_string());
        // What the archive does not say, no version of ours says for it.
        for unknown in [criu::ENGINE_VERSION, criu::RUNTIME_VERSION] {
            annotations.remove(unknown);
        }
        Ok(annotations)
    }

    fn record_image(&self, manifest: &Manifest, digest: &str, bytes: u64) -> Result<String> {
        let origin = &manifest.origin;
        let group = origin.pod_namespace.as_ref().unwrap_or(&origin.namespace);
        let container = origin.name.as_ref().unwrap_or(&origin.container);
        let ours = names::image(group, container, &manifest.id);
        let name = self.wanted.name.map_or(ours, str::to_owned);
        self.client.put_image(&records::Record {
            name: name.clone(),
            labels: image_labels(&manifest.id, ""),
            digest: digest.to_owned(),
            media_type: names::MANIFEST_TYPE.to_owned(),
            bytes,
        })?;
        Ok(name)
    }

    /// An image of what cannot be restored: its layer is the archive itself.
    fn keep(
        &self,
        id: &str,
        archive: &Archive,
        blob: &Descriptor,
        diff_id: &str,
        why: String,
    ) -> Result<Imported> {
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            id: id.to_owned(),
            fingerprint: Fingerprint::of(&Hashes::default()),
            origin: Origin {
                namespace: self.client.namespace().to_owned(),
                ..archive.origin.clone()
            },
            created_unix_s: archive.created_unix_s,
            needs: archive.needs.clone(),
            image_bytes: u64::try_from(blob.size).unwrap_or_default(),
            frozen_us: 0,
            layers: Vec::new(),
            files: Vec::new(),
            fields: Hashes::default(),
            shown: reprise_runtime::fingerprint::Shown::default(),
            base: None,
        };
        let base = Base {
            chain: String::new(),
            name: archive.base.name.clone().unwrap_or_default(),
            manifest: None,
        };
        let mut annotations = self.annotations(archive, &manifest, &base)?;
        annotations.remove(names::ours::FINGERPRINT);
        annotations.insert(names::FOREIGN.to_owned(), why.clone());
        let layer = Layer {
            media_type: blob.media_type.clone(),
            digest: blob.digest.clone(),
            bytes: manifest.image_bytes,
            diff_id: diff_id.to_owned(),
            sealed: true,
        };
        let config = document::config(&manifest, &layer)?;
        let config_digest = self.client.write_blob(&config, &Labels::new())?;
        let text = document::manifest(&layer, (&config_digest, config.len()), None, &annotations)?;
        let labels = Labels::from([
            (names::keeps_content("config"), config_digest),
            (names::keeps_content("l.0"), layer.digest.clone()),
        ]);
        let digest = self.client.write_blob(&text, &labels)?;
        let bytes = u64::try_from(text.len()).unwrap_or_default();
        Ok(Imported {
            image: self.record_image(&manifest, &digest, bytes)?,
            id: id.to_owned(),
            engine: archive.engine.to_string(),
            origin: manifest.origin,
            foreign: Some(why),
        })
    }
}

fn data_key() -> String {
    format!("reprise-import-data-{}", Maker::me())
}

fn rootfs_key() -> String {
    format!("reprise-import-rootfs-{}", Maker::me())
}

fn base_image(base: &Base) -> checkpoint::BaseImage {
    checkpoint::BaseImage {
        chain: base.chain.clone(),
        digest: base.manifest.as_ref().map(|d| d.digest.clone()),
    }
}

/// A regular file, and no link to one.
fn is_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|about| about.is_file())
}
