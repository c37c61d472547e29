//! A checkpoint image gets its layer: until somebody pushes, exports or inspects it,
//! a snapshot stands for it, so that a checkpoint is written once.
//!
//! ```text
//!  base image ──┐ containerd's diff: what the writable layers change
//!  R above it ──┴─> rootfs-diff.tar ─> snapshot above D ─ containerd's diff ─> layer
//!  config and manifest are written anew; the image's record moves to them
//! ```
//!
//! containerd makes both tars, with its own rules for whiteouts. What is temporary is
//! under a publisher's lease.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use containerd_client::types::Mount;
use reprise_runtime::error::Doing;
use reprise_runtime::maker::Maker;
use reprise_runtime::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::client::Client;
use super::meter::Meter;
use super::names::{self, layer, ours};
use super::records::Record;
use super::snapshots::{directory, lower_directories};
use super::{Labels, sweep};

/// A checkpoint image and the snapshots that it keeps.
#[derive(Debug)]
pub(crate) struct Parts {
    record: Record,
    manifest: Value,
    config: Value,
    config_labels: Labels,
    snapshotter: String,
    data: String,
    rootfs: Option<String>,
}

impl Parts {
    /// Those of an image.
    ///
    /// # Errors
    /// There is no such image, it is no checkpoint, or it has not been unpacked here.
    pub(crate) fn of(client: &Client, image: &str) -> Result<Self> {
        let record = client.image(image)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "There is no image {image} in namespace {}; `ctr images ls` shows them",
                    client.namespace()
                ),
            )
        })?;
        let manifest = read(client, &record.digest, image)?;
        let digest = manifest["config"]["digest"].as_str().unwrap_or_default();
        let config_digest = digest.to_owned();
        let config = read(client, &config_digest, image)?;
        let blob = client.blob(&config_digest)?;
        let config_labels = blob.map(|blob| blob.labels).unwrap_or_default();
        let prefix = names::keeps_data("");
        let kept = config_labels.iter().find_map(|(name, snapshot)| {
            let snapshotter = name.strip_prefix(&prefix)?;
            (!snapshotter.contains('/')).then(|| (snapshotter.to_owned(), snapshot.clone()))
        });
        let (snapshotter, data) = kept.ok_or_else(|| {
            Error::new(
                ErrorKind::FailedPrecondition,
                format!("Image {image} is no checkpoint that was unpacked on this node"),
            )
        })?;
        let rootfs = config_labels.get(&names::keeps_rootfs(&snapshotter));
        Ok(Self {
            rootfs: rootfs.cloned(),
            record,
            manifest,
            config,
            config_labels,
            snapshotter,
            data,
        })
    }

    /// Whether its layer exists as a blob.
    pub(crate) fn is_sealed(&self) -> bool {
        self.manifest["annotations"][ours::SEALED] != "false"
    }
}

fn read(client: &Client, digest: &str, image: &str) -> Result<Value> {
    serde_json::from_slice(&client.read_blob(digest)?)
        .doing(format_args!("Cannot read the documents of image {image}"))
}

/// Makes an image's layer, if it has none; digest of its manifest then.
///
/// # Errors
/// containerd's; the base image is not here. The image is as it was then.
pub(crate) fn seal(client: &Client, image: &str, meter: &Meter) -> Result<String> {
    let parts = Parts::of(client, image)?;
    if parts.is_sealed() {
        return Ok(parts.record.digest);
    }
    under_lease(client, |client| {
        let key = temporary("seal");
        let mounts =
            client.prepare_snapshot(&parts.snapshotter, &key, &parts.data, &Labels::new())?;
        let diff = writable_directory(&parts.snapshotter, &mounts)?.join(layer::ROOTFS_DIFF);
        rootfs_diff(client, &parts, &diff)?;
        let reference = temporary("layer");
        let made = client.diff(
            Vec::new(),
            mounts,
            names::LAYER_ZSTD_TYPE,
            &reference,
            meter,
        )?;
        // It goes before its lease does: collecting it is no part of sealing.
        client.remove_snapshot(&parts.snapshotter, &key)?;
        let blob = client.blob(&made.digest)?;
        let diff_id = blob.and_then(|blob| blob.labels.get(names::UNCOMPRESSED).cloned());
        let diff_id = diff_id.ok_or_else(|| {
            Error::internal("containerd does not say what the layer is when uncompressed")
        })?;
        rewrite(
            client,
            &parts,
            &json!({
                "mediaType": made.media_type,
                "digest": made.digest,
                "size": made.size,
            }),
            &diff_id,
        )
    })
}

/// Writes config and manifest with a layer, and moves the image's record.
fn rewrite(client: &Client, parts: &Parts, layer: &Value, diff_id: &str) -> Result<String> {
    let mut config = parts.config.clone();
    config["rootfs"]["diff_ids"] = json!([diff_id]);
    let text = serde_json::to_vec(&config).doing("Cannot write an image's config")?;
    let config_digest = client.write_blob(&text, &parts.config_labels)?;
    let mut manifest = parts.manifest.clone();
    manifest["config"]["digest"] = json!(config_digest);
    manifest["config"]["size"] = json!(text.len());
    manifest["layers"] = json!([layer]);
    manifest["annotations"][ours::SEALED] = json!("true");
    let text = serde_json::to_vec(&manifest).doing("Cannot write an image's manifest")?;
    let blob = layer["digest"].as_str().unwrap_or_default().to_owned();
    let labels = Labels::from([
        (names::keeps_content("config"), config_digest),
        (names::keeps_content("l.0"), blob),
    ]);
    let digest = client.write_blob(&text, &labels)?;
    // All names of it, or the others would keep the old one.
    for record in client.list_images(&[format!("target.digest=={}", parts.record.digest)])? {
        client.put_image(&Record {
            digest: digest.clone(),
            bytes: text.len() as u64,
            ..record
        })?;
    }
    Ok(digest)
}

/// Writes what the writable layers change of the base image to `into`, in the form
/// of an image's layer. Images that travelled have it in their data already.
fn rootfs_diff(client: &Client, parts: &Parts, into: &Path) -> Result<()> {
    let layers = match &parts.rootfs {
        Some(rootfs) => numbered(&view(client, &parts.snapshotter, rootfs, "rootfs")?),
        None => Vec::new(),
    };
    if layers.is_empty() {
        return Ok(());
    }
    let chain = parts.manifest["annotations"][ours::BASE_CHAIN].as_str();
    let chain = chain.unwrap_or_default();
    let key = temporary("base");
    let base = client
        .view_snapshot(&parts.snapshotter, &key, chain, &Labels::new())
        .map_err(|error| match error.kind {
            ErrorKind::NotFound => Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "The image that the container ran is not on this node ({chain}); pull it first"
                ),
            ),
            _ => error,
        })?;
    let lower = lower_directories(&base).unwrap_or_default();
    let dirs: Vec<String> = layers
        .iter()
        .chain(&lower)
        .map(|dir| dir.display().to_string())
        .collect();
    let merged = Mount {
        r#type: "overlay".to_owned(),
        source: "overlay".to_owned(),
        options: vec!["ro".to_owned(), format!("lowerdir={}", dirs.join(":"))],
        ..Mount::default()
    };
    let reference = temporary("rootfs-diff");
    let made = client.diff(
        base,
        vec![merged],
        names::LAYER_TYPE,
        &reference,
        &Meter::default(),
    )?;
    client.remove_snapshot(&parts.snapshotter, &key)?;
    let mut file = create(into)?;
    client.read_blob_to(&made.digest, &mut file)?;
    client.remove_blob(&made.digest)
}

/// The directory that a committed snapshot without a parent is.
fn view(client: &Client, snapshotter: &str, name: &str, what: &str) -> Result<PathBuf> {
    let key = temporary(what);
    let mounts = client.view_snapshot(snapshotter, &key, name, &Labels::new())?;
    let dir = directory(snapshotter, &mounts);
    client.remove_snapshot(snapshotter, &key)?;
    dir
}

fn numbered(dir: &Path) -> Vec<PathBuf> {
    (0..)
        .map(|n: usize| dir.join(n.to_string()))
        .take_while(|layer| layer.is_dir())
        .collect()
}

/// Where files go that a snapshot above another one gets.
fn writable_directory(snapshotter: &str, mounts: &[Mount]) -> Result<PathBuf> {
    let mut options = mounts.iter().flat_map(|mount| &mount.options);
    let upper = options.find_map(|option| option.strip_prefix("upperdir="));
    upper.map(PathBuf::from).ok_or_else(|| {
        Error::new(
            ErrorKind::FailedPrecondition,
            format!("Snapshotter {snapshotter} makes no overlays; use overlayfs"),
        )
    })
}

fn create(path: &Path) -> Result<File> {
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(path)
        .doing(format_args!("Cannot write {}", path.display()))
}

/// A key that only this process uses.
fn temporary(what: &str) -> String {
    format!("reprise-{what}-{}", Maker::me())
}

/// Does something whose temporary objects go when it is done, or when we die.
fn under_lease<T>(client: &Client, work: impl FnOnce(&Client) -> Result<T>) -> Result<T> {
    sweep::dead_publishers(client)?;
    let lease = temporary("lease");
    let labels = Labels::from([(names::PUBLISHER.to_owned(), Maker::me().to_string())]);
    client.create_lease(&lease, &labels)?;
    let done = client.under(&lease).and_then(|client| work(&client));
    // What it alone holds is of no use to anybody. If this fails, it is swept.
    client.remove_lease(&lease, true).ok();
    done
}

impl Client {
    /// Reads a blob of any size into a file.
    ///
    /// # Errors
    /// NotFound; I/O. Its digest is containerd's to vouch for.
    pub(crate) fn read_blob_to(&self, digest: &str, to: &mut impl Write) -> Result<()> {
        self.each_chunk(digest, &mut |data| to.write_all(data))?;
        to.flush()
            .map_err(|e: io::Error| Error::because(format_args!("Cannot copy blob {digest}"), &e))
    }
}
