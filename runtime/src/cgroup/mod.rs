//! Control groups of a container: create, join, apply, freeze, stats, remove.
//!
//! ```text
//!  hierarchy  what is mounted where: v1, hybrid or v2; who lives where in it
//!  named      which cgroup a spec names
//!  v1, v2     limits, each in its own files
//!  unit       systemd's driver: the cgroup as a transient unit
//!   properties, annotation   what systemd is told: pure
//!   dbus       how it is told
//!  devices    device rules as the pure meaning of a list of rules
//!  bpf        the same rules as a program, for v2
//!  tree       directories, processes, freezer
//!  stats      figures and the OOM killer
//! ```
//!
//! The driver is chosen by the form of the spec's `cgroupsPath`: `slice:prefix:name`
//! is systemd's, everything else is a path for cgroupfs: from the hierarchy's root
//! when it is absolute, else below the cgroup of who makes the container, which may
//! be another in each v1 hierarchy. Only cgroups named by a spec are touched, save that empty cpusets of v1 parents are filled and that v2
//! parents get their controllers enabled, as runc does.

mod annotation;
mod bpf;
mod dbus;
mod devices;
mod file;
pub(crate) mod given;
mod hierarchy;
mod keeper;
mod named;
mod properties;
mod stats;
mod tree;
mod unit;
mod v1;
mod v2;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxResources};

use crate::error::{Doing, Error, ErrorKind, Result};
use devices::Rules;
use hierarchy::Membership;
use unit::Unit;

pub use keeper::Keeper;
pub use stats::{
    BlkioEntry, Counters, HugetlbStats, IoEntry, MemoryEntry, Stats, V1Stats, V2Stats,
};

/// The cgroup (v1: one per controller; v2: one) of one container. Holds paths
/// only; making one does no I/O beyond learning the node's hierarchy once.
#[derive(Debug, Clone)]
pub struct Cgroup {
    /// Absolute, below every hierarchy's root; on v1 below the own cgroup in each
    /// when there is a home.
    path: String,
    /// Where its maker lived, when that is where a relative path begins.
    home: Option<Membership>,
    dirs: Dirs,
    /// With the systemd driver.
    unit: Option<Box<Unit>>,
    /// The spec has limits that a threaded v2 cgroup cannot have.
    needs_domain: bool,
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
    /// Where the hierarchy is mounted.
    root: PathBuf,
    /// Which of its directories is mounted there.
    mounted: PathBuf,
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

/// Whether a spec's device rules keep its container from its own `/dev/null`, which
/// runc opens in every container that it makes a `/dev` for. `devices` are those that
/// the spec makes.
///
/// # Errors
/// As [`Cgroup::apply`]: rules that mean nothing.
pub fn keeps_from_null(
    resources: Option<&LinuxResources>,
    devices: &[LinuxDevice],
) -> Result<bool> {
    let rules = Rules::of(resources.and_then(|r| r.devices().as_deref()), devices)?;
    Ok(!rules.open_null(devices))
}

impl Cgroup {
    /// The path for libcontainer's spec: absolute, below every hierarchy's root.
    /// Empty where there is no one path for all: libcontainer stays in its own cgroup
    /// then, so it has to be in the container's already.
    #[must_use]
    pub fn path(&self) -> &str {
        match (&self.dirs, &self.home) {
            (Dirs::V1 { .. }, Some(_)) => "",
            _ => &self.path,
        }
    }

    /// What to keep for [`Cgroup::made_from`]; none when the spec says it all.
    #[must_use]
    pub fn home(&self) -> Option<&str> {
        self.home.as_ref().map(Membership::text)
    }

    /// Whether the node has the unified hierarchy alone.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        matches!(self.dirs, Dirs::V2 { .. })
    }

    /// Whether systemd makes and removes it.
    #[must_use]
    pub fn is_systemd(&self) -> bool {
        self.unit.is_some()
    }

    /// Whether any of its directories is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.all_dirs().any(Path::exists)
    }

    /// Makes the cgroup. It is there as long as the keeper lives, and then as long
    /// as somebody is in it (systemd) or until it is removed (cgroupfs). May fork:
    /// only in a process with one thread.
    ///
    /// # Errors
    /// I/O; systemd's refusal.
    pub fn create(&self) -> Result<Keeper> {
        let Some(unit) = &self.unit else {
            return self.make_dirs().map(|()| Keeper::none());
        };
        let keeper = if unit.is_slice() {
            Keeper::none()
        } else {
            Keeper::new()?
        };
        unit.start(keeper.pid().unsigned_abs(), self.is_v2())?;
        // Controllers that systemd does not know; and all of them in the parents.
        self.make_dirs()?;
        Ok(keeper)
    }

    /// Makes the directories (cpuset primed from the parents).
    fn make_dirs(&self) -> Result<()> {
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
            Dirs::V2 { root, dir } => v2::create(root, dir, self.needs_domain),
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

    /// What a child process writes `0` to, to move itself in: one file for each
    /// hierarchy.
    ///
    /// # Errors
    /// I/O.
    pub fn doors(&self) -> Result<Vec<OwnedFd>> {
        let open = |dir: &Path| {
            let path = dir.join("cgroup.procs");
            let file = std::fs::File::options().write(true).open(&path);
            file.map(OwnedFd::from)
                .doing(format_args!("Cannot open {}", path.display()))
        };
        self.all_dirs().map(open).collect()
    }

    /// Moves an exec'd process in. On v2 the cgroup refuses one (`EBUSY`) when the
    /// container has made cgroups in it with controllers of their own, as systemd
    /// and docker do; it goes to the cgroup of the container's init then, as under
    /// runc. Returns the path of the cgroup that it is in now.
    ///
    /// # Errors
    /// I/O; the process is gone.
    pub fn join_beside(&self, pid: i32, init: i32) -> Result<String> {
        let refused = match (self.join(pid), &self.dirs) {
            (Ok(()), _) => return Ok(self.path().to_owned()),
            (Err(e), Dirs::V1 { .. }) => return Err(e),
            (Err(e), Dirs::V2 { .. }) => e,
        };
        let Some(path) = hierarchy::path_of(init) else {
            return Err(refused);
        };
        let Dirs::V2 { root, .. } = &self.dirs else {
            return Err(refused);
        };
        match tree::join(&hierarchy::below(root, &path), pid) {
            Ok(()) => Ok(path),
            Err(_as_bad) => Err(refused),
        }
    }

    /// Writes limits and device rules, as runc does for the same spec (default
    /// devices added, nothing given means deny). Meant for a fresh cgroup, before
    /// the container's own program runs in it. `devices` are those that the spec
    /// makes: one in a default device's place takes its rule away.
    ///
    /// # Errors
    /// The kernel's refusal, with file, value and what it means; systemd's.
    pub fn apply(&self, resources: Option<&LinuxResources>, devices: &[LinuxDevice]) -> Result<()> {
        let rules = Rules::of(resources.and_then(|r| r.devices().as_deref()), devices)?;
        let told = match &self.unit {
            Some(unit) => {
                let none = LinuxResources::default();
                Some(self.tell(unit, resources.unwrap_or(&none), Some(&rules))?)
            }
            None => None,
        };
        match &self.dirs {
            Dirs::V1 { .. } => rules.write_v1(self.v1_dir("devices", "device rules")?)?,
            Dirs::V2 { dir, .. } => bpf::attach(dir, &rules)?,
        }
        let limits = told.as_ref().or(resources);
        limits.map_or(Ok(()), |r| self.write_limits(r))
    }

    /// Changes limits of a running container; what is absent stays as it is.
    /// Device rules stay as they were, as with `runc update`.
    ///
    /// # Errors
    /// The kernel's refusal, with file and value; systemd's.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        let Some(unit) = &self.unit else {
            return self.write_limits(resources);
        };
        // On v1 systemd writes all device rules anew when told anything, with a
        // moment in between in which nothing is allowed.
        let freeze = !self.is_v2() && !self.is_frozen()?;
        if freeze {
            self.freeze()?;
        }
        let told = self.tell(unit, resources, None);
        if freeze {
            self.thaw()?;
        }
        self.write_limits(&told?)
    }

    /// Tells systemd, and returns the limits as it will keep them: a quota in
    /// whole percents of a CPU.
    fn tell(
        &self,
        unit: &Unit,
        resources: &LinuxResources,
        rules: Option<&Rules>,
    ) -> Result<LinuxResources> {
        if let (Dirs::V2 { dir, .. }, Some(memory)) = (&self.dirs, resources.memory()) {
            // systemd would not ask, and the OOM killer come.
            v2::check_usage(dir, memory)?;
        }
        let mut told = resources.clone();
        if let Some(mut cpu) = told.cpu().clone() {
            let given = (
                cpu.quota().filter(|quota| *quota != 0),
                cpu.period().filter(|period| *period != 0),
            );
            if given != (None, None) {
                // It wants both; what is not given stays as it is.
                let (quota, period) = self.cpu_bandwidth()?;
                let period = given.1.unwrap_or(period);
                let quota = properties::round_quota(given.0.unwrap_or(quota), Some(period));
                cpu.set_quota(Some(quota)).set_period(Some(period));
                told.set_cpu(Some(cpu));
            }
        }
        unit.set(&told, rules, self.is_v2())?;
        Ok(told)
    }

    /// CPU quota (-1 is none) and period now, in microseconds.
    fn cpu_bandwidth(&self) -> Result<(i64, u64)> {
        let (quota, period) = match &self.dirs {
            Dirs::V2 { dir, .. } => {
                let text = file::read_opt(dir, "cpu.max")?.unwrap_or_default();
                let mut words = text.split_whitespace().map(str::to_owned);
                (words.next(), words.next())
            }
            Dirs::V1 { .. } => match self.v1_dir_opt("cpu") {
                Some(dir) => (
                    file::read_opt(dir, "cpu.cfs_quota_us")?,
                    file::read_opt(dir, "cpu.cfs_period_us")?,
                ),
                None => (None, None),
            },
        };
        let quota = quota.and_then(|q| q.trim().parse().ok()).unwrap_or(-1);
        let period = period.and_then(|p| p.trim().parse().ok());
        Ok((quota, period.unwrap_or(100_000)))
    }

    fn write_limits(&self, resources: &LinuxResources) -> Result<()> {
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

    /// (mountpoint inside a container, directory from the hierarchy's own root) of
    /// this cgroup in the hierarchy that systemd has to itself on v1.
    #[must_use]
    pub fn in_systemds_hierarchy(&self) -> Option<(PathBuf, PathBuf)> {
        let Dirs::V1 { groups, .. } = &self.dirs else {
            return None;
        };
        let group = find(groups, "name=systemd").filter(|one| one.root.ends_with("systemd"))?;
        let below = group.dir.strip_prefix(&group.root).ok()?;
        Some((
            Path::new("/sys/fs/cgroup/systemd").into(),
            group.mounted.join(below),
        ))
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

    /// Removes the directories, children first, and with the systemd driver the
    /// unit. Nothing there is no error.
    ///
    /// # Errors
    /// Still busy after a deadline of about a second; systemd's refusal.
    pub fn remove(&self) -> Result<()> {
        let stopped = self.unit.as_ref().map_or(Ok(()), |unit| unit.stop());
        // What systemd does not know of, and all of it if it could not be asked.
        tree::remove(self.all_dirs()).and(stopped)
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

#[cfg(test)]
mod tests;
