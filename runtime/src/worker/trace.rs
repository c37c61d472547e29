//! libcontainer's errors lose their cause on the way up; it tells the cause only
//! as tracing events, some of them in processes of its own that end at once. So
//! the events go to a memfd that all of them share, and whoever reports an error
//! reads what was written since it began.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use std::os::fd::AsRawFd;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

static EVENTS: OnceLock<File> = OnceLock::new();

/// Begins to collect. Failing to is no reason not to run a container.
pub(super) fn collect() {
    let Ok(fd) = memfd_create(c"reprise-causes", MemFdCreateFlag::MFD_CLOEXEC) else {
        return;
    };
    // Appending makes whole lines of what several processes write.
    if fcntl(fd.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_APPEND)).is_err() {
        return;
    }
    if EVENTS.set(File::from(fd)).is_ok() {
        tracing::subscriber::set_global_default(Collector).ok();
    }
}

/// Where the events to come will begin.
pub(super) fn mark() -> u64 {
    EVENTS
        .get()
        .and_then(|file| file.metadata().ok())
        .map_or(0, |meta| meta.len())
}

/// The lines written since `mark`, oldest, and so the innermost cause, first.
pub(super) fn since(mark: u64) -> Vec<String> {
    let Some(file) = EVENTS.get() else {
        return Vec::new();
    };
    let length = file.metadata().map_or(0, |meta| meta.len());
    let mut bytes = vec![0; usize::try_from(length.saturating_sub(mark)).unwrap_or(0)];
    if file.read_exact_at(&mut bytes, mark).is_err() {
        return Vec::new();
    }
    String::from_utf8_lossy(&bytes)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Adds a line of our own.
pub(super) fn note(line: &str) {
    if let Some(mut file) = EVENTS.get() {
        let line = format!("{}\n", line.replace('\n', " "));
        // A full disk or memory cannot be told anywhere else.
        file.write_all(line.as_bytes()).ok();
    }
}

/// Keeps errors; libcontainer warns of things that are nobody's concern.
struct Collector;

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::ERROR
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::ERROR)
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        note(&line.text());
    }

    fn enter(&self, _span: &span::Id) {}

    fn exit(&self, _span: &span::Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
    cause: String,
}

impl Line {
    fn text(&self) -> String {
        let mut text = self.message.clone();
        text.push_str(&self.fields);
        if !self.cause.is_empty() {
            text.push_str(": ");
            text.push_str(&self.cause);
        }
        text
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String cannot fail.
        match field.name() {
            "message" => write!(self.message, "{value:?}").ok(),
            "err" | "error" | "e" => write!(self.cause, "{value:?}").ok(),
            name => write!(self.fields, " {name}={value:?}").ok(),
        };
    }
}
