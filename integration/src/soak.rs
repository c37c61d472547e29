//! Many containers, one after another, through one shim: what grows?

use crate::leftovers::Leftovers;
use crate::node::Node;
use crate::pod::{ContainerSpec, Pod, PodSpec};
use crate::process::Process;
use anyhow::Result;
use serde::Serialize;
use std::time::Duration;

/// Cycles before the first look: caches fill, the allocator finds its size.
const WARM_UP: usize = 30;
/// Longer than an idle thread of the shim lives.
const REST: Duration = Duration::from_secs(2);

/// What a shim holds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Held {
    /// Memory without files behind it, in KiB.
    pub anonymous_kib: u64,
    /// Open descriptors.
    pub open_files: usize,
    /// Threads.
    pub threads: usize,
}

/// What a shim held before and after so many containers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Soak {
    /// How many containers came and went between the two looks.
    pub cycles: usize,
    /// After the warm-up.
    pub before: Held,
    /// At the end.
    pub after: Held,
}

impl Soak {
    /// By how much its memory has grown, in KiB.
    #[must_use]
    pub fn growth_kib(&self) -> u64 {
        let (before, after) = (self.before.anonymous_kib, self.after.anonymous_kib);
        after.saturating_sub(before)
    }
}

impl Held {
    /// What a shim holds once it has come to rest.
    fn by(shim: &Process) -> Result<Self> {
        std::thread::sleep(REST);
        Ok(Self {
            anonymous_kib: shim.memory()?.anonymous,
            open_files: shim.open_files()?,
            threads: shim.threads()?,
        })
    }
}

/// Creates, starts, kills and removes containers in one pod, and looks at the
/// pod's shim before and after. The pod is removed in the end.
///
/// # Errors
/// A container that does not do as it is told, and anything that is left of the
/// containers, or of the pod, on the node.
pub fn soak(node: &Node, handler: &str, cycles: usize) -> Result<Soak> {
    let empty = Leftovers::of(node)?;
    let pod = node.run_pod(&PodSpec::new("soak", handler).handler(handler))?;
    let shim = Process::shim_of(&pod)?;
    cycle(&pod, 0..WARM_UP)?;
    let before = Held::by(&shim)?;
    let with_pod = Leftovers::of(node)?;
    cycle(&pod, WARM_UP..WARM_UP + cycles)?;
    let after = Held::by(&shim)?;
    node.is_as_before(&with_pod)?;
    drop(pod);
    node.is_as_before(&empty)?;
    Ok(Soak {
        cycles,
        before,
        after,
    })
}

fn cycle(pod: &Pod<'_>, numbers: std::ops::Range<usize>) -> Result<()> {
    let spec = ContainerSpec::shell("while :; do sleep 1000; done");
    for number in numbers {
        let container = pod.run(&spec.clone().name(&format!("c{number}")))?;
        container.stop(0)?;
        container.remove()?;
    }
    Ok(())
}
