//! CRIU's work directory: log, output, statistics. One per operation; kept when
//! it failed, since the error names the log.

use std::path::{Path, PathBuf};

use super::protocol::CriuConfig;
use crate::error::{Doing, Error, Result};

/// More failures of one container than anybody wants to look into.
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
        for n in 0..MOST {
            let path = root.join(format!("{namespace}-{id}-{operation}-{n}"));
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
