//! Whether init is still init. A pid alone does not tell: it may have been given to
//! another process since. The time at which a process began does.

use std::os::fd::OwnedFd;
use std::path::Path;

use libcontainer::container::Container;

use super::ground::Paths;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::maker::began;
use crate::sys;

const FILE: &str = "init";

/// A container's first process, held so that its pid stays its own.
pub(super) struct Init {
    pub(super) pid: i32,
    /// Readable when it has ended.
    pub(super) pidfd: OwnedFd,
}

/// Notes which process is init; the file goes with the private directory.
pub(super) fn note(private: &Path, pid: i32) -> Result<()> {
    let began = began(pid).unwrap_or(0);
    let file = private.join(FILE);
    std::fs::write(&file, format!("{pid} {began}"))
        .doing(format!("cannot write {}", file.display()))
}

/// The container's first process, if it lives.
pub(super) fn open(paths: &Paths) -> Result<Init> {
    let gone = || {
        Error::new(
            ErrorKind::FailedPrecondition,
            "cannot exec in a stopped container",
        )
    };
    let container = Container::load(paths.state.clone())
        .map_err(|e| Error::because("cannot read the container's state", &e))?;
    let pid = container.pid().ok_or_else(gone)?.as_raw();
    let pidfd = sys::pidfd_open(pid).map_err(|_gone| gone())?;
    let noted = std::fs::read_to_string(paths.private.join(FILE)).unwrap_or_default();
    let same = match noted.split_once(' ') {
        Some((number, time)) => {
            number == pid.to_string() && Some(time) == began(pid).map(|t| t.to_string()).as_deref()
        }
        // Made by an older version of ours, which noted nothing.
        None => noted.is_empty(),
    };
    if same {
        Ok(Init { pid, pidfd })
    } else {
        Err(gone())
    }
}
