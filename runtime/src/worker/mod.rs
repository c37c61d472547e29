//! The worker: a single-threaded process of our own binary that makes one
//! container exist, runs one exec, or takes one checkpoint. This file is the
//! parent's side: spawn, ask, wait with a deadline, kill.
//!
//! ```text
//!  Worker::spawn ─┬─ prepare ── Prepared { pid } ── start ── (worker exits)
//!                 ├─ exec ───── Started { pid }              (worker exits)
//!                 ├─ dump ───── Dumped                       (worker exits)
//!                 └─ remove ─── ()                           (worker exits)
//! ```
//!
//! Requests and replies are JSON datagrams over a `SEQPACKET` socket pair; file
//! descriptors travel beside them; the worker's end is its standard input. All calls block: the shim makes them on a
//! blocking thread. The worker ends when its socket closes; a container that was
//! prepared but not started dies with it. Its exit is reaped by the shim.

mod abort;
mod alive;
mod child;
mod container;
mod copy;
mod criu;
mod criu_log;
mod dump;
mod executor;
pub mod foreign;
mod ground;
mod helper;
mod hooks;
mod identity;
mod layout;
mod mend;
mod mounts;
mod prepare;
mod protocol;
mod record;
mod restore;
mod sealed;
mod spec_json;
mod stage;
mod sysctl;
mod trace;
mod tree;
mod upper;
mod userns;
mod validate;
mod verify;
mod wire;
mod workdir;

pub(crate) use layout::is_bind;
pub use prepare::{load_process, load_resources, load_spec};
pub use protocol::{
    Command, Create, CriuConfig, DiffCopy, Dump, Dumped, Exec, Prepared, Remove, Reply, Restore,
    Started, Stdio, Timing,
};

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use self::sealed::Sealed;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::rootfs::RootfsMount;
use crate::{spawn, sys};

/// A worker process, idle or holding a prepared container still. Dropping it
/// closes its socket: it undoes what it holds and exits.
#[derive(Debug)]
pub struct Worker {
    pid: i32,
    socket: OwnedFd,
    /// Absent when it died (and was reaped) before we could ask.
    pidfd: Option<OwnedFd>,
    /// Its standard error: what it says when it dies.
    last_words: File,
    deadline: Duration,
}

impl Worker {
    /// Spawns a worker from our own executable, sealed so that no container can
    /// write to it. Each call to it may take as long as `deadline`.
    ///
    /// # Errors
    /// The process cannot be made.
    pub fn spawn(deadline: Duration) -> Result<Self> {
        static OWN: OnceLock<Sealed> = OnceLock::new();
        let own = OWN.get_or_init(|| Sealed::of(Path::new("/proc/self/exe")));
        Self::spawn_sealed(own, deadline)
    }

    /// Spawns a worker from another executable, which must answer to the
    /// argument `worker` with [`run_child`].
    ///
    /// # Errors
    /// The process cannot be made.
    pub fn spawn_from(exe: &Path, deadline: Duration) -> Result<Self> {
        Self::spawn_sealed(&Sealed::of(exe), deadline)
    }

    fn spawn_sealed(program: &Sealed, deadline: Duration) -> Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .doing("cannot make the worker's socket")?;
        let last_words = memfd_create(c"reprise-worker-stderr", MemFdCreateFlag::MFD_CLOEXEC)
            .map(File::from)
            .doing("cannot make the worker's standard error")?;
        let stderr = last_words
            .try_clone()
            .doing("cannot make the worker's standard error")?;
        let child = start(program, theirs, stderr).doing("cannot start a worker")?;
        let pid = i32::try_from(child.id()).map_err(|e| Error::because("worker's pid", &e))?;
        Ok(Self {
            pid,
            socket: ours,
            pidfd: sys::pidfd_open(pid).ok(),
            last_words,
            deadline,
        })
    }

    /// The worker's own pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Makes a container exist, cold or from a checkpoint, and holds it still.
    ///
    /// # Errors
    /// It could not; everything is undone. With `restore` set, the caller may try
    /// again cold. When the worker died or took too long (`Unavailable`), the
    /// caller removes what it left with [`Worker::remove`] of another.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the container takes them over"
    )]
    pub fn prepare(&mut self, create: Create, stdio: Stdio) -> Result<Prepared> {
        match self.ask(&Command::Create(Box::new(create)), Some(&stdio))? {
            (Reply::Prepared { pid, timings }, console) => Ok(Prepared {
                pid,
                console,
                timings,
            }),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Lets the prepared container go.
    ///
    /// # Errors
    /// It could not be started (execve failed, a hook failed, the worker died);
    /// the container is dead then.
    pub fn start(self) -> Result<()> {
        match self.ask(&Command::Start, None)? {
            (Reply::Done, _) => Ok(()),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Runs one more process in a running container.
    ///
    /// # Errors
    /// It could not be started.
    #[expect(clippy::needless_pass_by_value, reason = "the process takes them over")]
    pub fn exec(self, exec: Exec, stdio: Stdio) -> Result<Started> {
        match self.ask(&Command::Exec(Box::new(exec)), Some(&stdio))? {
            (Reply::Started { pid }, console) => Ok(Started { pid, console }),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Takes a checkpoint.
    ///
    /// # Errors
    /// It could not; the container is as before.
    pub fn dump(self, dump: Dump) -> Result<Dumped> {
        match self.ask(&Command::Dump(Box::new(dump)), None)? {
            (Reply::Dumped(dumped), _) => Ok(dumped),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Removes what a container left behind.
    ///
    /// # Errors
    /// Something could not be removed; everything else was.
    pub fn remove(self, remove: Remove) -> Result<()> {
        match self.ask(&Command::Remove(remove), None)? {
            (Reply::Done, _) => Ok(()),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    fn ask(&self, command: &Command, stdio: Option<&Stdio>) -> Result<(Reply, Option<OwnedFd>)> {
        let fds = stdio.map_or([None, None, None], |stdio| {
            [&stdio.stdin, &stdio.stdout, &stdio.stderr].map(|fd| fd.as_ref().map(AsFd::as_fd))
        });
        if let Err(e) = wire::send(self.socket.as_fd(), command, &fds) {
            return Err(self.died(&e.message));
        }
        self.wait_for_answer()?;
        match wire::receive(self.socket.as_fd()) {
            Ok(Some((Reply::Failed(error), _))) => Err(error),
            Ok(Some((reply, [console, _, _]))) => Ok((reply, console)),
            Ok(None) => Err(self.died("it ended without an answer")),
            Err(e) => Err(self.died(&e.message)),
        }
    }

    /// Waits until something can be read. A worker that takes too long is killed;
    /// that leaves what it made so far to [`Worker::remove`].
    fn wait_for_answer(&self) -> Result<()> {
        let end = Instant::now() + self.deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left.as_millis().saturating_add(1))
                .unwrap_or(PollTimeout::MAX);
            let mut fds = vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            if let Some(pidfd) = &self.pidfd {
                fds.push(PollFd::new(pidfd.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, timeout) {
                Ok(0) if left.is_zero() => {
                    self.kill();
                    let seconds = self.deadline.as_secs_f32();
                    return Err(self.died(&format!("no answer within {seconds} s, killed")));
                }
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                // An answer, the socket's end, or a death: reading tells which. A
                // helper may hold the socket after the worker's death, so do not
                // read when only the pidfd says so.
                Ok(_) if ready(&fds[0]) => return Ok(()),
                Ok(_) => return Err(self.died("it was killed")),
                Err(e) => return Err(self.died(&format!("cannot wait for it: {e}"))),
            }
        }
    }

    fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            // It may have ended just now.
            sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
        }
    }

    fn died(&self, how: &str) -> Error {
        let mut error = Error::new(
            ErrorKind::Unavailable,
            format!("worker process {} failed: {how}", self.pid),
        );
        error.detail = self.read_last_words();
        if let Some(last) = error.detail.last() {
            error.message = format!("{}: {last}", error.message);
        }
        error
    }

    fn read_last_words(&self) -> Vec<String> {
        const MOST: u64 = 16 * 1024;
        let length = self.last_words.metadata().map_or(0, |meta| meta.len());
        let start = length.saturating_sub(MOST);
        let mut bytes = vec![0; usize::try_from(length - start).unwrap_or(0)];
        if self.last_words.read_exact_at(&mut bytes, start).is_err() {
            return Vec::new();
        }
        let text = String::from_utf8_lossy(&bytes);
        text.lines().map(str::to_owned).collect()
    }
}

fn ready(fd: &PollFd<'_>) -> bool {
    fd.revents().is_some_and(|events| !events.is_empty())
}

fn unexpected(reply: &Reply) -> Error {
    Error::internal(format!(
        "the worker gave an answer to another question: {reply:?}"
    ))
}

fn start(program: &Sealed, socket: OwnedFd, stderr: File) -> std::io::Result<process::Child> {
    spawn::bare(&program.path())
        .arg("worker")
        .stdin(socket)
        .stdout(process::Stdio::null())
        .stderr(stderr)
        .spawn()
}

/// Mounts a bundle's rootfs alone, for a container that is prepared later. Undone
/// when it fails; [`Worker::remove`] unmounts it.
///
/// # Errors
/// A mount fails, or is of a kind that is not supported.
pub fn mount_rootfs(bundle: &Path, rootfs: &[RootfsMount]) -> Result<()> {
    mounts::mount_rootfs(&bundle.join("rootfs"), rootfs, &[], &bundle.join(".layers"))
}

/// The worker's face of the binary: serves one command on the socket that the
/// parent left as standard input. Returns the exit code.
#[must_use]
pub fn run_child() -> u8 {
    child::run()
}

/// A descriptor by reference, or none.
fn borrowed(fd: Option<&OwnedFd>) -> Option<BorrowedFd<'_>> {
    fd.map(AsFd::as_fd)
}
