//! Limits in v2's files. The spec speaks v1; the conversions are those of the
//! OCI runtimes.

use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::{file, tree, v1};
use crate::error::{Error, ErrorKind, Result};

/// Makes the directory and its parents, and enables in each parent every
/// controller that the root offers. What a parent refuses shows later as a limit
/// file that is not there.
pub(super) fn create(root: &Path, dir: &Path, needs_domain: bool) -> Result<()> {
    let offered = file::read(root, "cgroup.controllers")?;
    enable(root, &offered);
    let below = dir.strip_prefix(root).unwrap_or(dir);
    let mut current = root.to_owned();
    let mut parts = below.components().peekable();
    while let Some(part) = parts.next() {
        current.push(part);
        tree::create(&current)?;
        settle_type(&current, needs_domain)?;
        if parts.peek().is_some() {
            enable(&current, &offered);
        }
    }
    Ok(())
}

/// Below a threaded cgroup, or one with processes of its own, only a threaded one
/// can be joined, and that has no memory, I/O or huge page limits.
fn settle_type(dir: &Path, needs_domain: bool) -> Result<()> {
    let typ = file::read_opt(dir, "cgroup.type")?.unwrap_or_default();
    let how = match typ.trim() {
        "domain invalid" => "it is in an invalid state",
        "threaded" => "it is in threaded mode",
        "domain threaded" => "it is in domain threaded mode",
        _ => return Ok(()),
    };
    if needs_domain {
        return Err(Error::new(
            ErrorKind::FailedPrecondition,
            format!(
                "cannot enter cgroupv2 {:?} with domain controllers -- {how}",
                dir.display().to_string()
            ),
        ));
    }
    if typ.trim() == "domain invalid" {
        // Refused, it is joined as it is, or not; the kernel will say.
        drop(file::try_write(dir, "cgroup.type", "threaded"));
    }
    Ok(())
}

/// Whether there are limits that a threaded cgroup cannot have.
pub(super) fn needs_domain(r: &LinuxResources) -> bool {
    let memory = r.memory().as_ref().is_some_and(|m| {
        [m.limit(), m.swap(), m.reservation()]
            .into_iter()
            .flatten()
            .any(|limit| limit != 0)
    });
    let cpu = r.cpu().as_ref().is_some_and(|c| {
        [c.shares(), c.period()]
            .into_iter()
            .flatten()
            .any(|v| v != 0)
            || c.quota().is_some_and(|quota| quota != 0)
            || c.idle().is_some()
            || c.burst().is_some()
    });
    let io = r.block_io().as_ref();
    memory
        || cpu
        || io.is_some_and(|io| *io != LinuxBlockIo::default())
        || r.hugepage_limits()
            .as_ref()
            .is_some_and(|all| !all.is_empty())
}

fn enable(dir: &Path, controllers: &str) {
    let enabled = file::read_opt(dir, "cgroup.subtree_control")
        .ok()
        .flatten()
        .unwrap_or_default();
    let missing: Vec<String> = controllers
        .split_whitespace()
        .filter(|c| !enabled.split_whitespace().any(|e| e == *c))
        .map(|c| format!("+{c}"))
        .collect();
    if missing.is_empty()
        || file::try_write(dir, "cgroup.subtree_control", &missing.join(" ")).is_ok()
    {
        return;
    }
    for one in missing {
        // One that cannot be enabled must not hold back the others.
        drop(file::try_write(dir, "cgroup.subtree_control", &one));
    }
}

/// Writes every limit that is there.
pub(super) fn apply(dir: &Path, r: &LinuxResources) -> Result<()> {
    if let Some(limits) = r.memory() {
        memory(dir, limits)?;
    }
    if let Some(limits) = r.cpu() {
        cpu(dir, limits)?;
    }
    if let Some(limit) = r.pids() {
        file::write(dir, "pids.max", &v1::pids_max(limit.limit()))?;
    }
    if let Some(limits) = r.block_io() {
        block_io(dir, limits)?;
    }
    for limit in r.hugepage_limits().iter().flatten() {
        let value = limit.limit().to_string();
        let name = format!("hugetlb.{}", limit.page_size());
        file::write(dir, &format!("{name}.max"), &value)?;
        let reserved = format!("{name}.rsvd.max");
        if dir.join(&reserved).exists() {
            file::write(dir, &reserved, &value)?;
        }
    }
    for (device, limit) in r.rdma().iter().flatten() {
        file::write(dir, "rdma.max", &v1::rdma_max(device, limit))?;
    }
    // Last, so that they win over the named limits.
    let mut unified: Vec<_> = r.unified().iter().flatten().collect();
    unified.sort();
    for (name, value) in unified {
        write_unified(dir, name, value)?;
    }
    Ok(())
}

/// Any file of the cgroup, as runc writes it: line by line, since `io.max` and its
/// like take one at a time.
fn write_unified(dir: &Path, name: &str, value: &str) -> Result<()> {
    let invalid = |message: String| Error::new(ErrorKind::InvalidArgument, message);
    if name.contains('/') {
        return Err(invalid(format!(
            "unified resource {name:?} must be a file name (no slashes)"
        )));
    }
    let controller = match name.split_once('.') {
        Some((controller, _)) if !controller.is_empty() => controller,
        _ => {
            return Err(invalid(format!(
                "unified resource {name:?} must be in the form CONTROLLER.PARAMETER"
            )));
        }
    };
    for line in value.lines() {
        let Err(e) = file::try_write(dir, name, line) else {
            continue;
        };
        let missing = matches!(
            e.raw_os_error(),
            Some(libc::ENOENT | libc::EPERM | libc::EACCES)
        );
        let there = file::read_opt(dir, "cgroup.controllers")?.unwrap_or_default();
        if missing
            && controller != "cgroup"
            && !there.split_whitespace().any(|one| one == controller)
        {
            return Err(invalid(format!(
                "unified resource {name:?} can't be set: controller {controller:?} not available"
            )));
        }
        let refused = file::refused(dir, name, line, &e);
        return Err(Error {
            message: format!(
                "unable to set unified resource {name:?}: {}",
                refused.message
            ),
            ..refused
        });
    }
    Ok(())
}

/// A limit as v2 writes it; 0 means not set.
fn bytes(value: Option<i64>) -> Option<String> {
    match value {
        None | Some(0) => None,
        Some(-1) => Some("max".to_owned()),
        Some(n) => Some(n.to_string()),
    }
}

fn memory(dir: &Path, m: &LinuxMemory) -> Result<()> {
    check_usage(dir, m)?;
    if let Some(swap) = swap_max(m)? {
        match file::try_write(dir, "memory.swap.max", &swap) {
            // Without swap in the kernel, none and all are the same.
            Err(e) if file::gone(&e) && (swap == "max" || swap == "0") => {}
            Err(e) => return Err(file::refused(dir, "memory.swap.max", &swap, &e)),
            Ok(()) => {}
        }
    }
    if let Some(limit) = bytes(m.limit()) {
        file::write(dir, "memory.max", &limit)?;
    }
    if let Some(low) = bytes(m.reservation()) {
        file::write(dir, "memory.low", &low)?;
    }
    Ok(())
}

/// `checkBeforeUpdate`: a limit below what is used would kill.
pub(super) fn check_usage(dir: &Path, m: &LinuxMemory) -> Result<()> {
    if m.check_before_update() != Some(true) {
        return Ok(());
    }
    let usage = file::number(dir, "memory.current")?.unwrap_or(0);
    for (what, limit) in [("memory+swap", m.swap()), ("memory", m.limit())] {
        let limit = limit
            .and_then(|l| u64::try_from(l).ok())
            .filter(|l| *l != 0);
        if let Some(limit) = limit.filter(|limit| *limit <= usage) {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!("rejecting {what} limit {limit} <= usage {usage}"),
            ));
        }
    }
    Ok(())
}

/// v1's limit is memory and swap together, v2's is swap alone.
pub(super) fn swap_max(m: &LinuxMemory) -> Result<Option<String>> {
    let set = |value: Option<i64>| value.filter(|v| *v != 0);
    let invalid = |message: &str| Err(Error::new(ErrorKind::InvalidArgument, message));
    match (set(m.limit()), set(m.swap())) {
        (Some(-1), None) | (_, Some(-1)) => Ok(Some("max".to_owned())),
        (_, None) => Ok(None),
        // Without a limit of memory there is nothing to take away.
        (Some(-1), Some(swap)) => Ok(Some(swap.to_string())),
        (None, Some(_)) => invalid("unable to set swap limit without memory limit"),
        (Some(limit), Some(swap)) if swap < limit => {
            invalid("memory+swap limit should be >= memory limit")
        }
        (Some(limit), Some(swap)) => Ok(Some((swap - limit).to_string())),
    }
}

/// v1's 2..262144 to v2's 1..10000 on a curve through 1024 -> 100, runc's since
/// 1.3.2: `10^((log2(s)^2 + 125 log2(s)) / 612 - 7/34)`, rounded up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "shares and weights are small positive numbers"
)]
pub(super) fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

fn cpu(dir: &Path, c: &LinuxCpu) -> Result<()> {
    // Realtime limits have no files here; as with runc they are passed over.
    if let Some(idle) = c.idle() {
        file::write(dir, "cpu.idle", &idle.to_string())?;
    }
    if let Some(shares) = c.shares().filter(|v| *v != 0) {
        // An idle group has no weight; the kernel would refuse one.
        if c.idle() != Some(1) {
            file::write(dir, "cpu.weight", &weight(shares).to_string())?;
        }
    }
    let quota = c.quota().filter(|v| *v != 0);
    let period = c.period().filter(|v| *v != 0);
    let mut burst = c.burst().map(|b| b.to_string());
    if let Some(value) = burst.clone() {
        match file::try_write(dir, "cpu.max.burst", &value) {
            Ok(()) => burst = None,
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && quota.is_some() => {}
            Err(e) => return Err(file::refused(dir, "cpu.max.burst", &value, &e)),
        }
    }
    if quota.is_some() || period.is_some() {
        let quota = match quota {
            Some(q) if q > 0 => q.to_string(),
            // Without a quota of its own, an update keeps the one that is there.
            None => current_quota(dir)?,
            Some(_) => "max".to_owned(),
        };
        let value = format!("{quota} {}", period.unwrap_or(100_000));
        file::write(dir, "cpu.max", &value)?;
    }
    if let Some(value) = burst {
        file::write(dir, "cpu.max.burst", &value)?;
    }
    for (name, value) in [("cpuset.cpus", c.cpus()), ("cpuset.mems", c.mems())] {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            file::write(dir, name, value)?;
        }
    }
    Ok(())
}

fn current_quota(dir: &Path) -> Result<String> {
    let text = file::read_opt(dir, "cpu.max")?.unwrap_or_default();
    Ok(text.split_whitespace().next().unwrap_or("max").to_owned())
}

fn block_io(dir: &Path, b: &LinuxBlockIo) -> Result<()> {
    let weights = file::read_opt(dir, "io.bfq.weight")?;
    let bfq = weights.is_some();
    // Since Linux 5.4 it has a line for each device, before that one number.
    let for_devices = weights.is_some_and(|text| text.trim().parse::<u64>().is_err());
    if let Some(weight) = b.weight().filter(|w| *w != 0) {
        if bfq {
            file::write(dir, "io.bfq.weight", &weight.to_string())?;
        } else {
            // 10..1000 to 1..10000, linear.
            let weight = 1 + (u64::from(weight.max(10)) - 10) * 9999 / 990;
            file::write(dir, "io.weight", &weight.to_string())?;
        }
    }
    for device in b.weight_device().iter().flatten().filter(|_| for_devices) {
        if let Some(weight) = device.weight().filter(|w| *w != 0) {
            let line = format!("{}:{} {weight}", device.major(), device.minor());
            file::write(dir, "io.bfq.weight", &line)?;
        }
    }
    for (name, devices) in [
        ("rbps", b.throttle_read_bps_device()),
        ("wbps", b.throttle_write_bps_device()),
        ("riops", b.throttle_read_iops_device()),
        ("wiops", b.throttle_write_iops_device()),
    ] {
        for device in devices.iter().flatten() {
            let line = format!(
                "{}:{} {name}={}",
                device.major(),
                device.minor(),
                device.rate()
            );
            file::write(dir, "io.max", &line)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory_of(json: &str) -> LinuxMemory {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn swap_equal_to_the_limit_means_none() {
        let swap = |json| swap_max(&memory_of(json)).unwrap();
        assert_eq!(swap(r#"{"limit":100,"swap":100}"#).as_deref(), Some("0"));
        assert_eq!(swap(r#"{"limit":100,"swap":150}"#).as_deref(), Some("50"));
        assert_eq!(swap(r#"{"limit":100,"swap":-1}"#).as_deref(), Some("max"));
        assert_eq!(swap(r#"{"limit":-1}"#).as_deref(), Some("max"));
        assert_eq!(swap(r#"{"limit":-1,"swap":50}"#).as_deref(), Some("50"));
        assert_eq!(swap(r#"{"limit":100}"#), None);
        assert!(swap_max(&memory_of(r#"{"limit":100,"swap":50}"#)).is_err());
        assert!(swap_max(&memory_of(r#"{"swap":50}"#)).is_err());
    }

    #[test]
    fn weights_are_in_range_and_the_default_stays_the_default() {
        assert_eq!(weight(2), 1);
        assert_eq!(weight(1024), 100);
        assert_eq!(weight(262_144), 10_000);
        assert!(
            (3..262_144)
                .step_by(97)
                .all(|s| (1..=10_000).contains(&weight(s)))
        );
    }

    #[test]
    fn limits_go_to_the_right_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "memory.max",
            "memory.swap.max",
            "memory.low",
            "cpu.weight",
            "cpu.max",
            "pids.max",
            "memory.oom.group",
        ] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let r: LinuxResources = serde_json::from_str(
            r#"{"memory":{"limit":4096,"swap":4096,"reservation":1024},
                "cpu":{"shares":1024,"quota":50000,"period":100000},
                "pids":{"limit":7},"unified":{"memory.oom.group":"1"}}"#,
        )
        .unwrap();
        apply(dir.path(), &r).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("memory.max"), "4096");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("memory.low"), "1024");
        assert_eq!(read("cpu.weight"), "100");
        assert_eq!(read("cpu.max"), "50000 100000");
        assert_eq!(read("pids.max"), "7");
        assert_eq!(read("memory.oom.group"), "1");
    }
}
