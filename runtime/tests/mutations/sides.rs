//! One bundle under runc and under our worker. Both get the same image below an
//! overlay, a cgroup of their own, no console, nothing to read.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reprise_runtime::ErrorKind;
use serde_json::{Value, json};

use crate::specs::CGROUP;
use crate::support::{Case, forget_ended, reap_all, try_exit_code};

/// How long a container may run, and how long runc may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What became of a bundle.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// It ran and ended with this code.
    Ran(i32),
    RefusedAtCreate(String),
    RefusedAtStart(String),
    /// It did not end by itself; ended by us.
    RanOn,
    /// No answer in time, or a death without words.
    Broken(String),
}

/// Both verdicts, and what was left behind.
#[derive(Debug, Clone)]
pub(crate) struct Verdicts {
    pub(crate) runc: Verdict,
    pub(crate) ours: Verdict,
    pub(crate) left: Vec<String>,
}

pub(crate) struct Sides {
    case: Case,
    runc: PathBuf,
    count: u32,
    mounts: usize,
}

impl Sides {
    pub(crate) fn new() -> Self {
        let case = Case::new(&["true"]);
        let runc = case.dir.join("runc");
        for sub in ["bundle/rootfs", "upper", "work", "states"] {
            fs::create_dir_all(runc.join(sub)).unwrap();
        }
        Self {
            case,
            runc,
            count: 0,
            mounts: mounts().len(),
        }
    }

    /// Runs a bundle on both sides.
    pub(crate) fn run(&mut self, spec: &Value) -> Verdicts {
        self.count += 1;
        forget_ended();
        let id = format!("{}-{}", self.case.id, self.count);
        let runc = self.under_runc(&format!("reprise-unit-runc-{id}"), spec);
        let mut left = self.left("runc", &format!("reprise-unit-runc-{id}"));
        let ours = self.under_ours(spec);
        self.case.reap_workers();
        left.extend(self.left("ours", &format!("reprise-unit-{}", self.case.id)));
        Verdicts { runc, ours, left }
    }

    fn under_ours(&mut self, spec: &Value) -> Verdict {
        let own = format!("/reprise-unit-{}", self.case.id);
        self.case.spec = for_side(spec, &own);
        let (worker, prepared, _output) = self.case.prepare();
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(e) => {
                drop(worker);
                // Nothing to remove: it has undone everything.
                renew(&self.case.dir);
                return refused(&e, Verdict::RefusedAtCreate);
            }
        };
        let verdict = match worker.start() {
            Ok(()) => outcome(prepared.pid),
            Err(e) => refused(&e, Verdict::RefusedAtStart),
        };
        self.case.remove();
        renew(&self.case.dir);
        verdict
    }

    fn under_runc(&self, id: &str, spec: &Value) -> Verdict {
        let dir = &self.runc;
        let spec = for_side(spec, &format!("/{id}"));
        fs::write(dir.join("bundle/config.json"), spec.to_string()).unwrap();
        let rootfs = dir.join("bundle/rootfs");
        let layers = format!(
            "index=off,workdir={0}/work,upperdir={0}/upper,lowerdir={1}/image",
            dir.display(),
            self.case.dir.display()
        );
        let none = MsFlags::empty();
        mount(
            Some("overlay"),
            &rootfs,
            Some("overlay"),
            none,
            Some(layers.as_str()),
        )
        .unwrap();
        let verdict = self.create_and_start(id);
        let deleted = self.command(&["delete", "--force", id]);
        umount2(&rootfs, MntFlags::MNT_DETACH).unwrap();
        renew(dir);
        match deleted {
            Err(why) => Verdict::Broken(format!("delete: {why}")),
            Ok(_) => verdict,
        }
    }

    fn create_and_start(&self, id: &str) -> Verdict {
        let (bundle, pid) = (self.runc.join("bundle"), self.runc.join("pid"));
        fs::remove_file(&pid).ok();
        let (bundle, pid) = (bundle.to_str().unwrap(), pid.to_str().unwrap());
        let create = ["create", "--bundle", bundle, "--pid-file", pid, id];
        match self.command(&create) {
            Err(why) => return Verdict::Broken(format!("create: {why}")),
            Ok((false, words)) => return Verdict::RefusedAtCreate(words),
            Ok((true, _)) => {}
        }
        match self.command(&["start", id]) {
            Err(why) => return Verdict::Broken(format!("start: {why}")),
            Ok((false, words)) => return Verdict::RefusedAtStart(words),
            Ok((true, _)) => {}
        }
        outcome(fs::read_to_string(pid).unwrap().trim().parse().unwrap())
    }

    /// Whether it went well, and what it said. Into a file: a container has it too.
    fn command(&self, args: &[&str]) -> Result<(bool, String), String> {
        let said = self.runc.join("said");
        let file = File::create(&said).unwrap();
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(self.runc.join("states")).args(args);
        runc.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut child = runc.spawn().expect("these tests need runc on PATH");
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                let words = fs::read_to_string(&said).unwrap_or_default();
                return Ok((status.success(), words));
            }
            if Instant::now() > end {
                child.kill().unwrap();
                child.wait().unwrap();
                return Err("no answer".to_owned());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// What a side left behind; removed, so that it is told once.
    fn left(&self, side: &str, cgroup: &str) -> Vec<String> {
        let mut left = Vec::new();
        // First of all: a cgroup with a process in it cannot be removed.
        let processes: Vec<_> = reap_all(Duration::from_secs(5)).collect();
        let states = match side {
            "runc" => self.runc.join("states"),
            _ => self.case.dir.join("states"),
        };
        for entry in fs::read_dir(states).into_iter().flatten() {
            let path = entry.unwrap().path();
            left.push(format!("{side}: {}", path.display()));
            fs::remove_dir_all(path).unwrap();
        }
        for dir in cgroups(cgroup) {
            left.push(format!("{side}: {}", dir.display()));
            fs::remove_dir(dir).ok();
        }
        let now = mounts();
        for one in now.iter().skip(self.mounts).rev() {
            left.push(format!("{side}: mount {one}"));
            umount2(Path::new(one), MntFlags::MNT_DETACH).ok();
        }
        let named = processes.iter().map(|pid| format!("{side}: process {pid}"));
        left.extend(named);
        left
    }
}

/// Waits for a container's process.
fn outcome(pid: i32) -> Verdict {
    try_exit_code(pid, PATIENCE).map_or_else(
        || {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            Verdict::RanOn
        },
        Verdict::Ran,
    )
}

fn refused(error: &reprise_runtime::Error, how: fn(String) -> Verdict) -> Verdict {
    if error.kind == ErrorKind::Unavailable {
        return Verdict::Broken(error.message.clone());
    }
    how(error.message.clone())
}

/// The spec with a side's own cgroup.
fn for_side(spec: &Value, cgroup: &str) -> Value {
    let mut spec = spec.clone();
    if let Some(path) = spec.pointer_mut("/linux/cgroupsPath")
        && path.as_str() == Some(CGROUP)
    {
        *path = json!(cgroup);
    }
    spec
}

/// Empties the writable layer.
fn renew(dir: &Path) {
    for sub in ["upper", "work"] {
        let dir = dir.join(sub);
        fs::remove_dir_all(&dir).unwrap();
        fs::create_dir(&dir).unwrap();
    }
}

fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = |line: &str| line.split(' ').nth(4).map(str::to_owned);
    table.lines().filter_map(place).collect()
}

/// Cgroups with this name, down to the second level.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let entries = |dir: &Path| -> Vec<PathBuf> {
        let all = fs::read_dir(dir).into_iter().flatten().flatten();
        all.map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()
    };
    let tops = entries(Path::new("/sys/fs/cgroup"));
    let level =
        |dirs: &[PathBuf]| -> Vec<PathBuf> { dirs.iter().flat_map(|dir| entries(dir)).collect() };
    let first = level(&tops);
    let second = level(&first);
    let named = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|n| n.to_string_lossy().contains(name))
    };
    first.into_iter().chain(second).filter(named).collect()
}
