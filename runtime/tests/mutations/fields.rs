//! Every field of the OCI runtime spec 1.3 that is about Linux, with values that are
//! right and values that are wrong, one after the other.

use serde_json::{Value, json};

use crate::mutate::set;
use crate::specs::{DIR, FILE, Specs};

type Values = fn() -> Vec<Value>;

/// A place, right values, wrong values.
pub(crate) const FIELDS: &[(&str, Values, Values)] = &[
    (
        "/ociVersion",
        || vec![json!("1.0.0"), json!("1.3.0"), json!("1.0.2-dev")],
        || vec![json!(""), json!("2.0.0"), json!("x"), json!(1)],
    ),
    (
        "/hostname",
        || vec![json!("other"), json!("")],
        || vec![json!("x".repeat(65)), json!(7)],
    ),
    (
        "/domainname",
        || vec![json!("example.org")],
        || vec![json!("x".repeat(65)), json!([])],
    ),
    (
        "/annotations",
        || vec![json!({"a": "b"}), json!({"org.systemd.property.X": "1"})],
        || vec![json!({"a": 1}), json!([])],
    ),
    (
        "/root/readonly",
        || vec![json!(true), json!(false)],
        || vec![json!("yes"), json!(1)],
    ),
    (
        "/root/path",
        || vec![json!("rootfs/"), json!("./rootfs")],
        || vec![json!(""), json!("nowhere"), json!(1)],
    ),
    (
        "/process/user",
        || {
            vec![
                json!({"uid": 1000, "gid": 1000}),
                json!({"uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 63}),
                json!({}),
            ]
        },
        || {
            vec![
                json!({"uid": -1}),
                json!({"uid": "root"}),
                json!({"uid": 0, "umask": 4096}),
            ]
        },
    ),
    (
        "/process/user/umask",
        || vec![json!(0), json!(18)],
        || vec![json!(-1), json!("022")],
    ),
    (
        "/process/user/username",
        || vec![json!("anybody")],
        || vec![json!(1)],
    ),
    (
        "/process/args",
        || vec![json!(["sh", "-c", "exit 3"]), json!(["true"])],
        || {
            vec![
                json!([]),
                json!([""]),
                json!(["nowhere"]),
                json!("true"),
                json!([1]),
                json!(["/etc"]),
            ]
        },
    ),
    (
        "/process/commandLine",
        || vec![json!("anything")],
        || vec![json!(7)],
    ),
    (
        "/process/env",
        || vec![json!(["PATH=/bin"]), json!(["PATH=/bin", "A=", "A=1=2"])],
        || {
            vec![
                json!(["PATH=/bin", "=x"]),
                json!(["PATH=/bin", "x"]),
                json!("PATH=/bin"),
            ]
        },
    ),
    (
        "/process/cwd",
        || vec![json!("/tmp"), json!("/made/for/it")],
        || vec![json!(""), json!("relative"), json!("/etc/passwd"), json!(1)],
    ),
    (
        "/process/consoleSize",
        || vec![json!({"height": 10, "width": 20})],
        || vec![json!({"height": -1, "width": 20}), json!([])],
    ),
    (
        "/process/capabilities",
        || {
            vec![
                json!({}),
                json!({"bounding": ["CAP_KILL"], "ambient": []}),
                json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}),
            ]
        },
        || {
            vec![
                json!({"bounding": ["CAP_OF_TOMORROW"]}),
                json!({"bounding": "CAP_KILL"}),
                json!({"bounding": ["kill"]}),
                json!({"ambient": ["CAP_KILL"]}),
                json!({"effective": ["CAP_KILL"]}),
            ]
        },
    ),
    (
        "/process/rlimits",
        || {
            vec![
                json!([]),
                json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}]),
                json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]),
            ]
        },
        || {
            vec![
                json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]),
                json!([{"type": "RLIMIT_NOFILE", "soft": 128, "hard": 64}]),
                json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 128}, {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 12}]),
                json!([{"type": "RLIMIT_CORE", "soft": -1, "hard": 0}]),
            ]
        },
    ),
    (
        "/process/noNewPrivileges",
        || vec![json!(true), json!(false)],
        || vec![json!("true")],
    ),
    (
        "/process/apparmorProfile",
        || vec![json!("")],
        || vec![json!("no-such-profile"), json!(1)],
    ),
    (
        "/process/selinuxLabel",
        || vec![json!("")],
        || vec![json!("system_u:system_r:x_t:s0"), json!(1)],
    ),
    (
        "/process/oomScoreAdj",
        || vec![json!(500), json!(1000), json!(null)],
        || vec![json!(2000), json!(-5000), json!("1"), json!(1.5)],
    ),
    (
        "/process/scheduler",
        || {
            vec![
                json!({"policy": "SCHED_OTHER", "nice": 5}),
                json!({"policy": "SCHED_BATCH"}),
                json!({"policy": "SCHED_FIFO", "priority": 1}),
            ]
        },
        || {
            vec![
                json!({"policy": "SCHED_X"}),
                json!({}),
                json!({"policy": "SCHED_OTHER", "priority": 5}),
                json!({"policy": "SCHED_FIFO", "priority": 500}),
                json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_X"]}),
                json!({"policy": "SCHED_OTHER", "nice": 50}),
            ]
        },
    ),
    (
        "/process/ioPriority",
        || {
            vec![
                json!({"class": "IOPRIO_CLASS_BE", "priority": 4}),
                json!({"class": "IOPRIO_CLASS_IDLE"}),
            ]
        },
        || {
            vec![
                json!({"class": "X", "priority": 1}),
                json!({"class": "IOPRIO_CLASS_BE", "priority": 9}),
                json!({"priority": 1}),
                json!({}),
            ]
        },
    ),
    (
        "/process/execCPUAffinity",
        || {
            vec![
                json!({"initial": "0"}),
                json!({"initial": "0", "final": "0-1"}),
                json!({}),
            ]
        },
        || {
            vec![
                json!({"initial": "x"}),
                json!({"initial": "9-1"}),
                json!({"final": "-"}),
                json!({"initial": 1}),
            ]
        },
    ),
    (
        "/mounts/0",
        || vec![json!({"destination": "/proc", "type": "proc", "source": "proc"})],
        || {
            vec![
                json!({}),
                json!({"destination": "/proc", "type": "nosuchfs", "source": "x"}),
                json!({"destination": 1}),
                json!({"source": "x"}),
                json!(null),
                json!("x"),
                json!({"destination": "", "type": "tmpfs"}),
                json!({"destination": "relative", "type": "tmpfs", "source": "tmpfs"}),
            ]
        },
    ),
    (
        "/mounts/2",
        || {
            vec![
                json!({"destination": "/new/place", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=700"]}),
                json!({"destination": "/bound", "type": "bind", "source": DIR, "options": ["rbind", "ro"]}),
                json!({"destination": "/bound", "source": FILE, "options": ["bind"]}),
                json!({"destination": "/bound", "type": "none", "source": DIR, "options": ["rbind", "rro", "nosuid", "nodev", "noexec", "noatime"]}),
                json!({"destination": "/bound", "type": "bind", "source": DIR, "options": ["rbind", "rslave"]}),
                json!({"destination": "/bound", "type": "bind", "source": DIR, "options": ["rbind", "private"]}),
                json!({"destination": "/tmpfs", "type": "tmpfs", "options": ["tmpcopyup", "nosymfollow", "X-unknown=1"]}),
                json!({"destination": "/bound", "type": "bind", "source": DIR, "options": ["bind", "idmap"], "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}], "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}]}),
                json!({"destination": "/etc/../elsewhere", "type": "tmpfs", "source": "tmpfs"}),
            ]
        },
        || {
            vec![
                json!({"destination": "/bound", "type": "bind", "source": "/nowhere", "options": ["rbind"]}),
                json!({"destination": "/bound", "type": "bind", "options": ["rbind"]}),
                json!({"destination": "/tmpfs", "type": "tmpfs", "source": "tmpfs", "options": ["size=x"]}),
                json!({"destination": "/tmpfs", "type": "tmpfs", "source": "tmpfs", "options": ["no_such_option"]}),
                json!({"destination": "/tmpfs", "type": "tmpfs", "source": "tmpfs", "options": [""]}),
                json!({"destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs"}),
                json!({"destination": "/proc/self/attr", "type": "bind", "source": DIR, "options": ["bind"]}),
                json!({"destination": "/sys/x", "type": "tmpfs", "source": "tmpfs"}),
                json!({"destination": "/bound", "type": "bind", "source": DIR, "options": ["bind", "idmap"]}),
                json!({"destination": "/bound", "type": "bind", "source": DIR, "options": ["bind"], "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}]}),
                json!({"destination": "/etc/passwd", "type": "bind", "source": DIR, "options": ["bind"]}),
                json!({"destination": "/etc/passwd/below", "type": "tmpfs", "source": "tmpfs"}),
                json!({"destination": "/bound", "type": "bind", "source": DIR, "options": "bind"}),
            ]
        },
    ),
    (
        "/mounts",
        || vec![json!([]), json!(null)],
        || vec![json!({}), json!("x"), json!([null])],
    ),
    (
        "/hooks",
        || {
            vec![
                json!({}),
                json!({"createRuntime": [{"path": "/bin/true"}]}),
                json!({"prestart": [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}]}),
                json!({"createContainer": [{"path": "/bin/true"}]}),
                json!({"startContainer": [{"path": "/bin/true"}]}),
                json!({"poststart": [{"path": "/bin/true"}]}),
                json!({"poststop": [{"path": "/bin/true"}]}),
                json!({"poststop": [{"path": "/bin/false"}]}),
            ]
        },
        || {
            vec![
                json!({"createRuntime": [{"path": "/bin/false"}]}),
                json!({"prestart": [{"path": "/nowhere"}]}),
                json!({"createContainer": [{"path": "/bin/false"}]}),
                json!({"startContainer": [{"path": "/bin/false"}]}),
                json!({"poststart": [{"path": "/bin/false"}]}),
                json!({"createRuntime": [{"path": "relative"}]}),
                json!({"createRuntime": [{"path": "/bin/true", "timeout": 0}]}),
                json!({"createRuntime": [{"path": "/bin/true", "timeout": -1}]}),
                json!({"createRuntime": {"path": "/bin/true"}}),
                json!({"createRuntime": [{}]}),
                json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "9"], "timeout": 1}]}),
            ]
        },
    ),
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
            ]
        },
    ),
    (
        "/linux/memoryPolicy",
        || {
            vec![
                json!({"mode": "MPOL_DEFAULT"}),
                json!({"mode": "MPOL_LOCAL"}),
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
    (
        "/linux/resources/devices",
        || {
            vec![
                json!([]),
                json!([{"allow": true, "access": "rwm"}]),
                json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}]),
                json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": -1, "access": "r"}]),
            ]
        },
        || {
            vec![
                json!([{}]),
                json!([{"allow": true, "type": "x", "access": "r"}]),
                json!([{"allow": true, "access": "xyz"}]),
                json!([{"allow": true, "type": "c", "major": -5, "minor": 0, "access": "r"}]),
                json!([{"allow": true, "type": "c", "major": 1, "minor": 3, "access": ""}]),
                json!({}),
            ]
        },
    ),
    (
        "/linux/resources/memory",
        || {
            vec![
                json!({}),
                json!({"limit": 67_108_864}),
                json!({"limit": 67_108_864, "swap": 67_108_864, "reservation": 33_554_432}),
                json!({"limit": -1}),
                json!({"swappiness": 10}),
                json!({"disableOOMKiller": false}),
                json!({"checkBeforeUpdate": true}),
                json!({"useHierarchy": true}),
                json!({"kernel": 33_554_432}),
            ]
        },
        || {
            vec![
                json!({"limit": 67_108_864, "swap": 1}),
                json!({"swappiness": 500}),
                json!({"limit": "1G"}),
                json!({"limit": -5}),
                json!({"swap": 67_108_864}),
                json!({"limit": 1.5}),
                json!({"kernelTCP": 33_554_432}),
            ]
        },
    ),
    (
        "/linux/resources/cpu",
        || {
            vec![
                json!({}),
                json!({"shares": 512}),
                json!({"quota": 50_000, "period": 100_000}),
                json!({"quota": -1}),
                json!({"cpus": "0", "mems": "0"}),
                json!({"burst": 0}),
                json!({"idle": 1}),
                json!({"idle": 0}),
                json!({"shares": 0}),
            ]
        },
        || {
            vec![
                json!({"quota": 1}),
                json!({"period": 1}),
                json!({"cpus": "99"}),
                json!({"cpus": "x"}),
                json!({"mems": "7"}),
                json!({"realtimeRuntime": 950_000, "realtimePeriod": 1_000_000}),
                json!({"idle": 5}),
                json!({"shares": -1}),
                json!({"burst": 1_000_000}),
            ]
        },
    ),
    (
        "/linux/resources/pids",
        || {
            vec![
                json!({"limit": 50}),
                json!({"limit": -1}),
                json!({"limit": 0}),
            ]
        },
        || vec![json!({}), json!({"limit": "x"}), json!({"limit": -7})],
    ),
    (
        "/linux/resources/blockIO",
        || {
            vec![
                json!({}),
                json!({"throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1_048_576}]}),
            ]
        },
        || {
            vec![
                json!({"weight": 5}),
                json!({"weight": 500}),
                json!({"leafWeight": 500}),
                json!({"weightDevice": [{"major": 254, "minor": 0, "weight": 500}]}),
                json!({"throttleReadBpsDevice": [{"major": 99, "minor": 99, "rate": 1}]}),
                json!({"throttleReadBpsDevice": [{"major": 254, "minor": 0}]}),
                json!({"weight": 70_000}),
            ]
        },
    ),
    (
        "/linux/resources/hugepageLimits",
        || vec![json!([])],
        || {
            vec![
                json!([{"pageSize": "2MB", "limit": 0}]),
                json!([{"pageSize": "3MB", "limit": 0}]),
                json!([{"limit": 1}]),
                json!([{"pageSize": "2MB", "limit": u64::MAX}]),
            ]
        },
    ),
    (
        "/linux/resources/network",
        || vec![json!({})],
        || {
            vec![
                json!({"classID": 1}),
                json!({"priorities": [{"name": "lo", "priority": 1}]}),
                json!({"classID": -1}),
            ]
        },
    ),
    (
        "/linux/resources/rdma",
        || vec![json!({})],
        || vec![json!({"mlx5_1": {"hcaHandles": 3}}), json!({"mlx5_1": 1})],
    ),
    (
        "/linux/resources/unified",
        || vec![json!({})],
        || {
            vec![
                json!({"memory.high": "1000000"}),
                json!({"no.such": "1"}),
                json!({"memory.max": 1}),
            ]
        },
    ),
    (
        "/linux/resources",
        || vec![json!({}), json!(null)],
        || vec![json!([]), json!("x")],
    ),
    ("/linux/unknown", || vec![json!(1)], || vec![]),
    ("/unknown", || vec![json!({"a": []})], || vec![]),
    (
        "/windows",
        || vec![json!({"layerFolders": ["x"]})],
        || vec![json!(1)],
    ),
    (
        "/vm",
        || vec![json!({"kernel": {"path": "/x"}})],
        || vec![json!(1)],
    ),
    ("/solaris", || vec![json!({})], || vec![json!(1)]),
    ("/zos", || vec![json!({})], || vec![json!(1)]),
    ("/freebsd", || vec![json!({})], || vec![json!(1)]),
];

/// The explicit cases: nothing at all, the three specs as they are, every field.
pub(crate) fn cases(specs: &Specs) -> Vec<(String, Value)> {
    let mut cases = vec![
        ("an empty spec".to_owned(), json!({})),
        ("no object".to_owned(), json!([])),
        ("null".to_owned(), json!(null)),
    ];
    for (name, spec) in &specs.0 {
        cases.push(((*name).to_owned(), spec.clone()));
    }
    let plain = specs.get("ctr");
    for top in ["process", "root", "mounts", "hostname", "ociVersion"] {
        let mut spec = plain.clone();
        spec.as_object_mut().unwrap().remove(top);
        cases.push((format!("no {top}"), spec));
    }
    for (at, good, bad) in FIELDS {
        for (what, values) in [("right", good()), ("wrong", bad())] {
            for value in values {
                let mut spec = plain.clone();
                set(&mut spec, at, value.clone());
                cases.push((format!("{at} = {value} ({what})"), spec));
            }
        }
    }
    cases
}
