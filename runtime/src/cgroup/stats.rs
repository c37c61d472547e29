//! Figures for containerd's metrics, and the watch for the OOM killer. Units are
//! those of the kernel's files: bytes, nanoseconds on v1, microseconds on v2.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use super::{Cgroup, file};
use crate::error::{Doing, Result};

/// Figures in the shape that containerd's metrics want.
#[derive(Debug, Clone)]
pub enum Stats {
    /// For `io.containerd.cgroups.v1.Metrics`.
    V1(Box<V1Stats>),
    /// For `io.containerd.cgroups.v2.Metrics`.
    V2(Box<V2Stats>),
}

/// A file of `name value` lines, such as `memory.stat`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters(pub BTreeMap<String, u64>);

impl Counters {
    /// Takes every line that is a name and a number.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter_map(|line| line.split_once(' '))
                .filter_map(|(name, value)| {
                    Some((name.to_owned(), file::parse_number(value.trim())?))
                })
                .collect(),
        )
    }

    /// A figure, 0 if the kernel does not give it.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn read(dir: &Path, name: &str) -> Result<Self> {
        Ok(Self::parse(&file::read_opt(dir, name)?.unwrap_or_default()))
    }
}

/// Limit and use of one kind of memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEntry {
    /// Limit; none is a very large number.
    pub limit: u64,
    /// Use now.
    pub usage: u64,
    /// Highest use so far.
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    /// `2MB`.
    pub page_size: String,
    /// Bytes in use.
    pub usage: u64,
    /// v1: highest use so far; v2: the limit. In bytes.
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// One figure of v1's block I/O controller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlkioEntry {
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`; empty for plain ones.
    pub op: String,
    /// Device number, major.
    pub major: u64,
    /// Device number, minor.
    pub minor: u64,
    /// Bytes or operations.
    pub value: u64,
}

/// What v1 knows.
#[derive(Debug, Clone, Default)]
pub struct V1Stats {
    /// Processes and threads now.
    pub pids_current: u64,
    /// Their limit; 0 is none.
    pub pids_limit: u64,
    /// CPU time in nanoseconds.
    pub cpu_total: u64,
    /// In the kernel, in nanoseconds.
    pub cpu_kernel: u64,
    /// In user space, in nanoseconds.
    pub cpu_user: u64,
    /// For each CPU, in nanoseconds.
    pub cpu_percpu: Vec<u64>,
    /// `cpu.stat`: nr_periods, nr_throttled, throttled_time (nanoseconds).
    pub cpu_stat: Counters,
    /// `memory.stat`, with its `total_` lines.
    pub memory_stat: Counters,
    /// Memory.
    pub memory: MemoryEntry,
    /// Memory and swap together.
    pub memsw: MemoryEntry,
    /// Kernel memory.
    pub kernel: MemoryEntry,
    /// TCP buffers.
    pub kernel_tcp: MemoryEntry,
    /// `memory.oom_control`: oom_kill_disable, under_oom, oom_kill.
    pub oom_control: Counters,
    /// Bytes moved.
    pub io_service_bytes: Vec<BlkioEntry>,
    /// Operations.
    pub io_serviced: Vec<BlkioEntry>,
    /// Huge pages, by size.
    pub hugetlb: Vec<HugetlbStats>,
}

/// I/O of one device on v2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoEntry {
    /// Device number, major.
    pub major: u64,
    /// Device number, minor.
    pub minor: u64,
    /// Bytes read.
    pub rbytes: u64,
    /// Bytes written.
    pub wbytes: u64,
    /// Reads.
    pub rios: u64,
    /// Writes.
    pub wios: u64,
}

/// What v2 knows.
#[derive(Debug, Clone, Default)]
pub struct V2Stats {
    /// Processes and threads now.
    pub pids_current: u64,
    /// Their limit; [`u64::MAX`] is none.
    pub pids_limit: u64,
    /// `cpu.stat`: usage_usec, user_usec, system_usec, nr_periods, ...
    pub cpu_stat: Counters,
    /// `memory.stat`.
    pub memory_stat: Counters,
    /// Memory. `failcnt` is 0.
    pub memory: MemoryEntry,
    /// Swap. `failcnt` is 0.
    pub swap: MemoryEntry,
    /// `memory.events`: low, high, max, oom, oom_kill, oom_group_kill.
    pub memory_events: Counters,
    /// `io.stat`.
    pub io: Vec<IoEntry>,
    /// Huge pages, by size.
    pub hugetlb: Vec<HugetlbStats>,
}

/// Reads v1's figures; a controller that is not mounted leaves its at zero.
pub(super) fn v1(cgroup: &Cgroup) -> Result<V1Stats> {
    let mut s = V1Stats::default();
    let num = |dir: &Path, name: &str| Ok(file::number(dir, name)?.unwrap_or(0));
    if let Some(dir) = cgroup.v1_dir_opt("pids") {
        s.pids_current = num(dir, "pids.current")?;
        s.pids_limit = file::number(dir, "pids.max")?
            .filter(|n| *n != u64::MAX)
            .unwrap_or(0);
    }
    if let Some(dir) = cgroup.v1_dir_opt("cpuacct") {
        s.cpu_total = num(dir, "cpuacct.usage")?;
        s.cpu_user = num(dir, "cpuacct.usage_user")?;
        s.cpu_kernel = num(dir, "cpuacct.usage_sys")?;
        s.cpu_percpu = file::read_opt(dir, "cpuacct.usage_percpu")?
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
    }
    if let Some(dir) = cgroup.v1_dir_opt("cpu") {
        s.cpu_stat = Counters::read(dir, "cpu.stat")?;
    }
    if let Some(dir) = cgroup.v1_dir_opt("memory") {
        s.memory_stat = Counters::read(dir, "memory.stat")?;
        s.oom_control = Counters::read(dir, "memory.oom_control")?;
        let entry = |name: &str| -> Result<MemoryEntry> {
            Ok(MemoryEntry {
                limit: num(dir, &format!("memory{name}.limit_in_bytes"))?,
                usage: num(dir, &format!("memory{name}.usage_in_bytes"))?,
                max: num(dir, &format!("memory{name}.max_usage_in_bytes"))?,
                failcnt: num(dir, &format!("memory{name}.failcnt"))?,
            })
        };
        s.memory = entry("")?;
        s.memsw = entry(".memsw")?;
        s.kernel = entry(".kmem")?;
        s.kernel_tcp = entry(".kmem.tcp")?;
    }
    if let Some(dir) = cgroup.v1_dir_opt("blkio") {
        s.io_service_bytes = blkio(dir, "io_service_bytes")?;
        s.io_serviced = blkio(dir, "io_serviced")?;
    }
    if let Some(dir) = cgroup.v1_dir_opt("hugetlb") {
        s.hugetlb = hugetlb(dir, ".usage_in_bytes", ".max_usage_in_bytes")?;
    }
    Ok(s)
}

/// BFQ counts when it is the scheduler, else CFQ, else the throttling layer,
/// which counts always.
fn blkio(dir: &Path, what: &str) -> Result<Vec<BlkioEntry>> {
    for prefix in ["blkio.bfq", "blkio", "blkio.throttle"] {
        let text = file::read_opt(dir, &format!("{prefix}.{what}_recursive"))?;
        let entries = parse_blkio(&text.unwrap_or_default());
        if !entries.is_empty() {
            return Ok(entries);
        }
    }
    Ok(Vec::new())
}

fn parse_blkio(text: &str) -> Vec<BlkioEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let (op, value) = match (words.next()?, words.next()) {
                (op, Some(value)) => (op, value),
                (value, None) => ("", value),
            };
            Some(BlkioEntry {
                op: op.to_owned(),
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                value: value.parse().ok()?,
            })
        })
        .collect()
}

/// Every page size for which there is a file `hugetlb.<size><usage>`.
fn hugetlb(dir: &Path, usage: &str, max: &str) -> Result<Vec<HugetlbStats>> {
    let mut all = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(all);
    };
    for name in entries.filter_map(|e| e.ok()?.file_name().into_string().ok()) {
        let Some(size) = name
            .strip_prefix("hugetlb.")
            .and_then(|rest| rest.strip_suffix(usage))
            .filter(|size| !size.contains('.'))
        else {
            continue;
        };
        let num = |name: String| Ok(file::number(dir, &name)?.unwrap_or(0));
        all.push(HugetlbStats {
            page_size: size.to_owned(),
            usage: num(name.clone())?,
            max: num(format!("hugetlb.{size}{max}"))?,
            failcnt: num(format!("hugetlb.{size}.failcnt"))?,
        });
    }
    all.sort_by(|a, b| a.page_size.cmp(&b.page_size));
    Ok(all)
}

/// Reads v2's figures; a controller that is not enabled leaves its at zero.
pub(super) fn v2(dir: &Path) -> Result<V2Stats> {
    let num = |name: &str| Ok(file::number(dir, name)?.unwrap_or(0));
    let entry = |name: &str| -> Result<MemoryEntry> {
        Ok(MemoryEntry {
            limit: num(&format!("{name}.max"))?,
            usage: num(&format!("{name}.current"))?,
            max: num(&format!("{name}.peak"))?,
            failcnt: 0,
        })
    };
    Ok(V2Stats {
        pids_current: num("pids.current")?,
        pids_limit: num("pids.max")?,
        cpu_stat: Counters::read(dir, "cpu.stat")?,
        memory_stat: Counters::read(dir, "memory.stat")?,
        memory: entry("memory")?,
        swap: entry("memory.swap")?,
        memory_events: Counters::read(dir, "memory.events")?,
        io: parse_io(&file::read_opt(dir, "io.stat")?.unwrap_or_default()),
        hugetlb: hugetlb(dir, ".current", ".max")?,
    })
}

fn parse_io(text: &str) -> Vec<IoEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let figures: BTreeMap<&str, u64> = words
                .filter_map(|w| w.split_once('='))
                .filter_map(|(k, v)| Some((k, v.parse().ok()?)))
                .collect();
            let get = |name| figures.get(name).copied().unwrap_or(0);
            Some(IoEntry {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                rbytes: get("rbytes"),
                wbytes: get("wbytes"),
                rios: get("rios"),
                wios: get("wios"),
            })
        })
        .collect()
}

/// Registers an eventfd for `memory.oom_control` (kernel documentation, cgroup-v1
/// memory, "OOM Control").
pub(super) fn oom_watch_v1(dir: &Path) -> Result<OwnedFd> {
    let path = dir.join("memory.oom_control");
    let control = File::open(&path).doing(format_args!("Cannot open {}", path.display()))?;
    let event = crate::sys::eventfd().doing("Cannot make an eventfd")?;
    let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    file::write(dir, "cgroup.event_control", &line)?;
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_io_lines_are_read_with_and_without_operations() {
        let entries = parse_blkio("8:0 Read 12\n8:0 Total 15\nTotal 15\n8:16 7\n");
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].op, "Read");
        assert_eq!((entries[2].minor, entries[2].value), (16, 7));
        assert!(entries[2].op.is_empty());
    }

    #[test]
    fn v2_files_become_figures() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        put("pids.current", "3\n");
        put("pids.max", "max\n");
        put("memory.current", "4096\n");
        put("memory.max", "max\n");
        put("cpu.stat", "usage_usec 12\nuser_usec 5\n");
        put("memory.events", "oom 1\noom_kill 2\n");
        put(
            "io.stat",
            "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
        );
        put("hugetlb.2MB.current", "2097152\n");
        put("hugetlb.2MB.rsvd.current", "0\n");
        let s = v2(dir.path()).unwrap();
        assert_eq!((s.pids_current, s.pids_limit), (3, u64::MAX));
        assert_eq!(s.memory.limit, u64::MAX);
        assert_eq!(s.cpu_stat.get("usage_usec"), 12);
        assert_eq!(s.memory_events.get("oom_kill"), 2);
        assert_eq!(s.io[0].wios, 4);
        assert_eq!(s.hugetlb.len(), 1);
    }
}
