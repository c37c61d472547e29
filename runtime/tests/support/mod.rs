//! A bundle from Debian's busybox, and a way to run it through the worker.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::needless_pass_by_value,
    reason = "shared by test binaries that each use some of it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use reprise_runtime::rootfs::RootfsMount;
use reprise_runtime::worker::{Create, CriuConfig, Exec, Prepared, Remove, Started, Stdio, Worker};
use serde_json::{Value, json};

pub mod compare;
pub mod runc;
pub mod yardstick;

/// A test program of these tests, findable by name; `apart` is done before any.
macro_rules! tests {
    (apart by $apart:path: $($name:ident),* $(,)?) => {
        fn main() -> std::process::ExitCode {
            support::main(&[$((stringify!($name), $name)),*], $apart)
        }
    };
    ($($name:ident),* $(,)?) => {
        support::tests![apart by support::among_others: $($name),*];
    };
}
pub(crate) use tests;

/// Beside other tests, in the node's mount namespace.
pub fn among_others() {}

/// What cargo runs, and what the worker processes of the tests run.
pub fn main(tests: &[(&'static str, fn())], apart: fn()) -> ExitCode {
    if std::env::args().nth(1).is_some_and(|arg| arg == "worker") {
        return ExitCode::from(reprise_runtime::worker::run_child());
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("these tests make containers and need root");
        return ExitCode::FAILURE;
    }
    apart();
    // As the shim: orphans, and so containers, become our children.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let mut options = Arguments::from_args();
    // Each reaps what is there.
    options.test_threads = Some(1);
    let run = |test: fn()| {
        move || {
            test();
            Ok(())
        }
    };
    let trials = tests
        .iter()
        .map(|(name, test)| Trial::test(*name, run(*test)));
    libtest_mimic::run(&options, trials.collect()).exit_code()
}

/// Where the bundles of these tests are.
const UNIT: &str = "/run/reprise-unit";

/// Leaves for a mount namespace of our own, with a place for bundles that no other
/// test shares.
pub fn stand_apart() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
    // Other tests' mounts came along, and would vanish when their directories do.
    for line in text_of("/proc/self/mountinfo").lines() {
        let place = line.split(' ').nth(4).unwrap_or_default();
        if place.starts_with(UNIT) {
            umount2(place, MntFlags::MNT_DETACH).ok();
        }
    }
    fs::create_dir_all(UNIT).unwrap();
    let mode = Some("mode=755");
    mount(Some("tmpfs"), UNIT, Some("tmpfs"), MsFlags::empty(), mode).unwrap();
}

pub const DEADLINE: Duration = Duration::from_secs(20);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One container's surroundings; removed, and checked to be clean, when dropped.
pub struct Case {
    pub dir: PathBuf,
    pub id: String,
    pub spec: Value,
    pub terminal: bool,
    /// More image layers, uppermost first.
    pub lower: Vec<String>,
    /// More options of the overlay.
    pub rootfs_options: Vec<String>,
    /// What workers are started from.
    pub exe: PathBuf,
    workers: Vec<i32>,
}

pub struct Output {
    pub pid: i32,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

impl Case {
    pub fn new(args: &[&str]) -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("c{}-{n}", std::process::id());
        let dir = PathBuf::from(format!("/run/reprise-unit/{id}"));
        for sub in ["bundle", "image", "upper", "work", "states"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        image(&dir.join("image"));
        let spec = spec(&id, args);
        Self {
            dir,
            id,
            spec,
            terminal: false,
            lower: Vec::new(),
            rootfs_options: Vec::new(),
            exe: PathBuf::from("/proc/self/exe"),
            workers: Vec::new(),
        }
    }

    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        self.spec.pointer_mut(parent).unwrap()[key] = value;
        self
    }

    pub fn worker(&mut self) -> Worker {
        let worker = Worker::spawn_from(&self.exe, DEADLINE).unwrap();
        self.workers.push(worker.pid());
        worker
    }

    pub fn create_request(&self) -> Create {
        let bundle = self.dir.join("bundle");
        fs::write(bundle.join("config.json"), self.spec.to_string()).unwrap();
        let mut lower = self.lower.clone();
        lower.push(self.dir.join("image").display().to_string());
        let at = |sub: &str| self.dir.join(sub).display().to_string();
        Create {
            namespace: "unit".to_owned(),
            id: self.id.clone(),
            bundle,
            rootfs: vec![RootfsMount {
                typ: "overlay".to_owned(),
                source: "overlay".to_owned(),
                target: String::new(),
                options: [
                    &self.rootfs_options[..],
                    &[
                        "index=off".to_owned(),
                        format!("workdir={}", at("work")),
                        format!("upperdir={}", at("upper")),
                        format!("lowerdir={}", lower.join(":")),
                    ],
                ]
                .concat(),
            }],
            terminal: self.terminal,
            state_root: self.dir.join("states"),
            restore: None,
            criu: CriuConfig {
                path: "criu".into(),
                work_root: self.dir.clone(),
                timeout_ms: 1000,
            },
            no_pivot_root: false,
        }
    }

    pub fn prepare(&mut self) -> (Worker, reprise_runtime::Result<Prepared>, [OwnedFd; 2]) {
        let (out, out_w) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let (err, err_w) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let stdio = Stdio {
            stdin: None,
            stdout: (!self.terminal).then_some(out_w),
            stderr: (!self.terminal).then_some(err_w),
        };
        let mut worker = self.worker();
        let prepared = worker.prepare(self.create_request(), stdio);
        (worker, prepared, [out, err])
    }

    /// Creates and starts.
    pub fn start(&mut self) -> Output {
        let (worker, prepared, [stdout, stderr]) = self.prepare();
        let pid = prepared
            .unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail))
            .pid;
        worker
            .start()
            .unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
        Output {
            pid,
            stdout,
            stderr,
        }
    }

    /// Creates, starts, waits: exit code and standard output.
    pub fn run(&mut self) -> (i32, String) {
        let output = self.start();
        let out = text(output.stdout);
        let err = text(output.stderr);
        (exit_code(output.pid), out + &err)
    }

    pub fn exec_request(&self, process: Value) -> Exec {
        Exec {
            namespace: "unit".to_owned(),
            id: self.id.clone(),
            exec_id: format!("e{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            bundle: self.dir.join("bundle"),
            state_root: self.dir.join("states"),
            process: reprise_runtime::worker::load_process(process.to_string().as_bytes()).unwrap(),
        }
    }

    pub fn try_exec(&mut self, process: Value) -> (reprise_runtime::Result<Started>, OwnedFd) {
        let (out, out_w) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let stdio = Stdio {
            stdin: None,
            stderr: Some(out_w.try_clone().unwrap()),
            stdout: Some(out_w),
        };
        let request = self.exec_request(process);
        (self.worker().exec(request, stdio), out)
    }

    pub fn exec(&mut self, process: Value) -> (i32, String) {
        let (started, out) = self.try_exec(process);
        let started = started.unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
        let out = text(out);
        (exit_code(started.pid), out)
    }

    /// The container's process with other arguments.
    pub fn process(&self, args: &[&str]) -> Value {
        let mut process = self.spec["process"].clone();
        process["args"] = json!(args);
        process
    }

    pub fn remove(&mut self) {
        let remove = Remove {
            namespace: "unit".to_owned(),
            id: self.id.clone(),
            bundle: self.dir.join("bundle"),
            state_root: self.dir.join("states"),
            criu_work: self.dir.join("criu"),
        };
        self.worker()
            .remove(remove)
            .unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
    }

    /// Waits for the workers so far: they end by themselves.
    pub fn reap_workers(&mut self) {
        for worker in self.workers.drain(..) {
            wait_within(worker, Duration::from_secs(5));
        }
    }

    /// Fails when anything of the container is left.
    pub fn assert_clean(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.dir.to_str().unwrap();
        assert!(!mounts.contains(here), "mounts left: {mounts}");
        let states: Vec<_> = fs::read_dir(self.dir.join("states")).unwrap().collect();
        assert!(states.is_empty(), "files left: {states:?}");
        let group = format!("reprise-unit-{}", self.id);
        for controller in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let path = controller.unwrap().path().join(&group);
            assert!(!path.exists(), "cgroup left: {}", path.display());
        }
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left as it is: {}", self.dir.display());
            return;
        }
        self.remove();
        self.remove();
        self.assert_clean();
        self.reap_workers();
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// busybox with a link for every applet, a user table, the usual directories.
fn image(dir: &Path) {
    for sub in ["bin", "etc", "proc", "sys", "dev", "tmp", "home/user"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("these tests need Debian's package busybox-static");
    fs::copy(busybox, dir.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "cat", "id", "sleep", "true", "false", "echo", "ls", "grep", "pwd", "env", "tty",
        "touch", "mkdir", "kill", "stat", "head", "chmod", "test", "printf", "awk", "readlink",
        "stty", "rm",
    ] {
        symlink("busybox", dir.join("bin").join(applet)).unwrap();
    }
    let users = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
    fs::write(dir.join("etc/passwd"), users).unwrap();
    fs::write(dir.join("etc/plain"), "no program").unwrap();
    fs::write(dir.join("etc/garbage"), "no program").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.join("etc/garbage"), mode).unwrap();
}

const CAPS: [&str; 4] = [
    "CAP_CHOWN",
    "CAP_KILL",
    "CAP_SETUID",
    "CAP_NET_BIND_SERVICE",
];

fn spec(id: &str, args: &[&str]) -> Value {
    let mount = |at: &str, typ: &str, options: &[&str]| json!({"destination": at, "type": typ, "source": typ, "options": options});
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {"bounding": CAPS, "effective": CAPS, "permitted": CAPS},
        },
        "root": {"path": "rootfs"},
        "hostname": "unit",
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "cgroupsPath": format!("/reprise-unit-{id}"),
            "resources": {"memory": {"limit": 268_435_456}, "cpu": {"shares": 512},
                "devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}, {"type": "network"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/bus"],
        },
    })
}

/// The profile of the tests: everything but mkdir, which says EXDEV.
pub fn no_mkdir() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{"names": ["mkdir", "mkdirat", "no_such_call"],
            "action": "SCMP_ACT_ERRNO", "errnoRet": 18}],
    })
}

pub fn text(fd: OwnedFd) -> String {
    let mut text = String::new();
    // A console whose last process has gone answers EIO.
    fs::File::from(fd).read_to_string(&mut text).ok();
    text
}

/// Reaps a process, as the shim would.
pub fn exit_code(pid: i32) -> i32 {
    wait_within(pid, DEADLINE)
}

static ENDED: Mutex<BTreeMap<i32, i32>> = Mutex::new(BTreeMap::new());

/// Forgets what has ended so far: pids come round again in tests that are long.
pub fn forget_ended() {
    ENDED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .clear();
}

/// Reaps whatever ends, as the shim does: a dead process in a pid namespace that
/// nobody reaps keeps the namespace's init from ending.
fn wait_within(pid: i32, time: Duration) -> i32 {
    try_exit_code(pid, time).unwrap_or_else(|| panic!("process {pid} does not end"))
}

/// As [`exit_code`], or nothing when it does not end in time.
pub fn try_exit_code(pid: i32, time: Duration) -> Option<i32> {
    let end = Instant::now() + time;
    loop {
        let mut ended = ENDED
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended.insert(pid.as_raw(), code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                ended.insert(pid.as_raw(), 128 + signal as i32)
            }
            _ => None,
        };
        if let Some(code) = ended.remove(&pid) {
            return Some(code);
        }
        if Instant::now() > end {
            return None;
        }
        drop(ended);
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Waits until no child is left, and names those that stay, which are killed then.
pub fn reap_all(time: Duration) -> impl Iterator<Item = i32> {
    let end = Instant::now() + time;
    let mut stay = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() > end && stay.is_empty() => {
                let children = "/proc/thread-self/children";
                stay = text_of(children)
                    .split_whitespace()
                    .flat_map(str::parse)
                    .collect();
                for pid in &stay {
                    kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
                }
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_micros(500)),
            Err(_) => return stay.into_iter(),
            Ok(_) => {}
        }
    }
}

fn text_of(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Waits until something is so.
pub fn eventually(so: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < end, "it does not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}
