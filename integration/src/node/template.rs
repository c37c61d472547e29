//! A containerd root with the test images in it, made once and shared.
//!
//! Importing the images takes many seconds; a node starts from a copy of the
//! databases, hard links to the blobs, and the layers mounted read-only.

use super::{Node, NodeOptions, place};
use crate::tools::Tools;
use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const CONTENT: &str = "io.containerd.content.v1.content";
const DATABASES: [&str; 2] = [
    "io.containerd.metadata.v1.bolt/meta.db",
    "io.containerd.snapshotter.v1.overlayfs/metadata.db",
];

/// Finds the template for these tools, and makes it when there is none.
pub(super) fn prepare(tools: &Tools) -> Result<PathBuf> {
    let base = &place::base()?;
    let template = base.join(format!("template-{}", key(tools)?));
    let lock = fs::File::create(base.join("template.lock"))?;
    let lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .context("locking the template")?;
    if !template.exists() {
        forget_old(base, tools)?;
        let partial = base.join("template.partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        import_into(&partial, tools)?;
        fs::rename(&partial, &template)?;
    }
    drop(lock);
    Ok(template)
}

/// Gives a new node its containerd root; the layers are mounted by `init.sh`.
pub(super) fn copy(template: &Path, root: &Path) -> Result<()> {
    let linked = Command::new("cp")
        .arg("-al")
        .arg(template.join(CONTENT))
        .arg(root)
        .status()?;
    if !linked.success() {
        bail!("cannot link the images' blobs into {}", root.display());
    }
    for database in DATABASES {
        let to = root.join(database);
        fs::create_dir_all(to.parent().unwrap_or(root))?;
        fs::copy(template.join(database), to)?;
    }
    Ok(())
}

/// A name that changes with containerd and the images.
fn key(tools: &Tools) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    let mut files = tools.images();
    files.push(tools.program("containerd"));
    for file in files {
        let meta = fs::metadata(&file)?;
        (file, meta.size(), meta.mtime(), meta.mtime_nsec()).hash(&mut hasher);
    }
    Ok(format!(
        "{}-{:016x}",
        tools.containerd_version(),
        hasher.finish()
    ))
}

/// Removes templates of the same containerd with other images.
fn forget_old(base: &Path, tools: &Tools) -> Result<()> {
    let prefix = format!("template-{}-", tools.containerd_version());
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn import_into(root: &Path, tools: &Tools) -> Result<()> {
    let node = Node::start_with(&NodeOptions {
        containerd: tools.containerd_version().to_owned(),
        images_root: Some(root.to_path_buf()),
        ..NodeOptions::default()
    })?;
    for image in tools.images() {
        node.run("ctr", ["images", "import", &image.display().to_string()])?
            .ok()?;
    }
    node.stop_containerd()
}
