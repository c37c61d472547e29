//! Where a node's files are, and what it is called.

use super::sweep;
use crate::tools;
use anyhow::Result;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A name that no other node of this machine has, and what is called by it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) id: String,
    /// Not made yet; goes with the node.
    pub(crate) dir: PathBuf,
    /// Stays for a day.
    pub(crate) log: PathBuf,
}

impl Place {
    /// One in the directory of all nodes.
    pub(crate) fn new() -> Result<Self> {
        let (base, id) = (base()?, new_id());
        Ok(Self {
            dir: base.join(&id),
            log: log_path(&base, &id)?,
            id,
        })
    }
}

/// The directory of all nodes, without those whose harness is dead.
pub(super) fn base() -> Result<PathBuf> {
    let base = tools::target().join("nodes");
    fs::create_dir_all(base.join("logs"))?;
    sweep::leftovers_of_dead_harnesses(&base);
    Ok(base)
}

/// Unique on this machine, and telling whose it is.
fn new_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}{}-{number}", sweep::PREFIX, std::process::id())
}

/// Logs survive their node: one file per program and test.
fn log_path(base: &Path, id: &str) -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let program = exe.file_stem().unwrap_or_default().to_string_lossy();
    // Cargo appends a hash to the names of test programs.
    let program = program.split('-').next().unwrap_or_default().to_owned();
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default().replace("::", ".");
    let number = id.rsplit('-').next().unwrap_or_default();
    let log = base.join(format!("logs/{program}-{test}-{number}.log"));
    File::create(&log)?;
    Ok(log)
}
