//! The same bundle under runc and through our worker: what is refused, in which
//! words, and what a process is and sees. What differs says why.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test with a harness of its own"
)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use support::Case;
use support::yardstick::Outcome;

support::tests![
    what_cannot_be_executed,
    working_directories,
    environments,
    users,
    capability_sets,
    limits,
    scheduling,
    memory_policies,
    namespaces_and_time,
    profiles,
    security_modules,
    specs_that_are_odd,
    execs,
];

/// One case: a name, what to run, and what is changed in the spec.
type Row<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, Value)]);

fn same(rows: &[Row<'_>]) {
    let mut differences = Vec::new();
    for (name, args, changes) in rows {
        let mut case = Case::new(args);
        for (pointer, value) in *changes {
            case.set(pointer, value.clone());
        }
        let theirs = case.outcome_under_runc();
        let ours = case.outcome();
        if ours != theirs {
            differences.push(format!("{name}\n  runc    {theirs:?}\n  reprise {ours:?}"));
        }
    }
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

fn what_cannot_be_executed() {
    same(&[
        ("not on PATH", &["nope"], &[]),
        ("not there", &["/nope"], &[]),
        ("not executable", &["/etc/plain"], &[]),
        ("a directory", &["/etc"], &[]),
        ("no program", &["/etc/garbage"], &[]),
        ("no name", &[""], &[]),
        ("no args", &[], &[]),
    ]);
}

fn working_directories() {
    let cwd = |path: &str| [("/process/cwd", json!(path))];
    same(&[
        ("relative", &["pwd"], &cwd("etc")),
        ("empty", &["pwd"], &cwd("")),
        ("missing", &["pwd"], &cwd("/a/b")),
        ("a file", &["pwd"], &cwd("/etc/passwd")),
        ("below a file", &["pwd"], &cwd("/etc/passwd/x")),
        ("with dots", &["pwd"], &cwd("/../../x/../y")),
        ("in a mount", &["pwd"], &cwd("/dev/shm/deep/er")),
        (
            "on a read-only rootfs",
            &["pwd"],
            &[
                ("/process/cwd", json!("/a/b")),
                ("/root/readonly", json!(true)),
            ],
        ),
    ]);
}

fn environments() {
    let env = |env: Value| [("/process/env", env)];
    let user = ("/process/user", json!({"uid": 1000, "gid": 1000}));
    same(&[
        ("no name", &["env"], &env(json!(["PATH=/bin", "=x"]))),
        ("no value", &["env"], &env(json!(["PATH=/bin", "x"]))),
        (
            "a zero byte",
            &["env"],
            &env(json!(["PATH=/bin", "A=\u{0}b"])),
        ),
        ("none", &["true"], &env(json!([]))),
        ("null", &["true"], &env(Value::Null)),
        (
            "twice",
            &["env"],
            &env(json!(["PATH=/bin", "A=1", "HOME=", "A=2"])),
        ),
        ("relative PATH", &["true"], &env(json!(["PATH=bin"]))),
        ("HOME of a user", &["env"], std::slice::from_ref(&user)),
        (
            "HOME of nobody",
            &["env"],
            &[("/process/user", json!({"uid": 77, "gid": 7}))],
        ),
    ]);
}

fn users() {
    let user = |user: Value| [("/process/user", user)];
    same(&[
        (
            "groups",
            &["id"],
            &user(json!({"uid": 5, "gid": 6, "additionalGids": [7, 7, 8]})),
        ),
        (
            "no such uid",
            &["id"],
            &user(json!({"uid": u32::MAX, "gid": 0})),
        ),
        (
            "no such gid",
            &["id"],
            &user(json!({"uid": 0, "gid": u32::MAX})),
        ),
        (
            "no such group",
            &["id"],
            &user(json!({"uid": 0, "gid": 0, "additionalGids": [u32::MAX]})),
        ),
        (
            "a name",
            &["id"],
            &user(json!({"uid": 0, "gid": 0, "username": "user"})),
        ),
        (
            "mask",
            &["sh", "-c", "umask"],
            &user(json!({"uid": 0, "gid": 0, "umask": 0o077})),
        ),
        (
            "large mask",
            &["sh", "-c", "umask"],
            &user(json!({"uid": 0, "gid": 0, "umask": 0o7077})),
        ),
        ("none", &["id"], &user(json!({}))),
    ]);
}

fn capability_sets() {
    let see: &[&str] = &["grep", "-E", "^(Cap|NoNew)", "/proc/self/status"];
    let caps = |sets: Value| [("/process/capabilities", sets)];
    let user = ("/process/user", json!({"uid": 5, "gid": 5}));
    let kill = json!(["CAP_KILL"]);
    let both = json!(["CAP_KILL", "CAP_CHOWN"]);
    same(&[
        ("absent", see, &caps(Value::Null)),
        (
            "absent, a user",
            see,
            &[("/process/capabilities", Value::Null), user.clone()],
        ),
        ("empty", see, &caps(json!({}))),
        (
            "unknown",
            see,
            &caps(json!({"bounding": ["CAP_KILL", "CAP_NO"], "permitted": kill})),
        ),
        (
            "bounding is less",
            see,
            &caps(json!({"bounding": kill, "permitted": both, "effective": both})),
        ),
        (
            "effective is more",
            see,
            &caps(json!({"bounding": both, "permitted": kill, "effective": both})),
        ),
        (
            "ambient alone",
            see,
            &[
                (
                    "/process/capabilities",
                    json!({"bounding": kill, "ambient": kill}),
                ),
                user.clone(),
            ],
        ),
        (
            "ambient",
            see,
            &[
                (
                    "/process/capabilities",
                    json!({"bounding": both, "permitted": both, "inheritable": kill, "ambient": kill}),
                ),
                user.clone(),
            ],
        ),
        (
            "new privileges",
            see,
            &[("/process/noNewPrivileges", json!(false))],
        ),
    ]);
}

fn limits() {
    let limits = |limits: Value| [("/process/rlimits", limits)];
    let see: &[&str] = &["sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"];
    let one = |typ: &str, soft: u64, hard: u64| json!({"type": typ, "soft": soft, "hard": hard});
    same(&[
        ("unknown", see, &limits(json!([one("RLIMIT_FOO", 1, 1)]))),
        (
            "soft above hard",
            see,
            &limits(json!([one("RLIMIT_NOFILE", 10, 1)])),
        ),
        (
            "beyond the kernel's",
            see,
            &limits(json!([one("RLIMIT_NOFILE", 1, 10_000_000_000)])),
        ),
        (
            "lower",
            see,
            &limits(json!([
                one("RLIMIT_NOFILE", 300, 500),
                one("RLIMIT_CORE", 0, 0)
            ])),
        ),
        (
            "twice",
            see,
            &limits(json!([one("RLIMIT_CORE", 0, 0), one("RLIMIT_CORE", 0, 0)])),
        ),
    ]);
}

fn scheduling() {
    let see: &[&str] = &[
        "sh",
        "-c",
        "awk '{print $18, $19, $41}' /proc/self/stat; busybox ionice",
    ];
    let scheduler = |value: Value| [("/process/scheduler", value)];
    let io = |class: &str, priority: i64| {
        [(
            "/process/ioPriority",
            json!({"class": class, "priority": priority}),
        )]
    };
    let affinity = |initial: &str| [("/process/execCPUAffinity", json!({"initial": initial}))];
    let domain = |value: Value| [("/linux/personality", value)];
    let person: &[&str] = &["cat", "/proc/self/personality"];
    same(&[
        (
            "batch",
            see,
            &scheduler(json!({"policy": "SCHED_BATCH", "nice": 5})),
        ),
        (
            "fifo",
            see,
            &scheduler(json!({"policy": "SCHED_FIFO", "priority": 5})),
        ),
        (
            "flags",
            see,
            &scheduler(json!({"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"]})),
        ),
        (
            "no such flag",
            see,
            &scheduler(json!({"policy": "SCHED_BATCH", "flags": ["X"]})),
        ),
        (
            "no such policy",
            see,
            &scheduler(json!({"policy": "SCHED_X"})),
        ),
        ("no policy", see, &scheduler(json!({"policy": ""}))),
        (
            "nicer than nice",
            see,
            &scheduler(json!({"policy": "SCHED_OTHER", "nice": 30})),
        ),
        (
            "priority of none",
            see,
            &scheduler(json!({"policy": "SCHED_OTHER", "priority": 3})),
        ),
        (
            "times of none",
            see,
            &scheduler(json!({"policy": "SCHED_OTHER", "runtime": 3})),
        ),
        ("ioprio", see, &io("IOPRIO_CLASS_BE", 6)),
        ("ioprio idle", see, &io("IOPRIO_CLASS_IDLE", 0)),
        ("ioprio of no class", see, &io("X", 6)),
        ("ioprio too high", see, &io("IOPRIO_CLASS_BE", 9)),
        (
            "affinity is for execs",
            &["grep", "Cpus_allowed_list", "/proc/self/status"],
            &affinity("0"),
        ),
        ("no affinity", &["true"], &affinity("x")),
        ("affinity backwards", &["true"], &affinity("3-1")),
        ("affinity with blanks", &["true"], &affinity(" 0,, 1")),
        ("linux32", person, &domain(json!({"domain": "LINUX32"}))),
        (
            "flags of personality",
            person,
            &domain(json!({"domain": "LINUX", "flags": ["X"]})),
        ),
        ("no personality", person, &domain(json!({"domain": "FOO"}))),
        (
            "oom score",
            &["cat", "/proc/self/oom_score_adj"],
            &[("/process/oomScoreAdj", json!(500))],
        ),
    ]);
}

fn memory_policies() {
    let see: &[&str] = &["sh", "-c", "awk '{print $2; exit}' /proc/self/numa_maps"];
    let policy = |mode: &str, nodes: &str, flags: Value| {
        [(
            "/linux/memoryPolicy",
            json!({"mode": mode, "nodes": nodes, "flags": flags}),
        )]
    };
    let none = || json!([]);
    let fixed = || json!(["MPOL_F_STATIC_NODES"]);
    same(&[
        ("default", see, &policy("MPOL_DEFAULT", "", none())),
        ("bind", see, &policy("MPOL_BIND", "0", none())),
        ("bind to none", see, &policy("MPOL_BIND", "", none())),
        ("bind, fixed", see, &policy("MPOL_BIND", "0", fixed())),
        ("preferred", see, &policy("MPOL_PREFERRED", "0", none())),
        ("local", see, &policy("MPOL_LOCAL", "", none())),
        ("local of one", see, &policy("MPOL_LOCAL", "0", none())),
        ("local, fixed", see, &policy("MPOL_LOCAL", "", fixed())),
        (
            "a node that is not",
            see,
            &policy("MPOL_INTERLEAVE", "9", none()),
        ),
        ("no number", see, &policy("MPOL_BIND", "x", none())),
        ("no mode", see, &policy("MPOL_FOO", "0", none())),
        ("no flag", see, &policy("MPOL_BIND", "0", json!(["X"]))),
    ]);
}

fn namespaces_and_time() {
    let with = |more: Value| {
        let mut all = json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"},
            {"type": "mount"}, {"type": "network"}]);
        all.as_array_mut()
            .unwrap()
            .extend(more.as_array().unwrap().clone());
        ("/linux/namespaces", all)
    };
    let offsets = (
        "/linux/timeOffsets",
        json!({"monotonic": {"secs": 100, "nanosecs": 5}}),
    );
    let devices = |value: Value| [("/linux/netDevices", value)];
    same(&[
        (
            "offsets",
            &["cat", "/proc/self/timens_offsets"],
            &[with(json!([{"type": "time"}])), offsets.clone()],
        ),
        ("offsets of none", &["true"], std::slice::from_ref(&offsets)),
        ("twice", &["true"], &[with(json!([{"type": "pid"}]))]),
        ("unknown", &["true"], &[with(json!([{"type": "foo"}]))]),
        (
            "user without a map",
            &["true"],
            &[with(json!([{"type": "user"}]))],
        ),
        (
            "a map without user",
            &["true"],
            &[(
                "/linux/uidMappings",
                json!([{"hostID": 1, "containerID": 0, "size": 1}]),
            )],
        ),
        (
            "hostname of the node",
            &["true"],
            &[(
                "/linux/namespaces",
                json!([{"type": "pid"}, {"type": "mount"}, {"type": "network"}, {"type": "ipc"}]),
            )],
        ),
        (
            "a device's bad name",
            &["true"],
            &devices(json!({"a/b": {}})),
        ),
        (
            "a sysctl of the node",
            &["true"],
            &[("/linux/sysctl", json!({"kernel.foo": "1"}))],
        ),
        (
            "RDT",
            &["true"],
            &[("/linux/intelRdt", json!({"closID": "x"}))],
        ),
    ]);
}

fn profiles() {
    let profile = |value: Value| [("/linux/seccomp", value)];
    let rule = |names: Value, action: &str| json!([{"names": names, "action": action}]);
    let allow = |key: &str, value: Value| {
        let mut all = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]});
        all[key] = value;
        [("/linux/seccomp", all)]
    };
    let ssb: &[&str] = &[
        "grep",
        "-E",
        "Speculation_Store|Seccomp",
        "/proc/self/status",
    ];
    same(&[
        ("empty", &["true"], &profile(json!({}))),
        (
            "no default",
            &["true"],
            &profile(json!({"syscalls": rule(json!(["mkdir"]), "SCMP_ACT_ERRNO")})),
        ),
        (
            "no arch",
            &["true"],
            &allow("architectures", json!(["SCMP_ARCH_FOO"])),
        ),
        (
            "native arch",
            &["true"],
            &allow("architectures", json!(["SCMP_ARCH_NATIVE"])),
        ),
        (
            "no action",
            &["true"],
            &profile(json!({"defaultAction": "FOO"})),
        ),
        ("no flag", &["true"], &allow("flags", json!(["FOO"]))),
        (
            "flags",
            ssb,
            &allow(
                "flags",
                json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]),
            ),
        ),
        ("no flags given", ssb, &allow("architectures", json!([]))),
        (
            "no names",
            &["true"],
            &allow("syscalls", rule(json!([""]), "SCMP_ACT_ERRNO")),
        ),
        (
            "notify by default",
            &["true"],
            &profile(json!({"defaultAction": "SCMP_ACT_NOTIFY"})),
        ),
        (
            "notify of write",
            &["true"],
            &allow("syscalls", rule(json!(["write"]), "SCMP_ACT_NOTIFY")),
        ),
        (
            "notify nobody",
            &["true"],
            &allow("syscalls", rule(json!(["mkdir"]), "SCMP_ACT_NOTIFY")),
        ),
        (
            "an agent that is not there",
            &["true"],
            &profile(
                json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nope",
                "syscalls": rule(json!(["mkdir"]), "SCMP_ACT_NOTIFY")}),
            ),
        ),
        (
            "a condition of no kind",
            &["true"],
            &allow(
                "syscalls",
                json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 1, "op": "X"}]}]),
            ),
        ),
    ]);
}

fn security_modules() {
    same(&[(
        "selinux",
        &["true"],
        &[("/process/selinuxLabel", json!("foo"))],
    )]);
    // The path of the file differs: runc's has a number of its own in it.
    let mut case = Case::new(&["true"]);
    case.set("/process/apparmorProfile", json!("foo"));
    let words = "error during container init: unable to apply apparmor profile: apparmor failed to \
                 apply profile: write ";
    for outcome in [case.outcome_under_runc(), case.outcome()] {
        let Outcome::Refused(why) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(
            why.contains(words) && why.ends_with("attr/exec: invalid argument"),
            "{why}"
        );
    }
}

fn specs_that_are_odd() {
    same(&[
        (
            "a version to come",
            &["true"],
            &[("/ociVersion", json!("2.0.0"))],
        ),
        ("no version", &["true"], &[("/ociVersion", Value::Null)]),
        ("no process", &["true"], &[("/process", Value::Null)]),
        ("no root", &["true"], &[("/root", Value::Null)]),
    ]);
}

fn execs() {
    let see = "grep -E '^(Cap|NoNew|Seccomp:|Cpus_allowed_list)' /proc/self/status; umask; id; pwd; \
               cat /proc/self/personality; awk '{print $18, $19, $41}' /proc/self/stat";
    let rows: &[Row<'_>] = &[
        ("as it is", &["sh", "-c", see], &[]),
        ("not on PATH", &["nope"], &[]),
        ("not there", &["/nope"], &[]),
        ("no program", &["/etc/garbage"], &[]),
        ("no args", &[], &[]),
        ("missing cwd", &["pwd"], &[("/cwd", json!("/a/b"))]),
        ("relative cwd", &["pwd"], &[("/cwd", json!("a"))]),
        ("no env", &["true"], &[("/env", json!([]))]),
        (
            "no capabilities",
            &["sh", "-c", see],
            &[("/capabilities", Value::Null)],
        ),
        (
            "a user",
            &["sh", "-c", see],
            &[("/user", json!({"uid": 1000, "gid": 7, "umask": 0o077}))],
        ),
        (
            "no such user",
            &["id"],
            &[("/user", json!({"uid": u32::MAX, "gid": 0}))],
        ),
        (
            "a limit",
            &["sh", "-c", "ulimit -n"],
            &[(
                "/rlimits",
                json!([{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}]),
            )],
        ),
        (
            "affinity",
            &["sh", "-c", see],
            &[("/execCPUAffinity", json!({"initial": "0-1", "final": "1"}))],
        ),
        (
            "first affinity",
            &["sh", "-c", see],
            &[("/execCPUAffinity", json!({"initial": "1"}))],
        ),
        (
            "scheduler",
            &["sh", "-c", see],
            &[("/scheduler", json!({"policy": "SCHED_BATCH", "nice": 7}))],
        ),
        (
            "new privileges",
            &["sh", "-c", see],
            &[("/noNewPrivileges", json!(false))],
        ),
        ("selinux", &["true"], &[("/selinuxLabel", json!("x"))]),
    ];
    let mut case = Case::new(&["sleep", "1000"]);
    case.set("/linux/seccomp", support::no_mkdir());
    case.set("/linux/personality", json!({"domain": "LINUX32"}));
    case.set("/process/user", json!({"uid": 0, "gid": 0, "umask": 0o027}));
    let processes: Vec<_> = rows
        .iter()
        .map(|(name, args, changes)| {
            let mut process = case.process(args);
            for (pointer, value) in *changes {
                process[&pointer[1..]] = value.clone();
            }
            (*name, process)
        })
        .collect();
    let theirs: Vec<_> = processes
        .iter()
        .map(|(_, process)| case.exec_outcome_under_runc(process))
        .collect();
    let init = case.start();
    let mut differences = Vec::new();
    for ((name, process), theirs) in processes.into_iter().zip(theirs) {
        let ours = case.exec_outcome(process);
        if ours != theirs {
            differences.push(format!("{name}\n  runc    {theirs:?}\n  reprise {ours:?}"));
        }
    }
    kill(Pid::from_raw(init.pid), Signal::SIGKILL).unwrap();
    support::exit_code(init.pid);
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}
