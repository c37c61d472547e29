//! How a shim has a checkpoint published as an image in containerd's store.
//!
//! ```text
//!  shim                               reprise publish (beside the shim's executable)
//!   spawn ──────────────────────────>
//!   Begin { namespace, ... } ───────>  lease, two empty snapshots
//!         <──── Begun { images, rootfs }
//!   (CRIU dumps into `images`, the writable layer goes below `rootfs`)
//!   Commit { manifest, ... } ───────>  snapshots, image and record become whole
//!         <──── Committed { image }
//!         <──── Settled                everything has reached the disk
//! ```
//!
//! One JSON document a line, both ways over one socket. When the shim goes before
//! `Commit`, the program undoes everything; after it, it goes on without the shim.
//! The shim itself speaks none of containerd's API: it would have to hold the client
//! in its memory for as long as its pod lives.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Manifest;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::spawn;

/// What an answer may take: containerd's own deadlines are shorter, and images that
/// have to be copied from another file system take their time.
const DEADLINE: Duration = Duration::from_secs(600);
/// A line that is longer is none of ours; a manifest takes some kilobytes.
const LONGEST: u64 = 16 << 20;

/// ttrpc metadata of Task.Checkpoint: the name of the image that it becomes.
pub const IMAGE_HEADER: &str = "reprise-image";

/// What the shim asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// A checkpoint of this container is about to be taken.
    Begin {
        /// containerd's namespace.
        namespace: String,
        /// Container id.
        container: String,
        /// The image's name, if it is to have another one than ours.
        #[serde(default)]
        image: Option<String>,
    },
    /// It was taken.
    Commit(Box<Commit>),
}

/// What `reprise publish` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Begin`].
    Begun(Begun),
    /// To [`Ask::Commit`]: it can be found.
    Committed {
        /// The image's name.
        image: String,
    },
    /// After [`Answer::Committed`]: it will be there after a crash of the node.
    Settled,
    /// To anything; everything is undone, or, after `Committed`, only good for as
    /// long as the node runs.
    Failed(Error),
}

/// Where a checkpoint goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Its id.
    pub id: String,
    /// Empty directory for CRIU's images.
    pub images: PathBuf,
    /// Empty directory for the writable layers, `0` the uppermost.
    pub rootfs: PathBuf,
}

/// A checkpoint that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// What it holds. Id, version, layers, files and their size are filled in.
    pub manifest: Manifest,
    /// CRIU's images are there instead of where they should be: they are linked, or
    /// copied where links do not reach.
    pub images: Option<PathBuf>,
    /// Layers of the checkpoint that the container came from, uppermost first. They
    /// follow the one that was copied.
    pub layers: Vec<PathBuf>,
}

/// A publisher at work. Dropped before [`Publisher::commit`], it undoes all.
#[derive(Debug)]
pub struct Publisher {
    lines: BufReader<UnixStream>,
}

impl Publisher {
    /// Starts one for the containerd at `address`.
    ///
    /// # Errors
    /// The program is not there.
    pub fn spawn(address: &Path) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().doing("Cannot make the publisher's socket")?;
        ours.set_read_timeout(Some(DEADLINE))
            .doing("Cannot set the publisher's deadline")?;
        let output = theirs
            .try_clone()
            .doing("Cannot make the publisher's socket")?;
        let (theirs, output) = (OwnedFd::from(theirs), OwnedFd::from(output));
        program(address, "publish", &[], theirs.into(), output.into())?;
        Ok(Self {
            lines: BufReader::new(ours),
        })
    }

    /// Has the place for a checkpoint made.
    ///
    /// # Errors
    /// containerd or the program refused.
    pub fn begin(
        &mut self,
        namespace: &str,
        container: &str,
        image: Option<&str>,
    ) -> Result<Begun> {
        self.ask(&Ask::Begin {
            namespace: namespace.to_owned(),
            container: container.to_owned(),
            image: image.map(str::to_owned),
        })?;
        match self.answer()? {
            Answer::Begun(begun) => Ok(begun),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a checkpoint findable; gives its image's name.
    ///
    /// # Errors
    /// containerd or the disk refused; nothing is left.
    pub fn commit(&mut self, commit: Commit) -> Result<String> {
        self.ask(&Ask::Commit(Box::new(commit)))?;
        match self.answer()? {
            Answer::Committed { image } => Ok(image),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until a committed checkpoint has reached the disk.
    ///
    /// # Errors
    /// The disk refused, or the program died.
    pub fn settled(mut self) -> Result<()> {
        match self.answer()? {
            Answer::Settled => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&mut self, ask: &Ask) -> Result<()> {
        let line = to_line(ask)?;
        let sent = self.lines.get_mut().write_all(line.as_bytes());
        // One that has failed said why before it went.
        match sent {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(died(&e)),
            _ => Ok(()),
        }
    }

    fn answer(&mut self) -> Result<Answer> {
        match read_line(&mut self.lines)? {
            Some(Answer::Failed(error)) => Err(error),
            Some(answer) => Ok(answer),
            None => Err(Error::new(
                ErrorKind::Unavailable,
                "`reprise publish` ended without an answer",
            )),
        }
    }
}

/// Starts the `reprise` that lies beside our own executable; gives its pid. Our
/// reaper gathers it.
///
/// # Errors
/// It is not there.
pub fn start(address: &Path, command: &str, arguments: &[&str]) -> Result<i32> {
    program(address, command, arguments, Stdio::null(), Stdio::null())
}

fn program(
    address: &Path,
    command: &str,
    arguments: &[&str],
    input: Stdio,
    output: Stdio,
) -> Result<i32> {
    let own = std::env::current_exe().doing("Cannot tell where our own executable is")?;
    let exe = own.with_file_name("reprise");
    let mut reprise = spawn::bare(&exe);
    if !address.as_os_str().is_empty() {
        reprise.arg("--address").arg(address);
    }
    reprise
        .arg(command)
        .args(arguments)
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::null());
    let spawned = reprise.spawn().doing(format_args!(
        "Cannot start {}, which keeps checkpoints in containerd's store; install it beside the shim",
        exe.display()
    ));
    spawned.map(|child| child.id().cast_signed())
}

/// A document as a line.
///
/// # Errors
/// It cannot be written as JSON.
pub fn to_line(document: &impl Serialize) -> Result<String> {
    let mut line = serde_json::to_string(document).doing("Cannot write a message")?;
    line.push('\n');
    Ok(line)
}

/// The document on the next line; none at the end.
///
/// # Errors
/// I/O, a deadline included; something else on the line.
pub fn read_line<T: for<'a> Deserialize<'a>>(lines: &mut impl BufRead) -> Result<Option<T>> {
    let mut line = Vec::new();
    let mut limited = std::io::Read::take(&mut *lines, LONGEST);
    limited.read_until(b'\n', &mut line).map_err(|e| died(&e))?;
    if line.last() != Some(&b'\n') {
        return Ok(None);
    }
    serde_json::from_slice(&line)
        .map(Some)
        .doing("Cannot read a message")
}

fn died(cause: &std::io::Error) -> Error {
    Error::because("Cannot speak with `reprise publish`", cause).with_kind(ErrorKind::Unavailable)
}

fn unexpected(answer: &Answer) -> Error {
    Error::internal(format!(
        "`reprise publish` gave an answer to another question: {answer:?}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_and_half_ones_are_none() {
        let ask = Ask::Begin {
            namespace: "k8s.io".to_owned(),
            container: "a\nb".to_owned(),
            image: None,
        };
        let line = to_line(&ask).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(read_line(&mut line.as_bytes()).unwrap(), Some(ask));
        let half = &line.as_bytes()[..line.len() - 1];
        assert_eq!(read_line::<Ask>(&mut &*half).unwrap(), None);
        assert!(read_line::<Ask>(&mut b"{}\n".as_slice()).is_err());
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        // Nothing of that name lies beside a test.
        let error = Publisher::spawn(Path::new("/run/x.sock")).unwrap_err();
        assert!(error.message.contains("/reprise, which keeps"), "{error}");
        assert!(
            error.message.contains("install it beside the shim"),
            "{error}"
        );
    }
}
