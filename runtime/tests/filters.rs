//! System call filters with real processes: calls newer than the profile, agents.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test with a harness of its own"
)]

#[path = "support/machine.rs"]
mod machine;
mod support;

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use machine::Door;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use support::Case;
use support::yardstick::Outcome;

support::tests![
    calls_newer_than_the_profile,
    a_filter_may_deny_all_that_comes_before_execve,
    an_agent_gets_the_filter_of_init_and_of_execs,
    a_filter_waits_killably,
];

/// What runc needs to get as far as execve, and what ends a program.
const NEEDED: &[&str] = &[
    "read",
    "write",
    "close",
    "fstat",
    "lseek",
    "mmap",
    "mprotect",
    "munmap",
    "brk",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "ioctl",
    "access",
    "madvise",
    "nanosleep",
    "getpid",
    "socket",
    "connect",
    "sendto",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "clone",
    "clone3",
    "execve",
    "exit",
    "wait4",
    "uname",
    "fcntl",
    "getcwd",
    "chdir",
    "fchdir",
    "mkdir",
    "capget",
    "capset",
    "prctl",
    "arch_prctl",
    "setgroups",
    "setuid",
    "setgid",
    "getuid",
    "getgid",
    "futex",
    "sched_getaffinity",
    "sched_yield",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "openat",
    "newfstatat",
    "readlinkat",
    "faccessat",
    "pipe2",
    "dup3",
    "gettid",
    "tgkill",
    "sigaltstack",
    "getrandom",
    "rseq",
    "exit_group",
    "eventfd2",
    "statfs",
    "fstatfs",
    "getdents64",
    "set_robust_list",
    "set_tid_address",
    "getppid",
    "umask",
    "prlimit64",
    "statx",
    "openat2",
    "faccessat2",
];

/// The highest call of `NEEDED`, on both.
const HIGHEST: u32 = 439;

fn profile(architectures: &[&str]) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": architectures,
        "syscalls": [{"names": NEEDED, "action": "SCMP_ACT_ALLOW"}],
    })
}

fn calls_newer_than_the_profile() {
    const EPERM: i32 = 1;
    const ENOSYS: i32 = 38;
    const X32: u32 = 1 << 30;
    let both = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"];
    let all = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
    let rows = [
        // A real call that is newer, one that nobody has yet, one that is just denied.
        (&both[..], HIGHEST + 1, Door::Wide, ENOSYS),
        (&both[..], 1000, Door::Wide, ENOSYS),
        (&both[..], 165, Door::Wide, EPERM),
        (&both[..], HIGHEST + 1, Door::Old, ENOSYS),
        (&both[..], 21, Door::Old, EPERM),
        (&all[..], 1000 | X32, Door::Wide, ENOSYS),
        (&all[..], 165 | X32, Door::Wide, EPERM),
    ];
    for new_privileges in [false, true] {
        for (architectures, call, door, expected) in rows {
            let mut case = Case::new(&["/call"]);
            let program = case.dir.join("image/call");
            std::fs::write(&program, machine::program(call, door)).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
            case.set("/linux/seccomp", profile(architectures));
            case.set("/process/noNewPrivileges", json!(!new_privileges));
            let expected = Outcome::Ended(expected, String::new());
            let name = format!("call {call:#x} through {door:?}, {architectures:?}");
            assert_eq!(case.outcome(), expected, "{name}");
            if !new_privileges {
                assert_eq!(case.outcome_under_runc(), expected, "{name}, runc");
            }
        }
    }
}

/// Here we are stricter than runc can be: it needs some dozens of calls itself.
fn a_filter_may_deny_all_that_comes_before_execve() {
    for new_privileges in [false, true] {
        let mut case = Case::new(&["/call"]);
        let program = case.dir.join("image/call");
        std::fs::write(&program, machine::program(39, Door::Wide)).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let mut names = vec!["execve", "exit"];
        if new_privileges {
            // After the filter, capabilities are still given up.
            names.extend(["capset", "capget", "brk", "gettid"]);
        }
        let rules = json!([{"names": names, "action": "SCMP_ACT_ALLOW"}]);
        case.set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}),
        );
        case.set("/process/noNewPrivileges", json!(!new_privileges));
        case.set("/process/user", json!({"uid": 1000, "gid": 1000}));
        assert_eq!(
            case.outcome(),
            Outcome::Ended(1, String::new()),
            "getpid is denied"
        );
    }
}

/// Takes what an agent gets: its descriptor and the state.
fn receive(listener: &UnixListener) -> (OwnedFd, Value) {
    let (socket, _) = listener.accept().unwrap();
    let mut text = vec![0; 1 << 16];
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut parts = [IoSliceMut::new(&mut text)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags).unwrap();
    let fds: Vec<_> = message
        .cmsgs()
        .unwrap()
        .filter_map(|one| match one {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    let length = message.bytes;
    assert_eq!(fds.len(), 1);
    #[expect(unsafe_code, reason = "it was received just now")]
    // SAFETY: the descriptor came with the message and is ours alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    (fd, serde_json::from_slice(&text[..length]).unwrap())
}

fn agent_case(args: &[&str]) -> (Case, UnixListener) {
    let mut case = Case::new(args);
    let path = case.dir.join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    case.set("/annotations", json!({"a": "b"}));
    case.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": path,
            "listenerMetadata": "meta",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        }),
    );
    (case, listener)
}

/// An agent that hangs up: intercepted calls fail with ENOSYS from then on.
fn an_agent_gets_the_filter_of_init_and_of_execs() {
    let script = "mkdir /x; grep ^Seccomp: /proc/self/status; sleep 1000";
    let states: Vec<Value> = [true, false]
        .map(|under_runc| {
            let (mut case, listener) = agent_case(&["sh", "-c", "mkdir /x"]);
            let agent = std::thread::spawn(move || {
                let (fd, state) = receive(&listener);
                let target = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
                (target.unwrap(), state)
            });
            let outcome = if under_runc {
                case.outcome_under_runc()
            } else {
                case.outcome()
            };
            let words = "mkdir: can't create directory '/x': Function not implemented\n";
            assert_eq!(outcome, Outcome::Ended(1, words.to_owned()));
            let (target, mut state) = agent.join().unwrap();
            assert_eq!(target.to_str(), Some("anon_inode:seccomp notify"));
            assert_eq!(state["pid"], state["state"]["pid"]);
            assert_eq!(state["state"]["bundle"], json!(case.dir.join("bundle")));
            assert_eq!(state["state"]["id"], json!(case.id));
            for (at, key) in [
                ("", "pid"),
                ("/state", "pid"),
                ("/state", "bundle"),
                ("/state", "id"),
            ] {
                state.pointer_mut(at).unwrap()[key] = json!(0);
            }
            state
        })
        .into();
    assert_eq!(states[0], states[1], "runc's first");
    assert_eq!(states[0]["metadata"], json!("meta"));

    let (mut case, listener) = agent_case(&["sh", "-c", script]);
    let agent = std::thread::spawn(move || [receive(&listener).1, receive(&listener).1]);
    let init = case.start();
    let (code, said) = case.exec(case.process(&["mkdir", "/x"]));
    assert_eq!(
        (code, said.contains("Function not implemented")),
        (1, true),
        "{said}"
    );
    let [first, second] = agent.join().unwrap();
    assert_eq!(first["pid"], json!(init.pid));
    assert_eq!(second["state"]["status"], json!("running"));
    assert_eq!(second["state"]["pid"], json!(init.pid));
    assert_ne!(second["pid"], json!(init.pid));
    kill(Pid::from_raw(init.pid), Signal::SIGKILL).unwrap();
    support::exit_code(init.pid);
}

/// The flag needs no newer libseccomp with us, so it works here where runc refuses.
fn a_filter_waits_killably() {
    let flags = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    let (mut case, listener) = agent_case(&["mkdir", "/x"]);
    case.set("/linux/seccomp/flags", flags.clone());
    let agent = std::thread::spawn(move || receive(&listener).1);
    let words = "mkdir: can't create directory '/x': Function not implemented\n";
    assert_eq!(case.outcome(), Outcome::Ended(1, words.to_owned()));
    agent.join().unwrap();
    // Without an agent there is nothing to wait for.
    let mut case = Case::new(&["true"]);
    let mut profile = support::no_mkdir();
    profile["flags"] = flags;
    case.set("/linux/seccomp", profile);
    assert_eq!(case.outcome(), Outcome::Ended(0, String::new()));
}
