//! Reaps every child of the shim and tells who waits for it.
//!
//! The shim is a subreaper, so its children are container inits, exec'd
//! processes, workers, CRIU's helpers and orphans of containers. One loop waits
//! for all of them. An exit that nobody has asked for yet is kept for a while,
//! since a process can end before its pid has reached the driver; what nobody
//! ever asks for (workers, orphans) falls out at the other end.

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use reprise_runtime::sys::{pidfd_open, pidfd_send_signal, reap_any};
use tokio::sync::oneshot;

/// How many exits are kept for somebody who asks late.
const KEPT_EXITS: usize = 512;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Exit code, or 128 and the signal's number.
    pub(crate) status: u32,
    /// When it was reaped.
    pub(crate) at: SystemTime,
}

impl Exit {
    /// The end of what was killed, or never started, now.
    pub(crate) fn killed() -> Self {
        Self::now(128 + libc::SIGKILL.unsigned_abs())
    }

    /// An exit with this status, now.
    pub(crate) fn now(status: u32) -> Self {
        Self {
            status,
            at: SystemTime::now(),
        }
    }
}

/// Handle to the one reaper of this shim.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reaper {
    books: Arc<Mutex<Books>>,
}

#[derive(Debug, Default)]
struct Books {
    awaited: HashMap<i32, oneshot::Sender<Exit>>,
    unclaimed: VecDeque<(i32, Exit)>,
}

impl Reaper {
    /// Starts to reap.
    ///
    /// # Errors
    /// The handler for SIGCHLD cannot be installed.
    pub(crate) fn start() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        let reaper = Self::default();
        let mut children = signal(SignalKind::child())?;
        let books = reaper.clone();
        tokio::spawn(async move {
            // What ended before the handler was there raised no signal for it.
            books.reap();
            while children.recv().await.is_some() {
                books.reap();
            }
        });
        Ok(reaper)
    }

    /// Resolves when `pid` has ended, even if that was before this call.
    pub(crate) fn exit_of(&self, pid: i32) -> oneshot::Receiver<Exit> {
        let (tell, told) = oneshot::channel();
        let mut books = self.lock();
        if let Some(exit) = books.claim(pid, is_child(pid)) {
            // The receiver is in our hands, so it is there.
            tell.send(exit).ok();
        } else {
            books.awaited.insert(pid, tell);
        }
        told
    }

    /// Signals a process that somebody awaits. Safe against reuse of the pid: it
    /// cannot be given away before it was reaped, and that takes the same lock.
    pub(crate) fn signal(&self, pid: i32, number: i32) -> Result<(), Errno> {
        let books = self.lock();
        if !books.awaited.contains_key(&pid) {
            return Err(Errno::ESRCH);
        }
        let result = send_signal(pid, number);
        drop(books);
        result
    }

    fn reap(&self) {
        let mut books = self.lock();
        loop {
            match reap_any() {
                Ok(Some((pid, status))) => books.note(pid, Exit::now(status_of(status))),
                Ok(None) | Err(Errno::ECHILD) => break,
                Err(Errno::EINTR) => {}
                Err(e) => {
                    log::error!(error = e.desc(); "cannot reap children");
                    break;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn note(&mut self, pid: i32, exit: Exit) {
        if let Some(tell) = self.awaited.remove(&pid) {
            // Nobody listens when the container was given up; nothing is lost.
            tell.send(exit).ok();
            return;
        }
        self.unclaimed.retain(|(other, _)| *other != pid);
        if self.unclaimed.len() == KEPT_EXITS {
            self.unclaimed.pop_front();
        }
        self.unclaimed.push_back((pid, exit));
    }

    /// The kept exit of `pid`. When the pid is a child of ours now, alive or not
    /// yet reaped, a kept exit is an older process' that had the same pid.
    fn claim(&mut self, pid: i32, is_child: bool) -> Option<Exit> {
        let at = self.unclaimed.iter().position(|(other, _)| *other == pid)?;
        let (_, exit) = self.unclaimed.remove(at)?;
        (!is_child).then_some(exit)
    }
}

fn is_child(pid: i32) -> bool {
    let result = waitid(
        Id::Pid(Pid::from_raw(pid)),
        WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT,
    );
    // Other errors are about the status of a child that is there.
    result != Err(Errno::ECHILD)
}

/// The exit code, or 128 and the signal's number.
fn status_of(wait_status: i32) -> u32 {
    let status = ExitStatus::from_raw(wait_status);
    match (status.code(), status.signal()) {
        (Some(code), _) => code.unsigned_abs(),
        (None, Some(signal)) => 128 + signal.unsigned_abs(),
        (None, None) => 255,
    }
}

/// Signals by number; real-time signals have no name.
pub(crate) fn send_signal(pid: i32, number: i32) -> Result<(), Errno> {
    let pidfd = pidfd_open(pid)?;
    pidfd_send_signal(pidfd.as_fd(), number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_exit_before_registration_is_kept() {
        let reaper = Reaper::default();
        reaper.lock().note(4_000_000, Exit::now(7));
        assert_eq!(reaper.exit_of(4_000_000).await.unwrap().status, 7);
    }

    #[tokio::test]
    async fn an_exit_after_registration_is_told() {
        let reaper = Reaper::default();
        let told = reaper.exit_of(4_000_000);
        reaper.lock().note(4_000_000, Exit::now(9));
        assert_eq!(told.await.unwrap().status, 9);
        assert_eq!(reaper.signal(4_000_000, 9), Err(Errno::ESRCH));
    }

    #[test]
    fn statuses_are_shells() {
        assert_eq!(status_of(3 << 8), 3);
        assert_eq!(status_of(9), 137);
        assert_eq!(status_of(37), 165);
    }

    #[test]
    fn a_stale_exit_is_dropped_when_the_pid_lives_again() {
        let mut books = Books::default();
        books.note(12, Exit::now(1));
        assert_eq!(books.claim(12, true), None);
        assert_eq!(books.claim(12, false), None);
    }

    #[test]
    fn kept_exits_are_bounded_and_newest_wins() {
        let mut books = Books::default();
        for pid in 1..10_000 {
            books.note(pid, Exit::now(0));
        }
        assert_eq!(books.unclaimed.len(), KEPT_EXITS);
        books.note(9_999, Exit::now(3));
        assert_eq!(books.claim(9_999, false).unwrap().status, 3);
    }
}
