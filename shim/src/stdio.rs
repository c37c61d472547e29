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

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown, pipe2};
use reprise_runtime::error::Doing;
use reprise_runtime::worker::Stdio;
use reprise_runtime::{Error, ErrorKind, Result};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::logger::LogBinary;
use crate::reaper::Reaper;

/// One read or write; a pipe's default capacity.
const CHUNK_BYTES: usize = 64 * 1024;
/// How long a FIFO's reader may take to appear before we go on without it.
const READER_DEADLINE: Duration = Duration::from_secs(2);

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

#[derive(Debug)]
struct Source {
    reader: OwnedFd,
    held: OwnedFd,
}

#[derive(Debug, Clone)]
enum Sink {
    Fifo(Arc<Fifo>),
    File(Arc<File>),
}

#[derive(Debug)]
struct Fifo {
    writer: AsyncFd<OwnedFd>,
    _reader: OwnedFd,
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

impl Sink {
    async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Fifo(fifo) => write_all(&fifo.writer, bytes).await,
            Self::File(file) => (&mut &**file).write_all(bytes),
        }
    }
}

async fn write_all(to: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(to.get_ref(), bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(nix::errno::Errno::EAGAIN) => {
                // Forget the old readiness, look once more, then wait for the new.
                let mut guard = to.writable().await?;
                if let Ok(result) = guard
                    .try_io(|fd| nix::unistd::write(fd.get_ref(), bytes).map_err(io::Error::from))
                {
                    bytes = bytes.get(result?..).unwrap_or_default();
                }
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
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

async fn open_output(path: &str) -> Result<Sink> {
    use std::os::unix::fs::FileTypeExt;

    let about = std::fs::metadata(path).doing(format!("Cannot find the output {path}"))?;
    if !about.file_type().is_fifo() {
        return open_file(Path::new(path));
    }
    let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let waiting_since = tokio::time::Instant::now();
    // What is written before the reader came would be lost if we ended first.
    let writer = loop {
        match open(path, OFlag::O_WRONLY | flags) {
            Err(nix::errno::Errno::ENXIO) if waiting_since.elapsed() < READER_DEADLINE => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(nix::errno::Errno::ENXIO) => break open(path, OFlag::O_RDWR | flags),
            other => break other,
        }
    }
    .doing(format!("Cannot open the output FIFO {path}"))?;
    let reader =
        open(path, OFlag::O_RDONLY | flags).doing(format!("Cannot hold the FIFO {path}"))?;
    Ok(Sink::Fifo(Arc::new(Fifo {
        writer: polled(writer)?,
        _reader: reader,
    })))
}

fn open_file(path: &Path) -> Result<Sink> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).doing(format!("Cannot make {}", parent.display()))?;
    }
    File::options()
        .append(true)
        .create(true)
        .open(path)
        .map(|file| Sink::File(Arc::new(file)))
        .doing(format!("Cannot open the log file {}", path.display()))
}

fn open_input(path: &str) -> Result<Source> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let doing = || format!("Cannot open the input FIFO {path}");
    Ok(Source {
        reader: open(path, OFlag::O_RDONLY | flags).doing(doing())?,
        held: open(path, OFlag::O_WRONLY | flags).doing(doing())?,
    })
}

fn open(path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;

    let access = flags & OFlag::O_ACCMODE;
    File::options()
        .read(access != OFlag::O_WRONLY)
        .write(access != OFlag::O_RDONLY)
        .custom_flags((flags & !OFlag::O_ACCMODE).bits())
        .open(PathBuf::from(path))
        .map(OwnedFd::from)
        .map_err(|e| nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or_default()))
}

/// A pipe whose ends are closed on exec.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC).doing("Cannot make a pipe")
}

fn pipe_of(owner: Option<(u32, u32)>) -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe()?;
    if let Some((uid, gid)) = owner {
        // Both ends are one file.
        fchown(
            read.as_raw_fd(),
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
        )
        .doing("Cannot give a pipe to its owner")?;
    }
    Ok((read, write))
}

/// Makes a descriptor one that tokio polls and that never blocks.
pub(crate) fn polled(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    let flags = fcntl(fd.as_raw_fd(), FcntlArg::F_GETFL).doing("Cannot read a pipe's flags")?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(fd.as_raw_fd(), FcntlArg::F_SETFL(flags)).doing("Cannot set a pipe's flags")?;
    #[allow(
        deprecated,
        reason = "its successor is unsafe for the sake of types that do not own what they wrap"
    )]
    AsyncFd::new(fd).doing("Cannot poll a pipe")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn fifo(dir: &Path, name: &str) -> String {
        let path = dir.join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Reads a FIFO to its end, as containerd does.
    fn reader(path: &str) -> JoinHandle<Vec<u8>> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            File::open(path).unwrap().read_to_end(&mut all).unwrap();
            all
        })
    }

    async fn opened(paths: &Paths) -> Opened {
        paths.open(&Reaper::default(), "ns", "id").await.unwrap()
    }

    #[tokio::test]
    async fn large_output_is_complete_and_both_streams_are_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            stdout: fifo(dir.path(), "out"),
            stderr: fifo(dir.path(), "err"),
            ..Default::default()
        };
        let (out, err) = (reader(&paths.stdout), reader(&paths.stderr));
        let opened = opened(&paths).await;
        let (theirs, ours) = opened.pipes(None).unwrap();
        let mut copying = opened.copy(ours, None).unwrap();
        let writer = tokio::task::spawn_blocking(move || {
            let mut stdout = File::from(theirs.stdout.unwrap());
            for n in 0..200_000_u32 {
                writeln!(stdout, "line {n}").unwrap();
            }
            File::from(theirs.stderr.unwrap())
                .write_all(b"oops")
                .unwrap();
        });
        writer.await.unwrap();
        assert!(copying.drain(Duration::from_secs(5)).await);
        drop(copying);
        let text = String::from_utf8(out.await.unwrap()).unwrap();
        assert_eq!(text.lines().count(), 200_000);
        assert!(text.ends_with("line 199999\n"));
        assert_eq!(err.await.unwrap(), b"oops");
    }

    #[tokio::test]
    async fn a_process_that_inherited_the_pipe_does_not_hold_up_the_drain() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            stdout: fifo(dir.path(), "out"),
            ..Default::default()
        };
        let out = reader(&paths.stdout);
        let opened = opened(&paths).await;
        let (theirs, ours) = opened.pipes(None).unwrap();
        let mut copying = opened.copy(ours, None).unwrap();
        let mut stdout = File::from(theirs.stdout.unwrap());
        stdout.write_all(b"last words").unwrap();
        let began = std::time::Instant::now();
        assert!(copying.drain(Duration::from_secs(5)).await);
        assert!(began.elapsed() < Duration::from_secs(1));
        drop(copying);
        assert_eq!(out.await.unwrap(), b"last words");
        drop(stdout);
    }

    #[tokio::test]
    async fn input_ends_when_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            stdin: fifo(dir.path(), "in"),
            ..Default::default()
        };
        let opened = opened(&paths).await;
        let (theirs, ours) = opened.pipes(None).unwrap();
        let mut copying = opened.copy(ours, None).unwrap();
        let mut client = File::options().write(true).open(&paths.stdin).unwrap();
        client.write_all(b"typed").unwrap();
        drop(client);
        copying.close_input();
        let read = tokio::task::spawn_blocking(move || {
            let mut all = String::new();
            File::from(theirs.stdin.unwrap())
                .read_to_string(&mut all)
                .unwrap();
            all
        });
        assert_eq!(read.await.unwrap(), "typed");
    }

    #[tokio::test]
    async fn a_file_gets_both_streams() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("logs/container.log");
        let paths = Paths {
            stdout: format!("file://{}", log.display()),
            ..Default::default()
        };
        let opened = opened(&paths).await;
        let (theirs, ours) = opened.pipes(None).unwrap();
        let mut copying = opened.copy(ours, None).unwrap();
        File::from(theirs.stdout.unwrap())
            .write_all(b"out")
            .unwrap();
        File::from(theirs.stderr.unwrap())
            .write_all(b"err")
            .unwrap();
        assert!(copying.drain(Duration::from_secs(5)).await);
        assert_eq!(std::fs::read_to_string(log).unwrap().len(), 6);
    }

    #[tokio::test]
    async fn an_unknown_scheme_is_refused() {
        let paths = Paths {
            stdout: "gopher://x".into(),
            ..Default::default()
        };
        let error = paths
            .open(&Reaper::default(), "ns", "id")
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument);
    }
}
