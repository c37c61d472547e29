//! Checkpoints of real containers with real CRIU, and containers restored from
//! them. The test binary is its own worker.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test with a harness of its own"
)]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};
use reprise_runtime::Result;
use reprise_runtime::worker::{
    CriuConfig, DiffCopy, Dump, Dumped, Prepared, Restore, Stdio, Worker,
};
use serde_json::json;
use support::{Case, exit_code};

support::tests![
    it_goes_on_in_another_pod,
    it_goes_on_without_standard_streams,
    it_keeps_a_cgroup_namespace,
    restored_again,
    a_paused_container_stays_paused,
    exit_ends_the_original,
    open_connections_are_kept_by_the_original,
    a_terminal,
    binds_and_shared_memory,
    processes_of_an_exec_are_left_alone,
    a_user,
    seccomp_comes_back,
    damaged_images,
    criu_that_cannot_be_used,
    criu_killed_while_restoring,
    criu_killed_while_dumping,
    given_up_before_start,
    more_than_the_spec_allows,
    ten_at_once,
    large_programs,
    how_long_it_takes,
];

/// Counts, tells its host name, and holds files open.
const COUNT: &str = "exec 9>/state 8<>/gone; busybox rm /gone; echo kept >&8; i=0; while :; do i=$((i+1)); \
    read h </proc/sys/kernel/hostname; echo $i $h; echo $i >&9; busybox usleep 20000; done";

/// Namespaces like those of a pod's sandbox.
struct Pod(Child);

impl Pod {
    fn new(name: &str) -> Self {
        let script = format!("busybox hostname {name}; busybox ip link set lo up; exec sleep 1000");
        let mut command = std::process::Command::new("unshare");
        let child = command
            .args(["-n", "-i", "-u", "sh", "-c", &script])
            .spawn()
            .unwrap();
        let comm = format!("/proc/{}/comm", child.id());
        support::eventually(|| fs::read_to_string(&comm).unwrap() == "sleep\n");
        Self(child)
    }

    fn ns(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }

    /// A container in this pod.
    fn case(&self, args: &[&str]) -> Case {
        let mut case = Case::new(args);
        let namespaces = json!([{"type": "pid"}, {"type": "mount"},
            {"type": "ipc", "path": self.ns("ipc")}, {"type": "uts", "path": self.ns("uts")},
            {"type": "network", "path": self.ns("net")}]);
        case.set("/linux/namespaces", namespaces);
        case.spec.as_object_mut().unwrap().remove("hostname");
        case
    }

    fn connect(&self, port: u16) -> TcpStream {
        let ns = File::open(self.ns("net")).unwrap();
        std::thread::spawn(move || {
            setns(ns, CloneFlags::CLONE_NEWNET).unwrap();
            let until = Instant::now() + Duration::from_secs(5);
            loop {
                match TcpStream::connect(("127.0.0.1", port)) {
                    Ok(stream) => return stream,
                    Err(e) => assert!(Instant::now() < until, "{e}"),
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        })
        .join()
        .unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().ok();
    }
}

/// A directory for a checkpoint, removed at the end.
struct Checkpoint {
    dir: tempfile::TempDir,
}

impl Checkpoint {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/run/reprise-unit").unwrap();
        fs::create_dir(dir.path().join("images")).unwrap();
        Self { dir }
    }

    fn of(case: &mut Case, pid: i32) -> Self {
        let checkpoint = Self::new();
        checkpoint
            .dump(case, pid, |_| {})
            .unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
        checkpoint
    }

    fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    fn layer(&self) -> PathBuf {
        self.dir.path().join("layer")
    }

    fn dump(&self, case: &mut Case, pid: i32, change: impl FnOnce(&mut Dump)) -> Result<Dumped> {
        let mut dump = Dump {
            namespace: "unit".to_owned(),
            id: case.id.clone(),
            pid,
            bundle: case.dir.join("bundle"),
            state_root: case.dir.join("states"),
            images: self.images(),
            work_path: None,
            criu: criu_config(self.dir.path()),
            exit: false,
            open_tcp: false,
            external_unix_sockets: true,
            file_locks: true,
            copies: vec![DiffCopy {
                from: case.dir.join("upper"),
                to: self.layer(),
            }],
        };
        change(&mut dump);
        case.worker().dump(dump)
    }

    fn restore(&self) -> Restore {
        let layers = if self.layer().exists() {
            vec![self.layer()]
        } else {
            Vec::new()
        };
        Restore {
            images: self.images(),
            layers,
        }
    }
}

fn criu_config(work_root: &Path) -> CriuConfig {
    CriuConfig {
        path: "criu".into(),
        work_root: work_root.to_owned(),
        timeout_ms: 10_000,
    }
}

/// The lines that a container writes, with a time limit.
struct Lines(mpsc::Receiver<String>);

impl Lines {
    fn of(fd: OwnedFd) -> Self {
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(File::from(fd)).lines() {
                let Ok(line) = line else { break };
                if send.send(line.trim_end().to_owned()).is_err() {
                    break;
                }
            }
        });
        Self(receive)
    }

    fn next(&self) -> String {
        self.0
            .recv_timeout(Duration::from_secs(5))
            .expect("the container says nothing")
    }

    /// Whether there is a next line; not when the program has ended. One that
    /// stands still is an error.
    fn go_on(&self) -> bool {
        match self.0.recv_timeout(Duration::from_secs(5)) {
            Ok(_) => true,
            Err(mpsc::RecvTimeoutError::Disconnected) => false,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the container stands still"),
        }
    }

    fn next_count(&self) -> (u32, String) {
        let line = self.next();
        let (number, host) = line.split_once(' ').unwrap_or((&line, ""));
        (number.parse().unwrap(), host.to_owned())
    }

    fn drain(&self) {
        while self.0.try_recv().is_ok() {}
    }
}

type Attempt = (Worker, Result<Prepared>, OwnedFd);

fn try_restore(case: &mut Case, from: Restore, config: Option<CriuConfig>) -> Attempt {
    let (out, theirs) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let stdio = Stdio {
        stdin: None,
        stderr: (!case.terminal).then(|| theirs.try_clone().unwrap()),
        stdout: (!case.terminal).then_some(theirs),
    };
    let mut request = case.create_request();
    request.criu = config.unwrap_or_else(|| criu_config(&case.dir));
    request.restore = Some(from);
    let mut worker = case.worker();
    let prepared = worker.prepare(request, stdio);
    (worker, prepared, out)
}

fn restore(case: &mut Case, from: &Checkpoint) -> (i32, Lines) {
    let (worker, prepared, out) = try_restore(case, from.restore(), None);
    let prepared = prepared.unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
    worker
        .start()
        .unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
    (prepared.pid, Lines::of(out))
}

fn finish(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!(exit_code(pid), 137);
}

/// Nothing of a failed restore is left, and a cold start works.
fn assert_restartable(case: &mut Case) {
    case.assert_clean();
    assert_eq!(fs::read_dir(case.dir.join("upper")).unwrap().count(), 0);
    for entry in fs::read_dir(&case.dir).unwrap().flatten() {
        let log = fs::read_to_string(entry.path().join("criu.log")).unwrap_or_default();
        for (at, _) in log.match_indices("/tmp/.criu.mntns.") {
            let yard = &log[at..at + "/tmp/.criu.mntns.XXXXXX".len()];
            assert!(!Path::new(yard).exists(), "left: {yard}");
        }
    }
    case.set("/process/args", json!(["true"]));
    assert_eq!(case.run().0, 0);
}

fn it_goes_on_in_another_pod() {
    let (old, new) = (Pod::new("old"), Pod::new("new"));
    let mut case = old.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let lines = Lines::of(output.stdout);
    let seen = (0..5).map(|_| lines.next_count()).next_back().unwrap();
    assert_eq!(seen.1, "old");
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    lines.drain();
    let later = lines.next_count();
    assert!(later.0 > seen.0, "the original stands still");

    let mut copy = new.case(&["sh", "-c", COUNT]);
    let (pid, lines) = restore(&mut copy, &checkpoint);
    let first = lines.next_count();
    assert!(first.0 > seen.0 && first.0 <= later.0, "{first:?} {seen:?}");
    assert!((0..5).any(|_| lines.next_count().1 == "new"));
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(
        cgroup.lines().all(|line| line.ends_with(&copy.id)),
        "{cgroup}"
    );
    let process = copy.process(&["sh", "-c", "cat /proc/sys/kernel/hostname /proc/1/fd/8; cat /sys/fs/cgroup/memory/memory.limit_in_bytes"]);
    assert_eq!(copy.exec(process), (0, "new\nkept\n268435456\n".to_owned()));
    finish(pid);
    finish(output.pid);
}

/// Of a container that had streams, as one whose output nobody wants.
fn it_goes_on_without_standard_streams() {
    let pod = Pod::new("pod");
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);
    let mut copy = pod.case(&["sh", "-c", COUNT]);
    let mut request = copy.create_request();
    request.criu = criu_config(&copy.dir);
    request.restore = Some(checkpoint.restore());
    let mut worker = copy.worker();
    let nothing = Stdio {
        stdin: None,
        stdout: None,
        stderr: None,
    };
    let prepared = worker.prepare(request, nothing);
    let prepared = prepared.unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
    worker.start().unwrap();
    for fd in 1..3 {
        let path = format!("/proc/{}/fd/{fd}", prepared.pid);
        assert_eq!(fs::read_link(path).unwrap(), Path::new("/dev/null"), "{fd}");
    }
    finish(prepared.pid);
}

fn it_keeps_a_cgroup_namespace() {
    let pod = Pod::new("pod");
    let add = |case: &mut Case| {
        let all = case.spec["linux"]["namespaces"].as_array_mut().unwrap();
        all.push(json!({"type": "cgroup"}));
    };
    let mut case = pod.case(&["sh", "-c", COUNT]);
    add(&mut case);
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);
    let mut copy = pod.case(&["sh", "-c", COUNT]);
    add(&mut copy);
    let (pid, lines) = restore(&mut copy, &checkpoint);
    lines.next_count();
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/cgroup")).unwrap();
    assert_ne!(namespace(&pid.to_string()), namespace("self"));
    // Its own cgroup is the root of what it sees, and an exec sees the same.
    let process = copy.process(&["busybox", "cat", "/proc/1/cgroup", "/proc/self/cgroup"]);
    let (code, seen) = copy.exec(process);
    assert_eq!(code, 0);
    assert!(seen.lines().all(|line| line.ends_with(":/")), "{seen}");
    let limit = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
    if Path::new(limit).exists() {
        let process = copy.process(&["busybox", "cat", limit]);
        assert_eq!(copy.exec(process), (0, "268435456\n".to_owned()));
    }
    finish(pid);
}

fn restored_again() {
    let pod = Pod::new("pod");
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let first = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);
    let mut second = pod.case(&["sh", "-c", COUNT]);
    let (pid, lines) = restore(&mut second, &first);
    let seen = lines.next_count().0;
    let again = Checkpoint::of(&mut second, pid);
    finish(pid);
    let mut third = pod.case(&["sh", "-c", COUNT]);
    let mut from = again.restore();
    from.layers.push(first.layer());
    let (worker, prepared, out) = try_restore(&mut third, from, None);
    let pid = prepared.unwrap().pid;
    worker.start().unwrap();
    assert!(Lines::of(out).next_count().0 >= seen);
    finish(pid);
}

fn freezer(case: &Case) -> PathBuf {
    PathBuf::from(format!(
        "/sys/fs/cgroup/freezer/reprise-unit-{}/freezer.state",
        case.id
    ))
}

fn a_paused_container_stays_paused() {
    let pod = Pod::new("pod");
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let lines = Lines::of(output.stdout);
    lines.next();
    if !Path::new("/sys/fs/cgroup/freezer").exists() {
        finish(output.pid);
        return;
    }
    fs::write(freezer(&case), "FROZEN").unwrap();
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    support::eventually(|| fs::read_to_string(freezer(&case)).unwrap() == "FROZEN\n");
    fs::write(freezer(&case), "THAWED").unwrap();
    lines.drain();
    lines.next();
    finish(output.pid);
    let mut copy = pod.case(&["sh", "-c", COUNT]);
    let (pid, lines) = restore(&mut copy, &checkpoint);
    lines.next();
    finish(pid);
}

fn exit_ends_the_original() {
    let pod = Pod::new("pod");
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let checkpoint = Checkpoint::new();
    checkpoint
        .dump(&mut case, output.pid, |dump| dump.exit = true)
        .unwrap();
    assert_eq!(exit_code(output.pid), 137);
}

fn open_connections_are_kept_by_the_original() {
    let (old, new) = (Pod::new("old"), Pod::new("new"));
    let server = ["busybox", "nc", "-ll", "-p", "8080", "-e", "cat"];
    let mut case = old.case(&server);
    let output = case.start();
    let mut client = old.connect(8080);
    let mut echo = |text: &[u8]| {
        let mut answer = vec![0; text.len()];
        client.write_all(text).unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, text);
    };
    echo(b"before");
    for open_tcp in [false, true] {
        let checkpoint = Checkpoint::new();
        let dumped = checkpoint.dump(&mut case, output.pid, |dump| dump.open_tcp = open_tcp);
        dumped.unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
        echo(b"after");
        let mut copy = new.case(&server);
        let (pid, _lines) = restore(&mut copy, &checkpoint);
        let mut other = new.connect(8080);
        other.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        other.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        echo(b"still");
        finish(pid);
    }
    finish(output.pid);
}

fn a_terminal() {
    let pod = Pod::new("pod");
    let script = [
        "sh",
        "-c",
        "stty -echo; echo ready; while read x; do echo got $x; done",
    ];
    let mut case = pod.case(&script);
    case.terminal = true;
    case.set("/process/terminal", json!(true));
    let (worker, prepared, _) = case.prepare();
    let prepared = prepared.unwrap();
    worker.start().unwrap();
    let master = prepared.console.unwrap();
    let lines = Lines::of(master.try_clone().unwrap());
    assert_eq!(lines.next(), "ready");
    let checkpoint = Checkpoint::of(&mut case, prepared.pid);
    File::from(master).write_all(b"one\n").unwrap();
    assert_eq!(lines.next(), "got one");

    let mut copy = pod.case(&script);
    copy.terminal = true;
    copy.set("/process/terminal", json!(true));
    let (worker, restored, _) = try_restore(&mut copy, checkpoint.restore(), None);
    let restored = restored.unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
    worker.start().unwrap();
    let master = restored.console.expect("no console");
    let lines = Lines::of(master.try_clone().unwrap());
    File::from(master).write_all(b"two\n").unwrap();
    assert_eq!(lines.next(), "got two");
    finish(restored.pid);
    finish(prepared.pid);
}

fn bind(case: &mut Case, at: &str, source: &Path, options: &[&str]) {
    let mounts = case.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != at);
    mounts.push(json!({"destination": at, "type": "bind", "source": source, "options": options}));
}

fn binds_and_shared_memory() {
    let pod = Pod::new("pod");
    let script = "echo mine >/dev/shm/own; exec 7</dev/shm/own; echo ready; \
        while :; do cat /etc/hosts /var/run/secrets/token /dev/shm/own; busybox usleep 20000; done";
    let make = |word: &str| {
        let mut case = pod.case(&["sh", "-c", script]);
        std::os::unix::fs::symlink("/run", case.dir.join("image/var-run")).unwrap();
        fs::create_dir_all(case.dir.join("image/var")).unwrap();
        fs::create_dir_all(case.dir.join("image/run")).unwrap();
        std::os::unix::fs::symlink("../run", case.dir.join("image/var/run")).unwrap();
        let at = |name: &str| case.dir.join(name);
        for dir in ["secrets", "shm"] {
            fs::create_dir(at(dir)).unwrap();
        }
        fs::write(at("hosts"), format!("hosts {word}\n")).unwrap();
        fs::write(at("secrets/token"), format!("token {word}\n")).unwrap();
        let (hosts, secrets, shm) = (at("hosts"), at("secrets"), at("shm"));
        bind(
            &mut case,
            "/etc/hosts",
            &hosts,
            &["rbind", "rprivate", "rw"],
        );
        bind(
            &mut case,
            "/var/run/secrets",
            &secrets,
            &["rbind", "rprivate", "ro"],
        );
        bind(&mut case, "/dev/shm", &shm, &["rbind", "rprivate", "rw"]);
        case
    };
    let mut case = make("old");
    let output = case.start();
    let lines = Lines::of(output.stdout);
    assert_eq!([lines.next(), lines.next()], ["ready", "hosts old"]);
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);
    let mut copy = make("new");
    let (pid, lines) = restore(&mut copy, &checkpoint);
    let words: Vec<String> = (0..9).map(|_| lines.next()).collect();
    for word in ["hosts new", "token new", "mine"] {
        assert!(words.iter().any(|have| have == word), "{words:?}");
    }
    // A read-only mount that the image has writable is refused.
    let mut other = make("other");
    let hosts = other.dir.join("hosts");
    bind(
        &mut other,
        "/etc/hosts",
        &hosts,
        &["rbind", "rprivate", "ro"],
    );
    let (_, refused, _) = try_restore(&mut other, checkpoint.restore(), None);
    let error = refused.unwrap_err();
    assert!(
        error.message.contains("the mount at /etc/hosts is not ro"),
        "{error}"
    );
    assert_eq!(fs::read_dir(other.dir.join("shm")).unwrap().count(), 0);
    finish(pid);
}

fn processes_of_an_exec_are_left_alone() {
    let pod = Pod::new("pod");
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let process = case.process(&["sleep", "1000"]);
    let (started, _out) = case.try_exec(process);
    let exec = started.unwrap().pid;
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    support::eventually(|| {
        let state = fs::read_to_string(format!("/proc/{exec}/status")).unwrap();
        state.contains("State:\tS")
    });
    let mut copy = pod.case(&["sh", "-c", COUNT]);
    let (pid, lines) = restore(&mut copy, &checkpoint);
    lines.next();
    finish(pid);
    finish(exec);
    finish(output.pid);
}

fn a_user() {
    let preload = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/tools/lib/criu-rlimit-preload.so"
    );
    let pod = Pod::new("pod");
    let user = json!({"uid": 1000, "gid": 1001, "additionalGids": [7]});
    let script = "i=0; while :; do i=$((i+1)); echo $i; busybox usleep 20000; done";
    let make = || {
        let mut case = pod.case(&["sh", "-c", script]);
        case.set("/process/user", user.clone());
        case
    };
    let mut case = make();
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let checkpoint = Checkpoint::new();
    let wrapper = wrapper(&case, &format!("LD_PRELOAD={preload} exec criu \"$@\""));
    let dumped = checkpoint.dump(&mut case, output.pid, |dump| dump.criu.path = wrapper);
    dumped.unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
    finish(output.pid);
    let mut copy = make();
    let (pid, lines) = restore(&mut copy, &checkpoint);
    lines.next();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(
        status.contains("Uid:\t1000\t1000") && status.contains("Gid:\t1001"),
        "{status}"
    );
    finish(pid);
    let mut other = make();
    other.set(
        "/process/user",
        json!({"uid": 1001, "gid": 1001, "additionalGids": [7]}),
    );
    let (_, refused, _) = try_restore(&mut other, checkpoint.restore(), None);
    let error = refused.unwrap_err();
    assert!(error.message.contains("it runs as user [1000"), "{error}");
}

fn seccomp_comes_back() {
    let pod = Pod::new("pod");
    let make = |with: bool| {
        let mut case = pod.case(&["sh", "-c", COUNT]);
        if with {
            case.set("/linux/seccomp", support::no_mkdir());
        }
        case
    };
    let mut case = make(true);
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let filtered = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);
    let mut copy = make(true);
    let (pid, lines) = restore(&mut copy, &filtered);
    lines.next();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
    finish(pid);

    let mut case = make(false);
    let output = case.start();
    let _lines = Lines::of(output.stdout);
    let free = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);
    let mut copy = make(true);
    let (_, refused, _) = try_restore(&mut copy, free.restore(), None);
    let error = refused.unwrap_err();
    assert!(error.message.contains("no seccomp filter"), "{error}");
    assert_restartable(&mut copy);
}

/// A checkpoint of a counting container that is gone.
fn counting(pod: &Pod) -> Checkpoint {
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let lines = Lines::of(output.stdout);
    lines.next();
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);
    checkpoint
}

fn damaged_images() {
    let pod = Pod::new("pod");
    type Damage = fn(&Path);
    let garbage: Damage = |file| {
        let length = usize::try_from(fs::metadata(file).unwrap().len()).unwrap();
        fs::write(file, vec![0xa5; length]).unwrap();
    };
    let damages: [(&str, Damage); 13] = [
        ("core-1.img", garbage),
        ("mm-1.img", garbage),
        ("inventory.img", garbage),
        ("files.img", garbage),
        ("pstree.img", garbage),
        ("pagemap-1.img", garbage),
        ("pages-1.img", |file| {
            File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(100)
                .unwrap();
        }),
        ("core-1.img", |file| fs::write(file, "garbage").unwrap()),
        ("mm-1.img", |file| fs::remove_file(file).unwrap()),
        ("inventory.img", |file| fs::write(file, "").unwrap()),
        ("files.img", |file| {
            File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(40)
                .unwrap();
        }),
        ("reprise.json", |file| {
            fs::write(file, "{\"version\":99}").unwrap();
        }),
        ("descriptors.json", |file| fs::remove_file(file).unwrap()),
    ];
    for (name, damage) in damages {
        let checkpoint = counting(&pod);
        damage(&checkpoint.images().join(name));
        let mut case = pod.case(&["sh", "-c", COUNT]);
        let begin = Instant::now();
        let (worker, refused, _) = try_restore(&mut case, checkpoint.restore(), None);
        let error = refused.expect_err(name);
        println!("  {name}: {error} ({} ms)", begin.elapsed().as_millis());
        assert!(begin.elapsed() < Duration::from_secs(5));
        drop(worker);
        assert_restartable(&mut case);
    }
}

fn wrapper(case: &Case, line: &str) -> PathBuf {
    let path = case.dir.join(format!("criu-{}", line.len()));
    fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn criu_that_cannot_be_used() {
    let pod = Pod::new("pod");
    let checkpoint = counting(&pod);
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let plain = case.dir.join("plain");
    fs::write(&plain, "").unwrap();
    let old = "exec python3 -c 'import socket,sys\ns=socket.socket(fileno=int(sys.argv[2]))\n\
        s.recv(9999)\ns.send(bytes([8,7,16,1,82,4,8,3,16,18]))\ns.recv(9999)' \"$@\"";
    let cases = [
        (
            PathBuf::from("/nowhere/criu"),
            "There is no /nowhere/criu; install",
        ),
        (
            PathBuf::from("no-such-criu"),
            "No `no-such-criu` on PATH; install",
        ),
        (plain, "is not executable; chmod it"),
        (
            wrapper(&case, "exit 3"),
            "criu ended early (exit status: 3)",
        ),
        (wrapper(&case, old), "is CRIU 3.18, and 4.1 is the oldest"),
    ];
    for (path, expected) in cases {
        let config = CriuConfig {
            path,
            ..criu_config(&case.dir)
        };
        let (_, refused, _) = try_restore(&mut case, checkpoint.restore(), Some(config));
        let error = refused.unwrap_err();
        println!("  {error}");
        assert!(error.message.contains(expected), "{error}");
        case.assert_clean();
    }
    assert_restartable(&mut case);
}

fn criu_killed_while_restoring() {
    let pod = Pod::new("pod");
    let checkpoint = counting(&pod);
    let mut failures = 0;
    for ms in (4..40).step_by(3) {
        let mut case = pod.case(&["sh", "-c", COUNT]);
        let line = format!(
            "echo $$ >\"$(dirname $0)/criu.pid\"; (sleep 0.0{ms:02}; kill -9 $$) & exec criu \"$@\""
        );
        let config = CriuConfig {
            path: wrapper(&case, &line),
            ..criu_config(&case.dir)
        };
        let (worker, prepared, _) = try_restore(&mut case, checkpoint.restore(), Some(config));
        match prepared {
            Err(error) => {
                println!("  after {ms} ms: {error}");
                failures += 1;
            }
            Ok(_) => {
                support::eventually(|| is_over(&criu_pid(&case)));
                worker.start().unwrap_err();
            }
        }
        support::eventually(|| !is_criu_left());
        assert_restartable(&mut case);
    }
    assert!(failures > 0);
    // And while it holds the tree, which runs then, but not for long.
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let path = wrapper(
        &case,
        "echo $$ >\"$(dirname $0)/criu.pid\"; exec criu \"$@\"",
    );
    let config = CriuConfig {
        path,
        ..criu_config(&case.dir)
    };
    let (worker, prepared, _) = try_restore(&mut case, checkpoint.restore(), Some(config));
    prepared.unwrap();
    kill(
        Pid::from_raw(criu_pid(&case).parse().unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    println!("  while held: {}", worker.start().unwrap_err());
    assert_restartable(&mut case);
}

/// What the wrapper of a case's criu has noted.
fn criu_pid(case: &Case) -> String {
    let text = fs::read_to_string(case.dir.join("criu.pid")).unwrap();
    text.trim().to_owned()
}

/// Whether a process has ended, be it that nobody has asked for its end yet.
fn is_over(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
}

/// Whether a child of criu's outlived it. We are the subreaper, so it is ours now.
fn is_criu_left() -> bool {
    let mine = format!("PPid:\t{}\n", std::process::id());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read_to_string(process.path().join("status")).ok())
        .filter(|status| !status.contains("State:\tZ"))
        .any(|status| status.starts_with("Name:\tcriu\n") && status.contains(&mine))
}

fn criu_killed_while_dumping() {
    let pod = Pod::new("pod");
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let lines = Lines::of(output.stdout);
    lines.next();
    for ms in (2..40).step_by(3) {
        let checkpoint = Checkpoint::new();
        let path = wrapper(
            &case,
            &format!("(sleep 0.0{ms:02}; kill -9 $$) & exec criu \"$@\""),
        );
        let dumped = checkpoint.dump(&mut case, output.pid, |dump| dump.criu.path = path);
        if let Err(error) = dumped {
            println!("  after {ms} ms: {error}");
            assert_eq!(fs::read_dir(checkpoint.images()).unwrap().count(), 0);
            assert!(!checkpoint.layer().exists());
        }
        support::eventually(|| !is_criu_left());
        lines.drain();
        if !lines.go_on() {
            // Hit while CRIU sat in the program itself; docs/operations.md says so.
            println!("  after {ms} ms: the program ended with it");
            return;
        }
    }
    finish(output.pid);
}

fn given_up_before_start() {
    let pod = Pod::new("pod");
    let checkpoint = counting(&pod);
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let (worker, prepared, _) = try_restore(&mut case, checkpoint.restore(), None);
    let pid = prepared.unwrap().pid;
    drop(worker);
    support::eventually(|| !Path::new(&format!("/proc/{pid}")).exists());
    let state = case.dir.join("states").join(format!(".{}", case.id));
    support::eventually(|| !state.exists());
    let group = format!("/sys/fs/cgroup/memory/reprise-unit-{}", case.id);
    support::eventually(|| !Path::new(&group).exists());
    std::thread::sleep(Duration::from_millis(100));
    assert_restartable(&mut case);
}

fn more_than_the_spec_allows() {
    let pod = Pod::new("pod");
    let checkpoint = counting(&pod);
    let fewer = json!(["CAP_CHOWN", "CAP_SETUID"]);
    let changes = [
        (
            "/process/capabilities",
            json!({"bounding": fewer, "effective": fewer, "permitted": fewer}),
            "CapBnd",
        ),
        ("/root/readonly", json!(true), "the mount at / is writable"),
        (
            "/linux/maskedPaths",
            json!([
                "/proc/kcore",
                "/proc/keys",
                "/sys/firmware",
                "/proc/timer_list"
            ]),
            "not covered",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}]),
            "shares its pid namespace",
        ),
    ];
    for (pointer, value, expected) in changes {
        let mut case = pod.case(&["sh", "-c", COUNT]);
        case.set(pointer, value);
        let (_, refused, _) = try_restore(&mut case, checkpoint.restore(), None);
        let error = refused.expect_err(pointer);
        println!("  {error}");
        assert!(error.message.contains(expected), "{error}");
        case.assert_clean();
    }
}

fn ten_at_once() {
    let checkpoint = counting(&Pod::new("pod"));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for n in 0..10 {
            let checkpoint = &checkpoint;
            scope.spawn(move || {
                let pod = Pod::new(&format!("pod{n}"));
                let mut case = pod.case(&["sh", "-c", COUNT]);
                let (pid, lines) = restore(&mut case, checkpoint);
                assert!((0..5).any(|_| lines.next_count().1 == format!("pod{n}")));
                finish(pid);
            });
        }
    });
    println!("  {} ms with pods and removal", begin.elapsed().as_millis());
}

fn how_long_it_takes() {
    let pod = Pod::new("pod");
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let lines = Lines::of(output.stdout);
    lines.next();
    let checkpoint = Checkpoint::new();
    let dumped = checkpoint.dump(&mut case, output.pid, |_| {}).unwrap();
    println!(
        "  dump: frozen {} us, {} bytes, {} of memory",
        dumped.frozen_us, dumped.image_bytes, dumped.memory_bytes
    );
    for timing in dumped.timings {
        println!("    {:20} {:6} us", timing.step, timing.us);
    }
    finish(output.pid);
    let mut all = Vec::new();
    for n in 0..10 {
        let mut copy = pod.case(&["sh", "-c", COUNT]);
        let begin = Instant::now();
        // As the shim does.
        std::thread::spawn(reprise_runtime::cgroup::prewarm);
        let (worker, prepared, out) = try_restore(&mut copy, checkpoint.restore(), None);
        let prepared = prepared.unwrap();
        let created = begin.elapsed();
        worker.start().unwrap();
        all.push(begin.elapsed().as_micros());
        Lines::of(out).next();
        if n == 9 {
            println!(
                "  restore: created after {} us, start answered after {} us",
                created.as_micros(),
                all[9]
            );
            for timing in prepared.timings {
                println!("    {:20} {:6} us", timing.step, timing.us);
            }
        }
        finish(prepared.pid);
    }
    all.sort_unstable();
    println!("  median {} us of {all:?}", all[all.len() / 2]);
}

/// Python and Java with heaps and threads, from the node's own files.
fn large_programs() {
    const JAVA: &str = "import java.util.*; public class Beat { public static void main(String[] a) \
        throws Exception { var heap = new ArrayList<byte[]>(); for (int i = 0; i < 64; i++) heap.add(new byte[1 << 20]); \
        for (int i = 0; ; i++) { for (var b : heap) b[i % b.length] = 1; System.out.println(i + \" \" + heap.size()); Thread.sleep(20); } } }";
    let python = "import time\nx = [bytes([i]) * 1048576 for i in range(100)]\ni = 0\n\
        while True:\n    i += 1; print(i, len(x), flush=True); time.sleep(0.02)";
    let pod = Pod::new("pod");
    let programs: [&[&str]; 2] = [
        &["/usr/bin/python3", "-c", python],
        &[
            "java",
            "-Xint",
            "-XX:-UsePerfData",
            "-cp",
            "/classes",
            "Beat",
        ],
    ];
    let classes = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::create_dir(classes.path().join("classes")).unwrap();
    fs::write(classes.path().join("classes/Beat.java"), JAVA).unwrap();
    let mut javac = std::process::Command::new("javac");
    let with_java = javac
        .arg(classes.path().join("classes/Beat.java"))
        .status()
        .is_ok_and(|s| s.success());
    for args in programs {
        if args[0] == "java" && !with_java || args[0] != "java" && !Path::new(args[0]).exists() {
            println!("  {}: not on this machine", args[0]);
            continue;
        }
        let make = || {
            let mut case = pod.case(args);
            case.set("/process/env", json!(["PATH=/usr/bin:/bin", "HOME=/"]));
            case.set("/linux/resources/memory/limit", json!(1 << 30));
            for dir in ["lib", "lib64"] {
                std::os::unix::fs::symlink(format!("usr/{dir}"), case.dir.join("image").join(dir))
                    .unwrap();
            }
            for dir in ["/usr", "/etc"] {
                bind(&mut case, dir, Path::new(dir), &["rbind", "rprivate", "ro"]);
            }
            bind(
                &mut case,
                "/classes",
                &classes.path().join("classes"),
                &["rbind", "rprivate", "ro"],
            );
            case
        };
        let mut case = make();
        let output = case.start();
        let errors = output.stderr;
        std::thread::spawn(move || std::io::copy(&mut File::from(errors), &mut std::io::stdout()));
        let lines = Lines::of(output.stdout);
        let seen = (0..5).map(|_| lines.next_count().0).next_back().unwrap();
        let checkpoint = Checkpoint::new();
        let dumped = checkpoint.dump(&mut case, output.pid, |_| {});
        let dumped = dumped.unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
        lines.drain();
        lines.next();
        finish(output.pid);
        let mut copy = make();
        let begin = Instant::now();
        let (pid, lines) = restore(&mut copy, &checkpoint);
        let started = begin.elapsed();
        assert!(lines.next_count().0 >= seen);
        println!(
            "  {}: frozen {} ms, {} MB, restored in {} ms",
            args[0],
            dumped.frozen_us / 1000,
            dumped.memory_bytes >> 20,
            started.as_millis()
        );
        finish(pid);
    }
}
