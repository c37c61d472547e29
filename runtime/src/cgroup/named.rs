//! Which cgroup a spec names: a unit of systemd's, a path from the hierarchy's root,
//! or one that begins where the container's maker lives.

use std::path::Path;

use oci_spec::runtime::Spec;

use super::hierarchy::{self, Hierarchy, Membership, V1Mount};
use super::unit::Unit;
use super::{Cgroup, Dirs, V1Group, v2};
use crate::error::{Error, ErrorKind, Result};

impl Cgroup {
    /// The cgroup that the spec's `cgroupsPath` names; `<id>` when it is absent. A
    /// relative path begins where runc has it begin: on v1 at this process's own
    /// cgroup in each hierarchy (but at the root of a unified one besides), on v2 at
    /// the parent of its own. `slice:prefix:name` is a unit of systemd's.
    ///
    /// # Errors
    /// A path that leaves the hierarchy, or a unit that cannot exist; a relative one
    /// when this process's own cgroup cannot be seen.
    pub fn of(spec: &Spec, id: &str) -> Result<Self> {
        Self::made_from(spec, id, None)
    }

    /// The cgroup of a container that is there, wherever this process may live:
    /// `home` is what [`Cgroup::home`] gave where it was made.
    ///
    /// # Errors
    /// As [`Cgroup::of`].
    pub fn made_from(spec: &Spec, id: &str, home: Option<String>) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let wanted = linux
            .and_then(|linux| linux.cgroups_path().as_deref())
            .filter(|path| !path.as_os_str().is_empty());
        let unit = match wanted.and_then(Path::to_str) {
            Some(text) => Unit::of(text, spec)?,
            None => None,
        };
        let node = hierarchy::node()?;
        let cgroup = match &unit {
            Some(unit) => Self::at(unit.path()?, node),
            None => {
                let path = clean(wanted, id)?;
                match wanted {
                    Some(wanted) if wanted.is_absolute() => Self::at(path, node),
                    _ => {
                        let home =
                            home.map_or_else(Membership::own, |t| Ok(Membership::kept(t)))?;
                        Self::below(home, &path, node)?
                    }
                }
            }
        };
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        Ok(Self {
            unit: unit.map(Box::new),
            needs_domain: resources.is_some_and(v2::needs_domain),
            ..cgroup
        })
    }

    /// The cgroup with a clean absolute path.
    pub(super) fn at(path: String, node: &Hierarchy) -> Self {
        let dirs = match node {
            Hierarchy::V1 { mounts, unified } => Dirs::V1 {
                groups: mounts
                    .iter()
                    .map(|mount| V1Group::below(&mount.mountpoint, &path, mount))
                    .collect(),
                unified: unified.as_ref().map(|root| hierarchy::below(root, &path)),
            },
            Hierarchy::V2 { mountpoint, .. } => Dirs::V2 {
                root: mountpoint.clone(),
                dir: hierarchy::below(mountpoint, &path),
            },
        };
        Self {
            path,
            home: None,
            dirs,
            unit: None,
            needs_domain: false,
        }
    }

    /// The cgroup with a clean path that begins at `home`.
    fn below(home: Membership, path: &str, node: &Hierarchy) -> Result<Self> {
        let hidden = |mountpoint: &Path| {
            let message = format!(
                "cgroupsPath {:?} is relative, and the cgroup that this process lives in is not \
                 to be seen in {}; name an absolute one",
                path.trim_start_matches('/'),
                mountpoint.display()
            );
            Error::new(ErrorKind::FailedPrecondition, message)
        };
        match node {
            Hierarchy::V1 { mounts, unified } => {
                let below = |mount| {
                    let own = home
                        .dir_in(mount)
                        .ok_or_else(|| hidden(&mount.mountpoint))?;
                    Ok(V1Group::below(&own, path, mount))
                };
                let groups = mounts.iter().map(below).collect::<Result<_>>()?;
                let unified = unified.as_ref().map(|root| hierarchy::below(root, path));
                Ok(Self {
                    path: path.to_owned(),
                    home: Some(home),
                    dirs: Dirs::V1 { groups, unified },
                    unit: None,
                    needs_domain: false,
                })
            }
            Hierarchy::V2 { mountpoint, root } => {
                let parent = home.parent_in_v2(mountpoint, root);
                let parent = parent.ok_or_else(|| hidden(mountpoint))?;
                let parent = parent.strip_prefix(mountpoint).unwrap_or(Path::new(""));
                let path = hierarchy::below(&Path::new("/").join(parent), path);
                Ok(Self {
                    home: Some(home),
                    ..Self::at(path.to_string_lossy().into_owned(), node)
                })
            }
        }
    }
}

impl V1Group {
    /// Named `path` below the directory `from`.
    fn below(from: &Path, path: &str, mount: &V1Mount) -> Self {
        Self {
            controllers: mount.controllers.clone(),
            root: mount.mountpoint.clone(),
            mounted: mount.root.clone(),
            dir: hierarchy::below(from, path),
        }
    }
}

/// An absolute path without `.`, `..` or doubled slashes.
pub(super) fn clean(wanted: Option<&Path>, id: &str) -> Result<String> {
    let invalid = |message: String| Error::new(ErrorKind::InvalidArgument, message);
    let text = match wanted {
        Some(path) => path
            .to_str()
            .ok_or_else(|| invalid(format!("cgroupsPath {} is not UTF-8", path.display())))?,
        None => id,
    };
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
