//! What was done to this node, and what was there before: written before anything is
//! changed, and gone when everything is as it was.

use std::fs;
use std::path::{Path, PathBuf};

use reprise_runtime::error::Doing;
use reprise_runtime::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::files::{self, Before};
use super::host::Host;

/// Where the record and the copies are, on the node.
pub(super) const DIR: &str = "/var/lib/reprise/node";
const FILE: &str = "record.json";
/// The format that this build reads and writes.
const VERSION: u32 = 1;

/// The record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    /// The version of Reprise that is installed.
    pub(super) installed: String,
    /// containerd's main configuration file.
    pub(super) main: PathBuf,
    /// Whether containerd still has to read what was changed in its configuration.
    pub(super) restart_pending: bool,
    /// What was changed, in the order in which it was.
    pub(super) changes: Vec<Change>,
    /// Directories that were made, outer ones first.
    pub(super) dirs: Vec<PathBuf>,
}

/// A path that was changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    pub(super) path: PathBuf,
    pub(super) before: Before,
    pub(super) ours: Ours,
}

/// What was put there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ours {
    /// A link to one of our programs.
    Link(PathBuf),
    /// The drop-in, which is ours alone.
    DropIn(String),
    /// The main file, of which an entry is ours.
    Main(String),
}

impl Ours {
    /// Whether it is there.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        match self {
            Self::Link(target) => fs::read_link(path).is_ok_and(|there| there == *target),
            Self::DropIn(text) | Self::Main(text) => {
                fs::read(path).is_ok_and(|there| there == text.as_bytes())
            }
        }
    }
}

impl Record {
    /// The record of this node; none when nothing is installed.
    ///
    /// # Errors
    /// I/O, or one that this build does not understand.
    pub(super) fn load(host: &Host) -> Result<Option<Self>> {
        let path = host.here(&Path::new(DIR).join(FILE));
        let Some(text) = files::text(&path)? else {
            return Ok(None);
        };
        let record: Self =
            serde_json::from_str(&text).doing(format!("Cannot understand {}", path.display()))?;
        if record.version == VERSION {
            Ok(Some(record))
        } else {
            Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "{} has version {}, and this build knows {VERSION}; use the `reprise` that \
                     wrote it",
                    path.display(),
                    record.version
                ),
            ))
        }
    }

    /// The record of a node on which nothing was done yet.
    pub(super) fn new(host: &Host, main: &Path) -> Self {
        let store = Path::new(DIR).parent().unwrap_or(Path::new("/"));
        Self {
            version: VERSION,
            installed: String::new(),
            main: main.to_owned(),
            restart_pending: false,
            changes: Vec::new(),
            dirs: files::missing_dirs(store, |dir| host.follow(dir)),
        }
    }

    /// Notes what is about to be done to a path. What was there before counts from
    /// the first time on.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn note(&mut self, host: &Host, path: &Path, ours: Ours) -> Result<()> {
        if let Some(known) = self.changes.iter_mut().find(|change| change.path == path) {
            known.ours = ours;
            return Ok(());
        }
        let name = format!("before-{}", self.changes.len());
        let keep = host.here(Path::new(DIR));
        fs::create_dir_all(&keep).doing(format!("Cannot make {}", keep.display()))?;
        let at = place(host, path, &ours);
        self.changes.push(Change {
            path: path.to_owned(),
            before: Before::look(&at, &keep, &name)?,
            ours,
        });
        Ok(())
    }

    /// Makes a directory with its parents, and notes those that were not there.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn make_dirs(&mut self, host: &Host, dir: &Path) -> Result<()> {
        for dir in files::missing_dirs(dir, |dir| host.follow(dir)) {
            if !self.dirs.contains(&dir) {
                self.dirs.push(dir);
                self.save(host)?;
            }
        }
        let here = host.follow(dir);
        fs::create_dir_all(&here).doing(format!("Cannot make {}", here.display()))
    }

    /// Writes it.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn save(&self, host: &Host) -> Result<()> {
        let dir = host.here(Path::new(DIR));
        fs::create_dir_all(&dir).doing(format!("Cannot make {}", dir.display()))?;
        let text = serde_json::to_vec_pretty(self).doing("Cannot write the record")?;
        files::write(&dir.join(FILE), &text, 0o600, None)
    }

    /// Removes it, with the copies.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn forget(host: &Host) -> Result<()> {
        let dir = host.here(Path::new(DIR));
        files::gone(fs::remove_dir_all(&dir)).doing(format!("Cannot remove {}", dir.display()))
    }
}

/// Where a change is made, from here. A link is replaced; a configuration file that is
/// a link is changed where it really is.
pub(super) fn place(host: &Host, path: &Path, ours: &Ours) -> PathBuf {
    match ours {
        Ours::Main(_) => host.follow(path),
        Ours::Link(_) | Ours::DropIn(_) => host.here(path),
    }
}
