//! A checkpoint becomes an image, without a copy of it: two snapshots that are
//! written in place, a config and a manifest that name them, a record.
//!
//! ```text
//!  lease ─ snapshots D and R ─ (dump) ─ commit both ─ config ─ manifest ─
//!      image record: from here on it is there ─ the node's record ─ lease back
//! ```
//!
//! All of it is under the lease of a publisher that is alive. Whatever is killed
//! before the image's record exists leaves nothing that outlives the next sweep;
//! after that, the image is whole.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use reprise_runtime::checkpoint::Manifest;
use reprise_runtime::error::Doing;
use reprise_runtime::fingerprint::{self, Fingerprint};
use reprise_runtime::maker::{Maker, boot_id};
use reprise_runtime::publish::{Begun, Commit};
use reprise_runtime::store::{self, Record, SOURCE_VERSION, Source, Store, Stored};
use reprise_runtime::timestamp::rfc3339;
use reprise_runtime::{Error, ErrorKind, Result};

use super::base::Base;
use super::client::Client;
use super::containers::Container;
use super::describe::Description;
use super::document::{self, Layer};
use super::names::{self, layer};
use super::snapshots::directory;
use super::{Labels, copy, records, sweep};

/// When containerd itself gives a publisher's lease up, should no sweep come.
const EXPIRES_AFTER_S: u64 = 24 * 3600;

/// A checkpoint on its way into containerd's store.
#[derive(Debug)]
pub(crate) struct Publication {
    store: Store,
    /// Under the lease.
    client: Client,
    lease: String,
    id: String,
    /// The image's name, when somebody has chosen one.
    name: Option<String>,
    container: Container,
    base: Base,
    data: PathBuf,
    rootfs: PathBuf,
}

/// One that is there.
#[derive(Debug)]
pub(crate) struct Published {
    pub(super) client: Client,
    stored: Stored,
    /// The image's name.
    pub(crate) image: String,
    data: PathBuf,
    rootfs: PathBuf,
}

impl Publication {
    /// Makes the place for a checkpoint of a container, whose image may have a name that
    /// somebody has chosen.
    ///
    /// # Errors
    /// containerd's; a snapshotter without directories; the name is that of an image
    /// which is no checkpoint. Nothing is left.
    pub(crate) fn begin(
        client: &Client,
        store: &Store,
        container: &str,
        name: Option<String>,
    ) -> Result<Self> {
        if let Some(name) = &name {
            is_free(client, name)?;
        }
        sweep::dead_publishers(client)?;
        let container = client.container(container)?;
        let base = Base::of(client, &container)?;
        let (id, lease) = take_lease(client, store, &container.id)?;
        let begun = Self {
            store: store.clone(),
            client: client.under(&lease)?,
            lease,
            id,
            name,
            container,
            base,
            data: PathBuf::new(),
            rootfs: PathBuf::new(),
        };
        begun.prepare()
    }

    fn prepare(mut self) -> Result<Self> {
        let made = self
            .snapshot(&self.data_key())
            .and_then(|data| Ok((data, self.snapshot(&self.rootfs_key())?)))
            .and_then(|(data, rootfs)| {
                let images = data.join(layer::IMAGES);
                std::fs::create_dir(&images)
                    .doing(format_args!("Cannot make {}", images.display()))?;
                Ok((data, rootfs))
            });
        match made {
            Ok((data, rootfs)) => {
                self.data = data;
                self.rootfs = rootfs;
                Ok(self)
            }
            Err(error) => {
                self.abort();
                Err(error)
            }
        }
    }

    fn snapshot(&self, key: &str) -> Result<PathBuf> {
        let snapshotter = &self.container.snapshotter;
        let labels = Labels::from([(names::CHECKPOINT.to_owned(), self.id.clone())]);
        let mounts = self
            .client
            .prepare_snapshot(snapshotter, key, "", &labels)?;
        directory(snapshotter, &mounts)
    }

    fn data_key(&self) -> String {
        format!("reprise-data-{}-new", self.id)
    }

    fn rootfs_key(&self) -> String {
        format!("{}-new", names::rootfs_snapshot(&self.id))
    }

    /// Where the dump goes.
    pub(crate) fn place(&self) -> Begun {
        Begun {
            id: self.id.clone(),
            images: self.data.join(layer::IMAGES),
            rootfs: self.rootfs.clone(),
        }
    }

    /// Makes it an image that can be found.
    ///
    /// # Errors
    /// containerd's, I/O; nothing is left.
    pub(crate) fn commit(self, commit: Commit) -> Result<Published> {
        let committed = self.finish(commit);
        match committed {
            Ok((stored, image)) => {
                // What it held is held by the image now. If this fails, the next
                // sweep does it.
                self.client.remove_lease(&self.lease, false).ok();
                Ok(Published {
                    client: self.client,
                    stored,
                    image,
                    data: self.data,
                    rootfs: self.rootfs,
                })
            }
            Err(error) => {
                self.abort();
                Err(error)
            }
        }
    }

    fn finish(&self, commit: Commit) -> Result<(Stored, String)> {
        let manifest = self.gather(commit)?;
        let source = self.commit_snapshots()?;
        let (digest, bytes) = self.write_documents(&manifest, &source)?;
        let image = match &self.name {
            Some(name) => name.clone(),
            None => names::image_of(&manifest.origin, &self.id),
        };
        self.client.put_image(&records::Record {
            name: image.clone(),
            labels: image_labels(&self.id, boot_id()),
            digest: digest.clone(),
            media_type: names::MANIFEST_TYPE.to_owned(),
            bytes,
        })?;
        let stored = self.store.record(&Record {
            manifest,
            images: self.data.join(layer::IMAGES),
            rootfs: self.rootfs.clone(),
            source: Source {
                names: vec![image.clone()],
                digest,
                ..source
            },
            durable: false,
        });
        let stored = stored.inspect_err(|_| {
            // Nobody would find it; the error that counts is the record's.
            self.client.remove_image(&image, false).ok();
        })?;
        Ok((stored, image))
    }

    /// Everything that belongs into the layer gets there.
    fn gather(&self, commit: Commit) -> Result<Manifest> {
        let images = self.data.join(layer::IMAGES);
        if let Some(from) = &commit.images {
            copy::link_files(from, &images)
                .doing(format_args!("Cannot take images from {}", from.display()))?;
        }
        for (n, from) in commit.layers.iter().enumerate() {
            copy::link_tree(from, &self.rootfs.join((n + 1).to_string()))
                .doing(format_args!("Cannot take the layer {}", from.display()))?;
        }
        let mut manifest = commit.manifest;
        manifest.id.clone_from(&self.id);
        manifest.base = Some(self.base.noted());
        store::complete(&mut manifest, &images, &self.rootfs)?;
        let dump =
            Description::of(&self.container).config_dump(&self.container, &self.base, &manifest);
        self.write(layer::CONFIG, dump.to_string().as_bytes())?;
        self.write(layer::SPEC, &self.container.spec)?;
        let travels = self.travelling(&manifest);
        let text = serde_json::to_vec_pretty(&travels).doing("Cannot write a manifest")?;
        self.write(layer::MANIFEST, &text)?;
        let statistics = images.join(layer::STATISTICS);
        if statistics.exists() {
            // No link: in the layer's tar it would be a file without content to those
            // that read it by itself, as checkpointctl does.
            std::fs::copy(&statistics, self.data.join(layer::STATISTICS))
                .doing(format_args!("Cannot copy {}", statistics.display()))?;
        }
        Ok(manifest)
    }

    /// The manifest that travels: it says what the checkpoint is in words that every
    /// node understands.
    fn travelling(&self, manifest: &Manifest) -> Manifest {
        let mut travels = manifest.clone();
        let base = fingerprint::Base::Anywhere(self.base.chain.clone());
        travels.fields = travels.fields.with_base(&base);
        travels.fingerprint = Fingerprint::of(&travels.fields);
        travels
    }

    fn write(&self, name: &str, text: &[u8]) -> Result<()> {
        let path = self.data.join(name);
        std::fs::write(&path, text).doing(format_args!("Cannot write {}", path.display()))
    }

    fn commit_snapshots(&self) -> Result<Source> {
        let snapshotter = &self.container.snapshotter;
        let labels = Labels::from([(names::CHECKPOINT.to_owned(), self.id.clone())]);
        let (data, rootfs) = (
            names::data_snapshot(&self.id),
            names::rootfs_snapshot(&self.id),
        );
        self.client
            .commit_snapshot(snapshotter, &data, &self.data_key(), &labels)?;
        self.client
            .commit_snapshot(snapshotter, &rootfs, &self.rootfs_key(), &labels)?;
        Ok(Source {
            version: SOURCE_VERSION,
            namespace: self.client.namespace().to_owned(),
            names: Vec::new(),
            digest: String::new(),
            snapshotter: snapshotter.clone(),
            data,
            rootfs,
        })
    }

    /// Config and manifest; digest and size of the manifest.
    fn write_documents(&self, manifest: &Manifest, source: &Source) -> Result<(String, u64)> {
        let unsealed = Layer::unsealed(&source.data, manifest.image_bytes);
        let annotations = document::annotations(
            &self.travelling(manifest),
            &self.base,
            Description::of(&self.container).sandbox.as_deref(),
            &self.client.version()?,
            &self.container.runtime,
        );
        write_documents(
            &self.client,
            manifest,
            &unsealed,
            &annotations,
            self.base.manifest.as_ref(),
            source,
        )
    }

    /// Undoes everything. What cannot be undone now is swept later.
    pub(crate) fn abort(&self) {
        self.client.remove_lease(&self.lease, true).ok();
    }
}

/// Writes config and manifest of a checkpoint, with the labels that keep snapshots
/// and blobs; digest and size of the manifest.
pub(super) fn write_documents(
    client: &Client,
    manifest: &Manifest,
    layer: &Layer,
    annotations: &BTreeMap<String, String>,
    base: Option<&super::base::Descriptor>,
    source: &Source,
) -> Result<(String, u64)> {
    let config = document::config(manifest, layer)?;
    let labels = Labels::from([
        (names::keeps_data(&source.snapshotter), source.data.clone()),
        (
            names::keeps_rootfs(&source.snapshotter),
            source.rootfs.clone(),
        ),
    ]);
    let config_digest = client.write_blob(&config, &labels)?;
    let text = document::manifest(layer, (&config_digest, config.len()), base, annotations)?;
    let mut labels = Labels::from([(names::keeps_content("config"), config_digest)]);
    if layer.sealed {
        labels.insert(names::keeps_content("l.0"), layer.digest.clone());
    }
    let digest = client.write_blob(&text, &labels)?;
    Ok((digest, text.len() as u64))
}

/// Labels of a checkpoint image's record. `boot` is empty for one that has reached
/// the disk.
pub(super) fn image_labels(id: &str, boot: &str) -> Labels {
    let mut labels = Labels::from(
        [
            (names::CHECKPOINT, id),
            (names::TRUSTED, "true"),
            (names::PINNED, names::PINNED_VALUE),
            (names::MANAGED, names::MANAGED_VALUE),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    if !boot.is_empty() {
        labels.insert(names::BOOT.to_owned(), boot.to_owned());
    }
    labels
}

/// A name of one's own may move from one checkpoint to the next, and takes nothing else
/// away.
fn is_free(client: &Client, name: &str) -> Result<()> {
    match client.image(name)? {
        Some(image) if !image.labels.contains_key(names::CHECKPOINT) => Err(Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "Image {name} is there and is no checkpoint of this node; give the checkpoint \
                 another name"
            ),
        )),
        _ => Ok(()),
    }
}

/// An id that nobody has, and the lease under which it is published.
fn take_lease(client: &Client, store: &Store, container: &str) -> Result<(String, String)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let expires = now.unwrap_or_default().as_secs() + EXPIRES_AFTER_S;
    let labels = Labels::from([
        (names::PUBLISHER.to_owned(), Maker::me().to_string()),
        (names::EXPIRE.to_owned(), rfc3339(expires)),
    ]);
    loop {
        let id = store.new_id(container)?;
        let lease = format!("reprise-publish-{id}");
        match client.create_lease(&lease, &labels) {
            Ok(()) => return Ok((id, lease)),
            // The same container in the same millisecond.
            Err(error) if error.kind == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

impl Published {
    /// Brings it to the disk, and notes that it is there for good.
    ///
    /// # Errors
    /// I/O; containerd's.
    pub(crate) fn settle(&self) -> Result<()> {
        for dir in [&self.data, &self.rootfs] {
            copy::sync_tree(dir).doing(format_args!("Cannot flush {}", dir.display()))?;
            if let Some(parent) = dir.parent() {
                copy::sync(parent).doing(format_args!("Cannot flush {}", parent.display()))?;
            }
        }
        copy::sync_tree(self.stored.dir()).doing("Cannot flush the checkpoint's record")?;
        self.stored.mark_durable()?;
        let settled = Labels::from([(names::BOOT.to_owned(), String::new())]);
        self.client.relabel_image(&self.image, &settled)
    }
}
