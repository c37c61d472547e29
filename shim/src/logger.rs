//! Log binaries: `binary://PATH?KEY=VALUE` as standard output starts a program
//! that reads the container's output itself, from descriptors 3 and 4, and
//! closes descriptor 5 once it is ready.
//!
//! Descriptors beyond the first three need code between fork and exec, so we
//! start ourselves with them as the first three and move them there (`become_it`).

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use libc::SIGTERM;
use reprise_runtime::error::Doing;
use reprise_runtime::{Error, ErrorKind, Result};
use tokio::io::AsyncReadExt;

use crate::reaper::Reaper;
use crate::stdio::pipe;

/// Hidden first argument of the face that becomes a log binary.
pub(crate) const FACE: &str = "log-binary";
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// A running log binary; it is told to end when this is dropped.
#[derive(Debug)]
pub(crate) struct LogBinary {
    pid: i32,
    reaper: Reaper,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl LogBinary {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be started, or ended before it was ready.
    pub(crate) async fn spawn(
        reaper: &Reaper,
        uri: &str,
        namespace: &str,
        id: &str,
    ) -> Result<Self> {
        let (needs_byte, arguments) = parse(uri)?;
        let (out_read, stdout) = pipe()?;
        let (err_read, stderr) = pipe()?;
        let (ready_read, ready_write) = pipe()?;
        let child = Command::new("/proc/self/exe")
            .arg(FACE)
            .args(&arguments)
            .env_clear()
            .env("CONTAINER_ID", id)
            .env("CONTAINER_NAMESPACE", namespace)
            .stdin(Stdio::from(out_read))
            .stdout(Stdio::from(err_read))
            .stderr(Stdio::from(ready_write))
            .spawn()
            .doing(format!("Cannot start the log binary {uri}"))?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        // The reaper awaits it from here on, so that its pid stays good for signals.
        drop(reaper.exit_of(pid));
        let logger = Self {
            pid,
            reaper: reaper.clone(),
            stdout,
            stderr,
        };
        let mut ready = tokio::net::unix::pipe::Receiver::from_owned_fd(ready_read)
            .doing("Cannot wait for the log binary")?;
        let mut byte = [0];
        let read = tokio::time::timeout(READY_DEADLINE, ready.read(&mut byte))
            .await
            .doing(format!("The log binary {uri} did not get ready"))?
            .doing("Cannot wait for the log binary")?;
        if needs_byte && read == 0 {
            return Err(Error::internal(format!(
                "The log binary {uri} ended before it was ready"
            )));
        }
        Ok(logger)
    }

    /// Write ends of its pipes, for a process.
    ///
    /// # Errors
    /// No descriptors left.
    pub(crate) fn writers(&self) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
        let doing = "Cannot share the log binary's pipes";
        Ok((
            Some(self.stdout.try_clone().doing(doing)?),
            Some(self.stderr.try_clone().doing(doing)?),
        ))
    }
}

impl Drop for LogBinary {
    fn drop(&mut self) {
        // It has ended already when its input ended; then there is nobody to tell.
        self.reaper.signal(self.pid, SIGTERM).ok();
    }
}

/// The face that becomes the program in `arguments`. Returns only on failure.
pub(crate) fn become_it(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let Some(program) = arguments.next() else {
        return Err(Error::internal("No log binary was named"));
    };
    for fd in 0..3 {
        nix::unistd::dup2(fd, fd + 3).doing("Cannot move a descriptor")?;
    }
    let failed = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .exec();
    Err(Error::because("Cannot execute the log binary", &failed))
}

/// Whether it must say that it is ready, and program and arguments: every key,
/// and its first value unless that is empty.
fn parse(uri: &str) -> Result<(bool, Vec<String>)> {
    let bad = || {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("Not a log binary's URI: {uri}"),
        )
    };
    let (scheme, rest) = uri.split_once("://").ok_or_else(bad)?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') {
        return Err(bad());
    }
    let mut arguments = vec![decoded(path).ok_or_else(bad)?];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        arguments.push(decoded(key).ok_or_else(bad)?);
        if !value.is_empty() {
            arguments.push(decoded(value).ok_or_else(bad)?);
        }
    }
    Ok((scheme == "binary-v2", arguments))
}

/// Undoes percent encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_program_and_arguments() {
        let (needs_byte, arguments) = parse("binary:///bin/log%20it?-f=%2Ftmp%2Fx&-v").unwrap();
        assert!(!needs_byte);
        assert_eq!(arguments, ["/bin/log it", "-f", "/tmp/x", "-v"]);
        assert!(parse("binary-v2:///x").unwrap().0);
        assert!(parse("binary://relative").is_err());
        assert!(parse("binary:///x?%zz").is_err());
    }
}
