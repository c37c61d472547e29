//! The cgroup mount: what the container sees of its own cgroups.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::MsFlags;

use super::attach::{move_to, new, propagate};
use super::open::{Cgroups, Planned};
use super::options::Options;
use super::place::{self, Missing, Place};
use crate::sys;
use crate::worker::executor::{Inside, words};

/// The flags that a cgroup file system always has.
const SAFE: MsFlags = MsFlags::MS_NOEXEC
    .union(MsFlags::MS_NOSUID)
    .union(MsFlags::MS_NODEV);

pub(super) fn attach(
    root: BorrowedFd<'_>,
    planned: &Planned,
    cgroups: &Cgroups,
    place: &Place,
) -> Inside<()> {
    match cgroups {
        Cgroups::V2 { instead } => unified(planned, instead.as_fd(), place),
        Cgroups::V1 {
            own_namespace,
            hierarchies,
        } => {
            let tmpfs = new("tmpfs", "tmpfs", &holder(), planned.label.as_deref())
                .map_err(|e| planned.told("mount", words(e)))?;
            move_to(&tmpfs, place).map_err(|e| planned.told("mount", words(e)))?;
            propagate(&tmpfs, &planned.options.propagation)?;
            for (name, dir) in hierarchies {
                let at = planned.to.join(name);
                let place = place::find_or_make(root, &at, Missing::Directory)
                    .map_err(|e| format!("make {}: {}", at.display(), words(e)))?;
                if *own_namespace {
                    hierarchy(planned, name, &place)?;
                } else {
                    move_to(dir, &place).map_err(|e| planned.told("mount", words(e)))?;
                    propagate(dir, &planned.options.propagation)?;
                }
                link_parts(tmpfs.as_fd(), name)?;
            }
            Ok(())
        }
    }
}

/// The tmpfs that holds the hierarchies of v1.
pub(super) fn holder() -> Options {
    let mut options = Options::only(SAFE);
    options.data.push("mode=755".to_owned());
    options
}

/// In a cgroup namespace the file system itself shows no more than the container's.
fn hierarchy(planned: &Planned, name: &Path, place: &Place) -> Inside<()> {
    let read_only = planned.options.flags & MsFlags::MS_RDONLY;
    let mount = if name == Path::new("systemd") {
        systemds(read_only)
    } else {
        let mut options = Options::only(SAFE | read_only);
        options.data.push(name.to_string_lossy().into_owned());
        new("cgroup", "cgroup", &options, None)
    };
    let mount = mount.map_err(|e| planned.told("mount", words(e)))?;
    move_to(&mount, place).map_err(|e| planned.told("mount", words(e)))
}

/// `name=systemd`, under the word that runc mounts it with.
fn systemds(read_only: MsFlags) -> std::result::Result<OwnedFd, Errno> {
    let mut options = Options::only(SAFE | read_only);
    options.data.push("name=systemd".to_owned());
    new("cgroup", "systemd", &options, None)
}

/// The same for a restored container: all of it, attached nowhere.
pub(in crate::worker) fn systemds_hierarchy() -> std::result::Result<OwnedFd, Errno> {
    systemds(MsFlags::empty())
}

fn unified(planned: &Planned, instead: BorrowedFd<'_>, place: &Place) -> Inside<()> {
    let mount = match new("cgroup2", &planned.source, &planned.options, None) {
        // In a user namespace without a cgroup namespace, or where one is mounted
        // with other options.
        Err(Errno::EPERM | Errno::EBUSY) => sys::clone_mount(instead, true),
        other => other,
    };
    let mount = mount.map_err(|e| planned.told("mount", words(e)))?;
    move_to(&mount, place).map_err(|e| planned.told("mount", words(e)))?;
    propagate(&mount, &planned.options.propagation)
}

/// `cpu` and `cpuacct` beside `cpu,cpuacct`.
fn link_parts(tmpfs: BorrowedFd<'_>, name: &Path) -> Inside<()> {
    let name = name.to_string_lossy();
    if !name.contains(',') {
        return Ok(());
    }
    for part in name.split(',') {
        match nix::unistd::symlinkat(name.as_ref(), Some(tmpfs.as_raw_fd()), part) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(format!("cannot make the link {part}: {}", words(e))),
        }
    }
    Ok(())
}
