//! CRIU's work directory: log, output, statistics. One per operation; kept when
//! it failed, since the error names the log.

use std::path::{Path, PathBuf};

use super::protocol::CriuConfig;
use crate::error::{Doing, Error, Result};

/// As many failures are kept for somebody to look into, of all containers.
const KEPT: usize = 100;
/// No container has more directories at one time.
const MOST: u32 = 10_000;

/// A work directory.
#[derive(Debug)]
pub(super) struct WorkDir {
    path: PathBuf,
    ours: bool,
}

impl WorkDir {
    /// A new directory below the configured root.
    pub(super) fn make(
        config: &CriuConfig,
        namespace: &str,
        id: &str,
        operation: &str,
    ) -> Result<Self> {
        let root = &config.work_root;
        std::fs::create_dir_all(root).doing(format!("Cannot make {}", root.display()))?;
        forget_the_oldest(root);
        for n in 0..MOST {
            let path = root.join(name(namespace, id, operation, n));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path, ours: true }),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    return Err(Error::because(
                        format!("Cannot make {}", path.display()),
                        &e,
                    ));
                }
            }
        }
        Err(Error::internal(format!(
            "{} is full of logs of failed operations; remove them",
            root.display()
        )))
    }

    /// Those of a container's operations that failed, or whose worker was killed.
    pub(super) fn left(
        root: &Path,
        namespace: &str,
        id: &str,
        operation: &str,
    ) -> impl Iterator<Item = PathBuf> {
        (0..MOST)
            .map(move |n| root.join(name(namespace, id, operation, n)))
            .take_while(|path| path.exists())
    }

    /// The directory that the caller named; it is the caller's to remove.
    pub(super) fn given(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).doing(format!("Cannot make {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            ours: false,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The operation succeeded: nobody needs it.
    pub(super) fn remove(&self) {
        if self.ours {
            // A leftover log does no harm.
            std::fs::remove_dir_all(&self.path).ok();
        }
    }
}

fn name(namespace: &str, id: &str, operation: &str, n: u32) -> String {
    format!("{namespace}-{id}-{operation}-{n}")
}

/// Those at work are the newest ones, so they stay.
fn forget_the_oldest(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else {
        return;
    };
    let mut all: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    if all.len() <= KEPT {
        return;
    }
    let age = |dir: &PathBuf| {
        std::fs::metadata(dir)
            .and_then(|about| about.modified())
            .ok()
    };
    all.sort_by_cached_key(age);
    for old in &all[..all.len() - KEPT] {
        // Another worker may have been faster.
        std::fs::remove_dir_all(old).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_operation_left_is_found() {
        let root = tempfile::tempdir().unwrap();
        let config = CriuConfig {
            path: PathBuf::from("criu"),
            work_root: root.path().to_owned(),
            timeout_ms: 1,
        };
        let make = |operation| WorkDir::make(&config, "ns", "c", operation).unwrap();
        let left = || WorkDir::left(root.path(), "ns", "c", "restore").collect::<Vec<_>>();
        make("dump");
        assert!(left().is_empty());
        let both = [make("restore"), make("restore")];
        assert_eq!(left(), both.each_ref().map(WorkDir::path));
    }

    #[test]
    fn old_failures_are_forgotten_and_new_ones_kept() {
        let root = tempfile::tempdir().unwrap();
        let config = CriuConfig {
            path: PathBuf::from("criu"),
            work_root: root.path().to_owned(),
            timeout_ms: 1,
        };
        let make = || WorkDir::make(&config, "ns", "c", "dump").unwrap();
        let of_first = make().path().join("criu.log");
        std::fs::write(&of_first, "").unwrap();
        for _ in 0..KEPT + 5 {
            std::thread::sleep(std::time::Duration::from_millis(1));
            make();
        }
        let last = make();
        assert!(!of_first.exists() && last.path().exists());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), KEPT + 1);
    }
}
