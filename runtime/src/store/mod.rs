//! The checkpoints that this node knows, and the index that finds them. Their images
//! are snapshots in containerd's store; this is a cache of files, so that Create has
//! to ask nobody.
//!
//! ```text
//! <root>/checkpoints/<id>/manifest.json                         whole or absent
//!                         images -> CRIU's images in a snapshot of containerd's
//!                         rootfs -> the writable layers in another, by number
//!                         image      where that is in containerd (JSON)
//!                         boot       boot id of the node when it was committed
//!                         durable    empty; everything has reached the disk
//! <root>/index/<fingerprint> -> ../checkpoints/<id>
//! <root>/restores/<id>                                        how often it was used
//! <root>/staging/<id>@<maker>/                                  being made
//! ```
//!
//! A record appears by one rename and goes by one. Until a checkpoint is `durable` its
//! data may exist in memory only: then it counts only for the boot in which it was
//! made. Links that dangle mean that the image was removed. The index may be lost at
//! any time: what is lost is not found until [`Store::rebuild_index`], and starts
//! cold.

mod asof;
mod cache;
pub mod limits;
mod record;
mod restores;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use crate::checkpoint::Manifest;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::fingerprint::Fingerprint;
use crate::maker::boot_id;

pub use asof::{Blobs, Freshness, Refreshing};
pub use cache::Unused;
pub use record::{Record, SOURCE_VERSION, Source, complete};
pub use restores::Restores;

/// A store of checkpoints on this node.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A checkpoint in the store.
#[derive(Debug, Clone)]
pub struct Stored {
    dir: PathBuf,
    manifest: Manifest,
}

impl Store {
    /// A store at `root` (`/var/lib/reprise`). No I/O.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The newest usable checkpoint for a fingerprint. A miss is one file-system
    /// look-up.
    ///
    /// # Errors
    /// A checkpoint is there but unusable (garbage manifest, unknown version,
    /// missing or truncated file): the reason, for the log; start cold then.
    pub fn find(&self, fingerprint: &Fingerprint) -> Result<Option<Stored>> {
        let link = self.index().join(fingerprint.as_str());
        let target = match fs::read_link(&link) {
            Ok(target) => target,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => {
                return Err(Error::because(
                    format_args!("Cannot read index entry {}", link.display()),
                    &e,
                ));
            }
        };
        let id = indexed_id(&target).ok_or_else(|| {
            Error::new(
                ErrorKind::FailedPrecondition,
                format!("Index entry {} points at no checkpoint", link.display()),
            )
        })?;
        match self.load(id)? {
            Some(stored) if stored.manifest.fingerprint != *fingerprint => Err(unusable(
                id,
                format_args!("its manifest has another fingerprint than the index says"),
            )),
            found => Ok(found),
        }
    }

    /// All checkpoints, newest first; unusable ones are left out.
    ///
    /// # Errors
    /// I/O.
    pub fn list(&self) -> Result<Vec<Stored>> {
        let all = self.entries()?.into_iter();
        Ok(all.filter_map(|(_, entry)| entry.ok()).collect())
    }

    /// All checkpoints, newest first, with the reason for each that cannot be used.
    ///
    /// # Errors
    /// I/O.
    pub fn entries(&self) -> Result<Vec<(String, Result<Stored>)>> {
        let mut all = Vec::new();
        for id in names(&self.checkpoints())? {
            let entry = match self.load(&id) {
                Ok(Some(stored)) => Ok(stored),
                Ok(None) => continue, // removed a moment ago
                Err(error) => Err(error),
            };
            all.push((id, entry));
        }
        all.sort_by_cached_key(|(id, _)| std::cmp::Reverse((made_ms(id), id.clone())));
        Ok(all)
    }

    /// The checkpoint with an id; absent if there is none.
    ///
    /// # Errors
    /// It is there but unusable: the reason.
    pub fn load(&self, id: &str) -> Result<Option<Stored>> {
        check_id(id)?;
        let dir = self.checkpoints().join(id);
        let text = match fs::read(dir.join("manifest.json")) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return if dir.exists() {
                    Err(unusable(id, format_args!("it has no manifest")))
                } else {
                    Ok(None)
                };
            }
            Err(e) => {
                return Err(unusable(
                    id,
                    format_args!("its manifest is not readable ({e})"),
                ));
            }
        };
        let manifest = Manifest::parse(&text).map_err(|why| unusable(id, format_args!("{why}")))?;
        if manifest.id != id {
            let other = &manifest.id;
            return Err(unusable(id, format_args!("its manifest is of {other:?}")));
        }
        let stored = Stored { dir, manifest };
        stored
            .check()
            .map_err(|why| unusable(id, format_args!("{why}")))?;
        Ok(Some(stored))
    }

    /// Where in containerd a checkpoint is, usable or not.
    ///
    /// # Errors
    /// Its record does not say so.
    pub fn source(&self, id: &str) -> Result<Source> {
        check_id(id)?;
        Source::read(&self.checkpoints().join(id))
    }

    /// Makes the index anew from the checkpoints that are there; entries that
    /// lead nowhere go. Returns how many checkpoints can be found afterwards.
    ///
    /// # Errors
    /// I/O.
    pub fn rebuild_index(&self) -> Result<usize> {
        let mut found = HashSet::new();
        for stored in self.list()? {
            let name = stored.manifest.fingerprint.as_str().to_owned();
            if found.insert(name) {
                self.point_index_at(&stored)?;
            }
        }
        for name in names(&self.index())? {
            if !found.contains(&name) {
                remove_file(&self.index().join(name))?;
            }
        }
        Ok(found.len())
    }

    /// Removes a checkpoint, usable or not; the next newest with its fingerprint
    /// takes its place in the index. `run_root` (`/run/reprise`) says who uses it.
    ///
    /// # Errors
    /// NotFound; FailedPrecondition while a container that was restored from it is
    /// there, since it may read its memory and files from it; I/O.
    pub fn remove(&self, id: &str, run_root: &Path) -> Result<()> {
        check_id(id)?;
        let dir = self.checkpoints().join(id);
        if !dir.exists() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("There is no checkpoint {id}; `reprise list` shows them"),
            ));
        }
        if let Some(user) = users(run_root, id).first() {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!("Checkpoint {id} is in use by container {user}; remove that first"),
            ));
        }
        let target = index_target(id);
        for name in names(&self.index())? {
            let link = self.index().join(&name);
            if fs::read_link(&link).is_ok_and(|to| to == target) {
                let next = self
                    .list()?
                    .into_iter()
                    .find(|s| s.id() != id && s.manifest.fingerprint.as_str() == name);
                match next {
                    Some(stored) => self.point_index_at(&stored)?,
                    None => remove_file(&link)?,
                }
            }
        }
        self.discard(&dir)?;
        self.forget_restores(id)
    }

    /// Points the index at a checkpoint, in one step.
    fn point_index_at(&self, stored: &Stored) -> Result<()> {
        make_dir(&self.index())?;
        let id = stored.id();
        let temporary = self.index().join(format!(".{id}.{}", std::process::id()));
        let link = self.index().join(stored.manifest.fingerprint.as_str());
        let doing = || format!("Cannot write index entry {}", link.display());
        remove_file(&temporary)?;
        symlink(index_target(id), &temporary).doing(doing())?;
        fs::rename(&temporary, &link)
            .doing(doing())
            .inspect_err(|_| {
                drop(remove_file(&temporary)); // the error that counts is the rename's
            })
    }

    fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }
}

impl Stored {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.manifest.id
    }

    /// When it was made, in milliseconds since the epoch.
    #[must_use]
    pub fn made_unix_ms(&self) -> u64 {
        made_ms(self.id())
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// CRIU's images.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.target("images")
    }

    /// Where a link of the record leads: a record may go while a container that came
    /// from it still reads its files.
    fn target(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::read_link(&path).unwrap_or(path)
    }

    /// Where in containerd it is.
    ///
    /// # Errors
    /// The record does not say so.
    pub fn source(&self) -> Result<Source> {
        Source::read(&self.dir)
    }

    /// Its writable layers, uppermost first.
    #[must_use]
    pub fn layers(&self) -> Vec<PathBuf> {
        let rootfs = self.target("rootfs");
        let layers = self.manifest.layers.iter();
        layers.map(|name| rootfs.join(name)).collect()
    }

    /// Whether it will be there after a crash of the node.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.dir.join("durable").exists()
    }

    /// Notes that everything has reached the disk.
    ///
    /// # Errors
    /// I/O.
    pub fn mark_durable(&self) -> Result<()> {
        let marker = self.dir.join("durable");
        fs::File::create(&marker)
            .and_then(|file| file.sync_all())
            .doing(format_args!("Cannot write {}", marker.display()))
    }

    /// Cheap checks that everything is there: a look at each file's size.
    fn check(&self) -> std::result::Result<(), String> {
        if !self.is_durable() {
            let made = fs::read_to_string(self.dir.join("boot")).unwrap_or_default();
            if made.trim().is_empty() || made.trim() != boot_id() {
                return Err("the node went down before it had reached the disk".to_owned());
            }
        }
        let images = self.images();
        for file in &self.manifest.files {
            let name = &file.name;
            match fs::symlink_metadata(images.join(name)) {
                Ok(meta) if !meta.is_file() => return Err(format!("image {name} is not a file")),
                Ok(meta) if meta.len() != file.bytes => {
                    return Err(format!(
                        "image {name} has {} bytes instead of {}",
                        meta.len(),
                        file.bytes
                    ));
                }
                Ok(_) => {}
                Err(e) => return Err(format!("image {name} cannot be found ({e})")),
            }
        }
        for layer in self.layers() {
            if !fs::symlink_metadata(&layer).is_ok_and(|meta| meta.is_dir()) {
                return Err(format!("layer {} is missing", layer.display()));
            }
        }
        Ok(())
    }
}

/// `<namespace>/<id>` of the containers that were restored from a checkpoint and
/// are still there.
#[must_use]
pub fn users(run_root: &Path, checkpoint: &str) -> Vec<String> {
    all_users(run_root).remove(checkpoint).unwrap_or_default()
}

/// The same for all checkpoints that have any, in one look at the containers.
#[must_use]
pub fn all_users(run_root: &Path) -> HashMap<String, Vec<String>> {
    let mut users: HashMap<String, Vec<String>> = HashMap::new();
    for namespace in names(run_root).unwrap_or_default() {
        let dir = run_root.join(&namespace);
        for id in names(&dir).unwrap_or_default() {
            if let Ok(text) = fs::read_to_string(dir.join(&id).join("restored-from")) {
                let of = users.entry(text.trim().to_owned()).or_default();
                of.push(format!("{namespace}/{id}"));
            }
        }
    }
    users
}

/// When an id was made, in milliseconds since the epoch.
fn made_ms(id: &str) -> u64 {
    id.rsplit_once('-')
        .and_then(|(_, ms)| ms.parse().ok())
        .unwrap_or(0)
}

fn index_target(id: &str) -> PathBuf {
    Path::new("../checkpoints").join(id)
}

/// The id that an index entry points at, if it is one.
fn indexed_id(target: &Path) -> Option<&str> {
    let id = target.strip_prefix("../checkpoints").ok()?.to_str()?;
    check_id(id).ok().map(|()| id)
}

/// An id is `<container>-<milliseconds>`: letters, digits, `_`, `.`, `-`, and
/// begins with a letter or digit.
fn check_id(id: &str) -> Result<()> {
    let fits = id.len() <= 200
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if fits {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{id:?} is not an id; letters, digits, `_`, `.` and `-` make one"),
        ))
    }
}

fn unusable(id: &str, why: std::fmt::Arguments<'_>) -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        format!("Checkpoint {id} cannot be used: {why}"),
    )
}

/// Names in a directory that do not begin with a dot; none if it is not there.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            return Err(Error::because(
                format_args!("Cannot list {}", dir.display()),
                &e,
            ));
        }
    };
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect())
}

/// Makes a directory and its parents, for root alone.
fn make_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .doing(format_args!("Cannot make {}", dir.display()))
}

/// Removes a file; none there is no error.
fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::because(
            format_args!("Cannot remove {}", path.display()),
            &e,
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
