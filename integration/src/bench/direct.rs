//! What shims do by themselves, without containerd between.

use super::bundle::{Laid, Template};
use super::calls::{Pods, sleeper};
use super::pairs::{Shim, Values, in_turns};
use crate::measure::millis;
use crate::node::Node;
use crate::shim::DirectShim;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::time::Instant;

/// Two measurements of the same runs.
pub(super) struct Direct {
    /// `shim start`, until the shim has answered a first request.
    pub(super) start: Values,
    /// The Create call.
    pub(super) create: Values,
}

/// Starts a shim, has it make and run a container, and ends it again.
pub(super) fn direct(node: &Node, runs: usize) -> Result<Direct> {
    let pods = Pods::run(node)?;
    // Under runc's shim, whoever is measured.
    let original = pods.of(Shim::Runc).run(&sleeper())?;
    let template = Template::of(&original)?;
    let mut shims = Shim::BOTH.to_vec();
    if baseline().is_some() {
        shims.push(Shim::Baseline);
    }
    let mut start = Values::default();
    let create = in_turns(runs, &shims, |shim, run| {
        let id = format!("direct-{}-{run}", shim.name());
        let laid = template.lay(&id)?;
        let (started, created) = once(node, shim, &id, &laid)?;
        if run > 0 {
            start.of(shim).push(started);
        }
        Ok(created)
    })?;
    Ok(Direct { start, create })
}

fn once(node: &Node, shim: Shim, id: &str, laid: &Laid) -> Result<(f64, f64)> {
    let begun = Instant::now();
    let mut shim = DirectShim::start(node, &binary(node, shim)?, id, &laid.bundle)?;
    let started = millis(begun.elapsed());
    let begun = Instant::now();
    shim.create(&laid.rootfs)?;
    let created = millis(begun.elapsed());
    shim.run()?;
    let code = shim.wait()?;
    shim.delete()?;
    shim.shut_down();
    if code != 0 {
        bail!("true ended with {code}");
    }
    Ok((started, created))
}

fn binary(node: &Node, shim: Shim) -> Result<PathBuf> {
    let tools = node.tools();
    Ok(match shim {
        Shim::Reprise => tools.program("containerd-shim-reprise-v2"),
        Shim::Runc => tools.program("containerd-shim-runc-v2"),
        Shim::Baseline => baseline().context("no older shim is given")?,
    })
}

/// An older shim of ours to compare with: `$REPRISE_BASELINE` is its directory.
fn baseline() -> Option<PathBuf> {
    let dir = std::env::var_os("REPRISE_BASELINE")?;
    Some(PathBuf::from(dir).join("containerd-shim-reprise-v2"))
}
