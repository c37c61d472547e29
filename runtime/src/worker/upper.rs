//! The new container's writable layer, as it was before a restore.
//!
//! What CRIU opens for writing is copied up, what was deleted is made again for a
//! moment. If the restore fails, the cold start that follows must find none of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::trace;
use crate::rootfs::RootfsMount;

/// An overlay's upper directory and what was in it.
#[derive(Debug)]
pub(super) struct Upper {
    dir: PathBuf,
    before: BTreeSet<PathBuf>,
}

impl Upper {
    /// The upper directory of the rootfs; `None` when it is not an overlay.
    pub(super) fn of(mounts: &[RootfsMount]) -> Option<Self> {
        let dir = RootfsMount::upper_dir(mounts)?;
        let mut before = BTreeSet::new();
        visit(&dir, &mut |path| {
            before.insert(path.to_owned());
            true
        });
        Some(Self { dir, before })
    }

    /// Removes what has come since. The overlay must be unmounted by now.
    pub(super) fn reset(&self) {
        visit(&self.dir, &mut |path| {
            if self.before.contains(path) {
                return true;
            }
            super::abort::remove(path);
            false
        });
    }
}

/// Calls `each` with every path below `dir`; directories for which it says so are
/// entered.
fn visit(dir: &Path, each: &mut dyn FnMut(&Path) -> bool) {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) => {
            trace::note(&format!("cannot list {}: {e}", dir.display()));
            return;
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let enter = each(&path);
        if enter && entry.file_type().is_ok_and(|typ| typ.is_dir()) {
            visit(&path, each);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_goes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("etc/old")).unwrap();
        let options = vec![format!("upperdir={}", dir.path().display())];
        let (typ, source, target) = ("overlay".to_owned(), String::new(), String::new());
        let upper = Upper::of(&[RootfsMount {
            typ,
            source,
            target,
            options,
        }])
        .unwrap();
        std::fs::create_dir_all(at("var/new")).unwrap();
        std::fs::write(at("etc/copied-up"), "").unwrap();
        upper.reset();
        assert!(at("etc/old").exists());
        assert!(!at("var").exists() && !at("etc/copied-up").exists());
    }
}
