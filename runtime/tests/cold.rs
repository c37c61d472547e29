//! Cold containers with real processes: what they are, what they see, how they
//! end, and that nothing is left of them. The test binary is its own worker.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::unwrap_used,
    reason = "a test with a harness of its own"
)]

mod support;

use std::time::Instant;

use reprise_runtime::worker::Worker;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use support::{Case, exit_code, no_mkdir, text};

support::tests![
    exit_codes_are_exact,
    a_signal_ends_it,
    killed_before_start,
    dropped_before_start,
    a_killed_worker_is_told_and_cleaned_up_after,
    a_worker_that_takes_too_long,
    a_user_with_groups,
    capabilities_of_root_and_user,
    ambient_capabilities,
    no_new_privileges_on_and_off,
    seccomp_for_init_and_exec,
    seccomp_without_no_new_privileges,
    a_terminal,
    an_exec_runs_inside,
    an_exec_that_cannot_run,
    words_for_what_cannot_be_executed,
    an_unexecutable_file_says_so_and_ends,
    a_missing_cwd_is_made,
    read_only_everywhere,
    limits_and_mask,
    home_and_environment,
    stdio_belongs_to_the_user,
    dev_is_a_link_in_the_image,
    unknown_rootfs_propagation_and_mount_failures_are_told,
    slave_propagation_works,
    nothing_of_the_worker_leaks_in,
    its_executable_is_read_only,
    its_executable_is_never_busy,
    large_specs_and_many_layers,
    devices_anywhere_and_twice,
    how_long_it_takes,
];

fn exit_codes_are_exact() {
    let (code, out) = Case::new(&["sh", "-c", "echo hello; exit 42"]).run();
    assert_eq!((code, out.as_str()), (42, "hello\n"));
}

fn a_signal_ends_it() {
    let mut case = Case::new(&["sleep", "100"]);
    let output = case.start();
    kill(Pid::from_raw(output.pid), Signal::SIGKILL).unwrap();
    assert_eq!(exit_code(output.pid), 137);
}

fn killed_before_start() {
    let mut case = Case::new(&["true"]);
    let (worker, prepared, _) = case.prepare();
    let pid = prepared.unwrap().pid;
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!(exit_code(pid), 137);
    let error = worker.start().unwrap_err();
    assert!(
        error.message.contains("ended before it was started"),
        "{error}"
    );
}

fn dropped_before_start() {
    let mut case = Case::new(&["true"]);
    let (worker, prepared, _) = case.prepare();
    let pid = prepared.unwrap().pid;
    drop(worker);
    assert_eq!(exit_code(pid), 137);
    support::eventually(|| !case.dir.join("states").join(&case.id).exists());
    support::eventually(|| {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        !mounts.contains(case.dir.to_str().unwrap())
    });
}

fn a_killed_worker_is_told_and_cleaned_up_after() {
    let mut case = Case::new(&["sleep", "100"]);
    let (worker, prepared, _) = case.prepare();
    let pid = prepared.unwrap().pid;
    kill(Pid::from_raw(worker.pid()), Signal::SIGKILL).unwrap();
    let error = worker.start().unwrap_err();
    assert_eq!(error.kind, reprise_runtime::ErrorKind::Unavailable);
    case.remove();
    case.assert_clean();
    assert_eq!(exit_code(pid), 137);
}

fn a_worker_that_takes_too_long() {
    let mut case = Case::new(&["true"]);
    let hook = json!({"path": "/bin/sleep", "args": ["sleep", "100"]});
    case.set("/hooks", json!({"createRuntime": [hook]}));
    let mut worker = Worker::spawn(std::time::Duration::from_millis(500)).unwrap();
    let pid = worker.pid();
    let error = worker
        .prepare(
            case.create_request(),
            reprise_runtime::worker::Stdio::default(),
        )
        .unwrap_err();
    assert!(error.message.contains("no answer within 0.5 s"), "{error}");
    assert_eq!(exit_code(pid), 137);
    case.remove();
    case.assert_clean();
}

fn a_user_with_groups() {
    let mut case = Case::new(&["id"]);
    let user = json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 8], "umask": 63});
    case.set("/process/user", user);
    let (code, out) = case.run();
    assert_eq!(code, 0);
    assert_eq!(out.trim(), "uid=1000(user) gid=1001 groups=7,8");
}

fn status(case: &mut Case, names: &str) -> String {
    let script = format!("grep -E '^({names}):' /proc/self/status | awk '{{print $2}}'");
    case.set("/process/args", json!(["sh", "-c", script]));
    let (code, out) = case.run();
    assert_eq!(code, 0, "{out}");
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

// CHOWN 0, KILL 5, SETUID 7, NET_BIND_SERVICE 10.
const SET: &str = "00000000000004a1";
const NONE: &str = "0000000000000000";

fn capabilities_of_root_and_user() {
    let names = "CapInh|CapPrm|CapEff|CapBnd|CapAmb";
    let root = status(&mut Case::new(&[]), names);
    assert_eq!(root, [NONE, SET, SET, SET, NONE].join(" "));
    let mut case = Case::new(&[]);
    case.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let user = status(&mut case, names);
    assert_eq!(user, [NONE, NONE, NONE, SET, NONE].join(" "));
    let mut case = Case::new(&[]);
    case.set("/process/capabilities", json!({}));
    assert_eq!(status(&mut case, names), [NONE; 5].join(" "));
}

fn ambient_capabilities() {
    let mut case = Case::new(&[]);
    let caps = json!(["CAP_NET_BIND_SERVICE", "CAP_OF_THE_FUTURE"]);
    case.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    for set in ["inheritable", "ambient"] {
        case.set(&format!("/process/capabilities/{set}"), caps.clone());
    }
    let out = status(&mut case, "CapInh|CapPrm|CapEff|CapAmb");
    let bind = "0000000000000400";
    assert_eq!(out, [bind; 4].join(" "));
}

fn no_new_privileges_on_and_off() {
    assert_eq!(status(&mut Case::new(&[]), "NoNewPrivs"), "1");
    let mut case = Case::new(&[]);
    case.set("/process/noNewPrivileges", json!(false));
    assert_eq!(status(&mut case, "NoNewPrivs"), "0");
}

fn seccomp_for_init_and_exec() {
    let mut case = Case::new(&["sleep", "100"]);
    case.set("/linux/seccomp", no_mkdir());
    let init = case.start();
    let script = "grep Seccomp: /proc/1/status /proc/self/status; mkdir /tmp/x; mkdir /tmp/y";
    let process = case.process(&["sh", "-c", script]);
    let (code, out) = case.exec(process);
    assert_ne!(code, 0);
    assert_eq!(out.matches("Seccomp:\t2").count(), 2, "{out}");
    assert_eq!(out.matches("Invalid cross-device link").count(), 2, "{out}");
    kill(Pid::from_raw(init.pid), Signal::SIGKILL).unwrap();
    exit_code(init.pid);
}

fn seccomp_without_no_new_privileges() {
    for user in [0, 1000] {
        let mut case = Case::new(&[]);
        case.set("/linux/seccomp", no_mkdir());
        case.set("/process/user", json!({"uid": user, "gid": user}));
        case.set("/process/noNewPrivileges", json!(false));
        let out = status(&mut case, "Seccomp|CapPrm|NoNewPrivs");
        let caps = if user == 0 { SET } else { NONE };
        assert_eq!(out, format!("{caps} 0 2"));
    }
}

fn a_terminal() {
    let mut case = Case::new(&["sh", "-c", "tty; stat -c %u /proc/self/fd/0 -L; stty size"]);
    case.terminal = true;
    case.set("/process/terminal", json!(true));
    case.set("/process/consoleSize", json!({"height": 33, "width": 99}));
    case.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let (worker, prepared, _) = case.prepare();
    let prepared = prepared.unwrap();
    worker.start().unwrap();
    let out = text(prepared.console.unwrap());
    assert_eq!(
        out.split_whitespace().collect::<Vec<_>>(),
        ["/dev/pts/0", "1000", "33", "99"]
    );
    assert_eq!(exit_code(prepared.pid), 0);

    let mut case = Case::new(&["sleep", "100"]);
    let init = case.start();
    let mut process = case.process(&["sh", "-c", "tty; exit 5"]);
    process["terminal"] = json!(true);
    let (started, _) = case.try_exec(process);
    let started = started.unwrap();
    assert_eq!(text(started.console.unwrap()).trim(), "/dev/pts/0");
    assert_eq!(exit_code(started.pid), 5);
    kill(Pid::from_raw(init.pid), Signal::SIGKILL).unwrap();
    exit_code(init.pid);
}

fn an_exec_runs_inside() {
    let mut case = Case::new(&["sleep", "100"]);
    let init = case.start();
    let script = "cat /proc/self/cgroup; readlink /proc/self/ns/pid /proc/1/ns/pid; id -u; pwd; \
                  grep Cap /proc/self/status; exit 7";
    let mut process = case.process(&["sh", "-c", script]);
    process["user"] = json!({"uid": 1000, "gid": 1000});
    process["cwd"] = json!("/home/user");
    process.as_object_mut().unwrap().remove("capabilities");
    let (code, out) = case.exec(process);
    assert_eq!(code, 7, "{out}");
    let group = format!("/reprise-unit-{}", case.id);
    for line in out.lines().filter(|l| l.contains(":/") || l.contains("::")) {
        assert!(line.ends_with(&group), "{line} is not in {group}");
    }
    assert!(out.contains("1000\n/home/user\n"), "{out}");
    assert!(out.contains(&format!("CapBnd:\t{SET}")), "{out}");
    kill(Pid::from_raw(init.pid), Signal::SIGTERM).ok();
    kill(Pid::from_raw(init.pid), Signal::SIGKILL).unwrap();
    exit_code(init.pid);
}

fn an_exec_that_cannot_run() {
    let mut case = Case::new(&["sleep", "100"]);
    let init = case.start();
    let error = case.try_exec(case.process(&["nope"])).0.unwrap_err();
    let words = "exec: \"nope\": executable file not found in $PATH";
    assert!(error.message.ends_with(words), "{error}");
    // By the time that execve is refused it has started, as under runc.
    let refused = case.exec(case.process(&["/etc/garbage"]));
    let words = "exec /etc/garbage: exec format error\n";
    assert_eq!(refused, (255, words.to_owned()));
    let private = case.dir.join(format!("states/.{}", case.id));
    let left = std::fs::read_dir(private).unwrap().count();
    assert_eq!(
        left, 3,
        "only config.json, the note of init and the void stay"
    );
    let (code, _) = case.exec(case.process(&["false"]));
    assert_eq!(code, 1);
    kill(Pid::from_raw(init.pid), Signal::SIGKILL).unwrap();
    exit_code(init.pid);
}

fn words_for_what_cannot_be_executed() {
    for (name, words) in [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        (
            "/nope",
            "exec: \"/nope\": stat /nope: no such file or directory",
        ),
        ("/etc/plain", "exec: \"/etc/plain\": permission denied"),
        ("/etc", "exec: \"/etc\": is a directory"),
    ] {
        let mut case = Case::new(&[name]);
        let (worker, prepared, _) = case.prepare();
        let error = prepared.unwrap_err();
        assert!(error.message.ends_with(words), "{error}");
        drop(worker);
        case.assert_clean();
    }
    let mut case = Case::new(&[]);
    let error = case.prepare().1.unwrap_err();
    assert!(error.message.contains("args must not be empty"), "{error}");
}

fn an_unexecutable_file_says_so_and_ends() {
    let words = "exec /etc/garbage: exec format error\n";
    assert_eq!(Case::new(&["/etc/garbage"]).run(), (255, words.to_owned()));
}

fn a_missing_cwd_is_made() {
    let mut case = Case::new(&["pwd"]);
    case.set("/process/cwd", json!("/a/b"));
    assert_eq!(case.run(), (0, "/a/b\n".to_owned()));
    let mut case = Case::new(&["pwd"]);
    case.set("/process/cwd", json!("/dev/shm/deep/er"));
    assert_eq!(case.run(), (0, "/dev/shm/deep/er\n".to_owned()));
}

fn read_only_everywhere() {
    let script = "touch /x; for f in /sys/fs/cgroup/*/*/notify_on_release; do touch $f; done; \
                  touch /sys/fs/cgroup/memory/x /sys/fs/cgroup/x; mkdir /sys/fs/cgroup/memory/y";
    let mut case = Case::new(&["sh", "-c", script]);
    case.set("/root/readonly", json!(true));
    case.set("/process/cwd", json!("/made/before"));
    let (code, out) = case.run();
    assert_ne!(code, 0);
    assert!(
        out.lines()
            .all(|l| l.contains("Read-only") || l.contains("No such file")),
        "{out}"
    );
    assert!(out.contains("touch: /x: Read-only file system"), "{out}");
    assert!(
        out.contains("'/sys/fs/cgroup/memory/y': Read-only file system"),
        "{out}"
    );
}

fn limits_and_mask() {
    let mut case = Case::new(&["sh", "-c", "ulimit -n; umask; ulimit -c"]);
    let limits = json!([{"type": "RLIMIT_NOFILE", "hard": 64, "soft": 32},
        {"type": "RLIMIT_CORE", "hard": 0, "soft": 0}]);
    case.set("/process/rlimits", limits);
    assert_eq!(case.run(), (0, "32\n0022\n0\n".to_owned()));
}

fn home_and_environment() {
    let mut case = Case::new(&["env"]);
    case.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    case.set("/process/env", json!(["A=1", "PATH=/bin", "A=2"]));
    let (_, out) = case.run();
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=2", "HOME=/home/user", "PATH=/bin"]);
    let mut case = Case::new(&["env"]);
    case.set("/process/env", json!(["=x"]));
    assert!(
        case.prepare()
            .1
            .unwrap_err()
            .message
            .contains("invalid environment variable")
    );
}

fn stdio_belongs_to_the_user() {
    let mut case = Case::new(&["sh", "-c", "echo again > /dev/stdout; echo e > /dev/stderr"]);
    case.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(case.run(), (0, "again\ne\n".to_owned()));
}

fn dev_is_a_link_in_the_image() {
    let mut case = Case::new(&["ls", "/dev/null"]);
    let host = case.dir.join("outside");
    std::fs::create_dir(&host).unwrap();
    std::fs::remove_dir(case.dir.join("image/dev")).unwrap();
    std::os::unix::fs::symlink(&host, case.dir.join("image/dev")).unwrap();
    assert_eq!(case.run(), (0, "/dev/null\n".to_owned()));
    assert_eq!(std::fs::read_dir(&host).unwrap().count(), 0);
}

fn unknown_rootfs_propagation_and_mount_failures_are_told() {
    let mut case = Case::new(&["true"]);
    case.set("/linux/rootfsPropagation", json!("sideways"));
    assert!(case.prepare().1.unwrap_err().message.contains("sideways"));
    case.assert_clean();
    let mut case = Case::new(&["true"]);
    let broken = json!({"destination": "/vol", "type": "bind", "source": "/no/such/place",
        "options": ["rbind"]});
    case.spec["mounts"].as_array_mut().unwrap().push(broken);
    let error = case.prepare().1.unwrap_err();
    assert!(
        error.message.contains("/no/such/place"),
        "{error}\n{:#?}",
        error.detail
    );
    case.assert_clean();
}

fn slave_propagation_works() {
    for (word, shown) in [("rslave", "master:"), ("rprivate", "")] {
        let mut case = Case::new(&["grep", " /vol ", "/proc/self/mountinfo"]);
        case.set("/linux/rootfsPropagation", json!("rslave"));
        let shared = case.dir.join("shared");
        std::fs::create_dir(&shared).unwrap();
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        let none = None::<&str>;
        mount(Some(&shared), &shared, none, MsFlags::MS_BIND, none).unwrap();
        mount(none, &shared, none, MsFlags::MS_SHARED, none).unwrap();
        let volume = json!({"destination": "/vol", "type": "bind", "source": shared,
            "options": ["rbind", word]});
        case.spec["mounts"].as_array_mut().unwrap().push(volume);
        let (code, out) = case.run();
        umount2(&shared, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(code, 0);
        let optional = out.split(' ').nth(6).unwrap();
        assert!(optional.starts_with(shown), "{out}");
        assert_eq!(optional.starts_with("master:"), word == "rslave", "{out}");
    }
}

fn nothing_of_the_worker_leaks_in() {
    let script = "ls /proc/self/fd; grep -E '^(SigBlk|SigIgn)' /proc/self/status; env";
    let (code, out) = Case::new(&["sh", "-c", script]).run();
    assert_eq!(code, 0);
    let expected = "0\n1\n2\n3\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n";
    assert!(out.starts_with(expected), "{out}");
    assert!(!out.contains("CARGO"), "{out}");
}

/// A copy of the worker's program, since one that is being executed cannot be
/// written to anyway; and what a container could have opened of it.
fn program_of_a_worker() -> (std::path::PathBuf, std::fs::File) {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let copy = format!("/run/reprise-unit-exe-{}-{n}", std::process::id());
    let copy = std::path::PathBuf::from(copy);
    std::fs::copy("/proc/self/exe", &copy).unwrap();
    let worker = Worker::spawn_from(&copy, support::DEADLINE).unwrap();
    let exe = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(format!("/proc/{}/exe", worker.pid()))
        .unwrap();
    let pid = worker.pid();
    drop(worker);
    exit_code(pid);
    (copy, exe)
}

/// Opens it for writing.
fn write_to(exe: &std::fs::File) -> std::io::Error {
    let again = format!("/proc/self/fd/{}", exe.as_raw_fd());
    std::fs::File::options()
        .append(true)
        .open(again)
        .unwrap_err()
}

fn its_executable_is_read_only() {
    let (copy, exe) = program_of_a_worker();
    let kind = nix::sys::statfs::fstatfs(&exe).unwrap().filesystem_type();
    assert_eq!(kind, nix::sys::statfs::OVERLAYFS_SUPER_MAGIC);
    let error = write_to(&exe);
    std::fs::remove_file(&copy).unwrap();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
}

/// Who tries to write to it all the time keeps nobody from executing it.
fn its_executable_is_never_busy() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (copy, exe) = program_of_a_worker();
    let over = AtomicBool::new(false);
    let (tries, executed, busy) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut tries = 0_u64;
            while !over.load(Ordering::Relaxed) {
                let _refused = write_to(&exe);
                tries += 1;
            }
            tries
        });
        // As containerd starts the shim, by the plain file; an argument that is too
        // long ends it right after the file was opened.
        let path = std::ffi::CString::new(copy.to_str().unwrap()).unwrap();
        let long = std::ffi::CString::new("x".repeat(200_000)).unwrap();
        let begin = std::time::Instant::now();
        let (mut busy, mut executed) = (0, 0);
        while begin.elapsed() < std::time::Duration::from_millis(1500) {
            match nix::unistd::execve(&path, &[&long], &[] as &[&std::ffi::CStr]) {
                Err(nix::errno::Errno::ETXTBSY) => busy += 1,
                Err(e) => executed += u32::from(e == nix::errno::Errno::E2BIG),
                Ok(never) => match never {},
            }
        }
        over.store(true, Ordering::Relaxed);
        (writer.join().unwrap(), executed, busy)
    });
    std::fs::remove_file(&copy).unwrap();
    assert!(tries > 1000 && executed > 1000, "{tries}, {executed}");
    assert_eq!(busy, 0);
}

fn large_specs_and_many_layers() {
    let mut case = Case::new(&["cat", "/layer39"]);
    case.spec["annotations"] = json!({"note": "x".repeat(300_000)});
    let deep = case.dir.join("a".repeat(150));
    case.lower = (0..40)
        .map(|i| {
            let dir = deep.join(format!("layer:{i}"));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(format!("layer{i}")), i.to_string()).unwrap();
            dir.display().to_string().replace(':', "\\:")
        })
        .collect();
    assert_eq!(case.run(), (0, "39".to_owned()));
}

fn devices_anywhere_and_twice() {
    let mut case = Case::new(&["stat", "-c", "%t:%T %a %u", "/data/disk", "/dev/twice"]);
    let node = |path: &str, minor: u32| json!({"path": path, "type": "c", "major": 1, "minor": minor, "fileMode": 0o622, "uid": 5});
    let devices = json!([
        node("/data/disk", 3),
        node("/dev/twice", 5),
        node("/dev/twice", 7)
    ]);
    case.set("/linux/devices", devices);
    let (code, out) = case.run();
    assert_eq!((code, out.as_str()), (0, "1:3 622 5\n1:5 622 5\n"));
}

fn how_long_it_takes() {
    let mut whole = Vec::new();
    for round in 0..10 {
        let mut case = Case::new(&["true"]);
        case.set("/linux/seccomp", no_mkdir());
        let begin = Instant::now();
        // As the driver does: the kernel's grace period passes meanwhile.
        let warming = std::thread::spawn(reprise_runtime::cgroup::prewarm);
        let (worker, prepared, _) = case.prepare();
        warming.join().unwrap();
        let prepared = prepared.unwrap();
        let created = begin.elapsed();
        worker.start().unwrap();
        let started = begin.elapsed();
        exit_code(prepared.pid);
        whole.push(started);
        if round == 9 {
            println!("create {created:?}, with start {started:?}");
            prepared
                .timings
                .iter()
                .for_each(|t| println!("  {} {} us", t.step, t.us));
        }
    }
    whole.sort_unstable();
    println!("  median {:?}", whole[whole.len() / 2]);
    let mut case = Case::new(&["sleep", "100"]);
    let init = case.start();
    for _ in 0..3 {
        let process = case.process(&["true"]);
        let begin = Instant::now();
        let started = case.try_exec(process).0.unwrap();
        println!("  exec {:?}", begin.elapsed());
        exit_code(started.pid);
    }
    kill(Pid::from_raw(init.pid), Signal::SIGKILL).unwrap();
    exit_code(init.pid);
}
