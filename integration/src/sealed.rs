//! Checkpoint images as a pipeline makes them: an OCI archive from a checkpoint's
//! files, with tar and sha256sum.

use crate::checkpoints::Checkpoint;
use crate::node::Node;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// Makes an archive of a checkpoint that `ctr images import` knows as `name`.
/// `image` is its image on the node. The writable layer must have no whiteouts.
///
/// # Errors
/// When a program fails.
pub fn archive(node: &Node, checkpoint: &Checkpoint, image: &str, name: &str) -> Result<PathBuf> {
    let work = node.dir().join(format!("sealed-{}", checkpoint.id));
    let layout = work.join("layout");
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    let images = node.checkpoint_images(checkpoint)?;
    let data = images.parent().context("a layer")?;
    let link = node.checkpoint_dir(checkpoint).join("rootfs");
    let upper = node.path(fs::read_link(link)?).join("0");

    let diff = work.join("rootfs-diff.tar");
    run("tar", &[&"-C", &upper, &"-cf", &diff, &"."])?;
    let layer = work.join("layer.tar");
    run(
        "tar",
        &[
            &"-cf",
            &layer,
            &"-C",
            &data,
            &".",
            &"-C",
            &work,
            &"rootfs-diff.tar",
        ],
    )?;
    let (layer, bytes) = add(&layout, &layer)?;

    let local = manifest_of(node, image)?;
    let config = content(
        node,
        local["config"]["digest"].as_str().context("a config")?,
    )?;
    let mut config: Value = serde_json::from_str(&config)?;
    config["rootfs"]["diff_ids"] = json!([layer]);
    let (config, config_bytes) = add_json(&layout, &work, &config)?;

    let mut manifest = local;
    manifest["layers"] = json!([{ "mediaType": TAR, "digest": layer, "size": bytes }]);
    manifest["config"]["digest"] = json!(config);
    manifest["config"]["size"] = json!(config_bytes);
    manifest["annotations"]["dev.reprise.sealed"] = json!("true");
    let (digest, bytes) = add_json(&layout, &work, &manifest)?;

    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": manifest["mediaType"], "digest": digest, "size": bytes,
            "annotations": { "io.containerd.image.name": name },
        }],
    });
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    let archive = work.join("image.tar");
    run("tar", &[&"-C", &layout, &"-cf", &archive, &"."])?;
    Ok(archive)
}

/// The manifest of an image on the node.
fn manifest_of(node: &Node, image: &str) -> Result<Value> {
    let listed = node.ctr(["images", "ls", &format!("name=={image}")])?;
    let digest = listed
        .split_whitespace()
        .find(|word| word.starts_with("sha256:"))
        .context("a digest")?;
    Ok(serde_json::from_str(&content(node, digest)?)?)
}

fn content(node: &Node, digest: &str) -> Result<String> {
    node.ctr(["content", "get", digest])
}

fn add_json(layout: &Path, work: &Path, document: &Value) -> Result<(String, u64)> {
    let file = work.join("document.json");
    fs::write(&file, document.to_string())?;
    add(layout, &file)
}

/// Moves a file to where its digest says; digest and size.
fn add(layout: &Path, file: &Path) -> Result<(String, u64)> {
    let bytes = fs::metadata(file)?.len();
    let sum = run("sha256sum", &[&file])?;
    let hex = sum.split_whitespace().next().context("a sum")?;
    fs::rename(file, layout.join("blobs/sha256").join(hex))?;
    Ok((format!("sha256:{hex}"), bytes))
}

fn run(program: &str, words: &[&dyn AsRef<OsStr>]) -> Result<String> {
    let output = Command::new(program)
        .args(words.iter().map(|word| word.as_ref()))
        .output()?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
