//! Removing what killed harnesses left; a node normally removes itself.

use std::fs;
use std::path::{Path, PathBuf};

/// The beginning of every node's name, followed by the harness's pid.
pub(super) const PREFIX: &str = "reprise-test-";

/// Removes directories and empty cgroups of nodes whose harness is dead for
/// more than a minute, and logs of yesterday. Best effort: what cannot be
/// removed harms nobody.
pub(super) fn leftovers_of_dead_harnesses(base: &Path) {
    for log in fs::read_dir(base.join("logs"))
        .into_iter()
        .flatten()
        .flatten()
    {
        if age(&log.path()) > 24 * 3600 {
            fs::remove_file(log.path()).ok();
        }
    }
    for dir in children(base).iter().filter(|dir| is_abandoned(dir)) {
        fs::remove_dir_all(dir).ok();
    }
    for top in hierarchies().into_iter().chain(homes()) {
        for group in children(&top).iter().filter(|group| is_abandoned(group)) {
            remove_cgroup(group);
        }
    }
}

/// Where a cgroup of this name exists: at the root of a hierarchy, or where a
/// relative path leads that somebody who lives where we do was given.
pub(super) fn cgroups_named(name: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = hierarchies()
        .into_iter()
        .chain(homes())
        .map(|parent| parent.join(name))
        .filter(|group| group.is_dir())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Removes the groups of this name with all that are below; a process that is
/// just ending keeps its group for a moment.
pub(super) fn remove_cgroups_named(name: &str) {
    for _ in 0..100 {
        let groups = cgroups_named(name);
        if groups.is_empty() {
            return;
        }
        groups.iter().for_each(|group| remove_cgroup(group));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The directories in a directory.
pub(super) fn children(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Whether this machine has cgroup v2 only.
pub(super) fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The root of every hierarchy: the only one (cgroup v2), or each controller's.
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    match is_unified() {
        true => vec![root],
        false => children(&root),
    }
}

/// Where relative paths begin: our own cgroup in each v1 hierarchy, the parent of
/// our own on v2.
fn homes() -> Vec<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let unified = is_unified();
    let home = |line: &str| {
        let (hierarchy, path) = line.split_once(':')?.1.split_once(':')?;
        let name = hierarchy.strip_prefix("name=").unwrap_or(hierarchy);
        let path = Path::new(path.trim_start_matches('/'));
        let root = Path::new("/sys/fs/cgroup");
        match (unified, name) {
            (true, _) => Some(root.join(path.parent().unwrap_or(path))),
            (false, "") => None,
            (false, name) => Some(root.join(name).join(path)),
        }
    };
    own.lines().filter_map(home).collect()
}

fn remove_cgroup(group: &Path) {
    for child in children(group) {
        remove_cgroup(&child);
    }
    fs::remove_dir(group).ok();
}

fn is_abandoned(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A slice's name has no dashes.
    let name = name.replace('_', "-");
    let Some(pid) = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next())
    else {
        return false;
    };
    age(path) > 60 && !Path::new("/proc").join(pid).exists()
}

/// Seconds since it was changed.
fn age(path: &Path) -> u64 {
    let changed = fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let age = changed.and_then(|at| at.elapsed().ok());
    age.map_or(0, |age| age.as_secs())
}
