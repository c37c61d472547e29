//! A checkpoint in the making.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Store, Stored, check_id, copy, make_dir, names};
use crate::checkpoint::{ImageFile, MANIFEST_VERSION, Manifest};
use crate::error::{Doing, Error, ErrorKind, Result};

/// How old a staging directory is that nobody works on any more.
const STALE: Duration = Duration::from_secs(3600);

/// A checkpoint in the making; dropped without `commit`, it is removed.
#[derive(Debug)]
pub struct Staging {
    store: Store,
    id: String,
    dir: PathBuf,
}

impl Staging {
    pub(super) fn begin(store: &Store, container: &str) -> Result<Self> {
        check_id(container)?;
        make_dir(&store.checkpoints())?;
        make_dir(&store.staging())?;
        sweep(&store.staging());
        let mut ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        loop {
            let id = format!("{container}-{ms}");
            check_id(&id)?;
            let dir = store.staging().join(&id);
            match fs::DirBuilder::new().mode(0o700).create(&dir) {
                // The same container id in another namespace, in the same moment.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Ok(()) if store.checkpoints().join(&id).exists() => {
                    drop(fs::remove_dir(&dir)); // swept later, if not now
                }
                Ok(()) => {
                    let staging = Self {
                        store: store.clone(),
                        id,
                        dir,
                    };
                    make_dir(&staging.images())?;
                    make_dir(&staging.dir.join("rootfs"))?;
                    return Ok(staging);
                }
                Err(e) => {
                    return Err(Error::because(
                        format_args!("Cannot make {}", dir.display()),
                        &e,
                    ));
                }
            }
            ms += 1;
        }
    }

    /// The checkpoint's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Existing directory for CRIU's images.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// Path for writable layer `n` (0 is uppermost); its parent exists.
    #[must_use]
    pub fn layer(&self, n: usize) -> PathBuf {
        self.dir.join("rootfs").join(n.to_string())
    }

    /// Takes all files of `from` in as images, by hard link where the file system
    /// allows it, else by reflink or copy. Directories in it are left out: CRIU
    /// makes none.
    ///
    /// # Errors
    /// I/O.
    pub fn adopt_images(&self, from: &Path) -> Result<()> {
        copy::link_files(from, &self.images())
            .doing(format_args!("Cannot take images from {}", from.display()))
    }

    /// Takes a layer of another checkpoint in, by hard links of its files.
    ///
    /// # Errors
    /// I/O.
    pub fn adopt_layer(&self, from: &Path, n: usize) -> Result<()> {
        copy::link_tree(from, &self.layer(n))
            .doing(format_args!("Cannot take the layer {}", from.display()))
    }

    /// Makes it findable: manifest, rename, index. Data may still be on its way
    /// to the disk; until [`Stored::settle`] it counts only for this boot.
    ///
    /// The manifest's id, version and files are filled in here, and its layers if
    /// it names none.
    ///
    /// # Errors
    /// I/O. Nothing is left then.
    pub fn commit(self, mut manifest: Manifest) -> Result<Stored> {
        manifest.version = MANIFEST_VERSION;
        manifest.id.clone_from(&self.id);
        manifest.files = image_files(&self.images())?;
        manifest.image_bytes = manifest.files.iter().map(|f| f.bytes).sum();
        if manifest.layers.is_empty() {
            manifest.layers = (0..)
                .map(|n: usize| n.to_string())
                .take_while(|n| self.dir.join("rootfs").join(n).exists())
                .collect();
        }
        let text = serde_json::to_vec_pretty(&manifest).doing("Cannot write a manifest")?;
        // What this build writes it must be able to read.
        Manifest::parse(&text).map_err(Error::internal)?;
        let boot = boot_id();
        if boot.is_empty() {
            return Err(Error::internal(format!("Cannot read {BOOT_ID}")));
        }
        self.write("boot", boot.as_bytes())?;
        self.write("manifest.json", &text)?;
        let dir = self.store.checkpoints().join(&self.id);
        fs::rename(&self.dir, &dir).doing(format_args!("Cannot commit {}", dir.display()))?;
        let stored = Stored { dir, manifest };
        if let Err(error) = self.store.point_index_at(&stored) {
            // Not findable is not there. A directory that resists removal is
            // harmless: it is listed and can be removed.
            drop(fs::remove_dir_all(&stored.dir));
            return Err(error);
        }
        Ok(stored)
    }

    fn write(&self, name: &str, text: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        fs::File::create(&path)
            .and_then(|mut file| file.write_all(text))
            .doing(format_args!("Cannot write {}", path.display()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After a commit it is gone; what cannot be removed now is swept later.
        drop(fs::remove_dir_all(&self.dir));
    }
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The kernel's id of this boot; empty if it cannot be read.
pub(super) fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        fs::read_to_string(BOOT_ID)
            .unwrap_or_default()
            .trim()
            .to_owned()
    })
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
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("{} is not an image file", entry.path().display()),
                ));
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Removes staging directories that have been left. Errors do not matter: it is
/// tried again with the next checkpoint.
fn sweep(staging: &Path) {
    for name in names(staging).unwrap_or_default() {
        let dir = staging.join(name);
        let age = fs::symlink_metadata(&dir)
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > STALE) {
            drop(fs::remove_dir_all(&dir));
        }
    }
}
