//! What other engines and other nodes made becomes a checkpoint image here.
//!
//! ```text
//!  archive or image ─ blob ─ containerd unpacks it ─ adapt: snapshots D and R ─
//!      config, manifest, record: as if it had been published here
//! ```
//!
//! What cannot be restored becomes an image all the same, with the archive as its
//! layer and the reason in its manifest.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use containerd_client::types::Descriptor;
use reprise_runtime::checkpoint::{MANIFEST_VERSION, Manifest, Origin};
use reprise_runtime::cri::annotation;
use reprise_runtime::fingerprint::{Fingerprint, Hashes, Shown};
use reprise_runtime::maker::Maker;
use reprise_runtime::store::{Record, SOURCE_VERSION, Source, Store};
use reprise_runtime::timestamp::rfc3339;
use reprise_runtime::worker::foreign::Archive;
use reprise_runtime::{Error, ErrorKind, Result};

use super::adapt::{Adapted, Place, Restorable};
use super::base::Base;
use super::chain::{Here, shown};
use super::client::Client;
use super::document::{self, Layer};
use super::meter::Meter;
use super::names::{self, criu, layer};
use super::publish::{image_labels, write_documents};
use super::snapshots::directory;
use super::{Labels, records, sweep};

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
pub(crate) fn import(
    client: &Client,
    store: &Store,
    wanted: &Wanted<'_>,
    meter: &Meter,
) -> Result<Imported> {
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
        .run(meter)
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

impl Import<'_> {
    fn run(&self, meter: &Meter) -> Result<Imported> {
        let blob = match self.wanted.from {
            From::Archive(file) => self.client.layer_of_file(file, meter)?,
            From::Image(name) => self.client.layer_of_image(name)?,
        };
        let snapshotter = self.wanted.snapshotter;
        let key = format!("reprise-import-{}", Maker::me());
        let mounts = self
            .client
            .prepare_snapshot(snapshotter, &key, "", &Labels::new())?;
        let dir = directory(snapshotter, &mounts)?;
        let unpacked = self.client.apply(&blob, mounts)?;
        let archive = Archive::read(&dir)?;
        let id = self.store.new_id(&archive.origin.container)?;
        let imported = match Restorable::of(&archive, &dir) {
            Ok(restorable) => self.publish(&id, &archive, restorable),
            // Damage is an error, and so is what somebody can mend.
            Err(error) if error.kind == ErrorKind::FailedPrecondition => {
                self.keep(&id, &archive, &blob, &unpacked.digest, error.message)
            }
            Err(error) => Err(error),
        }?;
        self.client.remove_snapshot(snapshotter, &key)?;
        Ok(imported)
    }

    fn publish(&self, id: &str, archive: &Archive, images: Restorable<'_>) -> Result<Imported> {
        let here = self.base(archive)?;
        let place = Place {
            id,
            snapshotter: self.wanted.snapshotter,
            base: &here,
        };
        let Adapted {
            manifest,
            data,
            rootfs,
        } = images.adapt(&self.client, &place)?;
        let source = Source {
            version: SOURCE_VERSION,
            namespace: self.client.namespace().to_owned(),
            names: Vec::new(),
            digest: String::new(),
            snapshotter: self.wanted.snapshotter.to_owned(),
            data: data.0,
            rootfs: rootfs.0,
        };
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
            images: data.1.join(layer::IMAGES),
            rootfs: rootfs.1,
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
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "Its base image {} is not on this node; pull that and import it again",
                    shown(&archive.base)
                ),
            )
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
        let ours = || names::image_of(&manifest.origin, &manifest.id);
        let name = self.wanted.name.map_or_else(ours, str::to_owned);
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
            shown: Shown::default(),
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
