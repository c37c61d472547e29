//! A connection to systemd: ask, wait for the answer, wait for a job to end.
//!
//! Our own and small, since the worker has one thread and forks, and the shim has
//! no memory to spare: zbus brings an executor with threads of its own, and the
//! client inside libcgroups cannot be reached from outside. systemd's private
//! socket comes first: it is there without a bus, needs one handshake, and tells
//! of jobs without being asked to. The system bus is the second way.

mod wire;

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket};
use nix::sys::time::TimeVal;

use crate::error::{Doing, Error, ErrorKind, Result};
use wire::{FIXED, Kind, Message, rest_of};

pub(super) use wire::{Body, Call, Property, Value};

/// systemd's own socket, for root alone.
const PRIVATE: &str = "/run/systemd/private";
/// The system bus.
const BUS: &str = "/run/dbus/system_bus_socket";
/// How long one connection may take for all that is asked of it; runc's limit
/// for one job.
const PATIENCE: Duration = Duration::from_secs(30);

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";

/// Why a call had no success.
#[derive(Debug)]
pub(super) enum CallError {
    /// systemd's refusal: the error's name, and what it says.
    Refused(String, String),
    /// It could not be asked, or did not answer.
    Failed(Error),
}

impl CallError {
    /// Whether it is this error of systemd's.
    pub(super) fn is(&self, name: &str) -> bool {
        let Self::Refused(theirs, _) = self else {
            return false;
        };
        theirs.strip_prefix("org.freedesktop.systemd1.") == Some(name)
    }

    /// As an error of ours, in one line.
    pub(super) fn doing(self, what: impl std::fmt::Display) -> Error {
        match self {
            Self::Refused(name, text) => {
                let kind = match name.as_str() {
                    "org.freedesktop.DBus.Error.InvalidArgs"
                    | "org.freedesktop.DBus.Error.PropertyReadOnly" => ErrorKind::InvalidArgument,
                    _ => ErrorKind::Internal,
                };
                Error::new(kind, format!("{what}: systemd answers: {text} ({name})"))
            }
            Self::Failed(error) => {
                let line = format!("{what}: {}", error.message);
                Error::new(error.kind, line)
            }
        }
    }
}

/// Talks to the systemd of this node.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
    until: Instant,
    /// Ended jobs that nobody has asked for yet: path and result.
    ended: Vec<(String, String)>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// The node does not run systemd, or does not let us talk to it.
    pub(super) fn open() -> Result<Self> {
        let private = Path::new(PRIVATE);
        let opened = match Self::private(private) {
            Ok(connection) => Ok(connection),
            // The first tells more, unless there is no such socket.
            Err(first) => match Self::bus(Path::new(BUS)) {
                Err(_second) if private.exists() => Err(first),
                other => other,
            },
        };
        opened.map_err(|e| {
            Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "The cgroup's path is for the systemd cgroup driver, but systemd cannot be \
                     reached: {}; use the cgroupfs driver on nodes without systemd",
                    e.message
                ),
            )
        })
    }

    /// Connects to systemd itself.
    pub(super) fn private(socket: &Path) -> Result<Self> {
        let mut new = Self {
            stream: reach(socket)?,
            serial: 0,
            until: Instant::now() + PATIENCE,
            ended: Vec::new(),
        };
        new.authenticate()
            .doing(format_args!("Cannot log in at {}", socket.display()))?;
        Ok(new)
    }

    /// Connects to the bus, gets a name on it, and asks to be told of jobs.
    fn bus(socket: &Path) -> Result<Self> {
        let mut new = Self::private(socket)?;
        let call = |member, signature, body| Call {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member,
            signature,
            body,
        };
        let rule = format!("type='signal',interface='{MANAGER}',member='JobRemoved'");
        new.call(&call("Hello", "", Body::default()))
            .and_then(|_| new.call(&call("AddMatch", "s", Body::default().and_text(&rule))))
            .map_err(|e| e.doing("Cannot join the system bus"))?;
        Ok(new)
    }

    /// `EXTERNAL`: the kernel vouches for our user id (D-Bus specification,
    /// "Authentication protocol"). Everything in one go, as libsystemd does it: a
    /// call that reaches systemd in the same breath as `BEGIN` is taken out of the
    /// socket along with it and then lies there unnoticed.
    fn authenticate(&mut self) -> std::io::Result<()> {
        let id = nix::unistd::geteuid().to_string();
        let hex: String = id.bytes().map(|digit| format!("{digit:02x}")).collect();
        self.stream
            .write_all(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < 512 {
            let mut byte = [0];
            self.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK ") {
            let text = String::from_utf8_lossy(&line).trim().to_owned();
            return Err(std::io::Error::other(format!("it answers {text:?}")));
        }
        Ok(())
    }

    /// Calls a method of the manager and returns the first argument of the
    /// answer, if it is a path.
    pub(super) fn manager(
        &mut self,
        member: &str,
        signature: &str,
        body: Body,
    ) -> std::result::Result<Option<String>, CallError> {
        let answer = self.call(&Call {
            destination: SYSTEMD,
            path: MANAGER_PATH,
            interface: MANAGER,
            member,
            signature,
            body,
        })?;
        Ok(answer.arguments().text())
    }

    /// systemd's version: `257` of `257.8-1~deb13u2`.
    pub(super) fn version(&mut self) -> std::result::Result<u32, CallError> {
        let body = Body::default().and_text(MANAGER).and_text("Version");
        let answer = self.call(&Call {
            destination: SYSTEMD,
            path: MANAGER_PATH,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            signature: "ss",
            body,
        })?;
        let mut arguments = answer.arguments();
        let text = arguments
            .signature()
            .filter(|typ| typ == "s")
            .and_then(|_| arguments.text())
            .unwrap_or_default();
        number_of(&text).ok_or_else(|| {
            CallError::Failed(Error::internal(format!(
                "systemd calls its version {text:?}"
            )))
        })
    }

    /// Waits for a job to end and returns its result, `done` if all went well.
    ///
    /// # Errors
    /// The connection, or systemd takes too long.
    pub(super) fn wait_for_job(&mut self, job: &str) -> Result<String> {
        loop {
            if let Some(at) = self.ended.iter().position(|(path, _)| path == job) {
                return Ok(self.ended.swap_remove(at).1);
            }
            let message = self
                .receive()
                .doing("systemd did not say what came of the job")?;
            self.note(&message);
        }
    }

    fn call(&mut self, call: &Call<'_>) -> std::result::Result<Message, CallError> {
        let member = call.member;
        let failed = |e: std::io::Error| {
            let doing = format_args!("systemd did not answer {member}");
            CallError::Failed(Error::because(doing, &e).with_kind(ErrorKind::Unavailable))
        };
        self.serial += 1;
        let serial = self.serial;
        self.stream
            .write_all(&call.encode(serial))
            .map_err(failed)?;
        loop {
            let message = self.receive().map_err(failed)?;
            self.note(&message);
            match message.kind {
                Kind::Return if message.answers == serial => return Ok(message),
                Kind::Error if message.answers == serial => {
                    let text = message.arguments().text().unwrap_or_default();
                    return Err(CallError::Refused(message.error, text));
                }
                _ => {}
            }
        }
    }

    /// Remembers a job that ended: the signal may come before it is waited for.
    fn note(&mut self, message: &Message) {
        if message.kind != Kind::Signal || message.member != "JobRemoved" {
            return;
        }
        let mut arguments = message.arguments();
        let (_id, job) = (arguments.u32(), arguments.text());
        let (_unit, result) = (arguments.text(), arguments.text());
        if let (Some(job), Some(result)) = (job, result) {
            self.ended.push((job, result));
        }
    }

    fn receive(&mut self) -> std::io::Result<Message> {
        let strange = || std::io::Error::other("what came is not a D-Bus message");
        let mut fixed = [0; FIXED];
        self.read_exact(&mut fixed)?;
        let mut rest = vec![0; rest_of(&fixed).ok_or_else(strange)?];
        self.read_exact(&mut rest)?;
        Message::decode(&fixed, &rest).ok_or_else(strange)
    }

    /// Reads all of `buffer` before the connection's time is up.
    fn read_exact(&mut self, mut buffer: &mut [u8]) -> std::io::Result<()> {
        while !buffer.is_empty() {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => buffer = &mut buffer[read..],
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                // The socket's way to say that its time is up.
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// A connected socket that never blocks for ever, connecting included: the
/// backlog is full when many containers start at once.
fn reach(path: &Path) -> Result<UnixStream> {
    let doing = || format!("Cannot connect to {}", path.display());
    let socket: OwnedFd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .doing(doing())?;
    let seconds = i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX);
    let patience = TimeVal::new(seconds, 0);
    setsockopt(&socket.as_fd(), SendTimeout, &patience).doing(doing())?;
    setsockopt(&socket.as_fd(), ReceiveTimeout, &patience).doing(doing())?;
    let address = UnixAddr::new(path).doing(doing())?;
    connect(socket.as_raw_fd(), &address).doing(doing())?;
    Ok(UnixStream::from(socket))
}

/// The first number of a version.
fn number_of(version: &str) -> Option<u32> {
    let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())].parse().ok()
}

#[cfg(test)]
pub(super) mod peer;
#[cfg(test)]
mod tests;
