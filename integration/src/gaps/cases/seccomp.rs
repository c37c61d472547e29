//! Seccomp: what a profile forbids, whom it binds, and when it begins to.
//! Rows 7, 11, 21, 24, and the flags of 35.

use crate::gaps::case::Case;
use crate::gaps::spec::Spec;
use serde_json::{Value, json};

const STATUS: &str = "status | grep -E 'Seccomp|NoNewPrivs|Speculation'";

pub(super) fn cases() -> Vec<Case> {
    let mut all = sweeps();
    all.extend(actions());
    all.extend(binding());
    all.extend(denying());
    all.extend(privileges());
    all.extend(flags());
    all
}

/// Every system call that a profile may not know.
fn sweeps() -> Vec<Case> {
    const NEW: &str = "/probe calls 422 480; /probe calls 600 602; /probe calls 100000 100001";
    vec![
        Case::new(7, "newer system calls under containerd's profile")
            .default_seccomp()
            .runs(NEW)
            .exec("exec", NEW)
            .restored(),
        Case::new(7, "newer system calls under an old profile")
            .spec(|spec| profile(spec, json!({ "defaultAction": "SCMP_ACT_ERRNO" }), OLD))
            .runs(NEW)
            .restored(),
        Case::new(7, "newer system calls under an old profile with another errno")
            .spec(|spec| {
                let whole = json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13 });
                profile(spec, whole, OLD)
            })
            .runs(NEW),
        Case::new(7, "newer system calls under an old profile that kills")
            .spec(|spec| profile(spec, json!({ "defaultAction": "SCMP_ACT_KILL_PROCESS" }), OLD))
            .runs(NEW),
        Case::new(7, "newer system calls under a profile that names a new one")
            .spec(|spec| {
                let mut known = OLD.to_vec();
                known.push("fchmodat2");
                profile(spec, json!({ "defaultAction": "SCMP_ACT_ERRNO" }), &known)
            })
            .runs(NEW),
        Case::new(7, "newer system calls under a profile for one architecture")
            .spec(|spec| {
                let whole = json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"] });
                profile(spec, whole, OLD)
            })
            .runs(NEW),
        Case::new(7, "old system calls under containerd's profile")
            .default_seccomp()
            .runs("/probe calls 302 334; /probe calls 246 250; /probe calls 172 180")
            .restored(),
        Case::new(7, "a system call that no kernel has, by name")
            .spec(|spec| spec.deny(&["getcpu", "no_such_call"]))
            .runs("/probe calls 309 309; status | grep Seccomp"),
    ]
}

/// Whom a profile binds.
fn binding() -> Vec<Case> {
    vec![
        Case::new(11, "exec gets the seccomp profile")
            .spec(|spec| spec.deny(&["getcpu"]))
            .exec("exec", "status | grep Seccomp; /probe calls 309 309")
            .exec_as(
                "exec of another user",
                "status | grep Seccomp; /probe calls 309 309",
                |process| process.set("/user", json!({ "uid": 1000, "gid": 1000 })),
            )
            .node("init", "status $PID | grep Seccomp")
            .restored(),
        Case::new(11, "exec with a terminal gets the seccomp profile")
            .spec(|spec| spec.deny(&["getcpu"]))
            .exec_as(
                "exec",
                "status | grep Seccomp; /probe calls 309 309",
                |process| process.set("/terminal", true),
            ),
        Case::new(11, "exec without no_new_privs in a container that has it")
            .default_seccomp()
            .exec_as("exec", STATUS, |process| {
                process.set("/noNewPrivileges", false)
            })
            .exec("exec as init", STATUS)
            .restored(),
    ]
}

/// What is done about a call that matches.
fn actions() -> Vec<Case> {
    let errno = |name, rule: Value| {
        Case::new(7, name)
            .spec(move |spec| {
                spec.set(
                    "/linux/seccomp",
                    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }),
                )
            })
            .runs(
                "/probe calls 309 309; /probe calls 135 135; /probe attributes | grep personality",
            )
    };
    vec![
        errno(
            "an errno of its own",
            json!({ "names": ["getcpu"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22 }),
        ),
        errno(
            "errno 0",
            json!({ "names": ["getcpu"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0 }),
        ),
        errno(
            "an errno that is left out",
            json!({ "names": ["getcpu"], "action": "SCMP_ACT_ERRNO" }),
        ),
        errno(
            "trap",
            json!({ "names": ["getcpu"], "action": "SCMP_ACT_TRAP" }),
        ),
        errno(
            "kill the process",
            json!({ "names": ["getcpu"], "action": "SCMP_ACT_KILL_PROCESS" }),
        ),
        errno(
            "log",
            json!({ "names": ["getcpu"], "action": "SCMP_ACT_LOG" }),
        ),
        errno(
            "an unknown action",
            json!({ "names": ["getcpu"], "action": "SCMP_ACT_NOTHING" }),
        ),
        errno(
            "an argument that is compared",
            json!({ "names": ["personality"], "action": "SCMP_ACT_ERRNO",
            "args": [{ "index": 0, "value": 4_294_967_295_u64, "op": "SCMP_CMP_EQ" }] }),
        ),
        errno(
            "arguments that are compared with a mask",
            json!({ "names": ["personality"], "action": "SCMP_ACT_ERRNO",
            "args": [{ "index": 0, "value": 8, "valueTwo": 8, "op": "SCMP_CMP_MASKED_EQ" }] }),
        ),
    ]
}

/// Profiles that deny what a runtime itself does until the program runs.
fn denying() -> Vec<Case> {
    vec![
        Case::new(21, "a profile that denies accept4, recvfrom and sendmsg")
            .spec(|spec| {
                spec.deny(&[
                    "accept4", "recvfrom", "recvmsg", "sendmsg", "sendto", "socket", "connect",
                ])
            })
            .runs("echo begun; status | grep Seccomp")
            .exec("exec", "echo in")
            .restored(),
        Case::new(21, "a profile that denies what finishing a process needs")
            .spec(|spec| {
                spec.deny(&[
                    "setuid",
                    "setgid",
                    "setgroups",
                    "setresuid",
                    "setresgid",
                    "capset",
                    "prctl",
                    "fchown",
                    "mount",
                    "umount2",
                    "pivot_root",
                    "unshare",
                    "setns",
                    "chdir",
                    "fchdir",
                    "umask",
                    "setsid",
                    "keyctl",
                    "openat2",
                    "fsopen",
                    "fsconfig",
                    "fsmount",
                    "open_tree",
                    "move_mount",
                    "statfs",
                    "getdents64",
                    "dup3",
                    "pipe2",
                    "clone3",
                    "prlimit64",
                    "setrlimit",
                ])
            })
            .runs("echo begun; exec grep Seccomp: /proc/self/status")
            .stricter(FILTER_COMES_LAST, |runc, ours| {
                never_ran(runc)
                    && ours["exit"] == 0
                    && ours["said"] == json!({ "stdout": ["begun", "Seccomp:\t2"] })
            }),
        Case::new(21, "a profile that denies execve")
            .spec(|spec| spec.deny(&["execve"]))
            .runs("echo begun"),
        Case::new(21, "a profile that denies write and close")
            .spec(|spec| spec.deny(&["write", "close"]))
            .settles()
            .runs("echo begun || exit 7")
            .stricter(FILTER_COMES_LAST, |runc, ours| {
                never_ran(runc) && ours["exit"] == 7 && ours["said"] == json!({})
            }),
        Case::new(21, "a profile that kills whoever writes")
            .spec(|spec| {
                let killing =
                    json!([{ "names": ["write", "writev"], "action": "SCMP_ACT_KILL_PROCESS" }]);
                spec.set(
                    "/linux/seccomp",
                    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": killing }),
                )
            })
            .settles()
            .runs("echo begun")
            .stricter(FILTER_COMES_LAST, |runc, ours| {
                let killed = 128 + libc::SIGSYS;
                never_ran(runc) && ours["exit"] == killed && ours["said"] == json!({})
            }),
    ]
}

const FILTER_COMES_LAST: &str = "that runc fails is an accident of how it is made: it loads the \
     profile before its own last steps, which such a profile denies; under ours the program runs, \
     and the profile holds for it from its first instruction on";

/// runc failed or was killed before the program ran: it said nothing.
fn never_ran(seen: &Value) -> bool {
    let failed = seen.get("create").or(seen.get("start")).is_some();
    let code = seen["exit"].as_i64();
    let killed = code.is_some_and(|code| code == 255 || code == i64::from(128 + libc::SIGSYS));
    (failed || killed) && seen.pointer("/said/stdout").is_none()
}

/// Profiles without no_new_privs.
fn privileges() -> Vec<Case> {
    vec![
        Case::new(24, "explicit noNewPrivileges false with a profile")
            .spec(|spec| {
                spec.deny(&["getcpu"])
                    .set("/process/noNewPrivileges", false)
            })
            .runs(STATUS)
            .exec("exec", STATUS)
            .restored(),
        Case::new(
            24,
            "noNewPrivileges false with a profile, as a user without capabilities",
        )
        .spec(|spec| {
            spec.deny(&["getcpu"])
                .set("/process/noNewPrivileges", false)
                .set("/process/capabilities", json!({}))
                .user(1000, 1000)
        })
        .runs(STATUS)
        .exec("exec", STATUS)
        .restored(),
        Case::new(24, "noNewPrivileges unset with a profile")
            .spec(|spec| spec.deny(&["getcpu"]).remove("/process/noNewPrivileges"))
            .runs(STATUS)
            .restored(),
    ]
}

/// Flags of the filter.
fn flags() -> Vec<Case> {
    let with = |name, flags: Value| {
        Case::new(35, name)
            .spec(move |spec| spec.deny(&["getcpu"]).set("/linux/seccomp/flags", flags.clone()))
            .runs("status | grep -E 'Seccomp|Speculation'; /probe attributes | grep speculation; /probe calls 309 309")
            .exec("exec", "status | grep -E 'Seccomp|Speculation'")
    };
    vec![
        with("seccomp flags: none", json!([])),
        with("seccomp flags: log", json!(["SECCOMP_FILTER_FLAG_LOG"])),
        with(
            "seccomp flags: allow speculation",
            json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        ),
        with(
            "seccomp flags: thread sync",
            json!(["SECCOMP_FILTER_FLAG_TSYNC"]),
        ),
        with(
            "seccomp flags: unknown",
            json!(["SECCOMP_FILTER_FLAG_NONE"]),
        ),
    ]
}

fn profile<'s>(spec: &'s mut Spec, mut whole: Value, allowed: &[&str]) -> &'s mut Spec {
    whole["syscalls"] = json!([{ "names": allowed, "action": "SCMP_ACT_ALLOW" }]);
    spec.set("/linux/seccomp", whole)
}

/// What a shell and our probe need; the newest of it came with Linux 5.8.
const OLD: &[&str] = &[
    // And what runc needs of its own between the filter and the program.
    "openat2",
    "statx",
    "close_range",
    "faccessat2",
    "clone3",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_wait",
    "eventfd2",
    "sched_getaffinity",
    "sched_yield",
    "sigaltstack",
    "pread64",
    "pwrite64",
    "mincore",
    "timer_create",
    "timer_settime",
    "timer_delete",
    "setitimer",
    "prctl",
    "capset",
    "setuid",
    "setgid",
    "setgroups",
    "setresuid",
    "setresgid",
    "setsid",
    "fchown",
    "execveat",
    "faccessat",
    "dup3",
    "fchdir",
    "statfs",
    "getxattr",
    "fsync",
    "ftruncate",
    "recvfrom",
    "recvmsg",
    "sendmsg",
    "sendto",
    "socket",
    "connect",
    "getsockopt",
    "getsockname",
    "getpeername",
    "shutdown",
    "keyctl",
    "sysinfo",
    "getrlimit",
    "setrlimit",
    "waitid",
    "mremap",
    "getpgid",
    "getsid",
    "readv",
    "writev",
    "select",
    "pselect6",
    "ppoll",
    "fchmod",
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "chdir",
    "clock_gettime",
    "clone",
    "close",
    "dup",
    "dup2",
    "execve",
    "exit",
    "exit_group",
    "fcntl",
    "fork",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getpgrp",
    "getpid",
    "getppid",
    "getrandom",
    "gettid",
    "getuid",
    "ioctl",
    "kill",
    "lseek",
    "lstat",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "pipe",
    "pipe2",
    "poll",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "set_robust_list",
    "set_tid_address",
    "setpgid",
    "stat",
    "tgkill",
    "umask",
    "uname",
    "vfork",
    "wait4",
    "write",
];
