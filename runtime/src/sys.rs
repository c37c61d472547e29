//! All unsafe code, each piece in a small documented function.
#![allow(
    unsafe_code,
    reason = "the one place for system calls that no safe wrapper offers"
)]

use std::ffi::{CStr, CString, c_int, c_uint};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// Result of a system call.
pub type Sys<T> = std::result::Result<T, Errno>;

fn check(ret: libc::c_long) -> Sys<i32> {
    if ret < 0 {
        return Err(Errno::last());
    }
    i32::try_from(ret).map_err(|_too_big| Errno::EOVERFLOW)
}

fn c_path(path: &Path) -> Sys<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_nul| Errno::EINVAL)
}

/// Takes ownership of a descriptor that the kernel just gave to this process.
///
/// The caller says that nobody else owns it: it came out of a system call or an
/// `SCM_RIGHTS` message and was not wrapped before.
#[must_use]
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: by the contract above the descriptor is open and ours alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Borrows a descriptor by number (0, 1, 2, which live as long as the process).
#[must_use]
pub fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: only used for standard descriptors, which are never closed, and for
    // the duration of one call.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// A descriptor for a process, readable when it has ended.
///
/// # Errors
/// The process is gone (`ESRCH`).
pub fn pidfd_open(pid: i32) -> Sys<OwnedFd> {
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    check(ret).map(own)
}

/// Sends a signal to exactly the process behind `pidfd`.
///
/// # Errors
/// The process is gone (`ESRCH`).
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Sys<()> {
    let none: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo is allowed, the descriptor is borrowed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            none,
            0,
        )
    };
    check(ret).map(drop)
}

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
#[derive(Debug, Default, Clone, Copy)]
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

/// Opens `path` without ever leaving `root`: links, absolute ones included, are
/// resolved as a process with that root directory would.
///
/// # Errors
/// As `open(2)`.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: nix::fcntl::OFlag) -> Sys<OwnedFd> {
    let how = nix::fcntl::OpenHow::new()
        .flags(flags | nix::fcntl::OFlag::O_CLOEXEC)
        .resolve(nix::fcntl::ResolveFlag::RESOLVE_IN_ROOT);
    nix::fcntl::openat2(root.as_raw_fd(), path, how).map(own)
}

/// Marks every descriptor from `first` on to be closed by execve.
pub fn close_on_exec_from(first: c_uint) {
    // SAFETY: no pointers are passed; descriptors only gain a flag.
    unsafe { libc::close_range(first, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as c_int) };
}

/// Closes every descriptor from `first` on. Only at the very beginning of a
/// process, when nothing of ours is open yet.
pub fn close_from(first: c_uint) {
    // SAFETY: by the contract above no owner of such a descriptor exists.
    unsafe { libc::close_range(first, c_uint::MAX, 0) };
}

/// Forks; `None` is the child. Only for single-threaded processes: the child
/// goes on with everything that Rust needs.
///
/// # Errors
/// No more processes.
pub fn fork() -> Sys<Option<i32>> {
    // SAFETY: the worker has one thread, so no lock can be held by another.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child.as_raw())),
        nix::unistd::ForkResult::Child => Ok(None),
    }
}

/// Ends this process at once, without running anything at exit.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns, touches no memory.
    unsafe { libc::_exit(code) }
}

/// Sets every signal's disposition to the default and unblocks all of them.
pub fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the default action needs no handler; refusals (SIGKILL,
        // SIGSTOP, libc's own two) do not matter.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let none = nix::sys::signal::SigSet::empty();
    // Cannot fail with a valid `how`.
    none.thread_set_mask().ok();
}

/// Joins the named session keyring, making it if needed.
///
/// # Errors
/// `ENOSYS` without keyrings, `EDQUOT` over the quota.
pub fn join_session_keyring(name: &str) -> Sys<i32> {
    let name = CString::new(name).map_err(|_nul| Errno::EINVAL)?;
    // SAFETY: the name is a C string that outlives the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            name.as_ptr(),
        )
    };
    check(ret)
}

/// Lets anybody who possesses the keyring, or runs as its user, search it.
///
/// # Errors
/// The kernel's refusal.
pub fn allow_keyring_search(keyring: i32) -> Sys<()> {
    const POSSESSOR_ALL: c_uint = 0x3f00_0000;
    const USER_VIEW_TO_SEARCH: c_uint = 0x000b_0000;
    // SAFETY: no pointers are passed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_SETPERM,
            keyring,
            POSSESSOR_ALL | USER_VIEW_TO_SEARCH,
        )
    };
    check(ret).map(drop)
}

/// Sets the three capability sets of this thread in one step.
///
/// # Errors
/// `EPERM` when a set grows beyond what is permitted.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Sys<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let word = |set: u64, index: u32| u32::try_from((set >> (32 * index)) & 0xffff_ffff);
    let data = [0, 1].map(|index| {
        [effective, permitted, inheritable].map(|set| word(set, index).unwrap_or_default())
    });
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    // SAFETY: version 3 reads two entries of three words each, which `data` is.
    let ret =
        unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_ref(&header), data.as_ptr()) };
    check(ret).map(drop)
}

/// `faccessat2(2)` with the effective (file system) identity.
///
/// # Errors
/// `EACCES` when it may not.
pub fn may_execute(path: &Path) -> Sys<()> {
    let path = c_path(path)?;
    // SAFETY: the path is a C string that outlives the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::X_OK,
            libc::AT_EACCESS,
        )
    };
    check(ret).map(drop)
}

/// Sets the size of a terminal.
///
/// # Errors
/// Not a terminal.
pub fn set_window_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Sys<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    let ret = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    check(ret.into()).map(drop)
}

/// `execve(2)`; comes back only with an error.
pub fn execve(path: &CStr, args: &[CString], env: &[CString]) -> Errno {
    match nix::unistd::execve(path, args, env) {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

/// The last error of a call, as the standard library's.
#[must_use]
pub fn io(errno: Errno) -> io::Error {
    io::Error::from(errno)
}

/// Ignores a signal, or gives it back its default.
pub fn set_signal(signal: nix::sys::signal::Signal, handler: nix::sys::signal::SigHandler) {
    // SAFETY: only dispositions without a handler function are passed.
    unsafe { nix::sys::signal::signal(signal, handler) }.ok();
}

/// Installs a seccomp filter: `program` is a sequence of the kernel's eight-byte
/// BPF instructions.
///
/// # Errors
/// `EACCES` without no_new_privs and `CAP_SYS_ADMIN`, `EINVAL` for a bad program.
pub fn seccomp_set_filter(program: &[u8], flags: u64) -> Sys<()> {
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const u8,
    }
    let instructions = program.len() / size_of::<libc::sock_filter>();
    let program = Program {
        len: u16::try_from(instructions).map_err(|_too_long| Errno::E2BIG)?,
        filter: program.as_ptr(),
    };
    // SAFETY: the kernel copies `len` instructions of eight bytes, which is what
    // the slice holds; it needs no alignment to read them.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    check(ret).map(drop)
}

// ---- Rooms: what cgroup/ and store/ need ------------------------------------

/// Takes a descriptor that a system call has just made for us.
fn made(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel returned it as new, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An eventfd, not blocking, closed on exec (`man 2 eventfd`).
///
/// # Errors
/// Out of descriptors.
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes two integers, touches no memory of ours.
    made(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

/// An inotify that becomes readable when the file changes (`IN_MODIFY`) or goes;
/// not blocking, closed on exec (`man 7 inotify`).
///
/// # Errors
/// Out of descriptors or watches; no such file.
pub fn inotify_modify(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: takes an integer, touches no memory of ours.
    let fd = made(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
    let mask = libc::IN_MODIFY | libc::IN_DELETE_SELF;
    // SAFETY: fd is an open inotify; path is a C string that outlives the call.
    if unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), mask) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

/// One BPF instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfInsn {
    /// Operation.
    pub code: u8,
    /// Destination register in the low half, source in the high half (as C bit
    /// fields lie on little-endian machines).
    pub regs: u8,
    /// Jump distance or memory offset.
    pub off: i16,
    /// Constant.
    pub imm: i32,
}

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`; what follows is zero to
/// the kernel.
#[repr(C)]
struct BpfProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The start of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct BpfProgAttach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// `bpf(2)` with a command and its attributes.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_int> {
    let size = std::mem::size_of::<T>();
    // SAFETY: attributes points to size bytes that stay ours during the call; the
    // kernel writes at most that many.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(result).map_err(io::Error::other)
}

/// Loads a program that decides about devices of a cgroup
/// (`BPF_PROG_TYPE_CGROUP_DEVICE`).
///
/// # Errors
/// The kernel refuses it, or us.
pub fn bpf_load_device_program(code: &[BpfInsn]) -> io::Result<OwnedFd> {
    const PROG_LOAD: libc::c_long = 5;
    const CGROUP_DEVICE: u32 = 15;
    let license = c"Apache-2.0";
    let mut attributes = BpfProgLoad {
        prog_type: CGROUP_DEVICE,
        insn_cnt: u32::try_from(code.len()).map_err(io::Error::other)?,
        insns: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    made(bpf(PROG_LOAD, &mut attributes)?)
}

/// Puts a device program in force for a cgroup and all below it. Programs of
/// parents stay in force.
///
/// # Errors
/// The kernel refuses it, or us.
pub fn bpf_attach_device_program(cgroup: &File, program: &OwnedFd) -> io::Result<()> {
    const PROG_ATTACH: libc::c_long = 8;
    const CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    let mut attributes = BpfProgAttach {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_bpf_fd: program.as_raw_fd().cast_unsigned(),
        attach_type: CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &mut attributes).map(drop)
}

/// Copies all extended attributes of `from` to `to` (`man 7 xattr`), those of
/// overlay (`trusted.overlay.*`) included.
///
/// # Errors
/// The file system refuses one.
pub fn copy_xattrs(from: &File, to: &File) -> io::Result<()> {
    // SAFETY: a null buffer of no length asks for the length only.
    let len = unsafe { libc::flistxattr(from.as_raw_fd(), std::ptr::null_mut(), 0) };
    if len < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => Ok(()),
            _ => Err(error),
        };
    }
    let mut names = vec![0_u8; usize::try_from(len).map_err(io::Error::other)?];
    // SAFETY: the buffer is ours and as long as we say.
    let len = unsafe { libc::flistxattr(from.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(len).map_err(|_| io::Error::last_os_error())?);
    let mut value = vec![0_u8; 64 << 10]; // XATTR_SIZE_MAX
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let name = CString::new(name)?;
        // SAFETY: name is a C string, the buffer is ours and as long as we say.
        let len = unsafe {
            libc::fgetxattr(
                from.as_raw_fd(),
                name.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: name is a C string, the buffer is ours and at least len long.
        let done = unsafe {
            libc::fsetxattr(to.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), len, 0)
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

// ---- Shim: what the reaper needs ---------------------------------------------

/// Reaps a child that has ended, if there is one: its pid and its wait status,
/// which std's `ExitStatus` takes. Unlike nix's it knows real-time signals.
///
/// # Errors
/// There are no children (`ECHILD`).
pub fn reap_any() -> Sys<Option<(i32, i32)>> {
    let mut status = 0;
    // SAFETY: the status is ours and lives through the call.
    let ret = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match check(ret.into())? {
        0 => Ok(None),
        pid => Ok(Some((pid, status))),
    }
}
