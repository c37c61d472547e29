//! A directory for what is of use only while this process works.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use reprise_runtime::Result;
use reprise_runtime::error::Doing;
use reprise_runtime::maker::Maker;

/// `<what>@<maker>`, gone when this is dropped. Below the store's staging directory the
/// store's own sweep removes it, should we not get to it.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it, for root alone.
    ///
    /// # Errors
    /// I/O.
    pub(crate) fn make(below: &Path, what: &str) -> Result<Self> {
        let dir = below.join(format!("{what}@{}", Maker::me()));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .doing(format_args!("Cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
