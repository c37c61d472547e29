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
    /// Which of its directories is mounted there.
    pub(super) root: PathBuf,
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
    /// v2 alone.
    V2 {
        /// Where it is mounted.
        mountpoint: PathBuf,
        /// Which of its directories is mounted there.
        root: PathBuf,
    },
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
    let mut unified: Option<(PathBuf, PathBuf)> = None;
    for mount in mountinfo::parse(table) {
        let (mountpoint, root) = (mount.at, mount.root);
        match mount.fstype.as_str() {
            "cgroup2" => {
                let better = |(old, _): &(PathBuf, PathBuf)| {
                    !old.starts_with("/sys/fs/cgroup") && mountpoint.starts_with("/sys/fs/cgroup")
                };
                if unified.as_ref().is_none_or(better) {
                    unified = Some((mountpoint, root));
                }
            }
            "cgroup" => {
                let controllers = controllers(&mount.super_options);
                match mounts.iter_mut().find(|(seen, _)| *seen == mount.device) {
                    Some((_, old)) if old.mountpoint.starts_with("/sys/fs/cgroup") => {}
                    Some((_, old)) if mountpoint.starts_with("/sys/fs/cgroup") => {
                        (old.mountpoint, old.root) = (mountpoint, root);
                    }
                    Some(_) => {}
                    None => mounts.push((
                        mount.device,
                        V1Mount {
                            controllers,
                            mountpoint,
                            root,
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
        (false, Some((mountpoint, root))) => Ok(Hierarchy::V2 { mountpoint, root }),
        (true, unified) => Ok(Hierarchy::V1 {
            mounts,
            unified: unified.map(|(mountpoint, _)| mountpoint),
        }),
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

/// The cgroups that a process lives in, one in each hierarchy: the text of its
/// `/proc/PID/cgroup` (`man 7 cgroups`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Membership(String);

impl Membership {
    /// That of this process.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn own() -> Result<Self> {
        let path = "/proc/self/cgroup";
        let text = std::fs::read_to_string(path).doing(format_args!("Cannot read {path}"))?;
        Ok(Self(text))
    }

    /// That of another process; none when it is gone.
    pub(super) fn of(pid: i32) -> Option<Self> {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .ok()
            .map(Self)
    }

    /// One that was kept.
    pub(super) fn kept(text: String) -> Self {
        Self(text)
    }

    /// The text to keep.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// In the unified hierarchy, absolute.
    pub(super) fn unified(&self) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix("0::"))
    }

    /// In a v1 hierarchy, absolute.
    fn in_v1(&self, mount: &V1Mount) -> Option<&str> {
        self.0.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let mut names = parts.next()?.split(',');
            let path = parts.next()?;
            names
                .any(|name| mount.controllers.iter().any(|one| one == name))
                .then_some(path)
        })
    }

    /// Its directory in a v1 hierarchy, if that can be seen.
    pub(super) fn dir_in(&self, mount: &V1Mount) -> Option<PathBuf> {
        seen(&mount.mountpoint, &mount.root, self.in_v1(mount)?)
    }

    /// The parent of its directory in v2's hierarchy, if that can be seen; of the
    /// root, the root.
    pub(super) fn parent_in_v2(&self, mountpoint: &Path, root: &Path) -> Option<PathBuf> {
        let parent = match self.unified()?.trim_end_matches('/').rsplit_once('/') {
            None | Some(("", _)) => "/",
            Some((parent, _)) => parent,
        };
        seen(mountpoint, root, parent)
    }
}

/// Where the cgroup `path` is to be seen when `root` is what is mounted. Without a
/// cgroup namespace a container has a part of a hierarchy mounted, and reads its
/// path from the whole one's root.
fn seen(mountpoint: &Path, root: &Path, path: &str) -> Option<PathBuf> {
    if path.split('/').any(|part| part == "..") {
        // The kernel's words for what lies outside of the cgroup namespace.
        return None;
    }
    let below = Path::new(path).strip_prefix(root).ok()?;
    Some(mountpoint.join(below))
}

/// The cgroup that this process lives in, in some hierarchy where its
/// `cgroup.procs` can be seen. Used by the pre-warming only.
pub(super) fn own_procs_file() -> Option<PathBuf> {
    let own = Membership::own().ok()?;
    let candidates: Vec<PathBuf> = match node().ok()? {
        Hierarchy::V2 { mountpoint, root } => {
            vec![seen(mountpoint, root, own.unified()?)?]
        }
        Hierarchy::V1 { mounts, .. } => mounts.iter().filter_map(|one| own.dir_in(one)).collect(),
    };
    candidates
        .into_iter()
        .map(|dir| dir.join("cgroup.procs"))
        .find(|file| file.exists())
}

/// The cgroup of a process in the unified hierarchy, absolute.
pub(super) fn path_of(pid: i32) -> Option<String> {
    let membership = Membership::of(pid)?;
    let path = membership.unified()?;
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
            Hierarchy::V2 {
                mountpoint: PathBuf::from("/sys/fs/cgroup"),
                root: PathBuf::from("/"),
            }
        );
    }

    #[test]
    fn the_own_cgroup_is_where_it_is_mounted() {
        let Hierarchy::V1 { mounts, .. } = parse(HYBRID.as_bytes()).unwrap() else {
            panic!("not v1");
        };
        let own = Membership::kept("4:memory:/pod/x\n3:cpu,cpuacct:/../other\n0::/a/b\n".into());
        let dir = |mount: &V1Mount| own.dir_in(mount);
        assert_eq!(
            dir(&mounts[1]).unwrap(),
            Path::new("/sys/fs/cgroup/memory/pod/x")
        );
        assert_eq!(dir(&mounts[0]), None, "outside of the cgroup namespace");
        assert_eq!(dir(&mounts[2]), None, "no line");
        // In a container without a cgroup namespace, only its own part is mounted.
        let mut nested = mounts[1].clone();
        nested.root = PathBuf::from("/pod");
        assert_eq!(dir(&nested).unwrap(), Path::new("/sys/fs/cgroup/memory/x"));
        nested.root = PathBuf::from("/po");
        assert_eq!(dir(&nested), None);

        let at = Path::new("/cg");
        let parent = |own: &str, root: &str| {
            Membership::kept(format!("0::{own}\n")).parent_in_v2(at, Path::new(root))
        };
        assert_eq!(parent("/a/b", "/").unwrap(), Path::new("/cg/a"));
        assert_eq!(parent("/a", "/").unwrap(), Path::new("/cg"));
        assert_eq!(parent("/", "/").unwrap(), Path::new("/cg"));
        assert_eq!(parent("/a/b/c", "/a").unwrap(), Path::new("/cg/b"));
        assert_eq!(parent("/a", "/a"), None);
    }

    #[test]
    fn no_control_groups_is_one_clear_line() {
        let error = parse(b"1 1 0:1 / / rw - ext4 /dev/vda rw\n").unwrap_err();
        assert_eq!(error.kind, ErrorKind::FailedPrecondition);
        assert!(error.message.contains("mount cgroup2"));
    }
}
