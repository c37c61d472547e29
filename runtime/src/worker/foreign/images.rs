//! From images that runc or crun had CRIU make to ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};

use super::super::layout::Layout;
use super::super::record::{self, DESCRIPTORS, Kind, Record};
use super::inventory::{self, Inventory};
use super::mountpoints;
use super::wire::Message;
use crate::error::{Doing, Error, ErrorKind, Result};

/// The largest of the files that are read here lists the mounts; of a container
/// with a thousand volumes it has half a megabyte.
const MAX_BYTES: u64 = 4 << 20;
/// Processes that are looked at. A container's pids limit is below that.
const MAX_PROCESSES: usize = 100_000;

/// Files that take the place of those of the same name, or come besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// By name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Names of files that are none of it any more.
    pub without: BTreeSet<String>,
}

impl Changes {
    /// Writes them into `images`, in place of what is there.
    ///
    /// # Errors
    /// I/O.
    pub fn write(&self, images: &Path) -> Result<()> {
        for (name, content) in &self.files {
            let file = images.join(name);
            let what = || format!("Cannot write {}", file.display());
            // Never through a link, and never into a file that somebody else links.
            match std::fs::remove_file(&file) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::because(what(), &e));
                }
                _ => std::fs::write(&file, content).doing(what())?,
            }
        }
        Ok(())
    }

    /// Makes the directory `to`: these files, and links to all others of `images`,
    /// which stay as they are. Which are none any more is left out.
    ///
    /// # Errors
    /// I/O.
    pub fn link_beside(&self, images: &Path, to: &Path) -> Result<()> {
        DirBuilder::new()
            .mode(0o700)
            .create(to)
            .doing(format!("Cannot make {}", to.display()))?;
        for name in names(images)? {
            if !self.files.contains_key(&name) && !self.without.contains(&name) {
                symlink(images.join(&name), to.join(&name))
                    .doing(format!("Cannot make a link in {}", to.display()))?;
            }
        }
        self.write(to)
    }
}

/// What has to be written so that images of a container with this spec can be
/// restored by us. Nothing, when they are ours.
///
/// # Errors
/// FailedPrecondition: why they cannot be restored. Everything else: they are no
/// images, or damaged.
pub fn adapt(images: &Path, spec: &Spec) -> Result<Changes> {
    let images = Images::open(images)?;
    if images.has(record::FILE) {
        return Ok(Changes::default());
    }
    images.adapt(spec)
}

/// A directory of images, opened carefully.
pub(super) struct Images<'a> {
    dir: &'a Path,
    names: BTreeSet<String>,
}

impl<'a> Images<'a> {
    pub(super) fn open(dir: &'a Path) -> Result<Self> {
        let names = names(dir)?;
        if !names.contains("inventory.img") {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{} holds no images of CRIU (no inventory.img)",
                    dir.display()
                ),
            ));
        }
        Ok(Self { dir, names })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        read(&self.dir.join(name), MAX_BYTES)
    }

    /// Reads an image and understands it.
    pub(super) fn understood<T>(
        &self,
        name: &str,
        how: impl FnOnce(&[u8]) -> std::result::Result<T, String>,
    ) -> Result<T> {
        how(&self.read(name)?).map_err(|why| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("The image {name} is damaged: {why}"),
            )
        })
    }

    /// Ids of the first process, once it is sure that all have the same ones where
    /// it matters.
    pub(super) fn ids(&self) -> Result<Message> {
        let pids = self.understood("pstree.img", inventory::processes)?;
        if pids.len() > MAX_PROCESSES {
            return Err(foreign(format_args!("it has {} processes", pids.len())));
        }
        if pids.first() != Some(&1) {
            return Err(foreign(
                "it shares its pid namespace, where pids of the checkpoint may be taken",
            ));
        }
        let init = self.understood("ids-1.img", inventory::ids)?;
        for pid in pids.iter().skip(1) {
            let name = format!("ids-{pid}.img");
            // A zombie has none.
            if !self.has(&name) {
                continue;
            }
            let ids = self.understood(&name, inventory::ids)?;
            for (which, field) in inventory::OF_POD {
                if ids.number(field) != init.number(field) {
                    return Err(foreign(format_args!(
                        "its process {pid} has a {which} namespace of its own"
                    )));
                }
            }
        }
        Ok(init)
    }

    fn adapt(&self, spec: &Spec) -> Result<Changes> {
        let init = self.ids()?;
        let mut inventory = self.understood("inventory.img", Inventory::parse)?;
        if let Some(why) = inventory.refuses(&init).or_else(|| self.beyond()) {
            return Err(foreign(why));
        }
        let broken = |why| Error::new(ErrorKind::InvalidArgument, why);
        inventory
            .move_into_pod(&init)
            .map_err(|why| broken(format!("The image ids-1.img is damaged: {why}")))?;
        let mut changes = BTreeMap::from([("inventory.img".to_owned(), inventory.encode())]);

        let name = self.mounts(&init)?;
        let layout = Layout::of(spec, Path::new("/nonexistent"));
        let mounts = self.understood(&name, |file| mountpoints::adapt(file, &layout))?;
        changes.insert(name, mounts.image.encode());

        let terminal = spec.process().as_ref().and_then(Process::terminal);
        let mut record = Record::new(terminal == Some(true));
        record.cgroup_links = cgroup_links(&mounts.kinds);
        record.mounts = mounts.kinds;
        record.files = record::image_files(self.dir)?;
        for (name, content) in &changes {
            let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
            record.files.insert(name.clone(), bytes);
        }
        let memory = record
            .files
            .iter()
            .filter(|(name, _)| name.starts_with("pages-"));
        record.memory_bytes = memory
            .map(|(_, bytes)| bytes)
            .fold(0, |sum, n| sum.saturating_add(*n));
        self.descriptors()?;
        let (name, content) = record.file()?;
        changes.insert(name.to_owned(), content);
        Ok(Changes {
            files: changes,
            without: BTreeSet::new(),
        })
    }

    /// What images may hold that is lost when their namespaces are the pod's.
    fn beyond(&self) -> Option<&'static str> {
        let has = |what: &str| self.names.iter().any(|name| name.starts_with(what));
        if self.has("parent") {
            Some("its memory is in part in an earlier checkpoint (pre-dump)")
        } else if has("ipcns-shm-") || has("ipcns-msg-") || has("ipcns-sem-") {
            Some("it has SysV shared memory, semaphores or message queues")
        } else {
            None
        }
    }

    /// The file with the mounts of the first process.
    pub(super) fn mounts(&self, init: &Message) -> Result<String> {
        let namespace = inventory::mounts_of(init);
        let name = namespace.map(|id| format!("mountpoints-{id}.img"));
        let many = self
            .names
            .iter()
            .filter(|name| name.starts_with("mountpoints-"));
        if many.count() > 1 {
            return Err(foreign("it has more than one mount namespace"));
        }
        name.filter(|name| self.has(name))
            .ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "The image has no mounts"))
    }

    /// runc, crun and we note what the standard descriptors were.
    fn descriptors(&self) -> Result<Vec<String>> {
        if !self.has(DESCRIPTORS) {
            return Err(foreign(
                "it does not say what its standard descriptors were (no descriptors.json)",
            ));
        }
        let text = self.read(DESCRIPTORS)?;
        serde_json::from_slice(&text).map_err(|e| {
            Error::because("descriptors.json is damaged", &e).with_kind(ErrorKind::InvalidArgument)
        })
    }
}

/// Links in the cgroup tmpfs, which every runtime makes for controllers that are
/// mounted together (`cpu` -> `cpu,cpuacct`).
fn cgroup_links(kinds: &BTreeMap<PathBuf, Kind>) -> BTreeMap<String, String> {
    let cgroups = kinds.iter().filter(|(_, kind)| **kind == Kind::Cgroup);
    let names = cgroups.filter_map(|(at, _)| at.file_name()?.to_str());
    names
        .filter(|name| name.contains(','))
        .flat_map(|name| name.split(',').map(|one| (one.to_owned(), name.to_owned())))
        .collect()
}

/// The names in a directory that comes from somebody else: regular files all, but
/// for CRIU's link to an earlier checkpoint.
fn names(dir: &Path) -> Result<BTreeSet<String>> {
    let what = || format!("Cannot list {}", dir.display());
    let about = std::fs::symlink_metadata(dir).doing(what())?;
    if !about.is_dir() {
        return Err(not_ours(dir, "is not a directory"));
    }
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir).doing(what())? {
        let entry = entry.doing(what())?;
        let name = entry.file_name().into_string();
        let name = name.map_err(|name| not_ours(&dir.join(name), "has a strange name"))?;
        let file = entry.file_type().doing(what())?;
        if !file.is_file() && name != "parent" {
            return Err(not_ours(&entry.path(), "is not a regular file"));
        }
        names.insert(name);
    }
    Ok(names)
}

/// Reads a regular file of at most `max` bytes.
pub(super) fn read(file: &Path, max: u64) -> Result<Vec<u8>> {
    let what = || format!("Cannot read {}", file.display());
    let open = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(file)
        .doing(what())?;
    if !open.metadata().doing(what())?.is_file() {
        return Err(not_ours(file, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    open.take(max + 1).read_to_end(&mut bytes).doing(what())?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
        return Err(not_ours(file, &format!("has more than {max} bytes")));
    }
    Ok(bytes)
}

fn not_ours(path: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("{} {what}; it is no part of a checkpoint", path.display()),
    )
}

/// It is a checkpoint, and cannot be restored here.
fn foreign(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::FailedPrecondition, why.to_string())
}
