//! Directories of a cgroup, the processes in them, and the freezer.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Cgroup, file};
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::proc_stat::ProcStat;

/// How long a freeze may take.
const FREEZE_DEADLINE: Duration = Duration::from_secs(1);
/// How long processes may take to die.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// How long a directory may stay busy after its last process.
const REMOVE_DEADLINE: Duration = Duration::from_secs(1);

/// Makes a directory and its parents.
pub(super) fn create(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).doing(format_args!("Cannot make cgroup {}", dir.display()))
}

/// Moves a process in. The kernel answers EINVAL while the task is being made;
/// it is asked again then, as runc does.
pub(super) fn join(dir: &Path, pid: i32) -> Result<()> {
    let value = pid.to_string();
    let mut tries = 0;
    loop {
        match file::try_write(dir, "cgroup.procs", &value) {
            Ok(()) => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && tries < 5 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(e) => {
                let error = file::refused(dir, "cgroup.procs", &value, &e);
                return Err(if e.raw_os_error() == Some(libc::ESRCH) {
                    error.with_kind(ErrorKind::NotFound)
                } else {
                    error
                });
            }
        }
    }
}

/// Adds all processes below `dir`. What vanishes meanwhile is left out.
pub(super) fn pids(dir: &Path, found: &mut Vec<i32>) -> Result<()> {
    // A threaded v2 cgroup answers EOPNOTSUPP; its domain lists its processes.
    match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => found.extend(text.lines().filter_map(|l| l.parse::<i32>().ok())),
        Err(e) if file::gone(&e) || e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(e) => {
            return Err(Error::because(
                format_args!("Cannot read {}/cgroup.procs", dir.display()),
                &e,
            ));
        }
    }
    for child in children(dir)? {
        pids(&child, found)?;
    }
    Ok(())
}

fn children(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let doing = || format!("Cannot list {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if file::gone(&e) => return Ok(Vec::new()),
        Err(e) => return Err(Error::because(doing(), &e)),
    };
    let mut dirs = Vec::new();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) if file::gone(&e) => break,
            Err(e) => return Err(Error::because(doing(), &e)),
        };
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            dirs.push(entry.path());
        }
    }
    Ok(dirs)
}

/// Freezes through `freezer.state`. The kernel may need to be asked again while
/// processes fork; now and then they are thawed for a moment, which lets a freeze
/// that got stuck go through (kernel documentation, freezer-subsystem).
pub(super) fn freeze_v1(dir: &Path) -> Result<()> {
    let start = Instant::now();
    let result = (|| {
        for round in 1_u32.. {
            file::write(dir, "freezer.state", "FROZEN")?;
            if file::read(dir, "freezer.state")?.trim() == "FROZEN" {
                return Ok(());
            }
            if start.elapsed() > FREEZE_DEADLINE {
                break;
            }
            if round % 100 == 0 {
                file::write(dir, "freezer.state", "THAWED")?;
                std::thread::sleep(Duration::from_millis(5));
            } else if round > 10 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        Err(stuck(dir))
    })();
    if result.is_err() {
        // A cgroup left half frozen would be worse than the error.
        drop(file::try_write(dir, "freezer.state", "THAWED"));
    }
    result
}

/// Freezes through `cgroup.freeze`.
pub(super) fn freeze_v2(dir: &Path) -> Result<()> {
    let start = Instant::now();
    let result = (|| {
        file::write(dir, "cgroup.freeze", "1")?;
        while start.elapsed() < FREEZE_DEADLINE {
            let events = file::read(dir, "cgroup.events")?;
            if events.lines().any(|line| line == "frozen 1") {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Err(stuck(dir))
    })();
    if result.is_err() {
        drop(file::try_write(dir, "cgroup.freeze", "0"));
    }
    result
}

fn stuck(dir: &Path) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "Cgroup {} did not freeze within {} ms and was thawed again; a process in it may be \
             waiting for a disk or network file system",
            dir.display(),
            FREEZE_DEADLINE.as_millis()
        ),
    )
}

/// Kills everything. The processes are frozen while the signals go out, so that
/// none forks away and no pid comes to mean another process.
pub(super) fn kill_all(cgroup: &Cgroup) -> Result<()> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let start = Instant::now();
    let mut pause = Duration::from_micros(500);
    loop {
        let pids = cgroup.pids()?;
        let spared = pids.contains(&own);
        let left: Vec<i32> = pids
            .into_iter()
            .filter(|pid| *pid != own && *pid > 0 && !is_zombie(*pid))
            .collect();
        if left.is_empty() {
            // A frozen cgroup without processes would hold the next one that
            // joins; errors mean that it is gone or never had a freezer.
            drop(cgroup.thaw());
            return Ok(());
        }
        if start.elapsed() > KILL_DEADLINE {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "Processes {left:?} in cgroup {} do not die; they may be waiting for a disk \
                     or network file system",
                    cgroup.freezer_dir().display()
                ),
            ));
        }
        if !(cgroup.is_v2() && !spared && kill_v2(&cgroup.freezer_dir())) {
            if !spared {
                ask_to_freeze(cgroup);
            }
            for pid in cgroup.pids()?.into_iter().filter(|p| *p != own && *p > 0) {
                // Gone already is what is wanted; the loop sees everything else.
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
        drop(cgroup.thaw());
        if !cgroup.is_v2() {
            thaw_below(&cgroup.freezer_dir());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// A container may have frozen cgroups of its own, and on v1 nothing dies while it
/// is frozen.
fn thaw_below(dir: &Path) {
    for child in children(dir).unwrap_or_default() {
        drop(file::try_write(&child, "freezer.state", "THAWED"));
        thaw_below(&child);
    }
}

/// `cgroup.kill`, since Linux 5.14: whether the kernel took it.
fn kill_v2(dir: &Path) -> bool {
    file::try_write(dir, "cgroup.kill", "1").is_ok()
}

fn ask_to_freeze(cgroup: &Cgroup) {
    let dir = cgroup.freezer_dir();
    let (name, value) = if cgroup.is_v2() {
        ("cgroup.freeze", "1")
    } else {
        ("freezer.state", "FROZEN")
    };
    drop(file::try_write(&dir, name, value));
}

/// Whether the process is dead and waits for its parent.
fn is_zombie(pid: i32) -> bool {
    ProcStat::of(pid).is_some_and(|stat| stat.field(3) == Some("Z"))
}

/// Removes directories, children first, and tries again while the kernel calls
/// them busy: a process that was killed a moment ago still counts.
pub(super) fn remove<'a>(dirs: impl Iterator<Item = &'a Path>) -> Result<()> {
    let start = Instant::now();
    let mut first = Ok(());
    for dir in dirs {
        let mut pause = Duration::from_millis(1);
        loop {
            match remove_tree(dir) {
                Ok(()) => break,
                Err(e)
                    if e.raw_os_error() == Some(libc::EBUSY)
                        && start.elapsed() < REMOVE_DEADLINE =>
                {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(e) => {
                    let error =
                        Error::because(format_args!("Cannot remove cgroup {}", dir.display()), &e);
                    first = first.and(Err(error));
                    break;
                }
            }
        }
    }
    first
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(e) if file::gone(&e) => return Ok(()),
        Err(e) if !matches!(e.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) => {
            return Err(e);
        }
        Err(_) => {}
    }
    for child in children(dir).map_err(|e| io::Error::other(e.message))? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(e) if !file::gone(&e) => Err(e),
        _ => Ok(()),
    }
}
