//! What the spec says about a container's file tree, with every path resolved
//! inside its root: the ground on which a dump names mounts, a restore finds
//! their sources, and verification compares.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};

use super::record::Kind;
use crate::error::{Doing, Error, Result};
use crate::mountinfo::{self, MountInfo};

/// As many symbolic links as the kernel follows.
const MAX_LINKS: usize = 40;

/// The spec's mounts and covered paths, resolved.
#[derive(Debug)]
pub(super) struct Layout {
    /// Destination inside the container, and the mount.
    pub(super) mounts: Vec<(PathBuf, Mount)>,
    /// `maskedPaths`.
    pub(super) masked: Vec<PathBuf>,
    /// `readonlyPaths`.
    pub(super) readonly: Vec<PathBuf>,
}

impl Layout {
    /// The layout of `spec` in `root`.
    pub(super) fn of(spec: &Spec, root: &Path) -> Self {
        let linux = spec.linux().as_ref();
        let resolve = |paths: Option<&Vec<String>>| -> Vec<PathBuf> {
            let paths = paths.map(Vec::as_slice).unwrap_or_default();
            paths
                .iter()
                .map(|path| resolve_in(root, Path::new(path)))
                .collect()
        };
        Self {
            mounts: spec
                .mounts()
                .iter()
                .flatten()
                .map(|mount| (resolve_in(root, mount.destination()), mount.clone()))
                .collect(),
            masked: resolve(linux.and_then(|l| l.masked_paths().as_ref())),
            readonly: resolve(linux.and_then(|l| l.readonly_paths().as_ref())),
        }
    }

    /// The mount of the spec at `path`; of several the last, which covers the others.
    pub(super) fn mount_at(&self, path: &Path) -> Option<&Mount> {
        let found = self.mounts.iter().rev().find(|(to, _)| to == path);
        found.map(|(_, mount)| mount)
    }

    /// The mount of the spec that says what the mount at `path` must be like: the
    /// one there, or the cgroup mount that it is a part of.
    pub(super) fn wanted_at(&self, path: &Path) -> Option<&Mount> {
        self.mount_at(path).or_else(|| {
            let mut mounts = self.mounts.iter().rev();
            let found = mounts.find(|(to, mount)| {
                path.starts_with(to) && mount.typ().as_deref() == Some("cgroup")
            });
            found.map(|(_, mount)| mount)
        })
    }

    /// How a restore has to make the mount that is at `path` in `root`; `None`
    /// leaves it to CRIU.
    pub(super) fn kind_of(&self, root: &Path, path: &Path, fstype: &str) -> Option<Kind> {
        if self.masked.iter().any(|masked| masked == path) {
            // The type tells nothing: /dev/null may be one of the container's own.
            let dir = on_host(root, path).is_dir();
            return Some(if dir {
                Kind::MaskedDir
            } else {
                Kind::MaskedFile
            });
        }
        self.kind_unless_masked(path, fstype)
    }

    /// The same for a mount that covers no masked path.
    pub(super) fn kind_unless_masked(&self, path: &Path, fstype: &str) -> Option<Kind> {
        let is = |mount: &Mount, typ: &str| mount.typ().as_deref() == Some(typ);
        if let Some((to, _)) = self
            .mounts
            .iter()
            .find(|(_, m)| is(m, "cgroup") || is(m, "cgroup2"))
        {
            if path == to && fstype == "tmpfs" {
                return Some(Kind::CgroupRoot);
            }
            if path.starts_with(to) && fstype.starts_with("cgroup") {
                return Some(Kind::Cgroup);
            }
        }
        if path == Path::new("/dev") && fstype == "tmpfs" {
            return Some(Kind::Dev);
        }
        self.bind_source(path).map(|_| Kind::Bind)
    }

    /// The source that the spec gives for a bind mount at `path`, or for a mount
    /// further down in it.
    pub(super) fn bind_source(&self, path: &Path) -> Option<PathBuf> {
        let nearest = self
            .mounts
            .iter()
            .filter(|(to, _)| path.starts_with(to))
            .max_by_key(|(to, _)| to.components().count())?;
        let (to, mount) = nearest;
        let source = mount.source().as_ref().filter(|_| is_bind(mount))?;
        let below = path.strip_prefix(to).unwrap_or(Path::new(""));
        if below.as_os_str().is_empty() {
            return Some(source.clone());
        }
        Some(source.join(below))
    }

    /// The source of the pod's `/dev/shm`, if that is a bind mount.
    pub(super) fn shared_memory(&self) -> Option<PathBuf> {
        let shm = Path::new("/dev/shm");
        self.mount_at(shm).filter(|m| is_bind(m))?;
        self.bind_source(shm)
    }
}

/// Whether the spec's mount is a bind mount.
pub(crate) fn is_bind(mount: &Mount) -> bool {
    let options = mount.options().iter().flatten();
    mount.typ().as_deref() == Some("bind")
        || options
            .into_iter()
            .any(|option| option == "bind" || option == "rbind")
}

/// Resolves symbolic links as a process whose root is `root` would see them. The
/// answer is inside that root; what does not exist is taken as it is written.
pub(super) fn resolve_in(root: &Path, path: &Path) -> PathBuf {
    let mut left: VecDeque<OsString> = parts(path).collect();
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            done.pop();
            continue;
        }
        let here = done.join(&part);
        let real = root.join(here.strip_prefix("/").unwrap_or(&here));
        match std::fs::read_link(&real) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    left.push_front(part);
                }
            }
            _ => done = here,
        }
    }
    done
}

/// `path`, which is absolute inside `root`, on the host.
pub(super) fn on_host(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

/// The mounts that process `pid` sees, in the order in which they were made.
pub(super) fn mounts_of(pid: i32) -> Result<Vec<MountInfo>> {
    let file = format!("/proc/{pid}/mountinfo");
    let text = std::fs::read_to_string(&file).doing(format!("Cannot read {file}"))?;
    text.lines()
        .map(|line| {
            mountinfo::parse_line(line.as_bytes())
                .ok_or_else(|| Error::internal(format!("{file} has a strange line: {line}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_inside_the_root() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        std::fs::create_dir_all(at("var")).unwrap();
        symlink("/run", at("var/run")).unwrap();
        symlink("../../../../etc", at("out")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let resolve = |path: &str| resolve_in(root.path(), Path::new(path));
        assert_eq!(resolve("/var/run/secrets/x"), Path::new("/run/secrets/x"));
        assert_eq!(resolve("/out/passwd"), Path::new("/etc/passwd"));
        assert_eq!(resolve("/a/../../b"), Path::new("/b"));
        assert!(resolve("/loop").starts_with("/"));
    }
}
