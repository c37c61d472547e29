//! Takes a checkpoint.
//!
//! ```text
//!  record what is where ─ spawn criu ─ (pre-dump) freeze ─ CRIU dumps ─
//!      (post-dump) copy the writable layer ─ done ─ thaw ─ write the record
//! ```
//!
//! The container stands still from the freeze to the thaw; CRIU's start is not in
//! it. Whatever fails, the container goes on as it was and the images are removed.
//!
//! What a checkpoint does not hold: `SysV` shared memory, semaphores and message
//! queues (CRIU joins the pod's IPC namespace, so that it leaves it alone);
//! processes that were exec'd from outside; established TCP connections (the
//! original keeps them, the copy sees them closed).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use oci_spec::runtime::Spec;
use protobuf::EnumOrUnknown;
use rust_criu::rust_criu_protobuf::rpc::{
    Criu_cg_mode, Criu_network_lock_method, Criu_opts, Criu_req_type, Ext_mount_map,
};

use super::copy::{self, names_in};
use super::criu::{Criu, Event, Notification};
use super::ground::{self, Clock, Paths};
use super::layout::{self, Layout};
use super::prepare;
use super::protocol::{Dump, Dumped};
use super::record::{self, Kind, Record, SHARED_MEMORY};
use super::workdir::WorkDir;
use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::sys::BeforeExec;

/// Deleted files that are still open go into the image, up to this size.
const GHOST_LIMIT: u32 = 1 << 30;
/// CRIU's debug level: a failure has to be explained by its log, and it costs
/// nothing that can be measured.
pub(super) const LOG_LEVEL: i32 = 4;

/// Serves `Command::Dump`.
pub(super) fn dump(command: &Dump) -> Result<Dumped> {
    let before = names_in(&command.images)?;
    let dumped = Dumping::prepare(command).and_then(|mut dumping| dumping.run());
    if dumped.is_err() {
        remove_new(&command.images, &before);
        for copy in &command.copies {
            std::fs::remove_dir_all(&copy.to).ok();
        }
    }
    dumped
}

/// One dump under way.
struct Dumping<'a> {
    command: &'a Dump,
    layout: Layout,
    record: Record,
    standstill: Standstill,
    work: WorkDir,
    clock: Clock,
}

impl<'a> Dumping<'a> {
    fn prepare(command: &'a Dump) -> Result<Self> {
        let (spec, _) = prepare::load_spec(&command.bundle.join("config.json"))?;
        refuse_shared_pids(command.pid)?;
        let root = PathBuf::from(format!("/proc/{}/root", command.pid));
        let layout = Layout::of(&spec, &root);
        let record = describe(command.pid, &spec, &layout)?;
        let paths = Paths::of(&command.state_root, &command.id, &command.bundle)?;
        let cgroup = ground::cgroup_of(&paths, &spec, &command.id)?;
        let work = match &command.work_path {
            Some(path) => WorkDir::given(path)?,
            None => WorkDir::make(&command.criu, &command.namespace, &command.id, "dump")?,
        };
        Ok(Self {
            command,
            layout,
            record,
            standstill: Standstill::of(cgroup)?,
            work,
            clock: Clock::new(),
        })
    }

    fn run(&mut self) -> Result<Dumped> {
        let command = self.command;
        let before = BeforeExec {
            join: namespaces_of(command.pid)?,
            ..BeforeExec::default()
        };
        let doing = format!("dump container {}", command.id);
        let mut criu = Criu::spawn(&command.criu, self.work.path(), doing, before)?;
        let images = open_dir(&command.images)?;
        let work = open_dir(self.work.path())?;
        criu.begin(Criu_req_type::DUMP, self.options(&images, &work))?;
        self.clock.step("criu_start");
        let dumped = self.follow(&mut criu);
        if dumped.is_err() {
            // A CRIU that hangs still holds the tasks.
            criu.kill();
        } else {
            criu.finish();
        }
        let frozen_us = self.standstill.end(command.exit && dumped.is_ok())?;
        dumped?;
        self.complete(frozen_us)
    }

    /// Answers CRIU until the dump is done.
    fn follow(&mut self, criu: &mut Criu) -> Result<()> {
        loop {
            let Event::Notify(notification) = criu.next()? else {
                self.clock.step("criu_finish");
                return Ok(());
            };
            let result = match notification {
                Notification::PreDump => self.standstill.begin(),
                Notification::PostDump => {
                    self.clock.step("criu_dump");
                    let copied = self.copy();
                    self.clock.step("copy");
                    copied
                }
                _ => Ok(()),
            };
            criu.answer(result.is_ok())?;
            if let Err(e) = result {
                // CRIU sets the tasks free before it says that it gave up.
                while let Ok(Event::Notify(_)) = criu.next() {
                    criu.answer(false)?;
                }
                return Err(e);
            }
        }
    }

    /// The tasks stand still: what they have written to the disk is what they know.
    fn copy(&mut self) -> Result<()> {
        for wanted in &self.command.copies {
            copy::directory(&wanted.from, &wanted.to)?;
        }
        if let Some(source) = self.layout.shared_memory() {
            let packed = copy::pack(&source, &self.command.images.join(SHARED_MEMORY))?;
            self.record.shared_memory = packed;
        }
        Ok(())
    }

    fn options(&self, images: &File, work: &File) -> Criu_opts {
        let command = self.command;
        let external = self.record.mounts.keys().map(|key| {
            let mut mount = Ext_mount_map::new();
            mount.set_key(key.to_string_lossy().into_owned());
            mount.set_val(key.to_string_lossy().into_owned());
            mount
        });
        let mut opts = Criu_opts {
            pid: Some(command.pid),
            leave_running: Some(!command.exit),
            freeze_cgroup: Some(self.standstill.freezer()),
            link_remap: Some(true),
            ghost_limit: Some(GHOST_LIMIT),
            force_irmap: Some(true),
            root: Some(command.bundle.join("rootfs").to_string_lossy().into_owned()),
            ext_mnt: external.collect(),
            ..common_options(images, work)
        };
        opts.ext_unix_sk = Some(command.external_unix_sockets);
        opts.file_locks = Some(command.file_locks);
        if command.open_tcp {
            opts.tcp_established = Some(true);
        } else {
            opts.tcp_close = Some(true);
        }
        opts
    }

    /// The container runs again: write down what a restore must know.
    fn complete(&mut self, frozen_us: u64) -> Result<Dumped> {
        let images = &self.command.images;
        // `checkpointctl show` wants it among the images.
        std::fs::copy(
            self.work.path().join("stats-dump"),
            images.join("stats-dump"),
        )
        .doing("Cannot keep CRIU's statistics")?;
        let files = record::image_files(images)?;
        let memory = files.iter().filter(|(name, _)| name.starts_with("pages-"));
        self.record.memory_bytes = memory.map(|(_, bytes)| bytes).sum();
        let image_bytes = files.values().sum();
        self.record.files = files;
        self.record.write(images)?;
        self.work.remove();
        self.clock.step("record");
        Ok(Dumped {
            frozen_us,
            image_bytes,
            memory_bytes: self.record.memory_bytes,
            timings: std::mem::take(&mut self.clock.steps),
        })
    }
}

/// What is the same at dump and at restore.
pub(super) fn common_options(images: &File, work: &File) -> Criu_opts {
    Criu_opts {
        images_dir_fd: Some(images.as_raw_fd()),
        work_dir_fd: Some(work.as_raw_fd()),
        log_level: Some(LOG_LEVEL),
        manage_cgroups_mode: Some(EnumOrUnknown::new(Criu_cg_mode::IGNORE)),
        network_lock: Some(EnumOrUnknown::new(Criu_network_lock_method::SKIP)),
        tcp_skip_in_flight: Some(true),
        orphan_pts_master: Some(true),
        ext_unix_sk: Some(true),
        file_locks: Some(true),
        // Binds that share or follow mounts of the node are remade from the spec.
        ext_sharing: Some(true),
        ext_masters: Some(true),
        ..Criu_opts::default()
    }
}

/// The freeze around a dump, which undoes itself.
struct Standstill {
    cgroup: Cgroup,
    was_frozen: bool,
    since: Option<Instant>,
}

impl Standstill {
    fn of(cgroup: Cgroup) -> Result<Self> {
        Ok(Self {
            was_frozen: cgroup.is_frozen()?,
            cgroup,
            since: None,
        })
    }

    fn freezer(&self) -> String {
        self.cgroup.freezer_dir().to_string_lossy().into_owned()
    }

    /// CRIU would poll every 100 ms until the cgroup is frozen; we do it faster,
    /// and it finds it so.
    fn begin(&mut self) -> Result<()> {
        self.since = Some(Instant::now());
        if self.was_frozen {
            return Ok(());
        }
        self.cgroup.freeze()
    }

    /// As it was before, whatever CRIU left. Microseconds of standing still.
    fn end(&mut self, killed: bool) -> Result<u64> {
        let Some(since) = self.since.take() else {
            return Ok(0);
        };
        if self.was_frozen && !killed {
            self.cgroup.freeze()?;
        } else {
            self.cgroup.thaw()?;
        }
        Ok(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        // Only after a failure; what can be said of that one matters more.
        self.end(false).ok();
    }
}

/// What is mounted where, and what the standard descriptors are.
fn describe(pid: i32, spec: &Spec, layout: &Layout) -> Result<Record> {
    let terminal = spec
        .process()
        .as_ref()
        .and_then(oci_spec::runtime::Process::terminal);
    let mut record = Record::new(terminal == Some(true));
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    for mount in layout::mounts_of(pid)? {
        let Some(kind) = layout.kind_of(&root, &mount.at, &mount.fstype) else {
            continue;
        };
        if kind == Kind::CgroupRoot {
            record.cgroup_links = links_in(&layout::on_host(&root, &mount.at))?;
        }
        record.mounts.insert(mount.at, kind);
    }
    record.descriptors = (0..3)
        .map(|fd| {
            let link = std::fs::read_link(format!("/proc/{pid}/fd/{fd}"));
            link.map(|to| to.to_string_lossy().into_owned())
                .unwrap_or_default()
        })
        .collect();
    Ok(record)
}

/// The pod's namespaces, in which CRIU runs so that it leaves them alone.
fn namespaces_of(pid: i32) -> Result<Vec<std::os::fd::OwnedFd>> {
    ["ipc", "uts", "net"]
        .iter()
        .map(|name| {
            let path = format!("/proc/{pid}/ns/{name}");
            File::open(&path)
                .map(Into::into)
                .doing(format!("Cannot open {path}"))
        })
        .collect()
}

/// A restore needs the pids that the image names to be free, which only a
/// namespace of its own makes sure.
fn refuse_shared_pids(pid: i32) -> Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .doing(format!("Cannot read the state of process {pid}"))?;
    let pids = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .unwrap_or_default();
    let pids: Vec<&str> = pids.split_whitespace().collect();
    if pids.len() > 1 && pids.last() == Some(&"1") {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::FailedPrecondition,
        "A container that shares its pid namespace cannot be checkpointed; give it its own \
         (no hostPID, no shareProcessNamespace)",
    ))
}

fn links_in(dir: &Path) -> Result<std::collections::BTreeMap<String, String>> {
    let entries = std::fs::read_dir(dir).doing(format!("Cannot list {}", dir.display()))?;
    let text = |name: OsString| name.to_string_lossy().into_owned();
    Ok(entries
        .flatten()
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            Some((text(entry.file_name()), text(target.into_os_string())))
        })
        .collect())
}

pub(super) fn open_dir(path: &Path) -> Result<File> {
    File::open(path).doing(format!("Cannot open {}", path.display()))
}

/// Removes the files of a dump that failed.
fn remove_new(dir: &Path, before: &BTreeSet<OsString>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if !before.contains(&entry.file_name()) {
            std::fs::remove_file(entry.path()).ok();
        }
    }
}
