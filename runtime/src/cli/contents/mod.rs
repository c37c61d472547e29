//! What is in a checkpoint: processes, their memory and open files, mounts. Read
//! from CRIU's images, as far as `reprise inspect` shows it.

mod describe;
mod image;
mod message;
mod page;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use reprise_runtime::Result;
use serde::Serialize;

use image::Image;
pub(super) use page::page;

/// The unit that CRIU counts memory in, in bytes.
const PAGE: u64 = 4096;

/// What a checkpoint's images hold.
#[derive(Debug, Serialize)]
pub(super) struct Contents {
    pub(super) processes: Vec<Process>,
    pub(super) mounts: Vec<Mount>,
}

/// A process, as it was.
#[derive(Debug, Serialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: u32,
    /// Its name, as `ps -o comm` shows it.
    pub(super) command: String,
    pub(super) state: &'static str,
    pub(super) threads: usize,
    /// Memory in the images; what is mapped from files of the container's root is not.
    pub(super) memory_bytes: u64,
    pub(super) files: Vec<OpenFile>,
}

/// An open file, socket or other descriptor.
#[derive(Debug, Serialize)]
pub(super) struct OpenFile {
    pub(super) fd: u32,
    /// `file`, `tcp`, `unix`, `pipe`, ...
    pub(super) kind: &'static str,
    /// A path, an address, an id.
    pub(super) what: String,
}

/// A mount, as it was.
#[derive(Debug, Serialize)]
pub(super) struct Mount {
    pub(super) path: String,
    pub(super) kind: String,
    /// Made again from the new container's spec, not from the images.
    pub(super) external: bool,
}

impl Contents {
    /// Reads the images in `dir`.
    ///
    /// # Errors
    /// One is missing or damaged.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let files: Vec<message::File> = Image::read(dir, "files.img")?.all()?;
        let files: HashMap<u32, message::File> = files.into_iter().map(|f| (f.id, f)).collect();
        let tree: Vec<message::Process> = Image::read(dir, "pstree.img")?.all()?;
        let processes = tree.iter().map(|p| Process::read(dir, p, &files));
        Ok(Self {
            processes: processes.collect::<Result<_>>()?,
            mounts: mounts(dir)?,
        })
    }

    /// How many descriptors of each kind all processes have together.
    pub(super) fn kinds(&self) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        for file in self.processes.iter().flat_map(|p| &p.files) {
            *kinds.entry(file.kind).or_default() += 1;
        }
        kinds
    }

    /// The sockets that others can connect to, each once, sorted.
    pub(super) fn listening(&self) -> Vec<String> {
        let files = self.processes.iter().flat_map(|p| &p.files);
        let mut found: Vec<String> = files
            .filter(|file| file.what.ends_with(describe::LISTENING))
            .map(|file| format!("{} {}", file.kind, file.what))
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

impl Process {
    fn read(
        dir: &Path,
        entry: &message::Process,
        files: &HashMap<u32, message::File>,
    ) -> Result<Self> {
        let pid = entry.pid;
        let core: message::Core = Image::read(dir, &format!("core-{pid}.img"))?.first()?;
        let task = core.task.unwrap_or_default();
        let mut process = Self {
            pid,
            parent: entry.ppid,
            command: task.comm,
            state: describe::state(task.state),
            threads: entry.threads.len(),
            memory_bytes: 0,
            files: Vec::new(),
        };
        // A zombie has neither memory nor files.
        let pages = format!("pagemap-{pid}.img");
        if dir.join(&pages).exists() {
            let pages: Vec<message::Pages> = Image::read(dir, &pages)?.rest()?;
            let counts = pages
                .iter()
                .map(|p| p.count.unwrap_or(p.short_count.into()));
            process.memory_bytes = counts.fold(0, u64::saturating_add).saturating_mul(PAGE);
        }
        let ids = format!("ids-{pid}.img");
        if dir.join(&ids).exists() {
            let ids: message::Ids = Image::read(dir, &ids)?.first()?;
            let open = format!("fdinfo-{}.img", ids.files);
            if dir.join(&open).exists() {
                let open: Vec<message::Descriptor> = Image::read(dir, &open)?.all()?;
                process.files = open.iter().map(|d| describe::file(d, files)).collect();
                process.files.sort_by_key(|file| file.fd);
            }
        }
        Ok(process)
    }
}

/// The mounts of all mount namespaces, by path.
fn mounts(dir: &Path) -> Result<Vec<Mount>> {
    use reprise_runtime::error::Doing;
    let entries = std::fs::read_dir(dir).doing(format_args!("Cannot list {}", dir.display()))?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("mountpoints-") {
            let mounts: Vec<message::Mount> = Image::read(dir, &name)?.all()?;
            found.extend(mounts.iter().map(describe::mount));
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
