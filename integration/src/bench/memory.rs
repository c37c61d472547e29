//! What a shim at rest holds in memory.
//!
//! One pod of each shim is there and no other, so a shim shares the pages of its
//! binary with nobody: this is what the first pod on a node costs, and the worst
//! case for each shim. What each of a hundred costs is in `crowd`.

use super::calls::{Pods, sleeper};
use super::pairs::{Shim, Values};
use crate::node::Node;
use crate::process::Process;
use anyhow::Result;
use std::time::Duration;

/// Long enough for idle threads to end and Go's scavenger to have run.
const REST: Duration = Duration::from_secs(4);

/// The PSS of a pod's shim, with so many containers in the pod.
pub(super) fn shim_pss(node: &Node, runs: usize, containers: usize) -> Result<Values> {
    let mut values = Values::default();
    for _ in 0..runs {
        // Both shims of a run rest side by side.
        let pods = Pods::run(node)?;
        let mut shims = Vec::new();
        for shim in Shim::BOTH {
            for number in 0..containers {
                pods.of(shim).run(&sleeper().name(&format!("c{number}")))?;
            }
            shims.push((shim, Process::shim_of(pods.of(shim))?));
        }
        for (shim, pss) in pss_at_rest(&shims)? {
            values.of(shim).push(pss);
        }
    }
    Ok(values)
}

/// What each of these holds after a rest. Which process a pod's shim is must be
/// known before: finding out wakes it.
pub(super) fn pss_at_rest<T: Copy>(shims: &[(T, Process)]) -> Result<Vec<(T, f64)>> {
    std::thread::sleep(REST);
    shims
        .iter()
        .map(|(whose, shim)| {
            let kib = u32::try_from(shim.memory()?.pss)?;
            Ok((*whose, f64::from(kib)))
        })
        .collect()
}
