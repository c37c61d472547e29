//! The spec's limits and device rules as properties of a systemd unit, with the
//! names and values that runc gives them. What systemd has no property for is
//! written to the cgroup's files alone. Pure.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::dbus::{Property, Value};
use super::devices::Rules;
use super::v2;
use crate::error::{Error, ErrorKind, Result};

/// No limit, to systemd.
const INFINITY: u64 = u64::MAX;
/// The kernel's period when none is given, in microseconds.
const PERIOD_US: u64 = 100_000;
/// systemd keeps a quota in whole percents of a CPU: this many microseconds a
/// second.
const PERCENT_US: u64 = 10_000;

/// Versions of systemd from which it knows something.
const CPU_PERIOD: u32 = 242;
const CPUSET: u32 = 244;
const CPU_IDLE: u32 = 252;
const OOM_POLICY: u32 = 253;

fn property(name: &str, value: Value) -> Property {
    (name.to_owned(), value)
}

fn number(name: &str, value: u64) -> Property {
    property(name, Value::U64(value))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// Whether some of the limits are properties of newer versions only.
pub(super) fn depend_on_version(r: &LinuxResources) -> bool {
    let cpu = r.cpu().as_ref().is_some_and(|c| {
        c.period().is_some_and(|period| period != 0)
            || c.idle() == Some(1)
            || text(c.cpus()).is_some()
            || text(c.mems()).is_some()
    });
    cpu || r
        .unified()
        .iter()
        .flatten()
        .any(|(key, _)| key.starts_with("cpu"))
}

/// The properties of limits that are set.
pub(super) fn limits(r: &LinuxResources, is_v2: bool, version: u32) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    if let Some(memory) = r.memory() {
        if is_v2 {
            memory_v2(memory, &mut all)?;
        } else if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
            all.push(number("MemoryLimit", unsigned(limit)));
        }
    }
    if let Some(cpu) = r.cpu() {
        if is_v2 {
            weight_v2(cpu, version, &mut all);
        } else if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            all.push(number("CPUShares", shares));
        }
        let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
        quota_of(quota, period, version, &mut all);
        for (name, list) in [
            ("AllowedCPUs", cpu.cpus()),
            ("AllowedMemoryNodes", cpu.mems()),
        ] {
            if let Some(list) = text(list).filter(|_| version >= CPUSET) {
                all.push(property(name, Value::Bytes(bits(list)?)));
            }
        }
    }
    let block_weight = r.block_io().as_ref().and_then(|io| io.weight());
    if let Some(weight) = block_weight.filter(|weight| !is_v2 && *weight != 0) {
        all.push(number("BlockIOWeight", u64::from(weight)));
    }
    if let Some(pids) = r.pids() {
        all.push(number("TasksMax", tasks(unsigned(pids.limit()))));
    }
    if is_v2 {
        unified(r, version, &mut all)?;
    }
    Ok(all)
}

/// -1 is no limit.
fn unsigned(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(INFINITY)
}

/// systemd does not take 0.
fn tasks(limit: u64) -> u64 {
    limit.max(1)
}

fn text(list: &Option<String>) -> Option<&str> {
    list.as_deref().filter(|list| !list.is_empty())
}

fn memory_v2(m: &LinuxMemory, all: &mut Vec<Property>) -> Result<()> {
    let set = |value: Option<i64>| value.filter(|v| *v != 0);
    if let Some(limit) = set(m.limit()) {
        all.push(number("MemoryMax", unsigned(limit)));
    }
    if let Some(low) = set(m.reservation()) {
        all.push(number("MemoryLow", unsigned(low)));
    }
    if let Some(swap) = v2::swap_max(m)? {
        all.push(number("MemorySwapMax", limit_of("memory.swap", &swap)?));
    }
    Ok(())
}

fn weight_v2(cpu: &LinuxCpu, version: u32, all: &mut Vec<Property>) {
    // A weight of 0 is systemd's way to say idle.
    if cpu.idle() == Some(1) && version >= CPU_IDLE {
        all.push(number("CPUWeight", 0));
    } else if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        all.push(number("CPUWeight", v2::weight(shares)));
    }
}

/// A quota as systemd can keep it: rounded up to a whole percent, so that what
/// it writes and what we write is the same.
pub(super) fn round_quota(quota: i64, period: Option<u64>) -> i64 {
    let period = period.filter(|period| *period != 0).unwrap_or(PERIOD_US);
    match u64::try_from(quota) {
        Ok(wanted) if !exactly(wanted, period).is_multiple_of(PERCENT_US) => {
            let share = u128::from(per_second(wanted, period));
            i64::try_from(share * u128::from(period) / 1_000_000).unwrap_or(quota)
        }
        _ => quota,
    }
}

/// Microseconds a second.
fn exactly(quota: u64, period: u64) -> u64 {
    let share = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
    u64::try_from(share).unwrap_or(INFINITY)
}

/// Microseconds a second, up to a whole percent.
fn per_second(quota: u64, period: u64) -> u64 {
    let share = exactly(quota, period);
    share.checked_next_multiple_of(PERCENT_US).unwrap_or(share)
}

fn quota_of(quota: i64, period: u64, version: u32, all: &mut Vec<Property>) {
    if period != 0 && version >= CPU_PERIOD {
        all.push(number("CPUQuotaPeriodUSec", period));
    }
    if quota == 0 && period == 0 {
        return;
    }
    let share = match u64::try_from(quota) {
        Ok(quota) if quota > 0 => per_second(quota, if period == 0 { PERIOD_US } else { period }),
        _ => INFINITY,
    };
    all.push(number("CPUQuotaPerSecUSec", share));
}

/// `1,3-5` as a mask, the first CPU in the lowest bit of the first byte.
fn bits(list: &str) -> Result<Vec<u8>> {
    /// More than any kernel has CPUs.
    const MOST: usize = 1 << 16;
    let wrong = || invalid(format!("{list:?} is not a list of CPUs or memory nodes"));
    let parse = |number: &str| {
        let parsed = number.trim().parse::<usize>().ok();
        parsed.filter(|n| *n < MOST).ok_or_else(wrong)
    };
    let mut mask = Vec::new();
    for range in list.split(',').map(str::trim).filter(|r| !r.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (parse(first)?, parse(last)?);
        if first > last {
            return Err(wrong());
        }
        mask.resize(mask.len().max(last / 8 + 1), 0_u8);
        for bit in first..=last {
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    if mask.is_empty() {
        return Err(wrong());
    }
    Ok(mask)
}

/// What a whole container does when one of its processes is killed for memory:
/// has to be said at the start.
pub(super) fn oom_policy(group: &str, version: u32) -> Option<Property> {
    let policy = match group.trim() {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    (version >= OOM_POLICY).then(|| property("OOMPolicy", Value::Text(policy.to_owned())))
}

/// A v2 limit as it is written to a file.
fn limit_of(key: &str, text: &str) -> Result<u64> {
    match text.trim() {
        "max" => Ok(INFINITY),
        number => number.parse().map_err(|_not_a_number| {
            invalid(format!(
                "unified resource {key:?}: {text:?} is not a number"
            ))
        }),
    }
}

/// v2 files that systemd has a property for; the others are written as files.
fn unified(r: &LinuxResources, version: u32, all: &mut Vec<Property>) -> Result<()> {
    let mut given: Vec<(&str, &str)> = r
        .unified()
        .iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.trim()))
        .collect();
    given.sort_unstable();
    let idle = given.contains(&("cpu.idle", "1")) && version >= CPU_IDLE;
    for (key, value) in given {
        let name = match key {
            "memory.high" => "MemoryHigh",
            "memory.low" => "MemoryLow",
            "memory.min" => "MemoryMin",
            "memory.max" => "MemoryMax",
            "memory.swap.max" => "MemorySwapMax",
            "pids.max" => "TasksMax",
            "cpu.weight" if !idle => "CPUWeight",
            "cpu.idle" if idle => {
                all.push(number("CPUWeight", 0));
                continue;
            }
            "cpu.max" => {
                let (quota, period) = cpu_max(value)?;
                quota_of(quota, period, version, all);
                continue;
            }
            "cpuset.cpus" | "cpuset.mems" if version >= CPUSET && !value.is_empty() => {
                let name = if key == "cpuset.cpus" {
                    "AllowedCPUs"
                } else {
                    "AllowedMemoryNodes"
                };
                all.push(property(name, Value::Bytes(bits(value)?)));
                continue;
            }
            _ => continue,
        };
        let limit = limit_of(key, value)?;
        all.push(number(
            name,
            if key == "pids.max" {
                tasks(limit)
            } else {
                limit
            },
        ));
    }
    Ok(())
}

/// `max`, `50000`, `50000 100000`: quota (0 for none) and period.
fn cpu_max(value: &str) -> Result<(i64, u64)> {
    let wrong = || {
        invalid(format!(
            "unified resource \"cpu.max\" value invalid: {value:?}"
        ))
    };
    let mut words = value.split_whitespace();
    let quota = match words.next().ok_or_else(wrong)? {
        "max" => 0,
        quota => quota.parse().map_err(|_not_a_number| wrong())?,
    };
    let period = match words.next() {
        Some(period) => period.parse().map_err(|_not_a_number| wrong())?,
        None => PERIOD_US,
    };
    words.next().map_or(Ok((quota, period)), |_| Err(wrong()))
}

/// Device rules: what a list of what is allowed can say. Our own program or files
/// come after and say all of it, so these only must not be stricter than a
/// container bears, nor last longer than them.
pub(super) fn devices(rules: &Rules) -> Vec<Property> {
    let policy = |name: &str| property("DevicePolicy", Value::Text(name.to_owned()));
    // Empty clears what was set before.
    let clear = || property("DeviceAllow", Value::Pairs(Vec::new()));
    if rules.allow_by_default {
        // systemd cannot deny single devices: all, until our own rules follow.
        let everything = rules.exceptions.is_empty();
        return vec![clear(), policy(if everything { "auto" } else { "strict" })];
    }
    let allowed = rules.exceptions.iter().filter_map(|(device, access)| {
        let kind = if device.block { "block" } else { "char" };
        let path = match (device.major, device.minor) {
            (None, None) => format!("{kind}-*"),
            (Some(major), None) => format!("{kind}-{major}"),
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            // systemd has no word for it.
            (None, Some(_)) => return None,
        };
        Some((path, access.text()))
    });
    let allowed = property("DeviceAllow", Value::Pairs(allowed.collect()));
    vec![clear(), policy("strict"), allowed]
}

#[cfg(test)]
#[path = "properties_tests.rs"]
mod tests;
