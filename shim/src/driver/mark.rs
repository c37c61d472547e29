//! Which containers a shim is making. One that is killed meanwhile leaves a container
//! without files of its own, and `delete` is asked for the pod's first alone.
//!
//! `<state>/.making-<id>` is a link to the shim's address for as long as Create takes;
//! a link is there with what it says or not at all.

use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

use reprise_runtime::Result;
use reprise_runtime::error::Doing;

const MAKING: &str = ".making-";

/// A container in the making; dropped, it is none any more.
#[derive(Debug)]
pub(crate) struct Mark(PathBuf);

impl Mark {
    /// Marks a container as being made by the shim at `address`.
    ///
    /// # Errors
    /// I/O.
    pub(crate) fn set(state_root: &Path, id: &str, address: &str) -> Result<Self> {
        std::fs::create_dir_all(state_root)
            .doing(format!("Cannot make {}", state_root.display()))?;
        let path = path_of(state_root, id);
        Self::remove(state_root, id)?;
        std::os::unix::fs::symlink(address, &path)
            .doing(format!("Cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Those whose shims are gone: `is_served` tells whether one answers at an address.
    pub(crate) fn left(state_root: &Path, is_served: impl Fn(&str) -> bool) -> Vec<String> {
        let entries = std::fs::read_dir(state_root)
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let id = name.strip_prefix(MAKING)?.to_owned();
                let of = std::fs::read_link(entry.path()).ok()?;
                (!is_served(of.to_str()?)).then_some(id)
            })
            .collect()
    }

    /// Takes the mark of a container away that nobody makes any more.
    ///
    /// # Errors
    /// I/O; one that is not there is none.
    pub(crate) fn remove(state_root: &Path, id: &str) -> Result<()> {
        let path = path_of(state_root, id);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != NotFound => {
                Err(error).doing(format!("Cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

fn path_of(state_root: &Path, id: &str) -> PathBuf {
    state_root.join(format!("{MAKING}{id}"))
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
        let of = |address: &str| Mark::left(root.path(), |served| served != address);
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
