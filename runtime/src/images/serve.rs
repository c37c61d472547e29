//! `reprise publish`: what the shim speaks with (`reprise_runtime::publish`).

use std::io::{BufReader, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use reprise_runtime::error::Doing;
use reprise_runtime::publish::{Answer, Ask, Commit, read_line, to_line};
use reprise_runtime::store::Store;
use reprise_runtime::{Error, Result};

use super::client::Client;
use super::publish::{Publication, Published};

/// Serves one checkpoint on standard input and output. A signal or the end of the
/// input before its commit undoes everything. `committed` is called once it can be
/// found, before the disk is waited for. Signals end the process again afterwards.
///
/// # Errors
/// What was answered as [`Answer::Failed`].
pub(crate) fn serve(
    connect: impl Fn(&str) -> Result<Client>,
    store: &Path,
    committed: impl FnOnce() -> Result<()>,
) -> Result<Option<Published>> {
    let mut shim = Shim::new()?;
    let served = publish(&mut shim, connect, &Store::at(store), committed);
    if let Err(error) = &served {
        shim.tell(&Answer::Failed(error.clone()));
    }
    shim.ends.thread_unblock().doing("Cannot take signals")?;
    served
}

fn publish(
    shim: &mut Shim,
    connect: impl Fn(&str) -> Result<Client>,
    store: &Store,
    committed: impl FnOnce() -> Result<()>,
) -> Result<Option<Published>> {
    let Some(Ask::Begin {
        namespace,
        container,
        image,
    }) = shim.hear()?
    else {
        return Ok(None);
    };
    let publication = Publication::begin(&connect(&namespace)?, store, &container, image)?;
    shim.tell(&Answer::Begun(publication.place()));
    let Some(commit) = awaited_commit(shim) else {
        publication.abort();
        return Ok(None);
    };
    let published = publication.commit(commit)?;
    shim.tell(&Answer::Committed {
        image: published.image.clone(),
    });
    let after = committed();
    published.settle()?;
    shim.tell(&Answer::Settled);
    after.map(|()| Some(published))
}

/// `None` for whatever is none: the dump has failed, or its shim has.
fn awaited_commit(shim: &mut Shim) -> Option<Commit> {
    match shim.hear() {
        Ok(Some(Ask::Commit(commit))) => Some(*commit),
        _ => None,
    }
}

/// The other side, and the signals that end this one.
struct Shim {
    input: BufReader<std::io::Stdin>,
    ends: SigSet,
    signals: SignalFd,
}

impl Shim {
    fn new() -> Result<Self> {
        let mut ends = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            ends.add(signal);
        }
        ends.thread_block().doing("Cannot block signals")?;
        Ok(Self {
            input: BufReader::new(std::io::stdin()),
            signals: SignalFd::new(&ends).doing("Cannot wait for signals")?,
            ends,
        })
    }

    /// The next question; none at the end of them, or when a signal ends it.
    fn hear(&mut self) -> Result<Option<Ask>> {
        loop {
            let stdin = std::io::stdin();
            let mut fds = [
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(Error::because("Cannot wait for the shim", &e)),
            }
            let [input, signals] = &fds;
            if signals.any().unwrap_or_default() {
                return Ok(None);
            }
            if input.any().unwrap_or_default() {
                return read_line(&mut self.input);
            }
        }
    }

    /// A shim that has gone needs no answer.
    fn tell(&mut self, answer: &Answer) {
        if let Ok(line) = to_line(answer) {
            let mut output = std::io::stdout().lock();
            output
                .write_all(line.as_bytes())
                .and_then(|()| output.flush())
                .ok();
        }
    }
}
