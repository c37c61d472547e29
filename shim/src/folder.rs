//! What runc's option `Root` asks for: a folder of the container where
//! `runc --root` looks for one.
//!
//! Our state is elsewhere; the folder holds the pid and says that there is a
//! container. Who takes it away, as `runc delete --force` does, has deleted the
//! container behind our back, and the next signal finds that out.

use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

use reprise_runtime::Result;
use reprise_runtime::error::Doing;

/// The folder of one container below somebody's `Root`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(root: &Path, namespace: &str, id: &str) -> Self {
        Self(root.join(namespace).join(id))
    }

    /// Makes it, for a container whose first process is this.
    pub(crate) fn make(&self, pid: i32) -> Result<()> {
        std::fs::create_dir_all(&self.0)
            .and_then(|()| std::fs::write(self.0.join("pid"), pid.to_string()))
            .doing(format!("Cannot write into {}", self.0.display()))
    }

    /// Whether somebody has taken it away.
    pub(crate) fn is_gone(&self) -> bool {
        std::fs::symlink_metadata(&self.0).is_err_and(|error| error.kind() == NotFound)
    }

    /// Takes it away ourselves: what we put there, and nothing else.
    pub(crate) fn remove(&self) -> Result<()> {
        let removed =
            std::fs::remove_file(self.0.join("pid")).and_then(|()| std::fs::remove_dir(&self.0));
        match removed {
            Err(error) if error.kind() != NotFound => {
                Err(error).doing(format!("Cannot remove {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_until_somebody_takes_it_away() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "k8s.io", "abc");
        folder.make(42).unwrap();
        assert!(!folder.is_gone());
        assert_eq!(
            std::fs::read_to_string(root.path().join("k8s.io/abc/pid")).unwrap(),
            "42"
        );

        folder.remove().unwrap();
        assert!(folder.is_gone());
        folder.remove().unwrap();
    }
}
