//! Which containers a shim is making. One that is killed meanwhile leaves a container
//! without files of its own, and `delete` is asked for the pod's first alone.
//!
//! `<state>/.making/<id>` holds the shim's address for as long as Create takes.

use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

use reprise_runtime::Result;
use reprise_runtime::error::Doing;

const MAKING: &str = ".making";

/// A container in the making; dropped, it is none any more.
#[derive(Debug)]
pub(crate) struct Mark(PathBuf);

impl Mark {
    /// Marks a container as being made by the shim at `address`.
    ///
    /// # Errors
    /// I/O.
    pub(crate) fn set(state_root: &Path, id: &str, address: &str) -> Result<Self> {
        let dir = state_root.join(MAKING);
        std::fs::create_dir_all(&dir).doing(format!("Cannot make {}", dir.display()))?;
        let path = dir.join(id);
        std::fs::write(&path, address).doing(format!("Cannot write {}", path.display()))?;
        Ok(Self(path))
    }

    /// Those that the shim at `address` was at.
    pub(crate) fn all_of(state_root: &Path, address: &str) -> Vec<String> {
        let entries = std::fs::read_dir(state_root.join(MAKING));
        let entries = entries.into_iter().flatten().flatten();
        entries
            .filter(|entry| std::fs::read_to_string(entry.path()).is_ok_and(|of| of == address))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Takes the mark of a container away that nobody makes any more.
    ///
    /// # Errors
    /// I/O; one that is not there is none.
    pub(crate) fn remove(state_root: &Path, id: &str) -> Result<()> {
        let path = state_root.join(MAKING).join(id);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != NotFound => {
                Err(error).doing(format!("Cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // A mark that stays costs the next `delete` a look at nothing.
        drop(std::fs::remove_file(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_there_until_it_is_dropped_or_removed() {
        let root = tempfile::tempdir().unwrap();
        let of = |address: &str| Mark::all_of(root.path(), address);
        assert!(of("unix:///a").is_empty());
        let mark = Mark::set(root.path(), "abc", "unix:///a").unwrap();
        let other = Mark::set(root.path(), "def", "unix:///b").unwrap();
        assert_eq!(of("unix:///a"), ["abc"]);
        drop(mark);
        assert!(of("unix:///a").is_empty());
        // As if its shim had been killed.
        std::mem::forget(other);
        assert_eq!(of("unix:///b"), ["def"]);
        Mark::remove(root.path(), "def").unwrap();
        Mark::remove(root.path(), "def").unwrap();
        assert!(of("unix:///b").is_empty());
    }
}
