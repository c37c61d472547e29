//! The worker's command loop: one command, save that a `Create` is followed by a
//! `Start`. Single-threaded: libcontainer clones and changes the directory of the
//! whole process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, poll};

use super::protocol::open_null;
use super::{Command, Reply, Stdio, Timing, container, dump, ground, restore, trace, wire};
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::proc_stat::ProcStat;
use crate::sys;

/// A container that exists and stands still.
pub(super) trait Held {
    /// Init's pid.
    fn pid(&self) -> i32;
    /// The console's master, given away once.
    fn take_console(&mut self) -> Option<OwnedFd>;
    /// How long each step took.
    fn timings(&self) -> Vec<Timing>;
    /// Lets it go. On an error it is dead and nothing is left of it. What can wait
    /// for the parent's answer is done when it is dropped.
    fn start(&mut self) -> Result<()>;
    /// Kills it and undoes all that was made.
    fn abort(self: Box<Self>);
    /// It has ended by itself: leaves its exit to the parent, and the rest to Remove.
    fn leave(self: Box<Self>);
}

/// Serves one parent. Returns the exit code.
pub(super) fn run() -> u8 {
    let socket = match settle() {
        Ok(socket) => socket,
        Err(e) => return last_words(&e),
    };
    match serve(socket.as_fd()) {
        Ok(()) => 0,
        Err(e) => last_words(&e),
    }
}

/// Standard error is what the parent shows when no answer came.
fn last_words(error: &Error) -> u8 {
    nix::unistd::write(sys::borrow(2), format!("{error}\n").as_bytes()).ok();
    1
}

/// Makes this process one that a container may be born from: nothing of the
/// shim's state is inherited beyond what the parent gave on purpose.
fn settle() -> Result<OwnedFd> {
    sys::close_from(3);
    sys::reset_signals();
    // The parent may be gone; then the read below says so. It must not kill us.
    let ignore = nix::sys::signal::SigHandler::SigIgn;
    sys::set_signal(nix::sys::signal::Signal::SIGPIPE, ignore);
    // Fails only when we lead a group already.
    nix::unistd::setsid().ok();
    // The shim's is some bundle, which must not be kept busy.
    nix::unistd::chdir("/").doing("cannot change to the root directory")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let socket = sys::borrow(0)
        .try_clone_to_owned()
        .doing("cannot keep the worker's socket")?;
    let null = open_null()?;
    nix::unistd::dup2(null.as_raw_fd(), 0).doing("cannot replace standard input")?;
    trace::collect();
    Ok(socket)
}

fn serve(socket: BorrowedFd<'_>) -> Result<()> {
    let Some((command, [stdin, stdout, stderr])) = wire::receive::<Command>(socket)? else {
        return Ok(());
    };
    let stdio = Stdio {
        stdin,
        stdout,
        stderr,
    };
    match command {
        Command::Create(create) => {
            let held: Result<Box<dyn Held>> = match &create.restore {
                None => {
                    container::create(&create, stdio).map(|cold| Box::new(cold) as Box<dyn Held>)
                }
                Some(from) => restore::restore(&create, &from.images, &stdio),
            };
            match held {
                Ok(held) => hold(socket, held),
                Err(e) => answer(socket, &Reply::Failed(e), None),
            }
        }
        Command::Start => answer(socket, &Reply::Failed(nothing_to_start()), None),
        Command::Exec(exec) => match container::exec(&exec, stdio) {
            Ok(started) => answer(
                socket,
                &Reply::Started { pid: started.pid },
                started.console.as_ref(),
            ),
            Err(e) => answer(socket, &Reply::Failed(e), None),
        },
        Command::Dump(dump) => {
            let reply = match dump::dump(&dump) {
                Ok(dumped) => Reply::Dumped(dumped),
                Err(e) => Reply::Failed(e),
            };
            answer(socket, &reply, None)
        }
        Command::Remove(remove) => {
            let reply = match ground::remove(&remove) {
                Ok(()) => Reply::Done,
                Err(e) => Reply::Failed(e),
            };
            answer(socket, &reply, None)
        }
    }
}

/// Tells that the container exists, and keeps it still until the parent wants it
/// to start, or goes away.
fn hold(socket: BorrowedFd<'_>, mut held: Box<dyn Held>) -> Result<()> {
    let console = held.take_console();
    let reply = Reply::Prepared {
        pid: held.pid(),
        timings: held.timings(),
    };
    if let Err(e) = answer(socket, &reply, console.as_ref()) {
        held.abort();
        return Err(e);
    }
    drop(console);
    match wait_for_start(socket, held.pid()) {
        Ok(Next::Start) => {
            let started = held.start();
            if let Err(e) = started {
                // Nothing is left of it when the parent hears of it.
                drop(held);
                return answer(socket, &Reply::Failed(e), None);
            }
            answer(socket, &Reply::Done, None)
        }
        // Nobody but the parent may reap init (see container.rs), and it can only
        // once we are gone: so go. What is left is removed on Delete.
        Ok(Next::InitDied) => {
            held.leave();
            Err(Error::new(
                ErrorKind::FailedPrecondition,
                "the container's process ended before it was started",
            ))
        }
        Ok(Next::ParentGone) => {
            held.abort();
            Ok(())
        }
        Err(e) => {
            held.abort();
            answer(socket, &Reply::Failed(e), None)
        }
    }
}

enum Next {
    Start,
    ParentGone,
    InitDied,
}

/// How often one looks whether a process that others trace has begun to end.
const LOOK_MS: u16 = 500;

fn wait_for_start(socket: BorrowedFd<'_>, pid: i32) -> Result<Next> {
    let init = sys::pidfd_open(pid).doing("cannot watch the container's process")?;
    loop {
        let mut fds = [
            PollFd::new(socket, PollFlags::POLLIN),
            PollFd::new(init.as_fd(), PollFlags::POLLIN),
        ];
        let ready = match poll(&mut fds, LOOK_MS) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other.doing("cannot wait for the shim")?,
        };
        // CRIU traces a restored one until its start, and does not look at it: threads that
        // were killed stay, and the first process of a namespace waits for them to go.
        if ready == 0 && is_ending(pid) {
            return Ok(Next::InitDied);
        }
        if fds[1].any() == Some(true) {
            return Ok(Next::InitDied);
        }
        if fds[0].any() == Some(true) {
            return match wire::receive::<Command>(socket)? {
                Some((Command::Start, _)) => Ok(Next::Start),
                Some(_) => Err(nothing_to_start()),
                None => Ok(Next::ParentGone),
            };
        }
    }
}

/// Whether a process has begun to end, or is gone already.
fn is_ending(pid: i32) -> bool {
    /// `PF_EXITING` of the kernel's `include/linux/sched.h`.
    const EXITING: u64 = 4;
    let flags = ProcStat::of(pid).and_then(|stat| stat.number(9));
    flags.is_none_or(|flags| flags & EXITING != 0)
}

fn answer(socket: BorrowedFd<'_>, reply: &Reply, console: Option<&OwnedFd>) -> Result<()> {
    wire::send(socket, reply, &[super::borrowed(console), None, None])
}

fn nothing_to_start() -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        "the worker was asked out of turn",
    )
}
