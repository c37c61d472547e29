//! Limits and where they are written. Rows 25, 26, 27, and those of 34.

use crate::gaps::case::{Case, Need};
use serde_json::{Value, json};

/// Every file of a container's cgroups that a limit could be in.
const FILES: &str = "
    for group in /sys/fs/cgroup/*$CGROUP /sys/fs/cgroup$CGROUP /sys/fs/cgroup/system.slice/gaps-$ID.scope; do
        [ -d $group ] || continue
        cd $group
        for file in $(ls | grep -E '^(cpu\\.(shares|cfs_|rt_|idle|weight|max)|cpuset\\.(cpus|mems)$|memory\\.(limit|soft|memsw\\.limit|kmem\\.limit|kmem\\.tcp\\.limit|swappiness|oom_control|use_hier|max$|min$|low$|high$|swap\\.max|oom\\.group)|pids\\.max|blkio\\.(weight|throttle\\.(read|write)_|bfq\\.weight)|io\\.(weight|max|bfq)|hugetlb\\..*(limit_in_bytes|max)$|net_|devices\\.list)'); do
            cat $file 2>/dev/null | sed \"s/^/$file /\"
        done
    done | grep -v under_oom | grep -v 'oom_kill ' | sort";

pub(super) fn cases() -> Vec<Case> {
    let limits = |row: u8, name, resources: Value| {
        Case::new(row, name)
            .spec(move |spec| {
                // containerd's rule for devices stays.
                for (key, value) in resources.as_object().into_iter().flatten() {
                    spec.set(&format!("/linux/resources/{key}"), value.clone());
                }
                spec
            })
            .node("files", FILES)
    };
    let v1 = |name, resources| limits(34, name, resources).needs(Need::CgroupV1).restored();
    let v2 = |row, name, resources| {
        limits(row, name, resources)
            .needs(Need::CgroupV2)
            .restored()
    };
    let systemd = |name, resources| {
        limits(25, name, resources)
            .needs(Need::Systemd)
            .spec(|spec| spec.set("/linux/cgroupsPath", "system.slice:gaps:@ID@"))
            .systemd()
    };
    vec![
        v1("no limits at all", json!({})),
        v1("memory limits", json!({ "memory": { "limit": 134_217_728, "reservation": 67_108_864, "swap": 134_217_728, "swappiness": 10 } })),
        v1("swap without a limit of memory", json!({ "memory": { "swap": 134_217_728 } })),
        v1("unlimited memory and swap", json!({ "memory": { "limit": -1, "swap": -1 } })),
        v1("kernel memory", json!({ "memory": { "kernel": 67_108_864, "kernelTCP": 67_108_864 } })),
        v1("the OOM killer disabled", json!({ "memory": { "limit": 134_217_728, "disableOOMKiller": true } })),
        v1("a memory limit below what is in use", json!({ "memory": { "limit": 4096 } })),
        v1("cpu shares, quota, burst", json!({ "cpu": { "shares": 512, "quota": 50000, "period": 100_000, "burst": 10000 } })),
        v1("cpu quota without a period", json!({ "cpu": { "quota": 20000 } })),
        v1("cpu idle", json!({ "cpu": { "idle": 1 } })),
        v1("cpus and mems", json!({ "cpu": { "cpus": "0", "mems": "0" } })),
        v1("cpus that are not there", json!({ "cpu": { "cpus": "0-999" } })),
        v1("real-time runtime", json!({ "cpu": { "realtimeRuntime": 0, "realtimePeriod": 1_000_000 } })),
        v1("pids", json!({ "pids": { "limit": 50 } })),
        v1("pids 0", json!({ "pids": { "limit": 0 } })),
        v1("pids -1", json!({ "pids": { "limit": -1 } })),
        v1("blkio weight", json!({ "blockIO": { "weight": 300, "leafWeight": 300 } })),
        v1("blkio weight of a device", json!({ "blockIO": { "weightDevice": [{ "major": 254, "minor": 0, "weight": 200 }] } })),
        v1("blkio throttle", json!({ "blockIO": {
            "throttleReadBpsDevice": [{ "major": 254, "minor": 0, "rate": 1_048_576 }],
            "throttleWriteIOPSDevice": [{ "major": 254, "minor": 0, "rate": 100 }] } })),
        v1("huge pages", json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }] })),
        v1("huge pages above a signed number", json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": u64::MAX }] })),
        v1("huge pages of an unknown size", json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 3_145_728 }] })),
        v1("network class and priorities", json!({ "network": { "classID": 1, "priorities": [{ "name": "lo", "priority": 2 }] } })),
        v1("unified keys on v1", json!({ "unified": { "memory.high": "1000000" } })),
        v1("rdma on v1", json!({ "rdma": { "mlx5_1": { "hcaHandles": 3 } } })),
        v2(26, "v2: swap equal to memory", json!({ "memory": { "limit": 134_217_728, "swap": 134_217_728 } })),
        v2(26, "v2: swap above memory", json!({ "memory": { "limit": 134_217_728, "swap": 268_435_456 } })),
        v2(26, "v2: swap below memory", json!({ "memory": { "limit": 134_217_728, "swap": 1_000_000 } })),
        v2(26, "v2: unlimited swap", json!({ "memory": { "limit": 134_217_728, "swap": -1 } })),
        v2(26, "v2: swap alone", json!({ "memory": { "swap": 134_217_728 } })),
        v2(34, "v2: no limits at all", json!({})),
        v2(34, "v2: cpu shares, quota, burst", json!({ "cpu": { "shares": 512, "quota": 50000, "period": 100_000, "burst": 10000 } })),
        v2(34, "v2: pids 0", json!({ "pids": { "limit": 0 } })),
        v2(34, "v2: unified keys", json!({ "unified": { "memory.high": "100000000", "memory.oom.group": "1", "pids.max": "77" } })),
        v2(34, "v2: an unknown unified key", json!({ "unified": { "nothing.like.it": "1" } })),
        v2(27, "v2: device rules", json!({ "devices": [
            { "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" }] }))
            .exec("rlimits", "cat /proc/1/limits /proc/self/limits | grep locked"),
        systemd("systemd: memory, swap, cpu, pids", json!({
            "memory": { "limit": 134_217_728, "swap": 268_435_456 }, "cpu": { "shares": 512, "quota": 50000, "period": 100_000 }, "pids": { "limit": 50 } })),
        systemd("systemd: unified keys", json!({ "unified": { "memory.oom.group": "1", "memory.swap.max": "max", "cpu.weight": "50", "memory.high": "100000000" } })),
        systemd("systemd: cpuset", json!({ "cpu": { "cpus": "0", "mems": "0" } })),
        systemd("systemd: huge pages", json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }] })),
    ]
}
