//! `reprise.json` and `descriptors.json`: what lies beside CRIU's images and says
//! how they were made. Images are untrusted: a record only says *how* each mount
//! is made again, never from what.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error, ErrorKind, Result};

/// How the images were made. Raised whenever a restore has to be told otherwise
/// than before: which namespaces are CRIU's own, which mounts are external.
const VERSION: u32 = 1;
/// Ours.
pub(super) const FILE: &str = "reprise.json";
/// The name and form that runc gave it: a JSON list of three link targets.
pub(super) const DESCRIPTORS: &str = "descriptors.json";
/// The content of the pod's `/dev/shm`.
pub(super) const SHARED_MEMORY: &str = "reprise-shm.tar";
/// No record is larger, whoever wrote it.
const MAX_BYTES: u64 = 4 << 20;

/// How an external mount is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// From the new spec's bind mount there.
    Bind,
    /// A fresh `/dev`.
    Dev,
    /// A fresh tmpfs that holds the mountpoints of cgroup v1.
    CgroupRoot,
    /// The new cgroup's own directory.
    Cgroup,
    /// An empty read-only directory.
    MaskedDir,
    /// `/dev/null`.
    MaskedFile,
}

/// What a restore needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// [`VERSION`].
    version: u32,
    /// The process has a console.
    pub(super) terminal: bool,
    /// External mounts, by their key in CRIU's images (the mountpoint).
    pub(super) mounts: BTreeMap<PathBuf, Kind>,
    /// Links in the cgroup tmpfs (`cpu` -> `cpu,cpuacct`).
    pub(super) cgroup_links: BTreeMap<String, String>,
    /// [`SHARED_MEMORY`] is there.
    pub(super) shared_memory: bool,
    /// Bytes of memory in the images.
    pub(super) memory_bytes: u64,
    /// Size of every image file. CRIU waits for ever for pages that a truncated
    /// file does not have.
    pub(super) files: BTreeMap<String, u64>,
    /// What file descriptors 0, 1 and 2 of init were (`pipe:[123]`).
    #[serde(skip)]
    pub(super) descriptors: Vec<String>,
}

impl Record {
    /// An empty record of this version.
    pub(super) fn new(terminal: bool) -> Self {
        Self {
            version: VERSION,
            terminal,
            mounts: BTreeMap::new(),
            cgroup_links: BTreeMap::new(),
            shared_memory: false,
            memory_bytes: 0,
            files: BTreeMap::new(),
            descriptors: Vec::new(),
        }
    }

    /// Writes both files into `images`.
    pub(super) fn write(&self, images: &Path) -> Result<()> {
        write_json(&images.join(FILE), self)?;
        write_json(&images.join(DESCRIPTORS), &self.descriptors)
    }

    /// The record as a file: its name and content.
    pub(super) fn file(&self) -> Result<(&'static str, Vec<u8>)> {
        Ok((FILE, json(self)?))
    }

    /// Reads both files.
    pub(super) fn read(images: &Path) -> Result<Self> {
        /// All that is sure about other versions.
        #[derive(Deserialize)]
        struct AnyVersion {
            version: u32,
        }
        let file = images.join(FILE);
        if !file.exists() {
            let what = if images.join("inventory.img").exists() {
                "was not made by Reprise (no reprise.json), and such images cannot be restored yet"
            } else {
                "holds no checkpoint"
            };
            return Err(refused(images, what));
        }
        let text = read_bounded(&file)?;
        let found: AnyVersion = parse(&file, &text)?;
        if found.version != VERSION {
            let what = format!(
                "has layout version {}, this build knows {VERSION}; take a new checkpoint",
                found.version
            );
            return Err(refused(images, &what));
        }
        let mut record: Self = parse(&file, &text)?;
        let file = images.join(DESCRIPTORS);
        record.descriptors = parse(&file, &read_bounded(&file)?)?;
        record.check_files(images)?;
        Ok(record)
    }

    fn check_files(&self, images: &Path) -> Result<()> {
        for (name, bytes) in &self.files {
            let found = std::fs::metadata(images.join(name)).map(|file| file.len());
            match found {
                Ok(found) if found == *bytes => {}
                Ok(found) => {
                    let what = format!("is damaged: {name} has {found} bytes, not {bytes}");
                    return Err(refused(images, &what));
                }
                Err(_) => return Err(refused(images, &format!("is damaged: {name} is missing"))),
            }
        }
        Ok(())
    }
}

/// The files of an image directory that CRIU reads, and their sizes.
pub(super) fn image_files(images: &Path) -> Result<BTreeMap<String, u64>> {
    let entries = std::fs::read_dir(images).doing(format!("Cannot list {}", images.display()))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let ours = Path::new(&name).extension().is_some_and(|ext| ext == "img");
            (ours || name == SHARED_MEMORY).then_some(())?;
            Some((name, entry.metadata().ok()?.len()))
        })
        .collect())
}

fn refused(images: &Path, what: &str) -> Error {
    let message = format!("The checkpoint {} {what}", images.display());
    Error::new(ErrorKind::FailedPrecondition, message)
}

fn parse<'a, T: Deserialize<'a>>(file: &Path, text: &'a str) -> Result<T> {
    serde_json::from_str(text).doing(format!("{} is damaged", file.display()))
}

fn read_bounded(file: &Path) -> Result<String> {
    use std::io::Read;
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        std::fs::File::open(file)?
            .take(MAX_BYTES)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    read().doing(format!("Cannot read {}", file.display()))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).doing("Cannot encode the checkpoint's record")
}

fn write_json(file: &Path, value: &impl Serialize) -> Result<()> {
    std::fs::write(file, json(value)?).doing(format!("Cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_versions_and_other_runtimes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = || Record::read(dir.path()).unwrap_err().message;
        assert!(refusal().contains("holds no checkpoint"));
        std::fs::write(dir.path().join("inventory.img"), "").unwrap();
        assert!(refusal().contains("not made by Reprise"));
        std::fs::write(dir.path().join(FILE), r#"{"version":7,"more":[]}"#).unwrap();
        assert!(refusal().contains("layout version 7"));
    }

    #[test]
    fn a_record_survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::new(true);
        record.mounts.insert("/dev".into(), Kind::Dev);
        record.descriptors = vec!["pipe:[1]".into(), "/dev/null".into()];
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), record);
    }
}
