//! What a refresh asks of the records and keeps beside them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Store, make_dir, names};
use crate::error::{Doing, Result};

/// Below the index. Another name when what counts as a checkpoint does.
const OTHERS: &str = ".others-2";
/// Below the index.
const UNUSED: &str = ".unused";

/// A checkpoint image that is there and not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unused {
    /// containerd's namespace.
    pub namespace: String,
    /// The image's name.
    pub image: String,
    /// The checkpoint's id.
    pub checkpoint: String,
    /// Why not, and what to do.
    pub why: String,
}

impl Store {
    /// Ids of all records, usable or not.
    ///
    /// # Errors
    /// I/O.
    pub fn ids(&self) -> Result<Vec<String>> {
        names(&self.checkpoints())
    }

    /// Removes a record, even of a checkpoint that is in use: what containers read is
    /// kept by others. Rebuild the index afterwards.
    ///
    /// # Errors
    /// I/O.
    pub fn forget(&self, id: &str) -> Result<()> {
        self.discard(&self.checkpoints().join(id))
    }

    /// Digests of images that are known to be no checkpoints; none when that was lost.
    #[must_use]
    pub fn other_images(&self) -> BTreeSet<String> {
        read(&self.index().join(OTHERS))
    }

    /// Notes them.
    ///
    /// # Errors
    /// I/O.
    pub fn note_other_images(&self, digests: &BTreeSet<String>) -> Result<()> {
        self.note(OTHERS, digests)
    }

    /// Checkpoint images that the last refresh found and that are not used.
    #[must_use]
    pub fn unused(&self) -> Vec<Unused> {
        read(&self.index().join(UNUSED))
    }

    /// Notes them.
    ///
    /// # Errors
    /// I/O.
    pub fn note_unused(&self, unused: &[Unused]) -> Result<()> {
        self.note(UNUSED, &unused)
    }

    fn note(&self, name: &str, what: &impl Serialize) -> Result<()> {
        make_dir(&self.index())?;
        let path = self.index().join(name);
        let doing = || format!("Cannot write {}", path.display());
        let aside = path.with_extension(std::process::id().to_string());
        let text = serde_json::to_vec(what).doing(doing())?;
        fs::File::create(&aside)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&aside, &path))
            .doing(doing())
    }
}

/// What was noted; nothing when that was lost.
fn read<T: DeserializeOwned + Default>(path: &Path) -> T {
    fs::read(path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_or_half_written_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        assert!(store.other_images().is_empty() && store.unused().is_empty());
        let digests = BTreeSet::from(["sha256:aa".to_owned()]);
        store.note_other_images(&digests).unwrap();
        assert_eq!(store.other_images(), digests);
        let unused = vec![Unused {
            namespace: "k8s.io".to_owned(),
            image: "a".to_owned(),
            checkpoint: "b-1".to_owned(),
            why: "c".to_owned(),
        }];
        store.note_unused(&unused).unwrap();
        assert_eq!(store.unused(), unused);
        fs::write(store.index().join(UNUSED), "[{").unwrap();
        assert!(store.unused().is_empty());
        // Neither is taken for an index entry.
        assert_eq!(store.rebuild_index().unwrap(), 0);
        assert_eq!(store.other_images(), digests);
    }
}
