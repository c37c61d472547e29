//! What the tests stand on: pods, checkpoints, and the lines that a container writes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::{Case, exit_code};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};
use reprise_runtime::Result;
use reprise_runtime::worker::{
    CriuConfig, DiffCopy, Dump, Dumped, Prepared, Restore, Stdio, Worker,
};
use serde_json::json;

/// Counts, tells its host name, and holds files open.
pub(super) const COUNT: &str = "exec 9>/state 8<>/gone; busybox rm /gone; echo kept >&8; i=0; while :; do i=$((i+1)); \
    read h </proc/sys/kernel/hostname; echo $i $h; echo $i >&9; busybox usleep 20000; done";

/// Namespaces like those of a pod's sandbox.
pub(super) struct Pod(Child);

impl Pod {
    pub(super) fn new(name: &str) -> Self {
        let script = format!("busybox hostname {name}; busybox ip link set lo up; exec sleep 1000");
        let mut command = std::process::Command::new("unshare");
        let child = command
            .args(["-n", "-i", "-u", "sh", "-c", &script])
            .spawn()
            .unwrap();
        let comm = format!("/proc/{}/comm", child.id());
        crate::support::eventually(|| fs::read_to_string(&comm).unwrap() == "sleep\n");
        Self(child)
    }

    pub(super) fn ns(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }

    /// A container in this pod.
    pub(super) fn case(&self, args: &[&str]) -> Case {
        let mut case = Case::new(args);
        let namespaces = json!([{"type": "pid"}, {"type": "mount"},
            {"type": "ipc", "path": self.ns("ipc")}, {"type": "uts", "path": self.ns("uts")},
            {"type": "network", "path": self.ns("net")}]);
        case.set("/linux/namespaces", namespaces);
        case.spec.as_object_mut().unwrap().remove("hostname");
        case
    }

    pub(super) fn connect(&self, port: u16) -> TcpStream {
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
pub(super) struct Checkpoint {
    pub(super) dir: tempfile::TempDir,
}

impl Checkpoint {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir_in("/run/reprise-unit").unwrap();
        fs::create_dir(dir.path().join("images")).unwrap();
        Self { dir }
    }

    pub(super) fn of(case: &mut Case, pid: i32) -> Self {
        let checkpoint = Self::new();
        checkpoint
            .dump(case, pid, |_| {})
            .unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
        checkpoint
    }

    pub(super) fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    pub(super) fn layer(&self) -> PathBuf {
        self.dir.path().join("layer")
    }

    pub(super) fn dump(
        &self,
        case: &mut Case,
        pid: i32,
        change: impl FnOnce(&mut Dump),
    ) -> Result<Dumped> {
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

    pub(super) fn restore(&self) -> Restore {
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

pub(super) fn criu_config(work_root: &Path) -> CriuConfig {
    CriuConfig {
        path: "criu".into(),
        work_root: work_root.to_owned(),
        timeout_ms: 10_000,
    }
}

/// The lines that a container writes, with a time limit.
pub(super) struct Lines(mpsc::Receiver<String>);

impl Lines {
    pub(super) fn of(fd: OwnedFd) -> Self {
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

    pub(super) fn next(&self) -> String {
        self.0
            .recv_timeout(Duration::from_secs(5))
            .expect("the container says nothing")
    }

    /// Whether there is a next line; not when the program has ended. One that
    /// stands still is an error.
    pub(super) fn go_on(&self) -> bool {
        match self.0.recv_timeout(Duration::from_secs(5)) {
            Ok(_) => true,
            Err(mpsc::RecvTimeoutError::Disconnected) => false,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the container stands still"),
        }
    }

    pub(super) fn next_count(&self) -> (u32, String) {
        let line = self.next();
        let (number, host) = line.split_once(' ').unwrap_or((&line, ""));
        (number.parse().unwrap(), host.to_owned())
    }

    pub(super) fn drain(&self) {
        while self.0.try_recv().is_ok() {}
    }
}

pub(super) type Attempt = (Worker, Result<Prepared>, OwnedFd);

pub(super) fn try_restore(case: &mut Case, from: Restore, config: Option<CriuConfig>) -> Attempt {
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

pub(super) fn restore(case: &mut Case, from: &Checkpoint) -> (i32, Lines) {
    let (worker, prepared, out) = try_restore(case, from.restore(), None);
    let prepared = prepared.unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
    worker
        .start()
        .unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
    (prepared.pid, Lines::of(out))
}

pub(super) fn finish(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!(exit_code(pid), 137);
}

/// Nothing of a failed restore is left, and a cold start works.
pub(super) fn assert_restartable(case: &mut Case) {
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

pub(super) fn freezer(case: &Case) -> PathBuf {
    PathBuf::from(format!(
        "/sys/fs/cgroup/freezer/reprise-unit-{}/freezer.state",
        case.id
    ))
}

pub(super) fn bind(case: &mut Case, at: &str, source: &Path, options: &[&str]) {
    let mounts = case.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != at);
    mounts.push(json!({"destination": at, "type": "bind", "source": source, "options": options}));
}

/// A checkpoint of a counting container that is gone.
pub(super) fn counting(pod: &Pod) -> Checkpoint {
    let mut case = pod.case(&["sh", "-c", COUNT]);
    let output = case.start();
    let lines = Lines::of(output.stdout);
    lines.next();
    let checkpoint = Checkpoint::of(&mut case, output.pid);
    finish(output.pid);
    checkpoint
}

pub(super) fn wrapper(case: &Case, line: &str) -> PathBuf {
    let path = case.dir.join(format!("criu-{}", line.len()));
    fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Gives it what the node has in /usr and /etc.
pub(super) fn with_the_nodes_programs(case: &mut Case) {
    case.set("/process/env", json!(["PATH=/usr/bin:/bin", "HOME=/"]));
    for dir in ["lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{dir}"), case.dir.join("image").join(dir)).unwrap();
    }
    for dir in ["/usr", "/etc"] {
        bind(case, dir, Path::new(dir), &["rbind", "rprivate", "ro"]);
    }
}
