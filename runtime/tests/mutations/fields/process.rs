//! `process`: who it is, and what it may.

use serde_json::json;

use super::Field;

pub(super) const FIELDS: &[Field] = &[
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
                json!({"policy": "SCHED_RR", "priority": 99, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
                json!({"policy": "SCHED_IDLE", "flags": []}),
                json!({"policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 20_000_000, "period": 30_000_000, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
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
                json!({"policy": "SCHED_RR"}),
                json!({"policy": "SCHED_ISO"}),
                json!({"policy": "SCHED_DEADLINE", "runtime": 20_000_000, "deadline": 10_000_000}),
                json!({"policy": "SCHED_BATCH", "deadline": 1}),
                json!({"policy": "SCHED_OTHER", "runtime": -1}),
            ]
        },
    ),
    (
        "/process/ioPriority",
        || {
            vec![
                json!({"class": "IOPRIO_CLASS_BE", "priority": 4}),
                json!({"class": "IOPRIO_CLASS_IDLE"}),
                json!({"class": "IOPRIO_CLASS_RT", "priority": 0}),
            ]
        },
        || {
            vec![
                json!({"class": "X", "priority": 1}),
                json!({"class": "IOPRIO_CLASS_BE", "priority": 9}),
                json!({"class": "IOPRIO_CLASS_BE", "priority": -1}),
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
];
