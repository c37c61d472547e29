//! containerd's own suites: Go test programs, one process for each test.

use super::{Bench, Ran, Suite, file_name};
use crate::conformance::gotest;
use crate::conformance::outcome::Outcome;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

/// Where the client suite keeps its own containerd's images and containers.
pub(in crate::conformance) const CLIENT_ROOT: &str = "/var/lib/containerd-test";

/// Tests whose names begin like this are run; benchmarks and fuzzers are not.
const PREFIX: &str = "Test";

pub(super) fn list(suite: Suite, bench: &Bench<'_>) -> Result<Vec<String>> {
    let mut command = program(suite, bench)?;
    if suite == Suite::Client {
        // So it does not start a containerd for it.
        command.arg("-test.short");
    }
    let output = command.args(["-test.list", PREFIX]).output()?;
    let listed = String::from_utf8_lossy(&output.stdout);
    let tests: Vec<String> = listed
        .lines()
        .filter(|line| line.starts_with(PREFIX))
        .map(str::to_owned)
        .collect();
    if tests.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} lists no tests: {}", suite.name(), said.trim());
    }
    Ok(tests)
}

pub(super) fn run(suite: Suite, test: &str, bench: &Bench<'_>) -> Result<Ran> {
    let path = |kind: &str| bench.logs.join(format!("{}.{kind}", file_name(test)));
    let deadline = suite.deadline();
    let mut command = program(suite, bench)?;
    command
        .args(["-test.v=test2json", "-test.run"])
        .arg(format!("^{test}$"))
        .arg(format!("-test.timeout={}s", deadline.as_secs()))
        .arg(format!(
            "-image-list={}",
            bench.registry.image_list().display()
        ))
        .stdout(File::create(path("out"))?)
        .stderr(File::create(path("err"))?);
    match suite {
        Suite::Client => command.args(["-test.root", "-no-criu=false"]),
        _ => command
            .arg(format!("-runtime-handler={}", bench.runtime.name()))
            .arg(format!(
                "-build-dir={}",
                bench.node.dir().join("bin").display()
            )),
    };
    let status = command.status()?;
    let output = fs::read(path("out")).context("reading what the test said")?;
    let output = String::from_utf8_lossy(&output);
    let errors = fs::read(path("err"))?;
    let errors = String::from_utf8_lossy(&errors);
    let late = [&output, &errors]
        .iter()
        .any(|text| text.contains("panic: test timed out after"))
        || matches!(status.code(), Some(124 | 137));
    let mut outcomes = gotest::outcomes(&output, |said| {
        if late {
            Outcome::TimedOut(said.to_owned())
        } else {
            Outcome::Failed(format!(
                "the test program ended with {status} after: {said}"
            ))
        }
    });
    outcomes.entry(test.to_owned()).or_insert_with(|| {
        let last = errors.lines().rev().find(|line| !line.trim().is_empty());
        Outcome::Failed(gotest::short(&format!(
            "the test program ended with {status} before the test: {}",
            last.unwrap_or("it said nothing")
        )))
    });
    Ok(Ran { outcomes })
}

/// The test program on the node, ended for certain some time after the
/// deadline that it is told.
fn program(suite: Suite, bench: &Bench<'_>) -> Result<Command> {
    let limit = suite.deadline() + Duration::from_secs(30);
    let mut command = bench.program(&format!("{}.test", suite.name()), limit)?;
    command.env("TEST_RUNTIME", bench.runtime.kind());
    Ok(command)
}
