//! All unsafe code, each piece in a small documented function.

#![allow(unsafe_code, reason = "the one place for it")]

// --- A child in other namespaces, with chosen descriptors (worker::criu) ---

/// What a child process does between fork and exec.
#[derive(Debug, Default)]
pub struct BeforeExec {
    /// Namespaces to join, in this order.
    pub join: Vec<std::os::fd::OwnedFd>,
    /// Namespaces to make (`CLONE_NEW*`), after joining.
    pub unshare: i32,
    /// Host name for a new UTS namespace.
    pub hostname: Option<String>,
    /// Brings `lo` up in a new network namespace.
    pub loopback: bool,
    /// Descriptors above 2 that stay open; all others are closed by exec.
    pub keep: Vec<std::os::fd::RawFd>,
}

/// Makes `command` do what `before` says between fork and exec.
pub fn before_exec(command: &mut std::process::Command, before: BeforeExec) {
    use std::os::unix::process::CommandExt;
    let run = move || in_child(&before);
    // SAFETY: the closure makes system calls only, on memory that was allocated
    // before the fork; it neither allocates nor takes locks.
    unsafe { command.pre_exec(run) };
}

/// The child's half of [`before_exec`]: async-signal-safe calls only.
fn in_child(before: &BeforeExec) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    for ns in &before.join {
        // SAFETY: setns takes an open descriptor and no memory.
        check(unsafe { libc::setns(ns.as_raw_fd(), 0) })?;
    }
    if before.unshare != 0 {
        // SAFETY: unshare takes no memory.
        check(unsafe { libc::unshare(before.unshare) })?;
    }
    if let Some(name) = &before.hostname {
        // SAFETY: pointer and length describe the string, which outlives the call.
        check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })?;
    }
    if before.loopback {
        loopback_up()?;
    }
    // SAFETY: close_range takes no memory; descriptors are only marked.
    let marked = unsafe { libc::close_range(3, u32::MAX, 4 /* CLOSE_RANGE_CLOEXEC */) };
    check(marked)?;
    for fd in &before.keep {
        // SAFETY: F_SETFD takes an integer.
        check(unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) })?;
    }
    Ok(())
}

/// Brings `lo` up in the calling process' network namespace.
fn loopback_up() -> std::io::Result<()> {
    // SAFETY: socket takes integers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(socket)?;
    // SAFETY: ifreq is plain data, all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = (*from).cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = 0x1 /* IFF_UP */;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let done = unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) };
    let result = check(done);
    // SAFETY: the socket was opened above and is used by nobody else.
    unsafe { libc::close(socket) };
    result
}

/// A descriptor for process `pid`; readable once it has exited.
///
/// # Errors
/// No such process.
pub fn pidfd(pid: i32) -> std::io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: pidfd_open takes integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    check(fd)?;
    // SAFETY: the kernel made this descriptor just now; nobody else owns it.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}

/// Takes ownership of descriptors that came in a control message.
#[must_use]
pub fn received(fds: &[std::os::fd::RawFd]) -> Vec<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    fds.iter()
        // SAFETY: recvmsg installed them just now; nobody else owns them.
        .map(|fd| unsafe { std::os::fd::OwnedFd::from_raw_fd(*fd) })
        .collect()
}

/// The calling thread's errno, if a call failed.
fn check(result: i32) -> std::io::Result<()> {
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
