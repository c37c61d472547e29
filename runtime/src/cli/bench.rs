//! `reprise bench`: how long a checkpoint takes to restore on this node.

use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use reprise_runtime::error::Doing;
use reprise_runtime::maker::Maker;
use reprise_runtime::store::{Store, Stored};
use reprise_runtime::{Error, ErrorKind, Result, sys};
use serde_json::{Value, json};

use super::{Places, full_id, none, progress, show};
use crate::images::meter::Meter;
use crate::images::scratch::Scratch;
use crate::images::trial::{Times, Trial, sweep_dead};
use crate::images::{Labels, names};

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// Checkpoint id, a prefix that only one has, or its image's name
    image: String,
    /// How many restores are timed, after one that is not
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// How many restores at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    parallel: u32,
    /// Name of our runtime in containerd
    #[arg(long, default_value = "io.containerd.reprise.v2")]
    runtime: String,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// What was seen.
struct Report<'a> {
    stored: &'a Stored,
    parallel: u32,
    create: Figures,
    start: Figures,
    /// Bytes of CRIU's images in the page cache, before the first and after the last.
    cached: [Option<u64>; 2],
}

/// Of many times, in microseconds.
struct Figures {
    min: u64,
    median: u64,
    p99: u64,
}

impl Bench {
    pub(super) fn run(&self, places: &Places) -> Result<String> {
        let store = places.open()?;
        let id = match self.image.contains('/') {
            true => id_of_image(&store, &self.image)?,
            false => full_id(&store, &self.image)?,
        };
        let stored = store.load(&id)?.ok_or_else(|| none(&id))?;
        let found = store.find(&stored.manifest().fingerprint)?;
        if let Some(newer) = found.filter(|found| found.id() != id) {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "Containers like that of {id} are restored from the newer {}; bench that, or \
                     remove it",
                    newer.id()
                ),
            ));
        }
        let before = cached(&stored);
        let times = self.times(places, &stored)?;
        let report = Report {
            stored: &stored,
            parallel: self.parallel,
            create: Figures::of(times.iter().map(|t| t.create)),
            start: Figures::of(times.iter().map(|t| t.start)),
            cached: [before, cached(&stored)],
        };
        Ok(match self.json {
            true => show::json(vec![report.json(times.len())]),
            false => report.page(times.len()),
        })
    }

    fn times(&self, places: &Places, stored: &Stored) -> Result<Vec<Times>> {
        let namespace = stored.source()?.namespace;
        let client = places.containerd(&namespace)?;
        sweep_dead(&client)?;
        // Whoever ends us waits for the containers to go.
        let ends = Ends::block()?;
        let scratch = Scratch::make(&places.store_path()?.join("staging"), "bench")?;
        let lease = format!("reprise-bench-{}", Maker::me());
        let labels = Labels::from([(names::PUBLISHER.to_owned(), Maker::me().to_string())]);
        client.create_lease(&lease, &labels)?;
        let trial = || {
            let client = places.containerd(&namespace)?.under(&lease)?;
            Trial::of(client, stored, &self.runtime, scratch.path())
        };
        let timed = progress::shown("Restoring", |meter| self.repeat(&ends, meter, &trial));
        let given_back = client.remove_lease(&lease, true);
        let timed = timed?;
        given_back.map(|()| timed)
    }

    /// The first one warms the caches and does not count.
    fn repeat<'t>(
        &self,
        ends: &Ends,
        meter: &Meter,
        trial: &(dyn Fn() -> Result<Trial<'t>> + Sync),
    ) -> Result<Vec<Times>> {
        let name = |n: u32| format!("reprise-bench-{}-{n}", std::process::id());
        trial()?.once(&name(0))?;
        let next = AtomicU32::new(1);
        let done = Mutex::new(Ok(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..self.parallel.min(self.count) {
                scope.spawn(|| {
                    // A connection of its own: one waits for one answer at a time.
                    let trial = trial();
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n > self.count || ends.has_come() {
                            return;
                        }
                        let once = match &trial {
                            Ok(trial) => trial.once(&name(n)),
                            Err(error) => Err(error.clone()),
                        };
                        let Ok(mut done) = done.lock() else { return };
                        match (once, done.as_mut()) {
                            (Ok(times), Ok(all)) => all.push(times),
                            (Err(error), Ok(_)) => {
                                *done = Err(error);
                                next.store(u32::MAX / 2, Ordering::Relaxed);
                            }
                            (_, Err(_)) => {}
                        }
                        meter.add(1);
                    }
                });
            }
        });
        let done = done.into_inner().unwrap_or_else(|e| e.into_inner())?;
        match done.is_empty() || ends.has_come() {
            true => Err(Error::new(
                ErrorKind::Ended,
                "It was ended by a signal; nothing is left",
            )),
            false => Ok(done),
        }
    }
}

impl Report<'_> {
    fn json(&self, count: usize) -> Value {
        let m = self.stored.manifest();
        json!({
            "checkpoint": m.id,
            "count": count,
            "parallel": self.parallel,
            "image_bytes": m.image_bytes,
            "memory_bytes": m.needs.memory_bytes,
            "cached_bytes": { "before": self.cached[0], "after": self.cached[1] },
            "create_us": self.create.json(),
            "start_us": self.start.json(),
        })
    }

    fn page(&self, count: usize) -> String {
        let m = self.stored.manifest();
        let bytes = |bytes: Option<u64>| bytes.map_or_else(show::dash, show::size);
        let [before, after] = self.cached.map(bytes);
        let head = show::columns(&[
            ["checkpoint:".to_owned(), m.id.clone()],
            [
                "restores:".to_owned(),
                format!("{count}, {} at once", self.parallel),
            ],
            ["images:".to_owned(), show::size(m.image_bytes)],
            ["memory:".to_owned(), show::size(m.needs.memory_bytes)],
            [
                "page cache:".to_owned(),
                format!("{before} of the images before, {after} after"),
            ],
        ]);
        let row = |name: &str, of: &Figures| {
            let ms = |us| format!("{:.1}", show::milliseconds(us));
            [name.to_owned(), ms(of.min), ms(of.median), ms(of.p99)]
        };
        let titles = ["MILLISECONDS", "MIN", "MEDIAN", "P99"].map(str::to_owned);
        head + &show::columns(&[
            titles,
            row("restored", &self.create),
            row("running", &self.start),
        ])
    }
}

impl Figures {
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut us: Vec<u64> = times
            .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
            .collect();
        us.sort_unstable();
        // The nearest rank; of fewer than a hundred the last.
        let at = |percent: usize| {
            let rank = (us.len() * percent).div_ceil(100).max(1);
            us.get(rank - 1).copied().unwrap_or_default()
        };
        Self {
            min: at(0),
            median: at(50),
            p99: at(99),
        }
    }

    fn json(&self) -> Value {
        json!({ "min": self.min, "median": self.median, "p99": self.p99 })
    }
}

/// The checkpoint whose image has a name.
fn id_of_image(store: &Store, image: &str) -> Result<String> {
    let mut ids = store.ids()?.into_iter();
    let has = |id: &String| {
        let source = store.source(id);
        source.is_ok_and(|source| source.names.iter().any(|name| name == image))
    };
    ids.find(has).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "No checkpoint that containers can be restored from is image {image}; `reprise \
                 refresh` says why"
            ),
        )
    })
}

/// Bytes of CRIU's images in the page cache; `None` where the kernel does not tell.
fn cached(stored: &Stored) -> Option<u64> {
    let images = stored.images();
    let mut pages = 0;
    for file in &stored.manifest().files {
        let file = File::open(images.join(&file.name)).ok()?;
        pages += sys::cached_pages(&file).ok()?;
    }
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let page = page.ok().flatten()?;
    Some(pages * u64::try_from(page).ok()?)
}

/// The signals that end us, once what has begun is over.
struct Ends(SignalFd, AtomicBool);

impl Ends {
    fn block() -> Result<Self> {
        let mut ends = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            ends.add(signal);
        }
        ends.thread_block().doing("Cannot block signals")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&ends, flags).doing("Cannot wait for signals")?;
        Ok(Self(signals, AtomicBool::new(false)))
    }

    fn has_come(&self) -> bool {
        if matches!(self.0.read_signal(), Ok(Some(_))) {
            self.1.store(true, Ordering::Relaxed);
        }
        self.1.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_by_nearest_rank() {
        let of = |us: &[u64]| {
            let figures = Figures::of(us.iter().map(|us| Duration::from_micros(*us)));
            (figures.min, figures.median, figures.p99)
        };
        assert_eq!(of(&[7]), (7, 7, 7));
        assert_eq!(of(&[9, 1, 5, 3]), (1, 3, 9));
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(of(&hundred), (1, 50, 99));
    }
}
