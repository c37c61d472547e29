//! A checkpoint's record on this node: what the hot path reads instead of asking
//! containerd.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Store, Stored, check_id, make_dir, names};
use crate::checkpoint::{ImageFile, MANIFEST_VERSION, Manifest};
use crate::error::{Doing, Error, Result};
use crate::maker::{Maker, boot_id};

/// The format of `image` that this build writes.
pub const SOURCE_VERSION: u32 = 1;

/// Where in containerd a checkpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// [`SOURCE_VERSION`].
    pub version: u32,
    /// containerd's namespace.
    pub namespace: String,
    /// Names of the image's records.
    pub names: Vec<String>,
    /// Digest of its manifest.
    pub digest: String,
    /// The snapshotter that has both snapshots.
    pub snapshotter: String,
    /// Name of the snapshot with CRIU's images.
    pub data: String,
    /// Name of the snapshot with the writable layers.
    pub rootfs: String,
}

impl Source {
    /// What the record in `dir` says.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("image");
        let doing = format!("Cannot read {}", path.display());
        let text = fs::read(&path).doing(&doing)?;
        let source: Self = serde_json::from_slice(&text).doing(&doing)?;
        if source.version == SOURCE_VERSION {
            Ok(source)
        } else {
            Err(Error::internal(format!(
                "{doing}: it has version {}, and this build reads version {SOURCE_VERSION}",
                source.version
            )))
        }
    }
}

/// A record that is to be written.
#[derive(Debug, Clone)]
pub struct Record {
    /// What the checkpoint holds; see [`complete`].
    pub manifest: Manifest,
    /// Directory of CRIU's images.
    pub images: PathBuf,
    /// Directory of the writable layers.
    pub rootfs: PathBuf,
    /// Where they are in containerd.
    pub source: Source,
    /// Whether all of it has reached the disk.
    pub durable: bool,
}

/// Fills in what a manifest says of files: version, layers, CRIU's images with their
/// sizes.
///
/// # Errors
/// I/O; something that is no file among the images.
pub fn complete(manifest: &mut Manifest, images: &Path, rootfs: &Path) -> Result<()> {
    manifest.version = MANIFEST_VERSION;
    manifest.files = image_files(images)?;
    manifest.image_bytes = manifest.files.iter().map(|f| f.bytes).sum();
    manifest.layers = (0..)
        .map(|n: usize| n.to_string())
        .take_while(|n| rootfs.join(n).exists())
        .collect();
    let text = serde_json::to_vec(manifest).doing("Cannot write a manifest")?;
    // What this build writes it must be able to read.
    Manifest::parse(&text).map(drop).map_err(Error::internal)
}

impl Store {
    /// An id for a checkpoint of container `container` that no record has.
    ///
    /// # Errors
    /// A container id that cannot be a file name.
    pub fn new_id(&self, container: &str) -> Result<String> {
        check_id(container)?;
        let mut ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        loop {
            let id = format!("{container}-{ms}");
            check_id(&id)?;
            if !self.checkpoints().join(&id).exists() {
                return Ok(id);
            }
            ms += 1;
        }
    }

    /// Writes a record, in place of one that has its id, and points the index at it.
    /// What others that died have left half written goes.
    ///
    /// # Errors
    /// I/O, such as a full disk: nothing is left then.
    pub fn record(&self, record: &Record) -> Result<Stored> {
        let id = &record.manifest.id;
        check_id(id)?;
        make_dir(&self.checkpoints())?;
        make_dir(&self.staging())?;
        self.sweep();
        let staged = self.staging().join(format!("{id}@{}", Maker::me()));
        let dir = self.checkpoints().join(id);
        let written = self.write(record, &staged).and_then(|()| {
            self.discard(&dir)?;
            fs::rename(&staged, &dir).doing(format_args!("Cannot commit {}", dir.display()))
        });
        if let Err(error) = written {
            drop(fs::remove_dir_all(&staged)); // swept later, if not now
            return Err(error);
        }
        let stored = Stored {
            dir,
            manifest: record.manifest.clone(),
        };
        if let Err(error) = self.point_index_at(&stored) {
            // Not findable is not there. A directory that resists removal is
            // harmless: it is listed and can be removed.
            drop(fs::remove_dir_all(&stored.dir));
            return Err(error);
        }
        Ok(stored)
    }

    fn write(&self, record: &Record, dir: &Path) -> Result<()> {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(dir)
            .doing(format_args!("Cannot make {}", dir.display()))?;
        let link = |to: &Path, name: &str| {
            symlink(to, dir.join(name)).doing(format_args!("Cannot link {}", to.display()))
        };
        link(&record.images, "images")?;
        link(&record.rootfs, "rootfs")?;
        let text = serde_json::to_vec_pretty(&record.manifest).doing("Cannot write a manifest")?;
        write_file(&dir.join("manifest.json"), &text)?;
        let text = serde_json::to_vec_pretty(&record.source).doing("Cannot write a record")?;
        write_file(&dir.join("image"), &text)?;
        if record.durable {
            write_file(&dir.join("durable"), b"")
        } else {
            write_file(&dir.join("boot"), boot_id().as_bytes())
        }
    }

    /// Moves a record out of sight and removes it; none there is no error.
    pub(super) fn discard(&self, dir: &Path) -> Result<()> {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let gone = self
            .staging()
            .join(format!("{name}.removed@{}", Maker::me()));
        make_dir(&self.staging())?;
        match fs::rename(dir, &gone) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.doing(format_args!("Cannot remove {}", dir.display()))?,
        }
        fs::remove_dir_all(&gone).doing(format_args!("Cannot remove {}", gone.display()))
    }

    /// Removes what makers that are gone have left. Errors do not matter: it is tried
    /// again with the next record.
    fn sweep(&self) {
        for name in names(&self.staging()).unwrap_or_default() {
            let maker = name
                .rsplit_once('@')
                .and_then(|(_, text)| Maker::parse(text));
            if maker.is_none_or(|maker| maker.is_gone()) {
                drop(fs::remove_dir_all(self.staging().join(name)));
            }
        }
    }
}

fn write_file(path: &Path, text: &[u8]) -> Result<()> {
    fs::File::create(path)
        .and_then(|mut file| file.write_all(text))
        .doing(format_args!("Cannot write {}", path.display()))
}

/// Names and sizes of all images.
fn image_files(dir: &Path) -> Result<Vec<ImageFile>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(dir).doing(format_args!("Cannot list {}", dir.display()))?;
    for entry in entries {
        let entry = entry.doing(format_args!("Cannot list {}", dir.display()))?;
        let meta = entry
            .metadata()
            .doing(format_args!("Cannot look at {}", entry.path().display()))?;
        let name = entry.file_name().into_string().ok();
        match name {
            Some(name) if meta.is_file() => files.push(ImageFile {
                name,
                bytes: meta.len(),
            }),
            _ => {
                return Err(Error::internal(format!(
                    "{} is not an image file",
                    entry.path().display()
                )));
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}
