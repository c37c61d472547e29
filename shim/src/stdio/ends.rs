//! What is at the ends of a copy: FIFOs, files and pipes.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown, pipe2};
use reprise_runtime::Result;
use reprise_runtime::error::Doing;
use tokio::io::unix::AsyncFd;

/// How long a FIFO's reader may take to appear before we go on without it.
const READER_DEADLINE: Duration = Duration::from_secs(2);

/// Where a process' input comes from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) reader: OwnedFd,
    /// Keeps the input open.
    pub(super) held: OwnedFd,
}

/// Where a process' output goes.
#[derive(Debug, Clone)]
pub(super) enum Sink {
    Fifo(Arc<Fifo>),
    File(Arc<File>),
}

/// A FIFO to write to.
#[derive(Debug)]
pub(super) struct Fifo {
    writer: AsyncFd<OwnedFd>,
    _reader: OwnedFd,
}

impl Sink {
    pub(super) async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Fifo(fifo) => write_all(&fifo.writer, bytes).await,
            Self::File(file) => (&mut &**file).write_all(bytes),
        }
    }
}

pub(super) async fn write_all(to: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
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

pub(super) async fn open_output(path: &str) -> Result<Sink> {
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

pub(super) fn open_file(path: &Path) -> Result<Sink> {
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

pub(super) fn open_input(path: &str) -> Result<Source> {
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

pub(super) fn pipe_of(owner: Option<(u32, u32)>) -> Result<(OwnedFd, OwnedFd)> {
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
