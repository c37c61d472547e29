//! Suites that others wrote, run under `runc` and under `reprise` side by side.
//!
//! critest, containerd's client suite and its CRI suite; each runtime has a node
//! of its own, the same in everything else, and both run the same tests at the
//! same time. A test that runc's shim passes and ours does not is a bug of ours,
//! a skip included.

pub(crate) mod causes;
mod gotest;
mod lane;
mod options;
pub(crate) mod outcome;
mod registry;
pub(crate) mod report;
mod suite;

pub use options::Options;
pub use outcome::Outcome;
pub use report::Report;

use crate::Runtime;
use crate::tools::workspace;
use anyhow::{Context, Result};
use causes::CAUSES;
use lane::Lane;
use outcome::{Results, Tried};
use registry::Registry;
use std::collections::BTreeSet;
use std::fs;
use suite::Suite;

/// Runs the suites, prints the table, writes the files, and tells whether
/// there is nothing that only runc passes.
///
/// # Errors
/// When a suite cannot be run at all.
#[allow(clippy::print_stdout, reason = "the command talks to its user")]
pub fn run(options: &Options) -> Result<bool> {
    let out = workspace().join("target/conformance");
    fs::create_dir_all(&out)?;
    let registry = Registry::prepare(&out)?;
    let mut report = Report::default();
    for suite in &options.suites {
        let began = std::time::Instant::now();
        let mut results = side_by_side(*suite, options, &registry)
            .with_context(|| format!("running {}", suite.name()))?;
        let lost = compare(*suite, &results)
            .only_runc()
            .map(|name| suite.test_of(name).to_owned())
            .collect::<BTreeSet<_>>();
        if !lost.is_empty() {
            once_more(*suite, &registry, &lost, &mut results)
                .with_context(|| format!("running tests of {} once more", suite.name()))?;
        }
        let found = compare(*suite, &results);
        println!("{}", found.summary(began.elapsed()));
        report.add(found);
        // After each suite: whoever ends the command has what was found so far.
        fs::write(out.join("report.json"), report.json()?)?;
        fs::write(out.join("reasons.json"), report.reasons_json()?)?;
        fs::write(out.join("table.txt"), report.table())?;
    }
    println!("\n{}", report.table());
    println!(
        "written: {0}/report.json, {0}/reasons.json, {0}/table.txt, {0}/logs",
        out.display()
    );
    Ok(report.is_conformant())
}

fn compare(suite: Suite, [runc, reprise]: &[Results; 2]) -> report::Compared {
    report::compare(suite.name(), runc, reprise, CAUSES)
}

/// Runs tests that only runc's shim has passed again, on new nodes, and now one
/// runtime after the other: a deadline that was missed on a busy machine is no
/// difference. What passes nowhere but under runc stays a loss.
#[allow(clippy::print_stdout, reason = "the command talks to its user")]
fn once_more(
    suite: Suite,
    registry: &Registry,
    lost: &BTreeSet<String>,
    results: &mut [Results; 2],
) -> Result<()> {
    println!("{}: once more, alone: {lost:?}", suite.name());
    for (runtime, results) in Runtime::BOTH.into_iter().zip(results) {
        let mut lane = Lane::open(suite, runtime, registry)?;
        for (name, again) in lane.run_all(lost.iter())? {
            let tried = match results.remove(&name) {
                Some(tried) => again
                    .others
                    .into_iter()
                    .chain([again.outcome])
                    .fold(tried, Tried::then),
                None => again,
            };
            results.insert(name, tried);
        }
    }
    Ok(())
}

/// Runs one suite under both runtimes at the same time.
fn side_by_side(suite: Suite, options: &Options, registry: &Registry) -> Result<[Results; 2]> {
    std::thread::scope(|scope| {
        let lanes = Runtime::BOTH.map(|runtime| {
            scope.spawn(move || -> Result<Results> {
                let mut lane = Lane::open(suite, runtime, registry)?;
                let tests = lane.tests()?;
                let chosen = tests.iter().filter(|test| options.wants(test));
                lane.run_all(chosen)
            })
        });
        let mut results = lanes.into_iter().map(|lane| match lane.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        let (Some(runc), Some(reprise)) = (results.next(), results.next()) else {
            unreachable!("there are two lanes");
        };
        Ok([runc?, reprise?])
    })
}
