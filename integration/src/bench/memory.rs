//! What a shim at rest holds in memory.
//!
//! One pod of each shim is there and no other, so a shim shares the pages of its
//! binary with nobody: this is what the first pod on a node costs, and the worst
//! case for each shim. What each of a hundred costs is in `crowd`.

use super::calls::{Pods, sleeper};
use super::pairs::{Shim, Values, in_turns};
use crate::node::Node;
use crate::process::Process;
use anyhow::Result;
use std::time::Duration;

/// Long enough for idle threads to end and Go's scavenger to have run.
pub(super) const REST: Duration = Duration::from_secs(3);

/// The PSS of a pod's shim, with so many containers in the pod.
pub(super) fn shim_pss(node: &Node, runs: usize, containers: usize) -> Result<Values> {
    let mut pods = None;
    in_turns(runs, &Shim::BOTH, |shim, run| {
        // Both shims of a run rest side by side.
        if pods.as_ref().is_none_or(|(of, _)| *of != run) {
            drop(pods.take());
            let fresh = Pods::run(node)?;
            for shim in Shim::BOTH {
                for number in 0..containers {
                    fresh.of(shim).run(&sleeper().name(&format!("c{number}")))?;
                }
            }
            std::thread::sleep(REST);
            pods = Some((run, fresh));
        }
        let Some((_, pods)) = &pods else {
            anyhow::bail!("no pods");
        };
        kib(Process::shim_of(pods.of(shim))?.memory()?.pss)
    })
}

pub(super) fn kib(kib: u64) -> Result<f64> {
    Ok(f64::from(u32::try_from(kib)?))
}
