//! All unsafe code, each piece in a small documented function.
#![allow(unsafe_code, reason = "the one file where unsafe code lives")]

// ---- Rooms: what cgroup/ and store/ need ------------------------------------

mod attributes;
mod cached;
mod memory;
mod mount;
mod process;
mod userns;

pub use attributes::*;
pub use cached::*;
pub use memory::*;
pub use mount::*;
pub use process::*;
pub use userns::*;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Takes a descriptor that a system call has just made for us.
fn made(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel returned it as new, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A length that a system call returned; -1 means its error.
fn length(returned: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_negative| io::Error::last_os_error())
}

/// A descriptor's number, as `bpf(2)` takes it.
fn number(fd: &impl AsRawFd) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
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
    // SAFETY: attributes points to size bytes that stay ours during the call, and
    // so does what its own pointers name; the kernel writes no further.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(result).map_err(io::Error::other)
}

/// The start of `union bpf_attr` for `BPF_PROG_QUERY`, down to what newer kernels
/// write whatever size they are told (`revision`).
#[repr(C)]
struct BpfProgQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

const BPF_CGROUP_DEVICE: u32 = 6;

/// Loads a program that decides about devices of a cgroup
/// (`BPF_PROG_TYPE_CGROUP_DEVICE`). Kernels before 5.11 count it as locked memory:
/// that limit is lifted for the moment, and nobody inherits it.
///
/// # Errors
/// The kernel refuses it, or us.
pub fn bpf_load_device_program(code: &[BpfInsn]) -> io::Result<OwnedFd> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
    let first = bpf_load(code);
    if !matches!(&first, Err(e) if e.raw_os_error() == Some(libc::EPERM)) {
        return first;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
    let second = bpf_load(code);
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
    second
}

fn bpf_load(code: &[BpfInsn]) -> io::Result<OwnedFd> {
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
    // The verifier gives up when a signal comes, and wants to be asked again.
    let mut tries = 0;
    loop {
        match bpf(PROG_LOAD, &mut attributes) {
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) && tries < 30 => tries += 1,
            other => return made(other?),
        }
    }
}

/// Puts a device program in force for a cgroup and all below it. Programs of
/// parents stay in force.
///
/// # Errors
/// The kernel refuses it, or us.
pub fn bpf_attach_device_program(cgroup: &File, program: &OwnedFd) -> io::Result<()> {
    const PROG_ATTACH: libc::c_long = 8;
    const ALLOW_MULTI: u32 = 2;
    let mut attributes = BpfProgAttach {
        target_fd: number(cgroup)?,
        attach_bpf_fd: number(program)?,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &mut attributes).map(drop)
}

/// Takes a device program of this very cgroup out of force.
///
/// # Errors
/// The kernel refuses.
pub fn bpf_detach_device_program(cgroup: &File, program: &OwnedFd) -> io::Result<()> {
    const PROG_DETACH: libc::c_long = 9;
    let mut attributes = BpfProgAttach {
        target_fd: number(cgroup)?,
        attach_bpf_fd: number(program)?,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: 0,
    };
    bpf(PROG_DETACH, &mut attributes).map(drop)
}

/// The device programs of this very cgroup, save those that we may not have.
///
/// # Errors
/// The kernel refuses, or has none of this.
pub fn bpf_device_programs(cgroup: &File) -> io::Result<Vec<OwnedFd>> {
    const PROG_QUERY: libc::c_long = 16;
    const GET_FD_BY_ID: libc::c_long = 13;
    // As many as a cgroup can have.
    let mut ids = [0_u32; 64];
    let mut query = BpfProgQuery {
        target_fd: number(cgroup)?,
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        padding: 0,
        prog_attach_flags: 0,
        link_ids: 0,
        link_attach_flags: 0,
        revision: 0,
    };
    bpf(PROG_QUERY, &mut query)?;
    let count = usize::try_from(query.prog_cnt).map_err(io::Error::other)?;
    let mut programs = Vec::new();
    for id in ids.iter().take(count) {
        let mut attributes = [*id, 0, 0];
        match bpf(GET_FD_BY_ID, &mut attributes) {
            Ok(fd) => programs.push(made(fd)?),
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EPERM | libc::EACCES | libc::ENOENT)
                ) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(programs)
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
    let mut names = vec![0_u8; length(len)?];
    // SAFETY: the buffer is ours and as long as we say.
    let len = unsafe { libc::flistxattr(from.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(length(len)?);
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
        let len = length(len)?;
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

// --- A child in other namespaces, with chosen descriptors (worker::criu) ---

/// What a child process does between fork and exec.
#[derive(Debug, Default)]
pub struct BeforeExec {
    /// `cgroup.procs` files to enter by, before anything else: a cgroup namespace
    /// begins where its maker is.
    pub cgroups: Vec<std::os::fd::OwnedFd>,
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
    for procs in &before.cgroups {
        // SAFETY: an open descriptor, and a buffer as long as is said.
        let wrote = unsafe { libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) };
        worked(if wrote == 1 { 0 } else { -1 })?;
    }
    for ns in &before.join {
        // SAFETY: setns takes an open descriptor and no memory.
        worked(unsafe { libc::setns(ns.as_raw_fd(), 0) })?;
    }
    if before.unshare != 0 {
        // SAFETY: unshare takes no memory.
        worked(unsafe { libc::unshare(before.unshare) })?;
    }
    if let Some(name) = &before.hostname {
        // SAFETY: pointer and length describe the string, which outlives the call.
        worked(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })?;
    }
    if before.loopback {
        loopback_up()?;
    }
    // SAFETY: close_range takes no memory; descriptors are only marked.
    let marked = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    worked(marked)?;
    for fd in &before.keep {
        // SAFETY: F_SETFD takes an integer.
        worked(unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) })?;
    }
    Ok(())
}

/// Brings `lo` up in the calling process' network namespace.
///
/// # Errors
/// The caller lacks `CAP_NET_ADMIN` there.
pub fn loopback_up() -> std::io::Result<()> {
    // SAFETY: socket takes integers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    worked(socket)?;
    // SAFETY: ifreq is plain data, all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = (*from).cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = 0x1 /* IFF_UP */;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let done = unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) };
    let result = worked(done);
    // SAFETY: the socket was opened above and is used by nobody else.
    unsafe { libc::close(socket) };
    result
}

/// The calling thread's errno, if a call failed.
fn worked(result: i32) -> std::io::Result<()> {
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
