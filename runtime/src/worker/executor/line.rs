//! The line between a process that is being finished and the worker outside.
//!
//! ```text
//!   inside, Line                       outside, Desk
//!   Failed "exec: ..."            ──>  kept: what the user reads
//!   Limits [[7, 10, 4096]]        ──>  prlimit, done with the node's rights
//!   Made                          ──>  prestart and createRuntime hooks, on the node
//!   Listener 9                    ──>  pidfd_getfd, sent to the seccomp agent
//!                                 <──  an empty answer, or why not
//!   (execve closes it)            ──>  it runs
//! ```
//!
//! The kernel vouches for who speaks: `SCM_CREDENTIALS` names the sender's pid as
//! the worker's pid namespace has it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixCredentials, recvmsg,
    setsockopt, socketpair, sockopt,
};
use serde::{Deserialize, Serialize};

use super::agent::Agent;
use super::{Inside, words};
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::sys;
use crate::worker::helper::Attend;

/// Longer words are cut.
const MOST: usize = 64 << 10;

/// What the process says.
#[derive(Debug, Serialize, Deserialize)]
enum Note {
    /// Why it gives up.
    Failed(String),
    /// Its file tree is made, and not entered yet.
    Made,
    /// It may not raise these hard limits by itself: resource, soft, hard.
    Limits(Vec<(i32, u64, u64)>),
    /// Its filter sends calls to the descriptor of this number.
    Listener(i32),
}

/// The process' end. execve closes it.
#[derive(Debug)]
pub(in crate::worker) struct Line(OwnedFd);

/// The worker's end.
#[derive(Debug)]
pub(in crate::worker) struct Desk {
    socket: OwnedFd,
    agent: Option<Agent>,
    /// What runc says before what the process says.
    prefix: &'static str,
    failed: Option<String>,
    hung_up: bool,
}

/// Which process it is that is being finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Who {
    /// A container's first.
    Init,
    /// One more.
    Exec,
}

/// A line with both its ends. `agent` is who gets what the filter intercepts.
pub(in crate::worker) fn open(who: Who, agent: Option<Agent>) -> Result<(Desk, Line)> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .doing("cannot make a line to the container's process")?;
    setsockopt(&ours, sockopt::PassCred, &true)
        .doing("cannot ask who speaks on the container's line")?;
    let desk = Desk {
        socket: ours,
        agent,
        prefix: match who {
            Who::Init => "unable to start container process: error during container init",
            Who::Exec => "unable to start container process",
        },
        failed: None,
        hung_up: false,
    };
    Ok((desk, Line(theirs)))
}

impl Line {
    pub(super) fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Tells why the process gives up.
    pub(super) fn fail(&self, why: &str) {
        // The worker may be gone; then nobody needs to know.
        self.say(&Note::Failed(why.to_owned())).ok();
    }

    /// Has the hooks run that run on the node.
    pub(super) fn run_hooks(&self) -> Inside<()> {
        self.say(&Note::Made)?;
        self.answer()
    }

    /// Has the hard limits raised with the node's rights.
    pub(super) fn raise_limits(&self, limits: Vec<(i32, u64, u64)>) -> Inside<()> {
        self.say(&Note::Limits(limits))?;
        self.answer()
    }

    /// Hands the filter's descriptor over. By `write` and `read` only: the filter is
    /// in force by now.
    pub(super) fn hand_over(&self, listener: &OwnedFd) -> Inside<()> {
        self.say(&Note::Listener(listener.as_raw_fd()))?;
        self.answer()
    }

    fn say(&self, note: &Note) -> Inside<()> {
        let mut text = serde_json::to_vec(note).map_err(|e| e.to_string())?;
        if text.len() > MOST {
            let cut = Note::Failed("a message too long to be told".to_owned());
            text = serde_json::to_vec(&cut).map_err(|e| e.to_string())?;
        }
        nix::unistd::write(&self.0, &text)
            .map(drop)
            .map_err(|e| format!("cannot speak to the worker: {}", words(e)))
    }

    fn answer(&self) -> Inside<()> {
        let mut text = [0; MOST];
        let read = nix::unistd::read(self.0.as_raw_fd(), &mut text)
            .map_err(|e| format!("cannot hear the worker: {}", words(e)))?;
        match String::from_utf8_lossy(&text[..read]).as_ref() {
            "" => Err("the worker is gone".to_owned()),
            "ok" => Ok(()),
            why => Err(why.to_owned()),
        }
    }
}

impl Desk {
    /// Serves the process until it hangs up: it runs, or it gave up.
    pub(in crate::worker) fn serve_to_the_end(&mut self) {
        while !self.hung_up {
            self.serve_one(&mut no_hooks);
        }
    }

    /// Why the process gave up, as the user shall read it.
    pub(in crate::worker) fn failure(&mut self) -> Option<Error> {
        let text = self.failed.take()?;
        let message = format!("{}: {text}", self.prefix);
        Some(Error::new(ErrorKind::InvalidArgument, message))
    }

    /// This desk, for as long as hooks may be asked for.
    pub(in crate::worker) fn with_hooks<'a>(
        &'a mut self,
        on_node: &'a mut dyn FnMut(i32) -> Inside<()>,
    ) -> WithHooks<'a> {
        WithHooks {
            desk: self,
            on_node,
        }
    }

    fn serve_one(&mut self, on_node: &mut dyn FnMut(i32) -> Inside<()>) {
        let mut text = [0; MOST];
        let (length, pid) = match self.receive(&mut text) {
            Err(Errno::EINTR) => return,
            Ok((0, _)) | Err(_) => {
                self.hung_up = true;
                return;
            }
            Ok(heard) => heard,
        };
        let done = match serde_json::from_slice(&text[..length]) {
            Ok(Note::Failed(why)) => {
                // The first word counts; what follows follows from it.
                self.failed.get_or_insert(why);
                return;
            }
            Ok(Note::Made) => on_node(pid),
            Ok(Note::Limits(limits)) => raise(pid, &limits),
            Ok(Note::Listener(fd)) => self.forward(pid, fd),
            Err(e) => Err(format!("the worker does not understand: {e}")),
        };
        let answer = match &done {
            Ok(()) => "ok",
            Err(why) => why.as_str(),
        };
        // Its end comes as a message of its own.
        nix::unistd::write(&self.socket, answer.as_bytes()).ok();
    }

    fn receive(&self, text: &mut [u8]) -> std::result::Result<(usize, i32), Errno> {
        let mut space = nix::cmsg_space!(UnixCredentials);
        let mut parts = [std::io::IoSliceMut::new(text)];
        let message = recvmsg::<()>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        let sender = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmCredentials(sender) => Some(sender.pid()),
            _ => None,
        });
        Ok((message.bytes, sender.unwrap_or(0)))
    }

    fn forward(&self, pid: i32, fd: i32) -> Inside<()> {
        let agent = self
            .agent
            .as_ref()
            .ok_or("seccomp listenerPath is not set")?;
        let listener = sys::pidfd_open(pid)
            .and_then(|process| sys::descriptor_of(process.as_fd(), fd))
            .map_err(|e| format!("cannot take over the seccomp descriptor: {}", words(e)))?;
        agent.send(pid, &listener)
    }
}

impl Attend for Desk {
    fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        (!self.hung_up).then(|| self.socket.as_fd())
    }

    fn serve(&mut self) {
        self.serve_one(&mut no_hooks);
    }
}

/// Nobody but init, while it is being made, asks for them.
fn no_hooks(_pid: i32) -> Inside<()> {
    Err("hooks are run before".to_owned())
}

/// A desk whose visitor may ask for hooks.
pub(in crate::worker) struct WithHooks<'a> {
    desk: &'a mut Desk,
    on_node: &'a mut dyn FnMut(i32) -> Inside<()>,
}

impl Attend for WithHooks<'_> {
    fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        self.desk.waits_for()
    }

    fn serve(&mut self) {
        self.desk.serve_one(self.on_node);
    }
}

fn raise(pid: i32, limits: &[(i32, u64, u64)]) -> Inside<()> {
    for (resource, soft, hard) in limits {
        sys::set_limit_of(pid, *resource, *soft, *hard)
            .map_err(|e| super::limits::refused(*resource, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_told_and_the_end_is_noticed() {
        let (mut desk, line) = open(Who::Exec, None).unwrap();
        line.fail("first");
        line.fail("second");
        drop(line);
        desk.serve_to_the_end();
        let message = desk.failure().unwrap().message;
        assert_eq!(message, "unable to start container process: first");
        assert!(desk.failure().is_none());
    }

    #[test]
    fn a_listener_without_an_agent_is_refused() {
        let (mut desk, line) = open(Who::Exec, None).unwrap();
        let inside = std::thread::spawn(move || {
            let any = std::fs::File::open("/dev/null").unwrap().into();
            line.hand_over(&any)
        });
        desk.serve_to_the_end();
        assert_eq!(
            inside.join().unwrap(),
            Err("seccomp listenerPath is not set".to_owned())
        );
    }

    #[test]
    fn a_limit_is_set_for_who_asks() {
        let (mut desk, line) = open(Who::Exec, None).unwrap();
        let (soft, hard) = sys::limit(libc::RLIMIT_CORE.cast_signed()).unwrap();
        let inside = std::thread::spawn(move || {
            let done = line.raise_limits(vec![(libc::RLIMIT_CORE.cast_signed(), soft, hard)]);
            (done, line)
        });
        desk.serve();
        assert_eq!(inside.join().unwrap().0, Ok(()));
    }
}
