//! User namespaces made for their mappings, without a process in them.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};

/// A new user namespace with these mappings (lines of `uid_map`, see
/// `man 7 user_namespaces`).
///
/// # Errors
/// No more namespaces or processes, or mappings that the kernel refuses.
pub fn new_user_namespace(uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    let (made, made_w) = pipe2(OFlag::O_CLOEXEC)?;
    let (end, end_w) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the child makes system calls only and ends with one, so it touches
    // nothing that another thread may have held when it was forked.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        stand_in(made_w.as_raw_fd(), end.as_raw_fd(), end_w.as_raw_fd());
    }
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    drop(made_w);
    let found = map_it(pid, &made, uid_map, gid_map);
    // It reads this end, and ends with it.
    drop(end_w);
    // Somebody else may reap what ends; gone it is either way.
    waitpid(Pid::from_raw(pid), None).ok();
    found
}

fn map_it(pid: i32, made: &OwnedFd, uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    let mut answer = [0; 1];
    if nix::unistd::read(made.as_raw_fd(), &mut answer)? == 0 {
        return Err(io::Error::other("cannot make a user namespace"));
    }
    std::fs::write(format!("/proc/{pid}/uid_map"), uid_map)?;
    std::fs::write(format!("/proc/{pid}/gid_map"), gid_map)?;
    File::open(format!("/proc/{pid}/ns/user")).map(OwnedFd::from)
}

/// The child's part: stands in a new user namespace until it is no longer needed.
fn stand_in(made: i32, end: i32, own_copy: i32) -> ! {
    let mut byte = 0_u8;
    // SAFETY: takes an integer.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWUSER) } == 0;
    // SAFETY: takes an integer; without it the read below would wait for ourselves.
    unsafe { libc::close(own_copy) };
    if unshared {
        // SAFETY: one byte of ours is written.
        unsafe { libc::write(made, (&raw const byte).cast(), 1) };
        // SAFETY: one byte of ours is read into, when the other end closes.
        unsafe { libc::read(end, (&raw mut byte).cast(), 1) };
    }
    // SAFETY: never returns, touches no memory.
    unsafe { libc::_exit(0) }
}
