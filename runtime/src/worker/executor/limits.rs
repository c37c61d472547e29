//! Resource limits: looked at before Start, where a wrong one can still be told of,
//! and set last, so that they hold for the payload and not for us.

use nix::errno::Errno;
use nix::sys::resource::Resource;
use oci_spec::runtime::{PosixRlimit, PosixRlimitType, Process};

use super::line::Line;
use super::{Inside, words};
use crate::sys;

/// Refuses what the kernel would refuse, and raises hard limits. In a user namespace
/// only the worker may.
pub(super) fn prepare(process: &Process, line: &Line) -> Inside<()> {
    let mut others = Vec::new();
    for limit in wanted(process) {
        let resource = resource(limit.typ()) as i32;
        if limit.soft() > limit.hard() {
            return Err(refused(resource, Errno::EINVAL));
        }
        let (soft, hard) = sys::limit(resource).map_err(|e| refused(resource, e))?;
        if limit.hard() <= hard {
            continue;
        }
        match sys::set_limit_of(0, resource, soft, limit.hard()) {
            Err(Errno::EPERM) => others.push((resource, soft, limit.hard())),
            other => other.map_err(|e| refused(resource, e))?,
        }
    }
    others.extend(lowered_and_raised(process)?);
    if others.is_empty() {
        return Ok(());
    }
    line.raise_limits(others)
}

/// Of a resource given twice runc sets both, in their order, with the node's rights.
/// Where those are few the second cannot raise what the first has lowered. What is set
/// here must not hold for us yet: soft limits stay as high as they can.
fn lowered_and_raised(process: &Process) -> Inside<Vec<(i32, u64, u64)>> {
    let given: Vec<&PosixRlimit> = process.rlimits().iter().flatten().collect();
    let rises = |typ| {
        let mut of_type = given.iter().filter(|limit| limit.typ() == typ);
        let mut lowest = of_type.next().map_or(u64::MAX, |limit| limit.hard());
        of_type.any(|limit| {
            let rise = limit.hard() > lowest;
            lowest = lowest.min(limit.hard());
            rise
        })
    };
    let in_order = given.iter().filter(|limit| rises(limit.typ()));
    in_order
        .map(|limit| {
            let resource = resource(limit.typ()) as i32;
            let (soft, _) = sys::limit(resource).map_err(|e| refused(resource, e))?;
            Ok((resource, soft.min(limit.hard()), limit.hard()))
        })
        .collect()
}

/// Sets the limits. Nothing is raised any more.
pub(super) fn apply(process: &Process) -> Inside<()> {
    for limit in wanted(process) {
        let resource = resource(limit.typ()) as i32;
        sys::set_limit_of(0, resource, limit.soft(), limit.hard())
            .map_err(|e| refused(resource, e))?;
    }
    Ok(())
}

/// Of a resource given twice the last entry.
fn wanted(process: &Process) -> Vec<PosixRlimit> {
    let mut wanted: Vec<PosixRlimit> = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        wanted.retain(|other| other.typ() != limit.typ());
        wanted.push(*limit);
    }
    wanted
}

/// runc's words for it.
pub(super) fn refused(resource: i32, e: Errno) -> String {
    format!(
        "error setting rlimits for ready process: error setting rlimit type {resource}: {}",
        words(e)
    )
}

pub(in crate::worker) fn resource(typ: PosixRlimitType) -> Resource {
    use PosixRlimitType as T;
    match typ {
        T::RlimitCpu => Resource::RLIMIT_CPU,
        T::RlimitFsize => Resource::RLIMIT_FSIZE,
        T::RlimitData => Resource::RLIMIT_DATA,
        T::RlimitStack => Resource::RLIMIT_STACK,
        T::RlimitCore => Resource::RLIMIT_CORE,
        T::RlimitRss => Resource::RLIMIT_RSS,
        T::RlimitNproc => Resource::RLIMIT_NPROC,
        T::RlimitNofile => Resource::RLIMIT_NOFILE,
        T::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        T::RlimitAs => Resource::RLIMIT_AS,
        T::RlimitLocks => Resource::RLIMIT_LOCKS,
        T::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        T::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        T::RlimitNice => Resource::RLIMIT_NICE,
        T::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        T::RlimitRttime => Resource::RLIMIT_RTTIME,
    }
}
