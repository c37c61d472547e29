//! The container's file tree, made by us and not by libcontainer.
//!
//! libcontainer pivots into an empty tree of ours (`void.rs`). From there, still
//! before Start and as full root of the container's namespaces, the executor makes
//! what the spec describes, in runc's order:
//!
//! ```text
//!  worker   open     rootfs and sources of binds as detached trees, in the node
//!  init     build    attach rootfs ─ mounts ─ /dev ─ hooks ─ pivot ─ propagation
//!                    ─ console ─ read-only tmpfs, root, paths ─ masks
//! ```
//!
//! Nothing in here is done by a path of the node, and every place is a descriptor
//! that was walked to inside the root: see `place.rs`.

mod attach;
mod cgroups;
mod console;
mod copy_up;
mod cover;
mod devices;
mod fresh;
mod open;
mod options;
mod place;
mod proc;
mod void;

pub(super) use cgroups::systemds_hierarchy;
pub(super) use devices::Plan as Devices;
pub(super) use fresh::Fresh;
pub(super) use options::{attributes, flag, propagation};
pub(super) use place::{Missing, find_or_make};
pub(super) use void::Void;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::Mode;

use self::attach::Attached;
use self::open::Planned;
use super::executor::inside::make_cwd;
use super::executor::{Inside, words};
use crate::sys::{self, MountAttr};

/// Everything that the tree is made of, opened in the node.
#[derive(Debug)]
pub(super) struct Tree {
    /// The rootfs, detached.
    root: OwnedFd,
    mounts: Vec<Planned>,
    devices: devices::Plan,
    covers: cover::Plan,
    /// The propagation of `/`, as the spec has it.
    propagation: Option<MsFlags>,
    cwd: PathBuf,
    console: Option<OwnedFd>,
    /// What hooks see, if there are any that run before the pivot.
    node: Option<Node>,
}

/// The whole tree of the node, detached, and where the rootfs is in it.
#[derive(Debug)]
struct Node {
    tree: OwnedFd,
    rootfs: PathBuf,
}

impl Tree {
    /// Whether the container has a `/dev` of its own.
    pub(super) fn has_own_dev(&self) -> bool {
        self.devices.is_own()
    }

    /// Makes the tree and enters it. Called in the void, once. When everything is
    /// mounted and the root not yet changed, `hooks` is called; for a tree that was
    /// opened for hooks, in the rootfs' directory and with the node's files around.
    pub(super) fn build(self, hooks: impl FnOnce() -> Inside<()>) -> Inside<()> {
        self.attach_root()
            .map_err(|e| format!("error preparing rootfs: {}", words(e)))?;
        let mut attached = Vec::new();
        let deep = MsFlags::MS_UNBINDABLE | MsFlags::MS_REC;
        let unbindable = self.propagation.is_some_and(|flags| flags.contains(deep));
        for mount in self.mounts {
            if unbindable && matches!(mount.what, open::What::Bind(_)) {
                // The whole node is unbindable to runc then, which it tells so.
                return Err(attach::refusal(&mount, Errno::EINVAL));
            }
            attached.extend(attach::attach(self.root.as_fd(), mount)?);
        }
        let own_dev = self.devices.make(self.root.as_fd())?;
        nix::unistd::fchdir(self.root.as_raw_fd())
            .map_err(|e| format!("chdir to rootfs: {}", words(e)))?;
        hooks()?;
        enter(&self.root)?;
        if let Some(flags) = self.propagation.filter(|flags| outlives_the_pivot(*flags)) {
            set_propagation(&self.root, flags)
                .map_err(|e| format!("unable to apply root propagation flags: {}", words(e)))?;
        }
        cover::reopen_null(own_dev)?;
        if !self.cwd.as_os_str().is_empty() {
            make_cwd(&self.cwd)?;
        }
        if let Some(socket) = &self.console {
            console::set_up(self.root.as_fd(), socket.as_fd())?;
        }
        make_read_only(&attached)?;
        self.covers.apply(&self.root)
    }
}

impl Tree {
    fn attach_root(&self) -> std::result::Result<(), Errno> {
        let void = Path::new(void::ROOT);
        let Some(node) = &self.node else {
            return sys::move_mount(self.root.as_fd(), libc::AT_FDCWD, void);
        };
        sys::move_mount(node.tree.as_fd(), libc::AT_FDCWD, void)?;
        enter_mount(&node.tree)?;
        sys::move_mount(self.root.as_fd(), libc::AT_FDCWD, &node.rootfs)
    }
}

/// tmpfs and /dev were filled after they were mounted; they are made read-only
/// where that is asked for.
fn make_read_only(attached: &[Attached]) -> Inside<()> {
    for one in attached.iter().filter(|one| one.read_only_later) {
        sys::mount_setattr(one.mount.as_fd(), false, &read_only())
            .map_err(|e| format!("cannot make {} read-only: {}", one.at.display(), words(e)))?;
    }
    Ok(())
}

fn read_only() -> MountAttr {
    MountAttr {
        set: sys::MOUNT_ATTR_RDONLY,
        ..MountAttr::default()
    }
}

fn enter(root: &OwnedFd) -> Inside<()> {
    enter_mount(root).map_err(|e| format!("error jailing process inside rootfs: {}", words(e)))
}

/// Makes the mount behind `root` the root of everything and lets go of the old one.
fn enter_mount(root: &OwnedFd) -> std::result::Result<(), Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let old = nix::fcntl::open("/", flags, Mode::empty()).map(sys::own)?;
    nix::unistd::fchdir(root.as_raw_fd())?;
    nix::unistd::pivot_root(".", ".")?;
    nix::unistd::fchdir(old.as_raw_fd())?;
    // What is unmounted here must stay mounted in the node.
    set_propagation(&old, MsFlags::MS_SLAVE | MsFlags::MS_REC)?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")
}

/// Private and slave were dealt with when the tree was opened.
fn outlives_the_pivot(flags: MsFlags) -> bool {
    !flags.intersects(MsFlags::MS_PRIVATE | MsFlags::MS_SLAVE)
}

fn set_propagation(mount: &OwnedFd, flags: MsFlags) -> std::result::Result<(), Errno> {
    let kind = flags - MsFlags::MS_REC;
    let attr = MountAttr {
        propagation: kind.bits(),
        ..MountAttr::default()
    };
    sys::mount_setattr(mount.as_fd(), flags.contains(MsFlags::MS_REC), &attr)
}
