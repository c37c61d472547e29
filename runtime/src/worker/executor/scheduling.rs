//! How the kernel treats the process: CPUs, scheduler, I/O priority, personality,
//! memory policy. libcontainer's own handling is taken out of its spec, so that
//! init and exec get the same, in runc's words.

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxMemoryPolicy, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};

use super::{Inside, words};
use crate::sys::{self, Scheduling};

/// All that a spec says of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Treatment {
    personality: Option<LinuxPersonalityDomain>,
    memory: Option<LinuxMemoryPolicy>,
    /// The cgroup says which CPUs.
    has_cpuset: bool,
}

impl Treatment {
    pub(super) fn of(linux: Option<&Linux>) -> Self {
        let cpu = linux
            .and_then(|linux| linux.resources().as_ref())
            .and_then(|resources| resources.cpu().as_ref());
        Self {
            personality: linux.and_then(|l| l.personality().as_ref().map(|p| p.domain())),
            memory: linux.and_then(|l| l.memory_policy().clone()),
            has_cpuset: cpu
                .and_then(|cpu| cpu.cpus().as_ref())
                .is_some_and(|cpus| !cpus.is_empty()),
        }
    }

    /// Puts it in force for this process.
    pub(super) fn apply(&self, process: &Process) -> Inside<()> {
        if let Some(scheduler) = process.scheduler() {
            self.schedule(scheduler)?;
        }
        if let Some(io) = process.io_priority() {
            let class = match io.class() {
                IOPriorityClass::IoprioClassRt => 1,
                IOPriorityClass::IoprioClassBe => 2,
                IOPriorityClass::IoprioClassIdle => 3,
            };
            let priority = i32::try_from(io.priority()).unwrap_or(i32::MAX);
            sys::set_io_priority(class, priority)
                .map_err(|e| format!("failed to set io priority: {}", words(e)))?;
        }
        if let Some(domain) = self.personality {
            let domain = match domain {
                LinuxPersonalityDomain::PerLinux => 0,
                LinuxPersonalityDomain::PerLinux32 => 8,
            };
            sys::set_personality(domain)
                .map_err(|e| format!("failed to set personality: {}", words(e)))?;
        }
        match &self.memory {
            Some(policy) => set_memory_policy(policy),
            None => Ok(()),
        }
    }

    fn schedule(&self, scheduler: &Scheduler) -> Inside<()> {
        let flags = scheduler.flags().iter().flatten();
        let number = |n: &Option<i32>| n.unwrap_or_default();
        let attributes = Scheduling {
            policy: policy(*scheduler.policy()),
            flags: flags.fold(0, |all, one| all | flag(*one)),
            nice: number(scheduler.nice()),
            priority: number(scheduler.priority()).unsigned_abs(),
            runtime: scheduler.runtime().unwrap_or_default(),
            deadline: scheduler.deadline().unwrap_or_default(),
            period: scheduler.period().unwrap_or_default(),
            ..Scheduling::default()
        };
        sys::set_scheduling(attributes).map_err(|e| match e {
            Errno::EPERM if self.has_cpuset => {
                "process scheduler can't be used together with AllowedCPUs".to_owned()
            }
            other => format!("error setting scheduler: {}", words(other)),
        })
    }
}

fn policy(policy: LinuxSchedulerPolicy) -> u32 {
    match policy {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    }
}

fn flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

fn set_memory_policy(policy: &LinuxMemoryPolicy) -> Inside<()> {
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0, |all, one| {
        all | match one {
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
        }
    });
    let text = policy.nodes().as_deref().unwrap_or_default();
    let nodes =
        parse_set(text).map_err(|e| format!("invalid memory policy nodes {text:?}: {e}"))?;
    let mask = nodes.map(|nodes| mask(&nodes)).unwrap_or_default();
    sys::set_memory_policy(mode | flags, &mask).map_err(|e| format!("set_mempolicy: {}", words(e)))
}

fn mask(numbers: &[usize]) -> Vec<u64> {
    let mut mask = vec![0_u64; MOST / 64];
    for number in numbers {
        mask[number / 64] |= 1 << (number % 64);
    }
    mask
}

/// More CPUs or nodes than these cannot be named.
const MOST: usize = 1024;

/// A list of CPUs or memory nodes (`0-3,7`); none when it says nothing.
pub(in crate::worker) fn parse_set(text: &str) -> std::result::Result<Option<Vec<usize>>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut members = Vec::new();
    for range in text.split(',').map(str::trim).filter(|r| !r.is_empty()) {
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (member(first)?, member(last)?),
            None => (member(range)?, member(range)?),
        };
        if first > last {
            return Err(format!("invalid range: {range}"));
        }
        members.extend(first..=last);
    }
    if members.is_empty() {
        return Err(format!("no members found in set {text:?}"));
    }
    Ok(Some(members))
}

fn member(text: &str) -> std::result::Result<usize, String> {
    let number: u32 = text
        .parse()
        .map_err(|_malformed| format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))?;
    usize::try_from(number)
        .ok()
        .filter(|n| *n < MOST)
        .ok_or_else(|| format!("values larger than {} are not supported", MOST - 1))
}

/// All CPUs that the cgroup allows, whatever the shim was bound to; of an exec'd
/// process those that it asks for.
pub(super) fn set_affinity(asked: Option<&str>) -> Inside<()> {
    match asked {
        Some(cpus) => bind(cpus).map_err(|e| format!("error setting final CPU affinity: {e}")),
        None => {
            // runc goes on as well when this is refused.
            sys::use_all_cpus().ok();
            Ok(())
        }
    }
}

/// Binds this process to CPUs.
pub(in crate::worker) fn bind(cpus: &str) -> std::result::Result<(), String> {
    let mut set = CpuSet::new();
    for cpu in parse_set(cpus)?.into_iter().flatten() {
        set.set(cpu).map_err(words)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).map_err(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_as_runc_reads_them() {
        assert_eq!(parse_set("").unwrap(), None);
        assert_eq!(parse_set(" 0-2,, 5").unwrap(), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_set("3-1").unwrap_err(), "invalid range: 3-1");
        assert_eq!(
            parse_set("x").unwrap_err(),
            "strconv.ParseUint: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            parse_set("1024").unwrap_err(),
            "values larger than 1023 are not supported"
        );
        assert_eq!(parse_set(",").unwrap_err(), "no members found in set \",\"");
    }

    #[test]
    fn a_mask_has_a_bit_for_each() {
        let mask = mask(&[0, 63, 64, 1023]);
        assert_eq!(mask[0], 1 | 1 << 63);
        assert_eq!(mask[1], 1);
        assert_eq!(mask[15], 1 << 63);
    }
}
