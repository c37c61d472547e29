//! A container's figures as containerd's cgroup metrics.

use containerd_shim::protos::cgroups::metrics as v1;
use containerd_shim::protos::cgroups_v2::metrics as v2;
use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use reprise_runtime::cgroup::{BlkioEntry, Counters, MemoryEntry, Stats, V1Stats, V2Stats};
use reprise_runtime::{Error, Result};

use crate::protocol;

/// Encodes the figures as the type that fits the node's hierarchy.
///
/// # Errors
/// Encoding.
pub(crate) fn to_any(stats: &Stats) -> Result<Any> {
    let any = match stats {
        Stats::V1(stats) => protocol::to_any("io.containerd.cgroups.v1", &from_v1(stats)),
        Stats::V2(stats) => protocol::to_any("io.containerd.cgroups.v2", &from_v2(stats)),
    };
    any.map_err(|e| Error::because("Cannot encode the metrics", &e))
}

fn from_v1(stats: &V1Stats) -> v1::Metrics {
    let cpu = &stats.cpu_stat;
    let oom = &stats.oom_control;
    v1::Metrics {
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|pages| v1::HugetlbStat {
                usage: pages.usage,
                max: pages.max,
                failcnt: pages.failcnt,
                pagesize: pages.page_size.clone(),
                ..Default::default()
            })
            .collect(),
        pids: MessageField::some(v1::PidsStat {
            current: stats.pids_current,
            limit: stats.pids_limit,
            ..Default::default()
        }),
        cpu: MessageField::some(v1::CPUStat {
            usage: MessageField::some(v1::CPUUsage {
                total: stats.cpu_total,
                kernel: stats.cpu_kernel,
                user: stats.cpu_user,
                per_cpu: stats.cpu_percpu.clone(),
                ..Default::default()
            }),
            throttling: MessageField::some(v1::Throttle {
                periods: cpu.get("nr_periods"),
                throttled_periods: cpu.get("nr_throttled"),
                throttled_time: cpu.get("throttled_time"),
                ..Default::default()
            }),
            ..Default::default()
        }),
        memory: MessageField::some(memory_v1(stats)),
        blkio: MessageField::some(v1::BlkIOStat {
            io_service_bytes_recursive: blkio(&stats.io_service_bytes),
            io_serviced_recursive: blkio(&stats.io_serviced),
            ..Default::default()
        }),
        memory_oom_control: MessageField::some(v1::MemoryOomControl {
            oom_kill_disable: oom.get("oom_kill_disable"),
            under_oom: oom.get("under_oom"),
            oom_kill: oom.get("oom_kill"),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn memory_v1(stats: &V1Stats) -> v1::MemoryStat {
    let get = |name| stats.memory_stat.get(name);
    v1::MemoryStat {
        cache: get("cache"),
        rss: get("rss"),
        rss_huge: get("rss_huge"),
        mapped_file: get("mapped_file"),
        dirty: get("dirty"),
        writeback: get("writeback"),
        pg_pg_in: get("pgpgin"),
        pg_pg_out: get("pgpgout"),
        pg_fault: get("pgfault"),
        pg_maj_fault: get("pgmajfault"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        hierarchical_memory_limit: get("hierarchical_memory_limit"),
        hierarchical_swap_limit: get("hierarchical_memsw_limit"),
        total_cache: get("total_cache"),
        total_rss: get("total_rss"),
        total_rss_huge: get("total_rss_huge"),
        total_mapped_file: get("total_mapped_file"),
        total_dirty: get("total_dirty"),
        total_writeback: get("total_writeback"),
        total_pg_pg_in: get("total_pgpgin"),
        total_pg_pg_out: get("total_pgpgout"),
        total_pg_fault: get("total_pgfault"),
        total_pg_maj_fault: get("total_pgmajfault"),
        total_inactive_anon: get("total_inactive_anon"),
        total_active_anon: get("total_active_anon"),
        total_inactive_file: get("total_inactive_file"),
        total_active_file: get("total_active_file"),
        total_unevictable: get("total_unevictable"),
        usage: memory_entry(stats.memory),
        swap: memory_entry(stats.memsw),
        kernel: memory_entry(stats.kernel),
        kernel_tcp: memory_entry(stats.kernel_tcp),
        ..Default::default()
    }
}

fn memory_entry(entry: MemoryEntry) -> MessageField<v1::MemoryEntry> {
    MessageField::some(v1::MemoryEntry {
        limit: entry.limit,
        usage: entry.usage,
        max: entry.max,
        failcnt: entry.failcnt,
        ..Default::default()
    })
}

fn blkio(entries: &[BlkioEntry]) -> Vec<v1::BlkIOEntry> {
    let entry = |entry: &BlkioEntry| v1::BlkIOEntry {
        op: entry.op.clone(),
        major: entry.major,
        minor: entry.minor,
        value: entry.value,
        ..Default::default()
    };
    entries.iter().map(entry).collect()
}

fn from_v2(stats: &V2Stats) -> v2::Metrics {
    let events = &stats.memory_events;
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current: stats.pids_current,
            limit: stats.pids_limit,
            ..Default::default()
        }),
        cpu: MessageField::some(cpu_v2(&stats.cpu_stat)),
        memory: MessageField::some(memory_v2(stats)),
        io: MessageField::some(v2::IOStat {
            usage: stats
                .io
                .iter()
                .map(|device| v2::IOEntry {
                    major: device.major,
                    minor: device.minor,
                    rbytes: device.rbytes,
                    wbytes: device.wbytes,
                    rios: device.rios,
                    wios: device.wios,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }),
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|pages| v2::HugeTlbStat {
                current: pages.usage,
                max: pages.max,
                pagesize: pages.page_size.clone(),
                ..Default::default()
            })
            .collect(),
        memory_events: MessageField::some(v2::MemoryEvents {
            low: events.get("low"),
            high: events.get("high"),
            max: events.get("max"),
            oom: events.get("oom"),
            oom_kill: events.get("oom_kill"),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn cpu_v2(stat: &Counters) -> v2::CPUStat {
    v2::CPUStat {
        usage_usec: stat.get("usage_usec"),
        user_usec: stat.get("user_usec"),
        system_usec: stat.get("system_usec"),
        nr_periods: stat.get("nr_periods"),
        nr_throttled: stat.get("nr_throttled"),
        throttled_usec: stat.get("throttled_usec"),
        ..Default::default()
    }
}

fn memory_v2(stats: &V2Stats) -> v2::MemoryStat {
    let get = |name| stats.memory_stat.get(name);
    v2::MemoryStat {
        anon: get("anon"),
        file: get("file"),
        kernel_stack: get("kernel_stack"),
        slab: get("slab"),
        sock: get("sock"),
        shmem: get("shmem"),
        file_mapped: get("file_mapped"),
        file_dirty: get("file_dirty"),
        file_writeback: get("file_writeback"),
        anon_thp: get("anon_thp"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        slab_reclaimable: get("slab_reclaimable"),
        slab_unreclaimable: get("slab_unreclaimable"),
        pgfault: get("pgfault"),
        pgmajfault: get("pgmajfault"),
        workingset_refault: get("workingset_refault"),
        workingset_activate: get("workingset_activate"),
        workingset_nodereclaim: get("workingset_nodereclaim"),
        pgrefill: get("pgrefill"),
        pgscan: get("pgscan"),
        pgsteal: get("pgsteal"),
        pgactivate: get("pgactivate"),
        pgdeactivate: get("pgdeactivate"),
        pglazyfree: get("pglazyfree"),
        pglazyfreed: get("pglazyfreed"),
        thp_fault_alloc: get("thp_fault_alloc"),
        thp_collapse_alloc: get("thp_collapse_alloc"),
        usage: stats.memory.usage,
        usage_limit: stats.memory.limit,
        swap_usage: stats.swap.usage,
        swap_limit: stats.swap.limit,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_containerds() {
        let any = to_any(&Stats::V1(Box::default())).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let any = to_any(&Stats::V2(Box::default())).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
    }
}
