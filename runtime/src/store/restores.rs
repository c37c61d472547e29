//! How often containers were restored from each checkpoint, and when last: what
//! operators see, and by what the node chooses when it has to give one up.
//!
//! `<root>/restores/<id>` has a byte for each restore, and the time of the last one
//! as its own. Any number of processes may append at once without a lock.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use super::{Store, check_id, make_dir, remove_file};
use crate::error::{Doing, Result};

/// How a checkpoint was used on this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restores {
    /// How many containers were restored from it.
    pub count: u64,
    /// When the last one was, in milliseconds since the epoch.
    pub last_unix_ms: Option<u64>,
}

impl Restores {
    /// When the last one was, in seconds since the epoch.
    #[must_use]
    pub fn last_unix_s(&self) -> Option<u64> {
        self.last_unix_ms.map(|ms| ms / 1000)
    }
}

impl Store {
    /// Counts a restore.
    ///
    /// # Errors
    /// I/O; something that is no id.
    pub fn note_restore(&self, id: &str) -> Result<()> {
        check_id(id)?;
        make_dir(&self.counters())?;
        let path = self.counters().join(id);
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(b"."))
            .doing(format_args!("Cannot write {}", path.display()))
    }

    /// How often a checkpoint was used; never, if nothing says so.
    #[must_use]
    pub fn restores(&self, id: &str) -> Restores {
        let Ok(about) = fs::metadata(self.counters().join(id)) else {
            return Restores::default();
        };
        let last = about.modified().ok();
        let last = last.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Restores {
            count: about.len(),
            last_unix_ms: last.and_then(|since| u64::try_from(since.as_millis()).ok()),
        }
    }

    /// Forgets how often one that goes was used.
    pub(super) fn forget_restores(&self, id: &str) -> Result<()> {
        remove_file(&self.counters().join(id))
    }

    fn counters(&self) -> PathBuf {
        self.root.join("restores")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restores_at_once_are_all_counted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        assert_eq!(store.restores("a-1"), Restores::default());
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| store.note_restore("a-1").unwrap());
            }
        });
        let restores = store.restores("a-1");
        assert_eq!(restores.count, 20);
        assert!(restores.last_unix_ms.unwrap() > 1_700_000_000_000);
        store.forget_restores("a-1").unwrap();
        assert_eq!(store.restores("a-1"), Restores::default());
        assert!(store.note_restore("../x").is_err());
    }
}
