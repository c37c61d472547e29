//! Drives `criu swrk`: one process per operation, requests and notifications
//! over a `SEQPACKET` socket pair.
//!
//! ```text
//!  spawn ── version ── begin(dump | restore) ── next ─┬─ Notify(..) ── answer ─┐
//!                                               ^     ├─ Done                  │
//!                                               │     └─ Err: log lines, path  │
//!                                               └──────────────────────────────┘
//! ```
//!
//! If CRIU dies in the middle of a restore, the half-restored tree holds its end
//! of the socket open: its pidfd is polled besides. Whatever fails, the caller
//! kills what the operation made; dropping [`Criu`] kills CRIU alone.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use nix::unistd::Pid;
use protobuf::{EnumOrUnknown, Message, MessageField};
use rust_criu::rust_criu_protobuf::rpc::{
    Criu_notify, Criu_opts, Criu_req, Criu_req_type, Criu_resp,
};

use super::criu_log;
use super::protocol::CriuConfig;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::sys::{self, BeforeExec};

/// What we rely on came with this version (`major * 10000 + minor * 100 + sublevel`).
const OLDEST: u32 = 4_01_00;
/// A notification is a few dozen bytes.
const DATAGRAM: usize = 64 * 1024;
/// CRIU's own log, in its work directory.
pub(crate) const LOG: &str = "criu.log";
/// What criu says before it has opened its log.
const OUTPUT: &str = "criu.out";

/// What CRIU tells and waits for an answer to.
#[derive(Debug)]
pub(crate) enum Notification {
    /// Dump: nothing is stopped yet.
    PreDump,
    /// Dump: the images are written, the tasks still stand.
    PostDump,
    /// Restore: init exists, by its pid on the node.
    SetupNamespaces(i32),
    /// Restore: the master of the console that nobody held in the image.
    ConsoleMaster(OwnedFd),
    /// Restore: all tasks exist; init's pid on the node.
    PostRestore(i32),
    /// Restore: the tasks stand and run as soon as this is answered.
    PreResume,
    /// Anything else; needs nothing but the answer.
    Other,
}

/// What came from CRIU.
#[derive(Debug)]
pub(crate) enum Event {
    /// A notification; [`Criu::answer`] it.
    Notify(Notification),
    /// The operation succeeded.
    Done,
}

/// A running `criu swrk`.
#[derive(Debug)]
pub(crate) struct Criu {
    child: Child,
    exited: OwnedFd,
    socket: OwnedFd,
    path: PathBuf,
    work: PathBuf,
    deadline: Instant,
    doing: String,
    finished: bool,
}

impl Criu {
    /// Starts criu. `doing` is what fails in error messages (`restore container
    /// x`); `before.keep` is extended by the socket.
    pub(crate) fn spawn(
        config: &CriuConfig,
        work: &Path,
        doing: String,
        mut before: BeforeExec,
    ) -> Result<Self> {
        let path = find(&config.path)?;
        let (socket, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .doing("Cannot make a socket for criu")?;
        let output = File::create(work.join(OUTPUT)).doing("Cannot make criu's output file")?;
        let errors = output
            .try_clone()
            .doing("Cannot share criu's output file")?;
        before.keep.push(theirs.as_raw_fd());
        let mut command = Command::new(&path);
        command
            .arg("swrk")
            .arg(theirs.as_raw_fd().to_string())
            .current_dir(work)
            // What criu forks for itself, to ask the kernel things, stands in its
            // group, stopped: killed alone, criu leaves it there for ever.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        sys::before_exec(&mut command, before);
        let child = command.spawn().map_err(|e| unusable(&path, &e))?;
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let criu = Self {
            exited: sys::pidfd_open(pid).doing("Cannot watch criu")?,
            child,
            socket,
            work: work.to_owned(),
            deadline: Instant::now() + Duration::from_millis(config.timeout_ms),
            doing,
            finished: false,
            path,
        };
        criu.send(&Criu_req {
            type_: Some(EnumOrUnknown::new(Criu_req_type::VERSION)),
            keep_open: Some(true),
            ..Criu_req::default()
        })?;
        Ok(criu)
    }

    /// A new deadline from now on.
    pub(crate) fn extend(&mut self, timeout_ms: u64) {
        self.deadline = Instant::now() + Duration::from_millis(timeout_ms);
    }

    /// CRIU's pid.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Sends the request, if the version will do.
    pub(crate) fn begin(&mut self, what: Criu_req_type, mut opts: Criu_opts) -> Result<()> {
        self.check_version()?;
        opts.log_file = Some(LOG.to_owned());
        opts.notify_scripts = Some(true);
        let request = Criu_req {
            type_: Some(EnumOrUnknown::new(what)),
            opts: MessageField::some(opts),
            ..Criu_req::default()
        };
        self.send(&request)
    }

    /// Waits for what CRIU says next, until the deadline.
    pub(crate) fn next(&mut self) -> Result<Event> {
        let (response, fds) = self.receive()?;
        if !response.success() {
            return Err(self.failed(response.cr_errmsg()));
        }
        match response.type_() {
            Criu_req_type::NOTIFY => {
                let notify = response.notify.unwrap_or_default();
                Ok(Event::Notify(read_notification(&notify, fds)))
            }
            Criu_req_type::DUMP | Criu_req_type::RESTORE => Ok(Event::Done),
            other => Err(self.failed(&format!("it answered {other:?}"))),
        }
    }

    /// Answers a notification; `false` makes CRIU give up, except at
    /// [`Notification::PreResume`], where it does not listen.
    pub(crate) fn answer(&self, go_on: bool) -> Result<()> {
        self.send(&Criu_req {
            type_: Some(EnumOrUnknown::new(Criu_req_type::NOTIFY)),
            notify_success: Some(go_on),
            ..Criu_req::default()
        })
    }

    /// The end of a successful operation: CRIU exits by itself.
    pub(crate) fn finish(mut self) {
        self.finished = true;
        let readable = PollFlags::POLLIN;
        let mut exited = [PollFd::new(self.exited.as_fd(), readable)];
        // It has nothing left to do; should it linger, it is killed on drop.
        if poll(&mut exited, PollTimeout::from(1000u16)).is_ok_and(|n| n > 0) {
            self.child.wait().ok();
        } else {
            self.finished = false;
        }
    }

    /// Kills CRIU and reaps it. The tasks of a restore are not stopped by that,
    /// they are set running: kill them first.
    pub(crate) fn kill(&mut self) {
        if !self.finished {
            self.kill_group();
            self.child.wait().ok();
            self.finished = true;
        }
    }

    /// Before criu is reaped, as long as the group is surely its own.
    fn kill_group(&self) {
        killpg(Pid::from_raw(self.pid()), Signal::SIGKILL).ok();
    }

    /// The question went out when criu was started; the answer waits by now.
    fn check_version(&mut self) -> Result<()> {
        let (response, _) = self.receive()?;
        let version = response.version.unwrap_or_default();
        let part = |n: i32| u32::try_from(n).unwrap_or(0);
        let number = part(version.major_number()) * 10_000
            + part(version.minor_number()) * 100
            + part(version.sublevel());
        if number < OLDEST {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "{} is CRIU {}.{}, and 4.1 is the oldest that Reprise can use; install a \
                     newer one or name it in the config file as criu.path",
                    self.path.display(),
                    version.major_number(),
                    version.minor_number()
                ),
            ));
        }
        Ok(())
    }

    fn send(&self, request: &Criu_req) -> Result<()> {
        let bytes = request
            .write_to_bytes()
            .doing("Cannot encode a request for criu")?;
        let fd = self.socket.as_raw_fd();
        sendmsg::<()>(
            fd,
            &[IoSlice::new(&bytes)],
            &[],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .map(|_| ())
        .map_err(|e| self.failed(&format!("it does not listen any more: {e}")))
    }

    fn receive(&mut self) -> Result<(Criu_resp, Vec<OwnedFd>)> {
        self.wait_readable()?;
        let mut buffer = vec![0; DATAGRAM];
        let mut control = nix::cmsg_space!([RawFd; 4]);
        let (length, fds) = {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let fd = self.socket.as_raw_fd();
            let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
            let message = match recvmsg::<()>(fd, &mut slices, Some(&mut control), flags) {
                // It went without having read what we said last.
                Err(Errno::ECONNRESET) => return Err(self.ended()),
                other => other.doing("Cannot read from criu")?,
            };
            let mut fds = Vec::new();
            for part in message.cmsgs().doing("Cannot read descriptors from criu")? {
                if let ControlMessageOwned::ScmRights(numbers) = part {
                    fds.extend(numbers.into_iter().map(sys::own));
                }
            }
            (message.bytes, fds)
        };
        if length == 0 {
            return Err(self.ended());
        }
        let response = Criu_resp::parse_from_bytes(buffer.get(..length).unwrap_or_default())
            .doing("Cannot decode criu's answer")?;
        Ok((response, fds))
    }

    /// Until the socket can be read; what was said before an exit is read first.
    fn wait_readable(&mut self) -> Result<()> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left.min(Duration::from_secs(3600)))
                .unwrap_or(PollTimeout::MAX);
            let (said, gone) = {
                let readable = PollFlags::POLLIN;
                let mut fds = [
                    PollFd::new(self.socket.as_fd(), readable),
                    PollFd::new(self.exited.as_fd(), readable),
                ];
                match poll(&mut fds, timeout) {
                    Err(Errno::EINTR) => continue,
                    other => other.doing("Cannot wait for criu")?,
                };
                let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
                (ready(&fds[0]), ready(&fds[1]))
            };
            if said {
                return Ok(());
            }
            if gone {
                return Err(self.ended());
            }
            if left.is_zero() {
                return Err(self
                    .failed("it did not get done in time")
                    .with_kind(ErrorKind::Unavailable));
            }
        }
    }

    /// CRIU went away without an answer.
    fn ended(&mut self) -> Error {
        self.kill_group();
        let how = match self.child.wait() {
            Ok(status) => format!("criu ended early ({status})"),
            Err(e) => format!("criu ended early ({e})"),
        };
        self.finished = true;
        self.failed(&how)
    }

    /// The operation's error: the most telling line of the log, and where it is.
    fn failed(&self, said: &str) -> Error {
        criu_log::error(
            &self.doing,
            said,
            &self.work.join(LOG),
            &self.work.join(OUTPUT),
        )
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Gives a notification its type.
fn read_notification(notify: &Criu_notify, fds: Vec<OwnedFd>) -> Notification {
    match notify.script() {
        "pre-dump" => Notification::PreDump,
        "post-dump" => Notification::PostDump,
        "setup-namespaces" => Notification::SetupNamespaces(notify.pid()),
        "post-restore" => Notification::PostRestore(notify.pid()),
        "pre-resume" => Notification::PreResume,
        script => match (script, fds.into_iter().next()) {
            ("orphan-pts-master", Some(master)) => Notification::ConsoleMaster(master),
            _ => Notification::Other,
        },
    }
}

/// The executable: a path as it is, a bare name looked up on PATH.
fn find(name: &Path) -> Result<PathBuf> {
    if name.components().count() > 1 {
        return Ok(name.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "No `{}` on PATH; install CRIU 4.1 or newer or name it in the config file as \
                     criu.path",
                    name.display()
                ),
            )
        })
}

/// Why the executable cannot be run, and what to do.
fn unusable(path: &Path, error: &std::io::Error) -> Error {
    let at = path.display();
    let (kind, why) = match error.kind() {
        _ if !path.exists() => (
            ErrorKind::NotFound,
            format!(
                "There is no {at}; install CRIU 4.1 or newer or correct criu.path in the config file"
            ),
        ),
        std::io::ErrorKind::PermissionDenied => (
            ErrorKind::FailedPrecondition,
            format!("{at} is not executable; chmod it or correct criu.path in the config file"),
        ),
        _ => (
            ErrorKind::Internal,
            format!("Cannot start {at} (in the container's namespaces): {error}"),
        ),
    };
    Error::new(kind, why)
}
