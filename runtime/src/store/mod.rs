//! Where checkpoints live, and the index that finds them.
//!
//! ```text
//! <root>/checkpoints/<id>/manifest.json, images/, rootfs/<n>/   whole or absent
//! <root>/index/<fingerprint> -> ../checkpoints/<id>             a cache
//! <root>/staging/<id>/                                          being made
//! ```

use std::path::{Path, PathBuf};

use crate::checkpoint::Manifest;
use crate::error::Result;
use crate::fingerprint::Fingerprint;

/// A store of checkpoints on this node.
#[derive(Debug, Clone)]
pub struct Store {}

/// A checkpoint in the store.
#[derive(Debug, Clone)]
pub struct Stored {}

/// A checkpoint in the making; dropped without `commit`, it is removed.
#[derive(Debug)]
pub struct Staging {}

impl Store {
    /// A store at `root` (`/var/lib/reprise`). No I/O.
    #[must_use]
    pub fn at(_root: &Path) -> Self {
        unimplemented!()
    }

    /// The newest usable checkpoint for a fingerprint. A miss is one file-system
    /// look-up.
    ///
    /// # Errors
    /// A checkpoint is there but unusable (garbage manifest, unknown version,
    /// missing or truncated file): the reason, for the log; start cold then.
    pub fn find(&self, _fingerprint: &Fingerprint) -> Result<Option<Stored>> {
        unimplemented!()
    }

    /// Begins a checkpoint of container `container`; makes its staging directory.
    ///
    /// # Errors
    /// I/O, such as a full disk.
    pub fn begin(&self, _container: &str) -> Result<Staging> {
        unimplemented!()
    }

    /// All checkpoints, newest first; unusable ones are left out.
    ///
    /// # Errors
    /// I/O.
    pub fn list(&self) -> Result<Vec<Stored>> {
        unimplemented!()
    }
}

impl Staging {
    /// The checkpoint's id.
    #[must_use]
    pub fn id(&self) -> &str {
        unimplemented!()
    }

    /// Existing directory for CRIU's images.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        unimplemented!()
    }

    /// Path for writable layer `n` (0 is uppermost); its parent exists.
    #[must_use]
    pub fn layer(&self, _n: usize) -> PathBuf {
        unimplemented!()
    }

    /// Takes all files of `from` in as images, by hard link where the file system
    /// allows it, else by reflink or copy.
    ///
    /// # Errors
    /// I/O.
    pub fn adopt_images(&self, _from: &Path) -> Result<()> {
        unimplemented!()
    }

    /// Takes a layer of another checkpoint in, by hard links of its files.
    ///
    /// # Errors
    /// I/O.
    pub fn adopt_layer(&self, _from: &Path, _n: usize) -> Result<()> {
        unimplemented!()
    }

    /// Makes it findable: manifest, rename, index. Data may still be on its way
    /// to the disk; until [`Stored::settle`] it counts only for this boot.
    ///
    /// # Errors
    /// I/O.
    pub fn commit(self, _manifest: Manifest) -> Result<Stored> {
        unimplemented!()
    }
}

impl Stored {
    /// What it holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        unimplemented!()
    }

    /// CRIU's images.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        unimplemented!()
    }

    /// Its writable layers, uppermost first.
    #[must_use]
    pub fn layers(&self) -> Vec<PathBuf> {
        unimplemented!()
    }

    /// Flushes everything to the disk and notes that it is there for good.
    ///
    /// # Errors
    /// I/O.
    pub fn settle(&self) -> Result<()> {
        unimplemented!()
    }
}
