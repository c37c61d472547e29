//! A child of the worker in which libcontainer builds. It joins the container's
//! cgroup, gets the container's oom score and is made undumpable; none of that
//! may stick to the worker, which lives on beside a container that may be frozen
//! or killed by its cgroup. It asks libcontainer for a sibling, so the container's
//! process becomes the worker's child and, when that exits, the shim's.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Doing, Error, Result};
use crate::sys;

/// Somebody whom the worker serves while the child works.
pub(super) trait Attend {
    /// Readable when there is something to serve; none when nothing will come.
    fn waits_for(&self) -> Option<BorrowedFd<'_>>;
    /// Serves what came.
    fn serve(&mut self);
}

/// Runs `work` in a forked child and brings its result back; `served` is served
/// meanwhile. Through a memfd: a pipe's other end would live on in the processes
/// that libcontainer made.
pub(super) fn in_child<T: Serialize + DeserializeOwned>(
    served: &mut dyn Attend,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let mut paper = memfd_create(c"reprise-helper", MemFdCreateFlag::MFD_CLOEXEC)
        .map(File::from)
        .doing("cannot make a memfd")?;
    let Some(pid) = sys::fork().doing("cannot fork a helper")? else {
        finish(&mut paper, work);
    };
    let attended = attend(pid, served);
    let status = waitpid(Pid::from_raw(pid), None);
    attended?;
    let mut json = Vec::new();
    paper.rewind().doing("cannot hear the helper")?;
    paper
        .read_to_end(&mut json)
        .doing("cannot hear the helper")?;
    if json.is_empty() {
        let how = match status {
            Ok(WaitStatus::Exited(_, code)) => format!("exited with {code}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
            other => format!("{other:?}"),
        };
        return Err(Error::internal(format!("the helper process {how}")));
    }
    serde_json::from_slice::<Result<T>>(&json).doing("cannot understand the helper")?
}

/// Serves until process `pid` has ended and nothing is left to serve.
fn attend(pid: i32, served: &mut dyn Attend) -> Result<()> {
    let child = sys::pidfd_open(pid).doing("cannot watch the helper")?;
    loop {
        let mut fds = vec![PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        if let Some(fd) = served.waits_for() {
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.doing("cannot wait for the helper")?,
        };
        let has = |fd: &PollFd<'_>| fd.any() == Some(true);
        let has_ended = has(&fds[0]);
        if fds.get(1).is_some_and(has) {
            served.serve();
        } else if has_ended {
            return Ok(());
        }
    }
}

fn finish<T: Serialize>(paper: &mut File, work: impl FnOnce() -> Result<T>) -> ! {
    // A helper without its worker would go on making what nobody knows of.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).ok();
    let result = work();
    let code = match serde_json::to_vec(&result) {
        Ok(json) => i32::from(paper.write_all(&json).is_err()),
        Err(_unencodable) => 1,
    };
    sys::exit_now(code)
}
