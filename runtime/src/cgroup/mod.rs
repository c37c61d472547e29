//! Control groups of a container: create, join, apply, freeze, stats, remove.
//!
//! ```text
//!  hierarchy  what is mounted where: v1, hybrid or v2
//!  v1, v2     limits, each in its own files
//!  devices    device rules as the pure meaning of a list of rules
//!  bpf        the same rules as a program, for v2
//!  tree       directories, processes, freezer
//!  stats      figures and the OOM killer
//! ```
//!
//! Written for the cgroupfs driver. Only cgroups named by a spec are touched,
//! save that empty cpusets of v1 parents are filled and that v2 parents get their
//! controllers enabled, as runc does.

mod bpf;
mod devices;
mod file;
mod hierarchy;
mod stats;
mod tree;
mod v1;
mod v2;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};

use crate::error::{Doing, Error, ErrorKind, Result};
use hierarchy::Hierarchy;

pub use stats::{
    BlkioEntry, Counters, HugetlbStats, IoEntry, MemoryEntry, Stats, V1Stats, V2Stats,
};

/// The cgroup (v1: one per controller; v2: one) of one container. Holds paths
/// only; making one does no I/O beyond learning the node's hierarchy once.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: String,
    dirs: Dirs,
}

/// Its directories.
#[derive(Debug, Clone)]
enum Dirs {
    V1 {
        groups: Vec<V1Group>,
        unified: Option<PathBuf>,
    },
    V2 {
        root: PathBuf,
        dir: PathBuf,
    },
}

/// Its directory in one v1 hierarchy.
#[derive(Debug, Clone)]
struct V1Group {
    controllers: Vec<String>,
    root: PathBuf,
    dir: PathBuf,
}

/// Makes the first join cheap: on v1 the first write to a `cgroup.procs` waits
/// for an RCU grace period of 5-15 ms, so one's own pid is written into its own
/// cgroup at the beginning of Create. Errors do not matter.
pub fn prewarm() {
    if let Some(file) = hierarchy::own_procs_file() {
        // An early start that fails only means that the join itself waits.
        drop(std::fs::write(file, "0"));
    }
}

impl Cgroup {
    /// The cgroup that the spec's `cgroupsPath` names; `/<id>` below the root
    /// when it is absent. A relative path is taken from the root.
    ///
    /// # Errors
    /// A path that leaves the hierarchy, or one in systemd's form.
    pub fn of(spec: &Spec, id: &str) -> Result<Self> {
        let wanted = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.cgroups_path().as_deref())
            .filter(|path| !path.as_os_str().is_empty());
        let path = clean(wanted, id)?;
        Ok(Self::at(path, hierarchy::node()?))
    }

    /// The cgroup with a clean absolute path.
    fn at(path: String, node: &Hierarchy) -> Self {
        let dirs = match node {
            Hierarchy::V1 { mounts, unified } => Dirs::V1 {
                groups: mounts
                    .iter()
                    .map(|mount| V1Group {
                        controllers: mount.controllers.clone(),
                        root: mount.mountpoint.clone(),
                        dir: hierarchy::below(&mount.mountpoint, &path),
                    })
                    .collect(),
                unified: unified.as_ref().map(|root| hierarchy::below(root, &path)),
            },
            Hierarchy::V2(root) => Dirs::V2 {
                root: root.clone(),
                dir: hierarchy::below(root, &path),
            },
        };
        Self { path, dirs }
    }

    /// Absolute path below every controller's root, for libcontainer's spec.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the node has the unified hierarchy alone.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        matches!(self.dirs, Dirs::V2 { .. })
    }

    /// Whether any of its directories is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.all_dirs().any(Path::exists)
    }

    /// Makes the directories (cpuset primed from the parents).
    ///
    /// # Errors
    /// I/O.
    pub fn create(&self) -> Result<()> {
        match &self.dirs {
            Dirs::V1 { groups, unified } => {
                for group in groups {
                    if group.has("cpuset") {
                        v1::create_cpuset(&group.root, &group.dir)?;
                    } else {
                        tree::create(&group.dir)?;
                    }
                }
                unified.as_deref().map_or(Ok(()), tree::create)
            }
            Dirs::V2 { root, dir } => v2::create(root, dir),
        }
    }

    /// Moves a process (all its threads) in, in every hierarchy, `name=systemd`
    /// and the unified one included.
    ///
    /// # Errors
    /// I/O; the process is gone.
    pub fn join(&self, pid: i32) -> Result<()> {
        self.all_dirs().try_for_each(|dir| tree::join(dir, pid))
    }

    /// Writes limits and device rules, as runc does for the same spec (default
    /// devices added, nothing given means deny). Meant for a fresh cgroup, before
    /// a process joins it.
    ///
    /// # Errors
    /// The kernel's refusal, with file, value and what it means.
    pub fn apply(&self, resources: Option<&LinuxResources>) -> Result<()> {
        let rules = devices::Rules::of(resources.and_then(|r| r.devices().as_deref()))?;
        match &self.dirs {
            Dirs::V1 { .. } => rules.write_v1(self.v1_dir("devices", "device rules")?)?,
            Dirs::V2 { dir, .. } => bpf::attach(dir, &rules)?,
        }
        resources.map_or(Ok(()), |r| self.update(r))
    }

    /// Changes limits of a running container; what is absent stays as it is.
    /// Device rules stay as they were, as with `runc update`.
    ///
    /// # Errors
    /// The kernel's refusal, with file and value.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        match &self.dirs {
            Dirs::V1 { .. } => v1::apply(self, resources),
            Dirs::V2 { dir, .. } => v2::apply(dir, resources),
        }
    }

    /// Freezes all processes; back only when they are.
    ///
    /// # Errors
    /// I/O; not frozen within a second (then thawed again).
    pub fn freeze(&self) -> Result<()> {
        match &self.dirs {
            Dirs::V1 { .. } => tree::freeze_v1(self.v1_dir("freezer", "pausing")?),
            Dirs::V2 { dir, .. } => tree::freeze_v2(dir),
        }
    }

    /// Thaws.
    ///
    /// # Errors
    /// I/O.
    pub fn thaw(&self) -> Result<()> {
        match &self.dirs {
            Dirs::V1 { .. } => file::write(
                self.v1_dir("freezer", "pausing")?,
                "freezer.state",
                "THAWED",
            ),
            Dirs::V2 { dir, .. } => file::write(dir, "cgroup.freeze", "0"),
        }
    }

    /// Whether it was asked to freeze, or is frozen. False when it is not there.
    ///
    /// # Errors
    /// I/O.
    pub fn is_frozen(&self) -> Result<bool> {
        let dir = self.freezer_dir();
        Ok(if self.is_v2() {
            file::read_opt(&dir, "cgroup.freeze")?.is_some_and(|text| text.trim() == "1")
        } else {
            file::read_opt(&dir, "freezer.state")?.is_some_and(|text| text.trim() != "THAWED")
        })
    }

    /// The directory of the freezer (v1) or the cgroup (v2), for CRIU.
    #[must_use]
    pub fn freezer_dir(&self) -> PathBuf {
        match &self.dirs {
            Dirs::V1 { groups, .. } => find(groups, "freezer").map_or_else(
                || hierarchy::below(Path::new("/sys/fs/cgroup/freezer"), &self.path),
                |group| group.dir.clone(),
            ),
            Dirs::V2 { dir, .. } => dir.clone(),
        }
    }

    /// (mountpoint inside a container, directory of this cgroup) of every v1
    /// controller mount below `/sys/fs/cgroup`, or the single v2 one.
    #[must_use]
    pub fn mounts(&self) -> Vec<(PathBuf, PathBuf)> {
        let base = Path::new("/sys/fs/cgroup");
        match &self.dirs {
            Dirs::V1 { groups, .. } => groups
                .iter()
                .filter_map(|g| Some((base.join(g.root.file_name()?), g.dir.clone())))
                .collect(),
            Dirs::V2 { dir, .. } => vec![(base.to_owned(), dir.clone())],
        }
    }

    /// All processes, those of child cgroups included.
    ///
    /// # Errors
    /// I/O.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        // Any hierarchy knows them all; a second is asked in case that somebody
        // made a process by hand and moved it in part.
        for dir in self.all_dirs().take(2) {
            tree::pids(dir, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Kills every process, child cgroups included, thawing first, until none is
    /// left or a deadline passes. Nothing there is no error. The caller itself,
    /// should it live in there, is spared.
    ///
    /// # Errors
    /// Processes that do not die.
    pub fn kill_all(&self) -> Result<()> {
        tree::kill_all(self)
    }

    /// What the container used.
    ///
    /// # Errors
    /// I/O.
    pub fn stats(&self) -> Result<Stats> {
        match &self.dirs {
            Dirs::V1 { .. } => stats::v1(self).map(|s| Stats::V1(Box::new(s))),
            Dirs::V2 { dir, .. } => stats::v2(dir).map(|s| Stats::V2(Box::new(s))),
        }
    }

    /// A descriptor that becomes readable (v1: an eventfd; v2: inotify on
    /// memory.events) when the OOM killer may have struck. Not blocking, closed
    /// on exec. Empty it by reading, then ask [`Cgroup::oom_kills`]. It becomes
    /// readable too when the cgroup is removed.
    ///
    /// # Errors
    /// I/O, or no memory controller.
    pub fn oom_watch(&self) -> Result<OwnedFd> {
        match &self.dirs {
            Dirs::V1 { .. } => stats::oom_watch_v1(self.v1_dir("memory", "OOM events")?),
            Dirs::V2 { dir, .. } => crate::sys::inotify_modify(&dir.join("memory.events"))
                .doing(format_args!("Cannot watch {}/memory.events", dir.display())),
        }
    }

    /// How often the OOM killer struck in this cgroup. Zero when it is gone.
    ///
    /// # Errors
    /// I/O.
    pub fn oom_kills(&self) -> Result<u64> {
        let (dir, name) = match &self.dirs {
            Dirs::V1 { .. } => (self.v1_dir("memory", "OOM events")?, "memory.oom_control"),
            Dirs::V2 { dir, .. } => (dir.as_path(), "memory.events"),
        };
        let text = file::read_opt(dir, name)?.unwrap_or_default();
        Ok(Counters::parse(&text).get("oom_kill"))
    }

    /// Removes the directories, children first. Nothing there is no error.
    ///
    /// # Errors
    /// Still busy after a deadline of about a second.
    pub fn remove(&self) -> Result<()> {
        tree::remove(self.all_dirs())
    }

    /// Every directory, one per hierarchy.
    fn all_dirs(&self) -> impl Iterator<Item = &Path> {
        let (groups, last) = match &self.dirs {
            Dirs::V1 { groups, unified } => (groups.as_slice(), unified.as_deref()),
            Dirs::V2 { dir, .. } => (&[][..], Some(dir.as_path())),
        };
        groups.iter().map(|g| g.dir.as_path()).chain(last)
    }

    /// Its directory with a v1 controller.
    fn v1_dir(&self, controller: &str, what: &str) -> Result<&Path> {
        self.v1_dir_opt(controller).ok_or_else(|| {
            Error::new(
                ErrorKind::FailedPrecondition,
                format!("The node has no {controller} cgroup, needed for {what}; mount it"),
            )
        })
    }

    fn v1_dir_opt(&self, controller: &str) -> Option<&Path> {
        match &self.dirs {
            Dirs::V1 { groups, .. } => find(groups, controller).map(|g| g.dir.as_path()),
            Dirs::V2 { .. } => None,
        }
    }
}

impl V1Group {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

fn find<'a>(groups: &'a [V1Group], controller: &str) -> Option<&'a V1Group> {
    groups.iter().find(|group| group.has(controller))
}

/// An absolute path without `.`, `..` or doubled slashes.
fn clean(wanted: Option<&Path>, id: &str) -> Result<String> {
    let invalid = |message: String| Error::new(ErrorKind::InvalidArgument, message);
    let text = match wanted {
        Some(path) => path
            .to_str()
            .ok_or_else(|| invalid(format!("cgroupsPath {} is not UTF-8", path.display())))?,
        None => id,
    };
    if !text.starts_with('/') && text.matches(':').count() == 2 {
        return Err(invalid(format!(
            "cgroupsPath {text:?} is for the systemd cgroup driver, and Reprise drives cgroupfs \
             only; set SystemdCgroup = false for this runtime and cgroupDriver: cgroupfs for \
             the kubelet"
        )));
    }
    let mut clean = String::new();
    for part in text.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." || part.contains(['\0', '\n']) {
            return Err(invalid(format!(
                "cgroupsPath {text:?} leaves the hierarchy; name a path below its root"
            )));
        }
        clean.push('/');
        clean.push_str(part);
    }
    if clean.is_empty() {
        return Err(invalid(
            "cgroupsPath is the root of the hierarchy; name a path below it".to_owned(),
        ));
    }
    Ok(clean)
}

#[cfg(test)]
mod tests;
