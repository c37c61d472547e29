//! The three suites: how their tests are listed, run one at a time, and read.

mod containerd;
mod critest;

pub(super) use containerd::CLIENT_ROOT;

use super::outcome::Outcome;
use super::registry::Registry;
use crate::Runtime;
use crate::node::Node;
use crate::tools::Tools;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A suite that somebody else wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// cri-tools' validation of a container runtime interface.
    Critest,
    /// containerd's suite for its Go client: tasks, processes, IO, checkpoints.
    Client,
    /// containerd's suite for its CRI plugin.
    Cri,
}

/// Where one test is run.
pub(super) struct Bench<'a> {
    pub(super) node: &'a Node,
    pub(super) runtime: Runtime,
    pub(super) registry: &'a Registry,
    /// A directory for what the test writes, on the node at the same place.
    pub(super) logs: &'a Path,
}

/// Where tests keep what is temporary: short, since they make sockets there.
pub(super) const TEMPORARY: &str = "/run/tmp";

impl Bench<'_> {
    /// A program on the node that is ended for certain at a limit. It runs where
    /// its test data are, as under `go test`.
    fn program(&self, name: &str, limit: Duration) -> Result<Command> {
        let program = fs::canonicalize(Tools::suites().join(name))
            .with_context(|| format!("{name} is missing: run `hack/setup conformance`"))?;
        let place = program.parent().context("a program in no directory")?;
        let mut command = self.node.command("env");
        command
            .arg("--chdir")
            .arg(place)
            .args(["timeout", "--kill-after=5"])
            .arg(limit.as_secs().to_string())
            .arg(&program)
            .env("TMPDIR", TEMPORARY)
            .stdin(Stdio::null());
        Ok(command)
    }
}

/// A test that has ended.
pub(super) struct Ran {
    /// Its outcome and those of its subtests, by name.
    pub(super) outcomes: BTreeMap<String, Outcome>,
}

impl Suite {
    /// All of them, the quickest first.
    pub const ALL: [Self; 3] = [Self::Critest, Self::Client, Self::Cri];

    /// Its name, which its tests' names begin with.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Critest => "critest",
            Self::Client => "client",
            Self::Cri => "cri",
        }
    }

    /// The suite of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }

    /// How long a single test may take. Each has a deadline of its own: one
    /// that hangs costs no other its verdict.
    pub(super) fn deadline(self) -> Duration {
        match self {
            Self::Critest | Self::Cri => Duration::from_secs(180),
            Self::Client => Duration::from_secs(90),
        }
    }

    /// The test that is run for a name: that of a subtest for containerd's.
    pub(super) fn test_of(self, name: &str) -> &str {
        match self {
            Self::Critest => name,
            Self::Client | Self::Cri => name.split('/').next().unwrap_or(name),
        }
    }

    /// The names of its tests.
    pub(super) fn list(self, bench: &Bench<'_>) -> Result<Vec<String>> {
        match self {
            Self::Critest => critest::list(bench),
            Self::Client | Self::Cri => containerd::list(self, bench),
        }
    }

    /// Runs one test.
    pub(super) fn run(self, test: &str, bench: &Bench<'_>) -> Result<Ran> {
        match self {
            Self::Critest => critest::run(test, bench, self.deadline()),
            Self::Client | Self::Cri => containerd::run(self, test, bench),
        }
    }
}

/// A file name for a test: its name with what a file system would mind
/// replaced.
pub(super) fn file_name(test: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    test.chars().map(plain).take(150).collect()
}
