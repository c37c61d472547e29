//! Our program as workers run it: so that a container that gets hold of
//! `/proc/PID/exe` cannot write to it (CVE-2019-5736), nor keep others from starting.
//!
//! A read-only mount alone would stop the writes, but only after the kernel has
//! counted the writer: who tries all the time makes execve fail, on the whole node,
//! with "Text file busy". An overlay has a file of its own to count for, and
//! refuses earlier.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};

use crate::sys::{self, MountAttr};

/// An overlay without a writable layer needs two others; what is in the second
/// does not matter.
const OTHER_LAYER: &str = "/dev";

/// A program that cannot be written to by way of a process that runs it.
#[derive(Debug)]
pub(super) enum Sealed {
    /// In an overlay or, where the kernel refuses that, on a read-only mount.
    Open(OwnedFd),
    /// Neither could be had.
    Plain(PathBuf),
}

impl Sealed {
    pub(super) fn of(exe: &Path) -> Self {
        let real = fs::read_link(exe).unwrap_or_else(|_not_a_link| exe.to_owned());
        let open = overlay(exe, &real).or_else(|_refused| read_only_mount(&real));
        open.map_or_else(|_refused| Self::Plain(exe.to_owned()), Self::Open)
    }

    /// What to execute.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Open(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()).into(),
            Self::Plain(path) => path.clone(),
        }
    }
}

fn overlay(exe: &Path, real: &Path) -> Result<OwnedFd, Errno> {
    let (Some(dir), Some(name)) = (real.parent().and_then(Path::to_str), real.file_name()) else {
        return Err(Errno::EINVAL);
    };
    let fs = sys::fsopen("overlay")?;
    let layers = format!("{}:{OTHER_LAYER}", escaped(dir));
    sys::fsconfig_string(fs.as_fd(), "lowerdir", &layers)?;
    // Else the kernel tells its log that it cannot have it; not all know the word.
    sys::fsconfig_string(fs.as_fd(), "xino", "off").ok();
    sys::fsconfig_create(fs.as_fd())?;
    let mount = sys::fsmount(
        fs.as_fd(),
        sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV,
    )?;
    let file = open_in(&mount, name)?;
    if is_same(&file, exe)? {
        return Ok(file);
    }
    // Another version was installed meanwhile; the two do not talk to each other.
    Err(Errno::ESTALE)
}

fn open_in(mount: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(Some(mount.as_raw_fd()), name, flags, Mode::empty()).map(sys::own)
}

/// An overlay gives its files other device numbers.
fn is_same(file: &OwnedFd, exe: &Path) -> Result<bool, Errno> {
    let ours = fstat(file.as_raw_fd())?;
    let theirs = fs::metadata(exe).map_err(|_gone| Errno::ENOENT)?;
    Ok((ours.st_size, ours.st_mtime, ours.st_mtime_nsec)
        == (
            i64::try_from(theirs.size()).map_err(|_huge| Errno::EFBIG)?,
            theirs.mtime(),
            theirs.mtime_nsec(),
        ))
}

/// A directory's name among others.
fn escaped(dir: &str) -> String {
    dir.replace('\\', "\\\\")
        .replace(':', "\\:")
        .replace(',', "\\,")
}

fn read_only_mount(real: &Path) -> Result<OwnedFd, Errno> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    let mount = sys::open_tree(libc::AT_FDCWD, real, flags)?;
    let attr = MountAttr {
        set: sys::MOUNT_ATTR_RDONLY,
        ..MountAttr::default()
    };
    sys::mount_setattr(mount.as_fd(), false, &attr)?;
    Ok(mount)
}
