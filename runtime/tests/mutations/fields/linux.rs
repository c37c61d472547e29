//! `linux`, but for the resources.

use serde_json::json;

use super::Field;

pub(super) const FIELDS: &[Field] = &[
    (
        "/linux/uidMappings",
        || vec![json!([])],
        || {
            vec![
                json!([{"containerID": 0, "hostID": 1000, "size": 10}]),
                json!([{"containerID": -1, "hostID": 0, "size": 1}]),
                json!({}),
            ]
        },
    ),
    (
        "/linux/sysctl",
        || {
            vec![
                json!({"net.ipv4.ip_forward": "1"}),
                json!({"kernel.shmmax": "1000000"}),
                json!({"net/ipv4/ip_forward": "1"}),
                json!({"kernel.domainname": "x"}),
            ]
        },
        || {
            vec![
                json!({"kernel.panic": "1"}),
                json!({"net.ipv4.nothing": "1"}),
                json!({"net.ipv4.ip_forward": "x"}),
                json!({"net.ipv4.ip_forward": 1}),
                json!({"": ""}),
                json!({"fs.mqueue.msg_max": ""}),
                json!({"net.../../kernel/panic": "1"}),
            ]
        },
    ),
    (
        "/linux/namespaces/0",
        || {
            vec![
                json!({"type": "cgroup"}),
                json!({"type": "time"}),
                json!({"type": "pid", "path": ""}),
            ]
        },
        || {
            vec![
                json!({"type": "x"}),
                json!({}),
                json!({"type": "pid", "path": "/nowhere"}),
                json!({"type": "network", "path": "/proc/self/ns/uts"}),
                json!({"type": "ipc", "path": "relative"}),
                json!("pid"),
            ]
        },
    ),
    (
        "/linux/devices",
        || {
            vec![
                json!([]),
                json!(null),
                json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 1, "gid": 2}]),
                json!([{"path": "/dev/deep/er", "type": "b", "major": 7, "minor": 250}]),
                json!([{"path": "/dev/fifo", "type": "p"}]),
                json!([{"path": "/elsewhere", "type": "u", "major": 1, "minor": 3}]),
            ]
        },
        || {
            vec![
                json!([{"path": "/dev/x", "type": "x", "major": 1, "minor": 1}]),
                json!([{"path": "/dev/x", "type": "c"}]),
                json!([{"path": "relative", "type": "c", "major": 1, "minor": 3}]),
                json!([{"type": "c", "major": 1, "minor": 3}]),
                json!([{"path": "/dev/x", "type": "c", "major": -1, "minor": 3}]),
                json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": -1}]),
                json!([{}]),
                json!([{"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}]),
            ]
        },
    ),
    (
        "/linux/netDevices",
        || vec![json!({})],
        || {
            vec![
                json!({"no-such-device": {"name": "eth7"}}),
                json!({"no-such-device": {}}),
                json!({"": {}}),
                json!([]),
            ]
        },
    ),
    (
        "/linux/seccomp",
        || {
            vec![
                json!({"defaultAction": "SCMP_ACT_ALLOW"}),
                json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "flags": ["SECCOMP_FILTER_FLAG_LOG"], "syscalls": [{"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2}]}),
                json!({"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 8}]}]}),
                json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}),
            ]
        },
        || {
            vec![
                json!({}),
                json!({"defaultAction": "SCMP_ACT_X"}),
                json!({"defaultAction": ""}),
                json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X"]}),
                json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]}),
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}),
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_X"}]}),
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}]}]}),
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "X"}]}]}),
                json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
                json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
                json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
                json!({"defaultAction": "SCMP_ACT_KILL"}),
            ]
        },
    ),
    (
        "/linux/rootfsPropagation",
        || {
            vec![
                json!("private"),
                json!("rprivate"),
                json!("slave"),
                json!("rslave"),
                json!("shared"),
                json!("rshared"),
                json!("unbindable"),
                json!(""),
            ]
        },
        || vec![json!("x"), json!(1)],
    ),
    (
        "/linux/maskedPaths",
        || {
            vec![
                json!([]),
                json!(null),
                json!(["/nowhere", "/etc/passwd", "/tmp"]),
            ]
        },
        || vec![json!("x"), json!([1]), json!(["relative"]), json!([""])],
    ),
    (
        "/linux/readonlyPaths",
        || vec![json!([]), json!(["/nowhere", "/etc/passwd", "/tmp"])],
        || vec![json!({}), json!(["relative"]), json!([""])],
    ),
    (
        "/linux/mountLabel",
        || vec![json!("")],
        || vec![json!("system_u:object_r:x_t:s0"), json!(1)],
    ),
    (
        "/linux/intelRdt",
        || vec![],
        || {
            vec![
                json!({}),
                json!({"closID": "x", "l3CacheSchema": "L3:0=f"}),
                json!({"schemata": ["L3:0=f"], "enableMonitoring": true}),
                json!({"closID": "/"}),
                json!({"memBwSchema": "MB:0=20"}),
                json!({"enableCMT": true, "enableMBM": true}),
            ]
        },
    ),
    (
        "/linux/memoryPolicy",
        || {
            vec![
                json!({"mode": "MPOL_DEFAULT"}),
                json!({"mode": "MPOL_LOCAL"}),
                json!({"mode": "MPOL_PREFERRED", "nodes": ""}),
            ]
        },
        || {
            vec![
                json!({}),
                json!({"mode": "MPOL_X"}),
                json!({"mode": "MPOL_BIND"}),
                json!({"mode": "MPOL_BIND", "nodes": "0"}),
                json!({"mode": "MPOL_INTERLEAVE", "nodes": "99"}),
                json!({"mode": "MPOL_BIND", "nodes": "x"}),
                json!({"mode": "MPOL_DEFAULT", "flags": ["X"]}),
                json!({"mode": "MPOL_DEFAULT", "nodes": "0"}),
                json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
                json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
            ]
        },
    ),
    (
        "/linux/personality",
        || vec![json!({"domain": "LINUX"}), json!({"domain": "LINUX32"})],
        || {
            vec![
                json!({}),
                json!({"domain": "X"}),
                json!({"domain": "LINUX", "flags": ["X"]}),
            ]
        },
    ),
    (
        "/linux/timeOffsets",
        || vec![json!({})],
        || {
            vec![
                json!({"monotonic": {"secs": 5}}),
                json!({"x": {"secs": 5}}),
                json!({"monotonic": {"secs": "5"}}),
            ]
        },
    ),
    ("/linux/unknown", || vec![json!(1)], || vec![]),
];
