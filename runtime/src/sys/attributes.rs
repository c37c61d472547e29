//! What a process is besides its identity: limits, scheduling, memory policy.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::process::{Sys, check, own};

/// Sets a resource limit of another process (`prlimit(2)`).
///
/// # Errors
/// The kernel's refusal.
pub fn set_limit_of(pid: i32, resource: i32, soft: u64, hard: u64) -> Sys<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    let none: *const libc::rlimit64 = std::ptr::null();
    // SAFETY: the kernel reads one rlimit64 that outlives the call and writes none.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            std::ptr::from_ref(&limit),
            none,
        )
    };
    check(ret).map(drop)
}

/// This process' soft and hard limit.
///
/// # Errors
/// No such resource.
pub fn limit(resource: i32) -> Sys<(u64, u64)> {
    let mut limit = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let none: *const libc::rlimit64 = std::ptr::null();
    // SAFETY: the kernel writes one rlimit64 that outlives the call and reads none.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            none,
            std::ptr::from_mut(&mut limit),
        )
    };
    check(ret).map(|_| (limit.rlim_cur, limit.rlim_max))
}

/// A copy of a descriptor of another process (`pidfd_getfd(2)`).
///
/// # Errors
/// It has no such descriptor, or is gone.
pub fn descriptor_of(process: BorrowedFd<'_>, fd: i32) -> Sys<OwnedFd> {
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) };
    check(ret).map(own)
}

/// Lets this process run on every CPU there will ever be; the kernel takes away
/// those that its cpuset does not have.
///
/// # Errors
/// None of them can be had.
pub fn use_all_cpus() -> Sys<()> {
    let all = [u64::MAX; 1024];
    // SAFETY: the kernel reads as many bytes as the array has.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            0,
            std::mem::size_of_val(&all),
            all.as_ptr(),
        )
    };
    check(ret).map(drop)
}

/// `struct sched_attr` in its first version.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// Filled in by [`set_scheduling`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For the fair policies.
    pub nice: i32,
    /// For the real-time ones.
    pub priority: u32,
    /// For deadlines, in nanoseconds, as the two after it.
    pub runtime: u64,
    /// By when the runtime must have been given.
    pub deadline: u64,
    /// How often.
    pub period: u64,
}

const _: () = assert!(size_of::<Scheduling>() == 48);

/// `sched_setattr(2)` for this process.
///
/// # Errors
/// The kernel's refusal.
pub fn set_scheduling(attributes: Scheduling) -> Sys<()> {
    let attributes = Scheduling {
        size: 48,
        ..attributes
    };
    // SAFETY: the kernel reads `size` bytes, which is what the structure has.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            0,
            std::ptr::from_ref(&attributes),
            0,
        )
    };
    check(ret).map(drop)
}

/// `ioprio_set(2)` for this process.
///
/// # Errors
/// The kernel's refusal.
pub fn set_io_priority(class: i32, priority: i32) -> Sys<()> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: no pointers are passed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            WHO_PROCESS,
            0,
            (class << 13) | priority,
        )
    };
    check(ret).map(drop)
}

/// `set_mempolicy(2)`; `nodes` is a bit mask.
///
/// # Errors
/// The kernel's refusal.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> Sys<()> {
    // The kernel reads one bit less than it is told.
    let bits = if nodes.is_empty() {
        0
    } else {
        nodes.len() * 64 + 1
    };
    let mask = if nodes.is_empty() {
        std::ptr::null()
    } else {
        nodes.as_ptr()
    };
    // SAFETY: the kernel reads `bits - 1` bits, all of them in the slice.
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    check(ret).map(drop)
}

/// `personality(2)`.
///
/// # Errors
/// The kernel does not know it.
pub fn set_personality(domain: u32) -> Sys<()> {
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::personality(libc::c_ulong::from(domain)) };
    if ret < 0 {
        return Err(Errno::last());
    }
    Ok(())
}
