//! Limits in v1's files, with the values and the order that runc uses.

use std::fs;
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::{Cgroup, file};
use crate::error::{Error, ErrorKind, Result};

/// Makes a cpuset directory and its parents, each one filled from the one above
/// where it is empty: a process cannot join an empty cpuset.
pub(super) fn create_cpuset(root: &Path, dir: &Path) -> Result<()> {
    if dir == root {
        return Ok(());
    }
    let Some(parent) = dir.parent() else {
        return Ok(());
    };
    create_cpuset(root, parent)?;
    super::tree::create(dir)?;
    for name in ["cpus", "mems"] {
        let name = cpuset_file(dir, name);
        if file::read(dir, &name)?.trim().is_empty() {
            file::write(dir, &name, file::read(parent, &name)?.trim())?;
        }
    }
    Ok(())
}

/// cpuset's files lose their prefix when it is mounted with `noprefix`.
fn cpuset_file(dir: &Path, name: &str) -> String {
    let full = format!("cpuset.{name}");
    if dir.join(&full).exists() {
        full
    } else {
        name.to_owned()
    }
}

/// Writes every limit that is there.
pub(super) fn apply(cgroup: &Cgroup, r: &LinuxResources) -> Result<()> {
    if r.unified().as_ref().is_some_and(|u| !u.is_empty()) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "invalid configuration: cannot use unified on cgroup v1",
        ));
    }
    if let Some(limits) = r.memory() {
        memory(cgroup, limits)?;
    }
    if let Some(limits) = r.cpu() {
        cpu(cgroup, limits)?;
        cpuset(cgroup, limits)?;
    }
    if let Some(limit) = r.pids() {
        let dir = cgroup.v1_dir("pids", "linux.resources.pids")?;
        file::write(dir, "pids.max", &pids_max(limit.limit()))?;
    }
    if let Some(limits) = r.block_io() {
        block_io(cgroup, limits)?;
    }
    for limit in r.hugepage_limits().iter().flatten() {
        let dir = cgroup.v1_dir("hugetlb", "linux.resources.hugepageLimits")?;
        let name = format!("hugetlb.{}", limit.page_size());
        let value = limit.limit().to_string();
        file::write(dir, &format!("{name}.limit_in_bytes"), &value)?;
        let reserved = format!("{name}.rsvd.limit_in_bytes");
        if dir.join(&reserved).exists() {
            file::write(dir, &reserved, &value)?;
        }
    }
    for (device, limit) in r.rdma().iter().flatten() {
        let dir = cgroup.v1_dir("rdma", "linux.resources.rdma")?;
        file::write(dir, "rdma.max", &rdma_max(device, limit))?;
    }
    network(cgroup, r)
}

/// 0 is 1 (a cgroup always holds its init) and below is no limit, as with runc.
pub(super) fn pids_max(limit: i64) -> String {
    match limit {
        0 => "1".to_owned(),
        n if n < 0 => "max".to_owned(),
        n => n.to_string(),
    }
}

pub(super) fn rdma_max(device: &str, limit: &oci_spec::runtime::LinuxRdma) -> String {
    let number = |n: Option<u32>| n.map_or_else(|| "max".to_owned(), |n| n.to_string());
    format!(
        "{device} hca_handle={} hca_object={}",
        number(limit.hca_handles()),
        number(limit.hca_objects())
    )
}

fn network(cgroup: &Cgroup, r: &LinuxResources) -> Result<()> {
    let Some(network) = r.network() else {
        return Ok(());
    };
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        let dir = cgroup.v1_dir("net_cls", "linux.resources.network.classID")?;
        file::write(dir, "net_cls.classid", &class.to_string())?;
    }
    for priority in network.priorities().iter().flatten() {
        let dir = cgroup.v1_dir("net_prio", "linux.resources.network.priorities")?;
        let value = format!("{} {}", priority.name(), priority.priority());
        file::write(dir, "net_prio.ifpriomap", &value)?;
    }
    Ok(())
}

fn set(value: Option<i64>) -> Option<i64> {
    value.filter(|v| *v != 0)
}

fn memory(cgroup: &Cgroup, m: &LinuxMemory) -> Result<()> {
    let limit = set(m.limit());
    let mut swap = set(m.swap());
    let reservation = set(m.reservation());
    let oom_off = m.disable_oom_killer() == Some(true);
    if let (None, None, None, None, false) = (limit, swap, reservation, m.swappiness(), oom_off) {
        return Ok(());
    }
    let dir = cgroup.v1_dir("memory", "linux.resources.memory")?;
    let swap_file = "memory.memsw.limit_in_bytes";
    if limit == Some(-1) && swap.is_none() && dir.join(swap_file).exists() {
        swap = Some(-1);
    }
    // checkBeforeUpdate has no meaning here: the kernel refuses a limit that is
    // below what is in use.
    let write_limit = || limit.map_or(Ok(()), |v| memory_limit(dir, v));
    let write_swap = || swap.map_or(Ok(()), |v| swap_limit(dir, swap_file, v));
    // The kernel keeps memory <= memory+swap at every moment: whichever bound
    // moves away goes first.
    let swap_first = match (limit, swap) {
        (Some(_), Some(-1)) => true,
        (Some(_), Some(swap)) => {
            let now = file::number(dir, "memory.limit_in_bytes")?.unwrap_or(0);
            u64::try_from(swap).is_ok_and(|swap| now < swap)
        }
        _ => false,
    };
    if swap_first {
        write_swap()?;
        write_limit()?;
    } else {
        write_limit()?;
        write_swap()?;
    }
    if let Some(value) = reservation {
        file::write(dir, "memory.soft_limit_in_bytes", &value.to_string())?;
    }
    if oom_off {
        file::write(dir, "memory.oom_control", "1")?;
    }
    match m.swappiness() {
        Some(value) if value > 100 && i64::try_from(value).is_ok() => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("linux.resources.memory.swappiness is {value}; 0 to 100 is possible"),
        )),
        Some(value) if value <= 100 => file::write(dir, "memory.swappiness", &value.to_string()),
        _ => Ok(()),
    }
}

fn memory_limit(dir: &Path, value: i64) -> Result<()> {
    let name = "memory.limit_in_bytes";
    let text = value.to_string();
    file::try_write(dir, name, &text).map_err(|e| {
        let error = file::refused(dir, name, &text, &e);
        if e.raw_os_error() != Some(libc::EBUSY) {
            return error;
        }
        let read = |name| file::number(dir, name).ok().flatten().unwrap_or(0);
        Error::new(
            ErrorKind::FailedPrecondition,
            format!(
                "unable to set memory limit to {value} (current usage: {}, peak usage: {})",
                read("memory.usage_in_bytes"),
                read("memory.max_usage_in_bytes")
            ),
        )
    })
}

fn swap_limit(dir: &Path, name: &str, value: i64) -> Result<()> {
    if !dir.join(name).exists() {
        return Err(Error::new(
            ErrorKind::FailedPrecondition,
            "linux.resources.memory.swap is set, but this kernel does not account swap; boot with \
             swapaccount=1 or leave it out",
        ));
    }
    file::write(dir, name, &value.to_string())
}

fn cpu(cgroup: &Cgroup, c: &LinuxCpu) -> Result<()> {
    let positive = |v: Option<u64>| v.filter(|v| *v != 0);
    let (shares, period) = (positive(c.shares()), positive(c.period()));
    let (rt_runtime, rt_period) = (set(c.realtime_runtime()), positive(c.realtime_period()));
    let (quota, burst, idle) = (set(c.quota()), c.burst(), c.idle());
    if let (None, None, None, None, None, None, None) =
        (shares, period, rt_runtime, rt_period, quota, burst, idle)
    {
        return Ok(());
    }
    let dir = cgroup.v1_dir("cpu", "linux.resources.cpu")?;
    let text = |v: Option<u64>| v.map(|v| v.to_string());
    pair(
        dir,
        &[("cpu.rt_period_us", text(rt_period))],
        ("cpu.rt_runtime_us", rt_runtime),
    )?;
    if let Some(shares) = shares {
        file::write(dir, "cpu.shares", &shares.to_string())?;
        let taken = file::number(dir, "cpu.shares")?.unwrap_or(shares);
        if taken != shares {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "linux.resources.cpu.shares is {shares}, but the kernel's bound is {taken}"
                ),
            ));
        }
    }
    let burst = text(burst).filter(|_| dir.join("cpu.cfs_burst_us").exists());
    pair(
        dir,
        &[
            ("cpu.cfs_period_us", text(period)),
            ("cpu.cfs_burst_us", burst),
        ],
        ("cpu.cfs_quota_us", quota),
    )?;
    if let Some(idle) = idle {
        file::write(dir, "cpu.idle", &idle.to_string())?;
    }
    Ok(())
}

/// Writes values that the kernel checks against each other: those of `first`,
/// then `second`, then again what of `first` was refused because of the old
/// `second`.
fn pair(dir: &Path, first: &[(&str, Option<String>)], second: (&str, Option<i64>)) -> Result<()> {
    let mut again = Vec::new();
    for (name, value) in first {
        let Some(value) = value else { continue };
        match file::try_write(dir, name, value) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && second.1.is_some() => {
                again.push((name, value));
            }
            Err(e) => return Err(file::refused(dir, name, value, &e)),
        }
    }
    if let (name, Some(value)) = second {
        file::write(dir, name, &value.to_string())?;
    }
    again
        .into_iter()
        .try_for_each(|(name, value)| file::write(dir, name, value))
}

fn cpuset(cgroup: &Cgroup, c: &LinuxCpu) -> Result<()> {
    for (name, value) in [("cpus", c.cpus()), ("mems", c.mems())] {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            let dir = cgroup.v1_dir("cpuset", "linux.resources.cpu.cpus and mems")?;
            file::write(dir, &cpuset_file(dir, name), value)?;
        }
    }
    Ok(())
}

fn block_io(cgroup: &Cgroup, b: &LinuxBlockIo) -> Result<()> {
    if *b == LinuxBlockIo::default() {
        return Ok(());
    }
    let dir = cgroup.v1_dir("blkio", "linux.resources.blockIO")?;
    let (weight_file, weight_device_file) = weight_files(dir);
    if let Some(weight) = b.weight().filter(|w| *w != 0) {
        file::write(dir, weight_file, &weight.to_string())?;
    }
    if let Some(weight) = b.leaf_weight().filter(|w| *w != 0) {
        file::write(dir, "blkio.leaf_weight", &weight.to_string())?;
    }
    for device in b.weight_device().iter().flatten() {
        let line = |weight: u16| format!("{}:{} {weight}", device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|w| *w != 0) {
            file::write(dir, weight_device_file, &line(weight))?;
        }
        if let Some(weight) = device.leaf_weight().filter(|w| *w != 0) {
            file::write(dir, "blkio.leaf_weight_device", &line(weight))?;
        }
    }
    for (name, devices) in [
        ("read_bps", b.throttle_read_bps_device()),
        ("write_bps", b.throttle_write_bps_device()),
        ("read_iops", b.throttle_read_iops_device()),
        ("write_iops", b.throttle_write_iops_device()),
    ] {
        for device in devices.iter().flatten() {
            let line = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            file::write(dir, &format!("blkio.throttle.{name}_device"), &line)?;
        }
    }
    Ok(())
}

/// Weights belong to CFQ on old kernels and to BFQ on newer ones.
fn weight_files(dir: &Path) -> (&'static str, &'static str) {
    if fs::exists(dir.join("blkio.weight")).unwrap_or(false) {
        ("blkio.weight", "blkio.weight_device")
    } else {
        ("blkio.bfq.weight", "blkio.bfq.weight_device")
    }
}
