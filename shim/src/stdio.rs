//! Pipes and consoles of a process <-> what containerd gave us for them.
//!
//! ```text
//!  process ── pipe ──> copy task ──> FIFO | file        (stdout, stderr)
//!  process <── pipe ── copy task <── FIFO               (stdin)
//!  console <─────────> two copy tasks <─> FIFOs         (terminal)
//! ```
//!
//! Both ends of every FIFO are kept open, so that a restart of containerd
//! neither ends our input nor breaks our output. Buffers live only while there
//! is something to copy.

mod ends;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reprise_runtime::error::Doing;
use reprise_runtime::worker::Stdio;
use reprise_runtime::{Error, ErrorKind, Result};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::logger::LogBinary;
use crate::reaper::Reaper;
use ends::{Sink, Source, open_file, open_input, open_output, pipe_of, write_all};
pub(crate) use ends::{pipe, polled};

/// One read or write; a pipe's default capacity.
const CHUNK_BYTES: usize = 64 * 1024;

/// Where containerd wants a process' stdio, as it was requested.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// containerd's ends, opened before the process exists.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    stdin: Option<Source>,
    stdout: Option<Sink>,
    stderr: Option<Sink>,
    terminal: bool,
    logger: Option<LogBinary>,
}

/// Our ends of a process' pipes, between `Opened::pipes` and `Opened::copy`.
#[derive(Debug, Default)]
pub(crate) struct Ours {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// The running copies of one process.
#[derive(Debug)]
pub(crate) struct Copying {
    input: Option<JoinHandle<()>>,
    /// Dropping it lets the input end once containerd's side has closed as well.
    input_held: Option<OwnedFd>,
    outputs: Vec<JoinHandle<()>>,
    /// Told to the output copies once the process is dead.
    ended: watch::Sender<bool>,
    /// Closes when every output has been seen empty after `ended`, or is closed.
    drained: mpsc::Receiver<()>,
    console: Option<Arc<AsyncFd<OwnedFd>>>,
    _logger: Option<LogBinary>,
}

impl Paths {
    /// Opens what containerd made. `id` and `namespace` are for log binaries.
    ///
    /// # Errors
    /// A path that cannot be opened, or a scheme that is not known.
    pub(crate) async fn open(&self, reaper: &Reaper, namespace: &str, id: &str) -> Result<Opened> {
        let mut opened = Opened {
            stdin: None,
            stdout: None,
            stderr: None,
            terminal: self.terminal,
            logger: None,
        };
        match scheme(&self.stdout) {
            ("fifo", path) => {
                if !path.is_empty() {
                    opened.stdout = Some(open_output(path).await?);
                }
                // A terminal has one output.
                if !self.stderr.is_empty() && !self.terminal {
                    opened.stderr = match &opened.stdout {
                        Some(same) if self.stderr == self.stdout => Some(same.clone()),
                        _ => Some(open_output(scheme(&self.stderr).1).await?),
                    };
                }
            }
            ("file", path) => {
                let sink = open_file(Path::new(path))?;
                opened.stdout = Some(sink.clone());
                opened.stderr = (!self.terminal).then_some(sink);
            }
            ("binary" | "binary-v2", _) => {
                opened.logger = Some(LogBinary::spawn(reaper, &self.stdout, namespace, id).await?);
            }
            (other, _) => {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!(
                        "Standard output has the unknown scheme {other:?}; use a FIFO, file:// or binary://"
                    ),
                ));
            }
        }
        if !self.stdin.is_empty() {
            opened.stdin = Some(open_input(&self.stdin)?);
        }
        Ok(opened)
    }
}

impl Opened {
    /// Makes the process' pipes, and gives them to their owner if there is one: its
    /// ends, and ours. A terminal has none.
    ///
    /// # Errors
    /// No descriptors left.
    pub(crate) fn pipes(&self, owner: Option<(u32, u32)>) -> Result<(Stdio, Ours)> {
        let mut theirs = Stdio::default();
        let mut ours = Ours::default();
        if self.terminal {
            return Ok((theirs, ours));
        }
        if self.stdin.is_some() {
            let (read, write) = pipe_of(owner)?;
            (theirs.stdin, ours.stdin) = (Some(read), Some(write));
        }
        if let Some(logger) = &self.logger {
            (theirs.stdout, theirs.stderr) = logger.writers()?;
            return Ok((theirs, ours));
        }
        if self.stdout.is_some() {
            let (read, write) = pipe_of(owner)?;
            (theirs.stdout, ours.stdout) = (Some(write), Some(read));
        }
        if self.stderr.is_some() {
            let (read, write) = pipe_of(owner)?;
            (theirs.stderr, ours.stderr) = (Some(write), Some(read));
        }
        Ok((theirs, ours))
    }

    /// Starts to copy. `console` is the master of a terminal.
    ///
    /// # Errors
    /// A descriptor that cannot be polled.
    pub(crate) fn copy(self, ours: Ours, console: Option<OwnedFd>) -> Result<Copying> {
        let (ended, is_ended) = watch::channel(false);
        let (done, drained) = mpsc::channel(1);
        let console = console.map(polled).transpose()?.map(Arc::new);

        let mut outputs = Vec::new();
        let mut output = |from: Arc<AsyncFd<OwnedFd>>, to: Sink| {
            let (is_ended, done) = (is_ended.clone(), done.clone());
            outputs.push(tokio::spawn(copy_output(from, to, is_ended, done)));
        };
        if let (Some(console), Some(to)) = (&console, &self.stdout) {
            output(Arc::clone(console), to.clone());
        }
        for (from, to) in [(ours.stdout, self.stdout), (ours.stderr, self.stderr)] {
            if let (Some(from), Some(to)) = (from, to) {
                output(Arc::new(polled(from)?), to);
            }
        }

        let mut input = None;
        let mut input_held = None;
        if let Some(source) = self.stdin {
            let to = match (&console, ours.stdin) {
                (Some(console), _) => Some(Arc::clone(console)),
                (None, Some(pipe)) => Some(Arc::new(polled(pipe)?)),
                (None, None) => None,
            };
            if let Some(to) = to {
                input_held = Some(source.held);
                input = Some(tokio::spawn(copy_input(polled(source.reader)?, to)));
            }
        }
        Ok(Copying {
            input,
            input_held,
            outputs,
            ended,
            drained,
            console,
            _logger: self.logger,
        })
    }
}

impl Copying {
    /// containerd closes the process' input; what was written is still read.
    pub(crate) fn close_input(&mut self) {
        self.input_held = None;
    }

    /// The console's window has a new size.
    ///
    /// # Errors
    /// The console is gone.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let Some(console) = &self.console else {
            return Ok(());
        };
        reprise_runtime::sys::set_window_size(console.as_fd(), rows, columns)
            .doing("Cannot resize the console")
    }

    /// The process is dead: waits until all that it wrote is on its way. A
    /// process that inherited its pipes does not hold this up, since the pipe is
    /// seen empty then; a reader that does not read does, until `at_most`.
    pub(crate) async fn drain(&mut self, at_most: Duration) -> bool {
        if let Some(input) = self.input.take() {
            input.abort();
        }
        self.input_held = None;
        // Nobody listens when all copies have ended already.
        self.ended.send(true).ok();
        tokio::time::timeout(at_most, self.drained.recv())
            .await
            .is_ok()
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        for copy in self.outputs.drain(..).chain(self.input.take()) {
            copy.abort();
        }
    }
}

/// Copies until the writers are gone. Once the process is dead, gives `done`
/// back as soon as the pipe was seen empty, and goes on for those who inherited it.
async fn copy_output(
    from: Arc<AsyncFd<OwnedFd>>,
    to: Sink,
    mut is_ended: watch::Receiver<bool>,
    done: mpsc::Sender<()>,
) {
    let mut done = Some(done);
    loop {
        let waits_for_end = done.is_some() && !*is_ended.borrow();
        tokio::select! {
            ready = from.readable() => match ready {
                Ok(mut guard) => guard.clear_ready(),
                Err(_) => return,
            },
            changed = is_ended.changed(), if waits_for_end => {
                // The sender is gone: the process was given up.
                if changed.is_err() {
                    return;
                }
            }
        }
        let ended = *is_ended.borrow();
        match copy_available(&from, &to).await {
            Copied::Empty if ended => done = None,
            Copied::Empty => {}
            Copied::Closed => return,
        }
    }
}

enum Copied {
    /// Nothing more for now.
    Empty,
    /// No writer or no reader is left.
    Closed,
}

/// Copies what is there. Reads without asking for readiness first, so that an
/// empty pipe is known to be empty and not only not yet announced.
async fn copy_available(from: &AsyncFd<OwnedFd>, to: &Sink) -> Copied {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match nix::unistd::read(from.as_raw_fd(), &mut buffer) {
            // A console whose last process has closed it reads EIO.
            Ok(0) | Err(nix::errno::Errno::EIO) => return Copied::Closed,
            Ok(n) => {
                let Some(bytes) = buffer.get(..n) else {
                    return Copied::Closed;
                };
                if let Err(e) = to.write_all(bytes).await {
                    log::warn!(error = e.to_string().as_str(); "cannot write a container's output");
                    return Copied::Closed;
                }
            }
            Err(nix::errno::Errno::EAGAIN) => return Copied::Empty,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return Copied::Closed,
        }
    }
}

async fn copy_input(from: AsyncFd<OwnedFd>, to: Arc<AsyncFd<OwnedFd>>) {
    loop {
        let Ok(mut guard) = from.readable().await else {
            return;
        };
        let mut buffer = vec![0; 4096];
        let read = guard
            .try_io(|fd| nix::unistd::read(fd.as_raw_fd(), &mut buffer).map_err(io::Error::from));
        match read {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(n)) => {
                let bytes = buffer.get(..n).unwrap_or_default();
                if write_all(&to, bytes).await.is_err() {
                    return;
                }
            }
            Err(_would_block) => {}
        }
    }
}

/// Scheme and path of a stdio URI; a bare path is a FIFO.
fn scheme(uri: &str) -> (&str, &str) {
    uri.split_once("://").unwrap_or(("fifo", uri))
}

#[cfg(test)]
mod tests;
