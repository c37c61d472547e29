//! Where the node mounts its control groups, read from mountinfo once.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Doing, Error, ErrorKind, Result};
use crate::mountinfo;

/// One mounted v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct V1Mount {
    /// Its controllers (`cpu`, `cpuacct`), or its name (`name=systemd`).
    pub(super) controllers: Vec<String>,
    /// Where it is mounted.
    pub(super) mountpoint: PathBuf,
}

/// The node's hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hierarchy {
    /// v1, or hybrid when the unified hierarchy is mounted besides.
    V1 {
        /// Every v1 hierarchy, each once.
        mounts: Vec<V1Mount>,
        /// Mountpoint of the cgroup2 that carries no controllers.
        unified: Option<PathBuf>,
    },
    /// v2 alone, mounted here.
    V2(PathBuf),
}

/// Reads the node's hierarchies; later calls answer from memory.
///
/// # Errors
/// mountinfo is unreadable, or no control groups are mounted.
pub(super) fn node() -> Result<&'static Hierarchy> {
    static NODE: OnceLock<Hierarchy> = OnceLock::new();
    if let Some(known) = NODE.get() {
        return Ok(known);
    }
    let path = "/proc/self/mountinfo";
    let table = std::fs::read(path).doing(format_args!("Cannot read {path}"))?;
    let found = parse(&table)?;
    Ok(NODE.get_or_init(|| found))
}

/// Finds the hierarchies in the text of a mountinfo file (`man 5 proc`). A
/// hierarchy that is mounted more than once counts where it is seen first, or
/// below `/sys/fs/cgroup` if it is there. Like runc, an absolute cgroup path is
/// taken from the mountpoint, whatever cgroup the caller itself lives in.
fn parse(table: &[u8]) -> Result<Hierarchy> {
    let mut mounts: Vec<(String, V1Mount)> = Vec::new();
    let mut unified: Option<PathBuf> = None;
    for mount in mountinfo::parse(table) {
        let mountpoint = mount.at;
        match mount.fstype.as_str() {
            "cgroup2" => {
                let better = |old: &PathBuf| {
                    !old.starts_with("/sys/fs/cgroup") && mountpoint.starts_with("/sys/fs/cgroup")
                };
                if unified.as_ref().is_none_or(better) {
                    unified = Some(mountpoint);
                }
            }
            "cgroup" => {
                let controllers = controllers(&mount.super_options);
                match mounts.iter_mut().find(|(seen, _)| *seen == mount.device) {
                    Some((_, old)) if old.mountpoint.starts_with("/sys/fs/cgroup") => {}
                    Some((_, old)) if mountpoint.starts_with("/sys/fs/cgroup") => {
                        old.mountpoint = mountpoint;
                    }
                    Some(_) => {}
                    None => mounts.push((
                        mount.device,
                        V1Mount {
                            controllers,
                            mountpoint,
                        },
                    )),
                }
            }
            _ => {}
        }
    }
    let mounts: Vec<V1Mount> = mounts.into_iter().map(|(_, mount)| mount).collect();
    // A bare `name=systemd` beside cgroup2 still means that v2 holds the
    // controllers (systemd's old "legacy name" layout under v2).
    let has_controllers = mounts
        .iter()
        .any(|m| m.controllers.iter().any(|c| !c.starts_with("name=")));
    match (has_controllers, unified) {
        (false, Some(root)) => Ok(Hierarchy::V2(root)),
        (true, unified) => Ok(Hierarchy::V1 { mounts, unified }),
        (false, None) => Err(Error::new(
            ErrorKind::FailedPrecondition,
            "No control groups are mounted; mount cgroup2 at /sys/fs/cgroup",
        )),
    }
}

/// The controllers among a v1 mount's super options.
fn controllers(options: &str) -> Vec<String> {
    const KNOWN: [&str; 13] = [
        "blkio",
        "cpu",
        "cpuacct",
        "cpuset",
        "debug",
        "devices",
        "freezer",
        "hugetlb",
        "memory",
        "misc",
        "net_cls",
        "net_prio",
        "perf_event",
    ];
    options
        .split(',')
        .filter(|o| KNOWN.contains(o) || matches!(*o, "pids" | "rdma") || o.starts_with("name="))
        .map(ToOwned::to_owned)
        .collect()
}

/// The cgroup that this process lives in, in some hierarchy where its
/// `cgroup.procs` can be seen. Used by the pre-warming only.
pub(super) fn own_procs_file() -> Option<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let candidates: Vec<PathBuf> = match node().ok()? {
        Hierarchy::V2(root) => {
            let path = text.lines().find_map(|l| l.strip_prefix("0::"))?;
            vec![below(root, path)]
        }
        Hierarchy::V1 { mounts, .. } => mounts
            .iter()
            .filter_map(|mount| {
                let path = text.lines().find_map(|line| {
                    let mut parts = line.splitn(3, ':').skip(1);
                    let names = parts.next()?;
                    let path = parts.next()?;
                    names
                        .split(',')
                        .any(|n| mount.controllers.iter().any(|c| c == n))
                        .then_some(path)
                })?;
                Some(below(&mount.mountpoint, path))
            })
            .collect(),
    };
    candidates
        .into_iter()
        .map(|dir| dir.join("cgroup.procs"))
        .find(|file| file.exists())
}

/// The cgroup of a process in the unified hierarchy, absolute.
pub(super) fn path_of(pid: i32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    // The kernel writes `/../` for what lies outside our cgroup namespace.
    (!path.split('/').any(|part| part == "..")).then(|| path.to_owned())
}

/// `path`, absolute in its hierarchy, below `root`.
pub(super) fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:4 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
90 31 0:32 /a /mnt/has\\040space rw - cgroup cgroup rw,memory
";

    #[test]
    fn co_mounted_controllers_share_a_hierarchy_and_each_counts_once() {
        let Hierarchy::V1 { mounts, unified } = parse(HYBRID.as_bytes()).unwrap() else {
            panic!("not v1");
        };
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(mounts[1].mountpoint, Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(mounts[2].controllers, ["name=systemd"]);
        assert_eq!(unified.unwrap(), Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn a_single_cgroup2_is_v2() {
        let text = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            parse(text.as_bytes()).unwrap(),
            Hierarchy::V2(PathBuf::from("/sys/fs/cgroup"))
        );
    }

    #[test]
    fn no_control_groups_is_one_clear_line() {
        let error = parse(b"1 1 0:1 / / rw - ext4 /dev/vda rw\n").unwrap_err();
        assert_eq!(error.kind, ErrorKind::FailedPrecondition);
        assert!(error.message.contains("mount cgroup2"));
    }
}
