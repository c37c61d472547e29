//! A suite under one runtime: its node, and its tests one after another.
//!
//! A test that does not pass is run once more, on a new node: whichever the
//! runtime, whatever the reason, but for a skip. The table says so.

use super::Results;
use super::outcome::{Outcome, Tried};
use super::registry::Registry;
use super::suite::{Bench, Ran, Suite};
use crate::Runtime;
use crate::node::{Criu, Node, NodeOptions};
use crate::tools::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Instant;

/// A node with a registry, for one runtime.
pub(super) struct Lane<'a> {
    suite: Suite,
    runtime: Runtime,
    registry: &'a Registry,
    logs: PathBuf,
    place: Option<Place>,
}

/// Dropped in this order: the registry's process ends with the node.
struct Place {
    node: Node,
    server: Child,
}

impl<'a> Lane<'a> {
    pub(super) fn open(suite: Suite, runtime: Runtime, registry: &'a Registry) -> Result<Self> {
        let logs = workspace()
            .join("target/conformance/logs")
            .join(suite.name())
            .join(runtime.name());
        fs::create_dir_all(&logs)?;
        Ok(Self {
            suite,
            runtime,
            registry,
            logs,
            place: None,
        })
    }

    /// The tests of the suite, in their order.
    pub(super) fn tests(&mut self) -> Result<Vec<String>> {
        self.suite.list(&self.bench()?)
    }

    /// Runs them one after another.
    #[allow(clippy::print_stdout, reason = "the command talks to its user")]
    pub(super) fn run_all<'t>(
        &mut self,
        tests: impl Iterator<Item = &'t String>,
    ) -> Result<Results> {
        let mut results = Results::new();
        for test in tests {
            let began = Instant::now();
            for (name, tried) in self.run(test)? {
                if !tried.outcome.passed() || !tried.others.is_empty() {
                    println!(
                        "{:8} {:7} {:5.1} s  {name}: {}{}",
                        self.suite.name(),
                        self.runtime.name(),
                        began.elapsed().as_secs_f64(),
                        tried.outcome,
                        if tried.others.is_empty() {
                            ""
                        } else {
                            " (second try)"
                        }
                    );
                }
                results.insert(name, tried);
            }
        }
        Ok(results)
    }

    fn run(&mut self, test: &str) -> Result<Results> {
        let first = self.attempt(test)?.outcomes;
        let content = |outcome: &Outcome| matches!(outcome, Outcome::Passed | Outcome::Skipped(_));
        if first.values().all(content) {
            return Ok(first
                .into_iter()
                .map(|(name, outcome)| (name, Tried::once(outcome)))
                .collect());
        }
        // What it left behind shall not be there for the next one.
        self.place = None;
        let mut results: Results = first
            .into_iter()
            .map(|(name, outcome)| (name, Tried::once(outcome)))
            .collect();
        for (name, outcome) in self.attempt(test)?.outcomes {
            let tried = match results.remove(&name) {
                Some(tried) => tried.then(outcome),
                None => Tried::once(outcome),
            };
            results.insert(name, tried);
        }
        if !results.values().all(|tried| content(&tried.outcome)) {
            self.place = None;
        }
        Ok(results)
    }

    fn attempt(&mut self, test: &str) -> Result<Ran> {
        let suite = self.suite;
        let bench = self.bench()?;
        suite
            .run(test, &bench)
            .with_context(|| format!("running {test}"))
    }

    fn bench(&mut self) -> Result<Bench<'_>> {
        if self.place.is_none() {
            self.place = Some(self.new_place()?);
        }
        let place = self.place.as_ref().context("no node")?;
        Ok(Bench {
            node: &place.node,
            runtime: self.runtime,
            registry: self.registry,
            logs: &self.logs,
        })
    }

    fn new_place(&self) -> Result<Place> {
        let node = Node::start_with(&NodeOptions {
            default_runtime: self.runtime.name().to_owned(),
            environment: self.registry.environment(),
            suites: true,
            criu: Criu::Preloaded,
            ..NodeOptions::default()
        })?;
        let server = self.registry.serve(&node)?;
        // The client suite starts a containerd of its own, whose overlays
        // cannot lie on the overlay that the node's /var/lib is.
        for (at, name) in [
            (super::suite::CLIENT_ROOT, "containerd-test"),
            (super::suite::TEMPORARY, "tmp"),
        ] {
            let source = node.dir().join(name);
            fs::create_dir_all(&source)?;
            node.run("mkdir", ["-p", at])?.ok()?;
            node.run("mount", ["--bind", &source.display().to_string(), at])?
                .ok()?;
        }
        // Where a containerd that a test starts looks for CNI; what else the
        // host has there stays out of sight.
        node.run("mount", ["-t", "tmpfs", "node", "/opt"])?.ok()?;
        node.run("mkdir", ["-p", "/opt/cni"])?.ok()?;
        let plugins = node.tools().cni();
        node.run("ln", ["-s", &plugins.display().to_string(), "/opt/cni/bin"])?
            .ok()?;
        Ok(Place { node, server })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}
