//! What users of Kubernetes do, under the RuntimeClasses `runc` and `reprise` of one
//! cluster, side by side.
//!
//! Each case is run under both with the same manifest, in a namespace of its own, and
//! is judged by its own assertions. One that fails is run once more. What passes under
//! `runc` alone is a bug of ours.

#![allow(
    clippy::needless_pass_by_value,
    reason = "manifests are written where they are used"
)]

mod case;
mod causes;
mod ground;
mod manifest;
mod options;
mod written;

mod disturbances;
mod lifecycle;
mod metrics;
mod probes;
mod resources;
mod security;
mod streams;
mod volumes;
mod workloads;

pub use options::Options;

use super::{Cluster, ClusterOptions};
use crate::Runtime;
use crate::conformance::Report;
use crate::conformance::outcome::{Outcome, Results, Tried};
use crate::conformance::report::compare;
use anyhow::{Context, Result};
use case::{Case, Theme};
use ground::Ground;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Instant;
use written::Out;

/// How many cases run at the same time: mostly they wait.
const AT_ONCE: usize = 4;

const THEMES: &[Theme] = &[
    workloads::THEME,
    probes::THEME,
    lifecycle::THEME,
    streams::THEME,
    volumes::THEME,
    security::THEME,
    resources::THEME,
    metrics::THEME,
    disturbances::THEME,
];

/// A case under a runtime.
#[derive(Clone, Copy, Debug)]
struct Turn {
    theme: &'static str,
    case: Case,
    runtime: Runtime,
}

/// What became of all cases, by theme and runtime.
type All = BTreeMap<(&'static str, &'static str), Results>;

/// Runs the cases, prints the table, writes the report, and tells whether nothing
/// passes under `runc` alone and what passes nowhere has a cause.
///
/// # Errors
/// When there is no cluster.
#[allow(clippy::print_stdout, reason = "the command talks to its user")]
pub fn run(options: &Options) -> Result<bool> {
    let turns = turns(options);
    if options.list {
        let mut names: Vec<String> = turns.iter().map(Turn::name).collect();
        names.dedup();
        names.iter().for_each(|name| println!("{name}"));
        return Ok(true);
    }
    let out = Out::prepare()?;
    let cluster = Cluster::start(&of_cluster(options)).context("starting the cluster")?;
    let suite = Suite {
        cluster: RwLock::new(cluster),
        out: &out,
        all: Mutex::default(),
    };
    let (alone, beside): (Vec<Turn>, Vec<Turn>) = turns.iter().partition(|turn| turn.case.alone);
    let queue = Mutex::new(beside.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let next = || lock(&queue).next();
                while let Some(turn) = next() {
                    suite.take(turn);
                }
            });
        }
    });
    alone.into_iter().for_each(|turn| suite.take(turn));
    suite.tell(options)
}

fn of_cluster(options: &Options) -> ClusterOptions {
    let mut wanted = ClusterOptions::default();
    if let Some(kubernetes) = &options.kubernetes {
        wanted.kubernetes.clone_from(kubernetes);
    }
    if let Some(containerd) = &options.containerd {
        wanted.node.containerd.clone_from(containerd);
    }
    wanted
}

/// Both turns of a case are neighbours: what the machine is busy with meets both.
fn turns(options: &Options) -> Vec<Turn> {
    let mut turns = Vec::new();
    for theme in THEMES {
        for case in theme.cases {
            turns.extend(options.runtimes().into_iter().map(|runtime| Turn {
                theme: theme.name,
                case: *case,
                runtime,
            }));
        }
    }
    turns.retain(|turn| options.wants(&turn.name()));
    turns
}

impl Turn {
    fn name(&self) -> String {
        format!("{}: {}", self.theme, self.case.name)
    }

    /// A namespace's name.
    fn namespace(&self, attempt: u32) -> String {
        let letters = self.case.name.chars().map(|c| match c {
            'a'..='z' | '0'..='9' => c,
            'A'..='Z' => c.to_ascii_lowercase(),
            _ => '-',
        });
        let short: String = letters.take(40).collect();
        format!(
            "{}-{}-{attempt}",
            short.trim_matches('-'),
            self.runtime.name()
        )
    }
}

struct Suite<'a> {
    cluster: RwLock<Cluster>,
    out: &'a Out,
    all: Mutex<All>,
}

impl Suite<'_> {
    /// Runs a case, and once more if it fails.
    #[allow(clippy::print_stdout, reason = "the command talks to its user")]
    fn take(&self, turn: Turn) {
        let begun = Instant::now();
        let mut tried = Tried::once(self.attempt(turn, 1));
        if !tried.outcome.passed() {
            tried = tried.then(self.attempt(turn, 2));
        }
        println!(
            "{:7} {:5.1} s  {}: {}",
            turn.runtime.name(),
            begun.elapsed().as_secs_f64(),
            turn.name(),
            tried.outcome
        );
        let mut all = lock(&self.all);
        let results = all.entry((turn.theme, turn.runtime.name())).or_default();
        results.insert(turn.case.name.to_owned(), tried);
    }

    fn attempt(&self, turn: Turn, attempt: u32) -> Outcome {
        let namespace = turn.namespace(attempt);
        let class = turn.runtime.name();
        let ground = match Ground::new(&self.cluster, &namespace, class, turn.case.limit) {
            Ok(ground) => ground,
            Err(error) => return Outcome::Failed(short(&error)),
        };
        let judged = (turn.case.check)(&ground);
        let outcome = match judged {
            Ok(()) => Outcome::Passed,
            Err(error) => {
                self.out
                    .keep(&namespace, &format!("{error:?}\n\n{}", ground.describe()));
                Outcome::Failed(short(&error))
            }
        };
        ground.leave();
        outcome
    }

    #[allow(clippy::print_stdout, reason = "the command talks to its user")]
    fn tell(&self, options: &Options) -> Result<bool> {
        let all = lock(&self.all);
        let causes = causes::of(&of_cluster(options).node.containerd);
        let mut report = Report::default();
        for theme in THEMES {
            let of = |runtime: Runtime| {
                all.get(&(theme.name, runtime.name()))
                    .cloned()
                    .unwrap_or_default()
            };
            let [runc, reprise] = Runtime::BOTH.map(of);
            report.add(compare(theme.name, &runc, &reprise, causes));
        }
        println!("\n{}", report.table());
        if options.whole() {
            self.out.write(&report)?;
        }
        println!("{}", self.out);
        if options.runtime.is_some() {
            return Ok(all
                .values()
                .flat_map(BTreeMap::values)
                .all(|tried| tried.outcome.passed()));
        }
        Ok(report.is_conformant() && report.unexplained().next().is_none())
    }
}

/// One line that is not too long.
fn short(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(400).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
