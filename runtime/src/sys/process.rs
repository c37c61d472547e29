//! Processes: descriptors, signals, identity, execve.

use std::ffi::{CStr, CString, c_uint};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// Result of a system call.
pub type Sys<T> = std::result::Result<T, Errno>;

pub(super) fn check(ret: libc::c_long) -> Sys<i32> {
    if ret < 0 {
        return Err(Errno::last());
    }
    i32::try_from(ret).map_err(|_too_big| Errno::EOVERFLOW)
}

pub(super) fn c_path(path: &Path) -> Sys<CString> {
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

/// Opens `path` without ever leaving `root`: links, absolute ones included, are
/// resolved as a process with that root directory would.
///
/// # Errors
/// As `open(2)`.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: nix::fcntl::OFlag) -> Sys<OwnedFd> {
    let how = nix::fcntl::OpenHow::new()
        .flags(flags | nix::fcntl::OFlag::O_CLOEXEC)
        .resolve(nix::fcntl::ResolveFlag::RESOLVE_IN_ROOT);
    // `..` cannot be followed while anything on the node is renamed or mounted.
    const TRIES: u32 = 128;
    for _ in 1..TRIES {
        match nix::fcntl::openat2(root.as_raw_fd(), path, how) {
            Err(Errno::EAGAIN) => std::thread::yield_now(),
            done => return done.map(own),
        }
    }
    nix::fcntl::openat2(root.as_raw_fd(), path, how).map(own)
}

/// Marks every descriptor from `first` on to be closed by execve.
pub fn close_on_exec_from(first: c_uint) {
    // SAFETY: no pointers are passed; descriptors only gain a flag.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
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

/// Sets every signal's disposition to the default and unblocks all of them. By
/// the bare call: the C library keeps two signals to itself, and an ancestor may
/// have left those ignored.
pub fn reset_signals() {
    const SIGNALS: libc::c_int = 64;
    // handler, flags, restorer, mask: all zero is the default action.
    let default = [0u64; 4];
    let none: *const u64 = std::ptr::null();
    for signal in 1..=SIGNALS {
        // SAFETY: `default` is as large as the kernel's struct; no old action is
        // asked for. Refusals (SIGKILL, SIGSTOP) do not matter.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                none,
                size_of::<u64>(),
            )
        };
    }
    let none = nix::sys::signal::SigSet::empty();
    // Cannot fail with a valid mask.
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

/// Adds the right to search to those that a new keyring has: for its user, or in a
/// user namespace, where the user's number is another, for everybody who sees it.
///
/// # Errors
/// The kernel's refusal.
pub fn allow_keyring_search(keyring: i32, in_user_namespace: bool) -> Sys<()> {
    const NEW: c_uint = 0x3f13_0000; // all to its possessor; view, read, link to its user
    const USER_SEARCH: c_uint = 0x0008_0000;
    const OTHER_SEARCH: c_uint = 0x0000_0008;
    let search = if in_user_namespace {
        OTHER_SEARCH
    } else {
        USER_SEARCH
    };
    // SAFETY: no pointers are passed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_SETPERM,
            keyring,
            NEW | search,
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

/// Ignores a signal, or gives it back its default.
pub fn set_signal(signal: nix::sys::signal::Signal, handler: nix::sys::signal::SigHandler) {
    // SAFETY: only dispositions without a handler function are passed.
    unsafe { nix::sys::signal::signal(signal, handler) }.ok();
}

/// Installs a seccomp filter: `program` is a sequence of the kernel's eight-byte
/// BPF instructions. With `SECCOMP_FILTER_FLAG_NEW_LISTENER` it gives a descriptor.
///
/// # Errors
/// `EACCES` without no_new_privs and `CAP_SYS_ADMIN`, `EINVAL` for a bad program.
pub fn seccomp_set_filter(program: &[u8], flags: u64) -> Sys<Option<OwnedFd>> {
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
    let made = check(ret)?;
    Ok((flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0).then(|| own(made)))
}

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

/// Lets the other side of a new terminal be opened (`TIOCSPTLCK`).
///
/// # Errors
/// Not a terminal's master.
pub fn unlock_terminal(master: BorrowedFd<'_>) -> Sys<()> {
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one integer, which outlives the call.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) };
    check(ret.into()).map(drop)
}

/// Opens the slave of a terminal by its master, wherever its devpts is mounted.
///
/// # Errors
/// Not a terminal's master.
pub fn open_terminal_peer(master: BorrowedFd<'_>) -> Sys<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes an integer and returns a new descriptor.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    check(ret.into()).map(own)
}

/// Makes a terminal the calling session's controlling one.
///
/// # Errors
/// The caller leads no session, or has a terminal already.
pub fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> Sys<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    let ret = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    check(ret.into()).map(drop)
}
