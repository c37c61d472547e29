//! critest: a ginkgo suite in one program, which reports as JSON.

use super::{Bench, Ran, file_name};
use crate::conformance::gotest::short;
use crate::conformance::outcome::Outcome;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::Duration;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct SuiteReport {
    spec_reports: Vec<SpecReport>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct SpecReport {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    failure: Option<Failure>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Failure {
    message: String,
}

impl SpecReport {
    fn name(&self) -> String {
        let mut words = self.container_hierarchy_texts.clone().unwrap_or_default();
        words.push(self.leaf_node_text.clone());
        words.join(" ")
    }

    fn outcome(&self) -> Outcome {
        let why = || short(self.failure.as_ref().map_or("", |failure| &failure.message));
        match self.state.as_str() {
            "passed" => Outcome::Passed,
            "skipped" | "pending" => Outcome::Skipped(why()),
            "timedout" | "interrupted" => Outcome::TimedOut(why()),
            _ => Outcome::Failed(why()),
        }
    }
}

pub(super) fn list(bench: &Bench<'_>) -> Result<Vec<String>> {
    let specs = ginkgo(
        bench,
        "list",
        &["-ginkgo.dry-run".to_owned()],
        Duration::from_secs(60),
    )?;
    // What a dry run skips is a benchmark, which critest itself leaves out.
    let tests = specs.iter().filter(|spec| spec.state == "passed");
    Ok(tests.map(SpecReport::name).collect())
}

pub(super) fn run(test: &str, bench: &Bench<'_>, deadline: Duration) -> Result<Ran> {
    // It is matched against the name of the suite, a space and the test.
    let focus = format!("-ginkgo.focus= {}$", escape(test));
    let timeout = format!("-ginkgo.timeout={}s", deadline.as_secs());
    let specs = ginkgo(
        bench,
        test,
        &[focus, timeout],
        deadline + Duration::from_secs(30),
    );
    let outcome = match specs {
        Err(error) => Outcome::TimedOut(short(&format!("{error:#}"))),
        Ok(specs) => specs
            .iter()
            .filter(|spec| spec.name() == test)
            .map(SpecReport::outcome)
            .reduce(Outcome::worse)
            .with_context(|| format!("critest did not report on {test:?}"))?,
    };
    Ok(Ran {
        outcomes: BTreeMap::from([(test.to_owned(), outcome)]),
    })
}

/// Runs critest and returns its report on each test.
fn ginkgo(
    bench: &Bench<'_>,
    name: &str,
    flags: &[String],
    limit: Duration,
) -> Result<Vec<SpecReport>> {
    let report = bench.logs.join(format!("{}.json", file_name(name)));
    fs::remove_file(&report).ok();
    let log = File::create(bench.logs.join(format!("{}.log", file_name(name))))?;
    let status = bench
        .program("critest", limit)?
        .args(["-ginkgo.no-color", "-ginkgo.seed=1"])
        .arg(format!("-ginkgo.json-report={}", report.display()))
        .arg(format!("-runtime-handler={}", bench.runtime.name()))
        .args(flags)
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()?;
    let text = fs::read_to_string(&report)
        .with_context(|| format!("critest ended with {status} and wrote no report"))?;
    let mut suites: Vec<SuiteReport> = serde_json::from_str(&text)?;
    let Some(suite) = suites.pop() else {
        bail!("critest reported on no suite");
    };
    let specs = suite.spec_reports.into_iter();
    Ok(specs.filter(|spec| spec.leaf_node_type == "It").collect())
}

/// A regular expression that matches just this text.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if !c.is_ascii_alphanumeric() && c.is_ascii() && c != ' ' {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
