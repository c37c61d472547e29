//! An archive of a checkpoint, as containerd's CRI writes them. The images in it are
//! in runc's form, so that it restores under containerd with runc; `reprise import`
//! makes them ours again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use containerd_client::types::Mount;
use reprise_runtime::error::Doing;
use reprise_runtime::maker::Maker;
use reprise_runtime::store::{Source, Stored};
use reprise_runtime::worker::foreign::{self, Archive};
use reprise_runtime::{Error, ErrorKind, Result};
use serde_json::json;

use super::Labels;
use super::client::Client;
use super::meter::Meter;
use super::names::{self, LAYER_TYPE, layer};
use super::scratch::Scratch;

/// Where containerd keeps blobs, below the root of its content plugin.
const CONTENT: (&str, &str) = ("io.containerd.content.v1", "content");
/// How often one looks how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Files at the root of a layer that belong into an archive as they are.
const FILES: [&str; 5] = [
    layer::CONFIG,
    layer::SPEC,
    layer::MANIFEST,
    layer::STATISTICS,
    layer::LOG,
];

/// Writes an archive of a checkpoint of ours to `file`, for root alone: it holds
/// somebody's memory.
///
/// # Errors
/// Its images are not ours, or have gone; containerd's; I/O. There is no file then.
pub(crate) fn export(
    client: &Client,
    stored: &Stored,
    scratch: &Path,
    file: &Path,
    meter: &Meter,
) -> Result<()> {
    let scratch = Scratch::make(scratch, &format!("{}.export", stored.id()))?;
    for dir in [tree(&scratch), fresh(&scratch)] {
        fs::create_dir(&dir).doing(format_args!("Cannot make {}", dir.display()))?;
    }
    let lease = format!("reprise-export-{}", Maker::me());
    let labels = Labels::from([(names::PUBLISHER.to_owned(), Maker::me().to_string())]);
    client.create_lease(&lease, &labels)?;
    let packed = client
        .under(&lease)
        .and_then(|client| gather(&client, stored, &scratch))
        .and_then(|()| {
            meter.set(0, stored.manifest().image_bytes);
            pack(&tree(&scratch), file, meter)
        });
    let given_back = client.remove_lease(&lease, false);
    packed.and(given_back)
}

/// Files that CRIU's images need to be others, before they are linked.
fn fresh(scratch: &Scratch) -> PathBuf {
    scratch.path().join("fresh")
}

/// What the archive will have.
fn tree(scratch: &Scratch) -> PathBuf {
    scratch.path().join("tree")
}

fn gather(client: &Client, stored: &Stored, scratch: &Scratch) -> Result<()> {
    let tree = tree(scratch);
    let images = stored.images();
    let images =
        fs::canonicalize(&images).doing(format_args!("Cannot open {}", images.display()))?;
    let data = images.parent().unwrap_or(&images);
    let archive = Archive::read(data)?;
    let changes = foreign::for_runc(&images, &archive.spec, &fresh(scratch))?;
    changes.link_beside(&images, &tree.join(layer::IMAGES))?;
    for name in FILES {
        let from = data.join(name);
        if from.exists() {
            symlink(&from, tree.join(name))
                .doing(format_args!("Cannot link {}", from.display()))?;
        }
    }
    let status = tree.join(layer::STATUS);
    fs::write(&status, status_dump(&archive))
        .doing(format_args!("Cannot write {}", status.display()))?;
    let Some(tar) = rootfs_diff(client, stored)? else {
        return Ok(());
    };
    let to = tree.join(layer::ROOTFS_DIFF);
    symlink(&tar, &to).doing(format_args!("Cannot link {}", tar.display()))?;
    Ok(())
}

/// What containerd asks for besides when it restores an archive.
fn status_dump(archive: &Archive) -> String {
    let image = archive.base.name.clone().unwrap_or_default();
    json!({
        "id": archive.origin.container,
        "metadata": { "name": archive.origin.name },
        "state": 1,
        "image": { "image": image, "user_specified_image": image },
        "image_ref": archive.base.config,
    })
    .to_string()
}

/// The writable layers as the tar that containerd's differ makes of them, with
/// whiteouts as images have them: the file of a blob, which the lease keeps.
fn rootfs_diff(client: &Client, stored: &Stored) -> Result<Option<PathBuf>> {
    let layers = stored.layers();
    if layers.is_empty() {
        return Ok(None);
    }
    let source = stored.source()?;
    let lower = base(client, stored, &source)?;
    let upper = layers.iter().map(|dir| dir.display().to_string());
    let all: Vec<String> = upper.chain(lower.iter().cloned()).collect();
    let reference = format!("reprise-export-{}", Maker::me());
    let blob = client.diff(
        vec![shown(&lower)],
        vec![shown(&all)],
        LAYER_TYPE,
        &reference,
        &Meter::default(),
    )?;
    let root = client.plugin_root(CONTENT.0, CONTENT.1)?;
    let root =
        root.ok_or_else(|| Error::internal("containerd does not say where its content is"))?;
    Ok(Some(root.join("blobs").join(blob.digest.replace(':', "/"))))
}

fn base(client: &Client, stored: &Stored, source: &Source) -> Result<Vec<String>> {
    let base = stored.manifest().base.as_ref();
    let chain = base.map(|base| base.chain.as_str()).unwrap_or_default();
    let lower = client.lower(&source.snapshotter, chain)?;
    lower.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "The base image of checkpoint {} is not on this node",
                stored.id()
            ),
        )
    })
}

/// These directories, uppermost first, as one read-only file system.
fn shown(dirs: &[String]) -> Mount {
    let (typ, source, options) = match dirs {
        [one] => (
            "bind",
            one.clone(),
            vec!["ro".to_owned(), "rbind".to_owned()],
        ),
        all => (
            "overlay",
            "overlay".to_owned(),
            vec![format!("lowerdir={}", all.join(":"))],
        ),
    };
    Mount {
        r#type: typ.to_owned(),
        source,
        options,
        ..Mount::default()
    }
}

/// GNU tar keeps holes, and reads through the links.
fn pack(tree: &Path, file: &Path, meter: &Meter) -> Result<()> {
    let doing = || format!("Cannot write {}", file.display());
    let beside = file.with_extension(format!("{}.part", std::process::id()));
    let out = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .doing(doing())?;
    let packed = Command::new("tar")
        .args([
            "--create",
            "--dereference",
            "--sparse",
            "--numeric-owner",
            "--directory",
        ])
        .arg(tree)
        .arg(".")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(|tar| watched(tar, &beside, meter))
        .and_then(|output| match output.status.success() {
            true => fs::rename(&beside, file),
            false => Err(io::Error::other(
                String::from_utf8_lossy(&output.stderr)
                    .lines()
                    .next()
                    .unwrap_or("tar gave no reason")
                    .to_owned(),
            )),
        });
    packed
        .inspect_err(|_| drop(fs::remove_file(&beside)))
        .doing(doing())
}

/// Waits for a program that writes a file.
fn watched(mut writer: Child, file: &Path, meter: &Meter) -> io::Result<Output> {
    let (_, total) = meter.read();
    while writer.try_wait()?.is_none() {
        let written = fs::metadata(file).map_or(0, |about| about.len());
        meter.set(written, total.unwrap_or_default());
        std::thread::sleep(LOOK_EVERY);
    }
    writer.wait_with_output()
}
