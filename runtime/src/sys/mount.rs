//! The mount calls that take descriptors.

use std::ffi::{CStr, CString, c_uint};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;

use super::process::{Sys, c_path, check, own};

/// `open_tree(2)`: with `OPEN_TREE_CLONE` a detached copy of a mount.
///
/// # Errors
/// The kernel's refusal.
pub fn open_tree(dir: RawFd, path: &Path, flags: c_uint) -> Sys<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: `path` is a C string that outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) };
    check(ret).map(own)
}

/// `mount_setattr(2)` on the mount behind `fd`.
///
/// # Errors
/// The kernel's refusal.
pub fn mount_setattr(fd: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> Sys<()> {
    let empty = c"";
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attr` is a plain struct of the size that is passed, the path is a
    // C string; both outlive the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            empty.as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    check(ret).map(drop)
}

/// The kernel's `struct mount_attr`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct MountAttr {
    /// Attributes to set (`MOUNT_ATTR_*`).
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// Propagation (`MS_PRIVATE`, ...), zero for none.
    pub propagation: u64,
    /// User namespace for an id mapping.
    pub userns_fd: u64,
}

/// `MOUNT_ATTR_RDONLY`.
pub const MOUNT_ATTR_RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`.
pub const MOUNT_ATTR_NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`.
pub const MOUNT_ATTR_NODEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`.
pub const MOUNT_ATTR_NOEXEC: u64 = 0x8;
/// `MOUNT_ATTR__ATIME`: the field that says how access times are kept.
pub const MOUNT_ATTR_ATIME: u64 = 0x70;
/// `MOUNT_ATTR_NOATIME`.
pub const MOUNT_ATTR_NOATIME: u64 = 0x10;
/// `MOUNT_ATTR_STRICTATIME`.
pub const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
/// `MOUNT_ATTR_NODIRATIME`.
pub const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
/// `MOUNT_ATTR_IDMAP`.
pub const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
/// `MOUNT_ATTR_NOSYMFOLLOW`.
pub const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;

/// Attaches the detached mount `from` at `to`.
///
/// # Errors
/// The kernel's refusal.
pub fn move_mount(from: BorrowedFd<'_>, to_dir: RawFd, to: &Path) -> Sys<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x4;
    const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;
    let mut flags = MOVE_MOUNT_F_EMPTY_PATH;
    if to.as_os_str().is_empty() {
        flags |= MOVE_MOUNT_T_EMPTY_PATH;
    }
    let empty = c"";
    let to = c_path(to)?;
    // SAFETY: both paths are C strings that outlive the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from.as_raw_fd(),
            empty.as_ptr(),
            to_dir,
            to.as_ptr(),
            flags,
        )
    };
    check(ret).map(drop)
}

/// `fsopen(2)`: a file system to be configured.
///
/// # Errors
/// The kernel does not know the call or the file system.
pub fn fsopen(fstype: &str) -> Sys<OwnedFd> {
    const FSOPEN_CLOEXEC: c_uint = 1;
    let fstype = CString::new(fstype).map_err(|_nul| Errno::EINVAL)?;
    // SAFETY: the name is a C string that outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) };
    check(ret).map(own)
}

fn fsconfig(fs: BorrowedFd<'_>, cmd: c_uint, key: Option<&CStr>, value: Option<&CStr>) -> Sys<()> {
    let key = key.map_or(std::ptr::null(), CStr::as_ptr);
    let value = value.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: both pointers are null or C strings that outlive the call.
    let ret = unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), cmd, key, value, 0) };
    check(ret).map(drop)
}

/// Sets an option with a value.
///
/// # Errors
/// The file system does not know the option, or does not like the value.
pub fn fsconfig_string(fs: BorrowedFd<'_>, key: &str, value: &str) -> Sys<()> {
    const FSCONFIG_SET_STRING: c_uint = 1;
    let key = CString::new(key).map_err(|_nul| Errno::EINVAL)?;
    let value = CString::new(value).map_err(|_nul| Errno::EINVAL)?;
    fsconfig(fs, FSCONFIG_SET_STRING, Some(&key), Some(&value))
}

/// Sets an option without a value.
///
/// # Errors
/// The file system does not know the option.
pub fn fsconfig_flag(fs: BorrowedFd<'_>, key: &str) -> Sys<()> {
    const FSCONFIG_SET_FLAG: c_uint = 0;
    let key = CString::new(key).map_err(|_nul| Errno::EINVAL)?;
    fsconfig(fs, FSCONFIG_SET_FLAG, Some(&key), None)
}

/// Creates the configured file system.
///
/// # Errors
/// The options do not work together.
pub fn fsconfig_create(fs: BorrowedFd<'_>) -> Sys<()> {
    const FSCONFIG_CMD_CREATE: c_uint = 6;
    fsconfig(fs, FSCONFIG_CMD_CREATE, None, None)
}

/// A detached mount of a created file system.
///
/// # Errors
/// The kernel's refusal.
pub fn fsmount(fs: BorrowedFd<'_>, attributes: u64) -> Sys<OwnedFd> {
    const FSMOUNT_CLOEXEC: c_uint = 1;
    // SAFETY: no pointers are passed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            fs.as_raw_fd(),
            FSMOUNT_CLOEXEC,
            attributes,
        )
    };
    check(ret).map(own)
}

/// A detached copy of the mount behind `fd`, from the file or directory that it
/// is open at; with `deep` what is mounted below comes along.
///
/// # Errors
/// The kernel's refusal.
pub fn clone_mount(fd: BorrowedFd<'_>, deep: bool) -> Sys<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | libc::AT_EMPTY_PATH.cast_unsigned()
        | if deep {
            libc::AT_RECURSIVE.cast_unsigned()
        } else {
            0
        };
    open_tree(fd.as_raw_fd(), Path::new(""), flags)
}

/// Which mount something is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountPoint {
    /// The mount's id, as `/proc/PID/mountinfo` has it.
    pub id: u64,
    /// Whether it is what is mounted there, and not something below.
    pub is_root: bool,
}

/// Tells which mount the file or directory behind `fd` is on.
///
/// # Errors
/// The kernel's refusal.
pub fn mount_point(fd: BorrowedFd<'_>) -> Sys<MountPoint> {
    let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty C string, and the kernel fills the structure, whose
    // size the call's number implies.
    let ret = unsafe {
        libc::statx(
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT,
            libc::STATX_MNT_ID,
            stat.as_mut_ptr(),
        )
    };
    check(ret.into())?;
    // SAFETY: all bytes were zero, which is a value of every field.
    let stat = unsafe { stat.assume_init() };
    Ok(MountPoint {
        id: stat.stx_mnt_id,
        is_root: stat.stx_attributes & u64::from(libc::STATX_ATTR_MOUNT_ROOT.cast_unsigned()) != 0,
    })
}
