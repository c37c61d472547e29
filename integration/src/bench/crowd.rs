//! Many pods started as fast as they go.

use super::calls::sleeper;
use super::memory::pss_at_rest;
use super::pairs::{Shim, Values, in_turns};
use super::report::{Better, Row};
use crate::measure::millis;
use crate::node::Node;
use crate::pod::{Pod, PodSpec};
use crate::process::Process;
use anyhow::{Context, Result};
use std::sync::Barrier;
use std::time::Instant;

/// Pods a second, the time of each pod until its container runs, and what the
/// shims of all of them hold together.
pub(super) fn crowd(node: &Node, pods: usize, rounds: usize) -> Result<Vec<Row>> {
    let (mut times, mut memory) = (Values::default(), Values::default());
    let rates = in_turns(rounds, &Shim::BOTH, |shim, round| {
        let (crowd, took) = start(node, shim, pods)?;
        let all = took.iter().copied().fold(0.0, f64::max);
        let shims = crowd
            .iter()
            .map(|pod| Ok((shim, Process::shim_of(pod)?)))
            .collect::<Result<Vec<_>>>()?;
        let sum: f64 = pss_at_rest(&shims)?.iter().map(|(_, kib)| kib).sum();
        remove(crowd)?;
        if round > 0 {
            times.of(shim).extend(took);
            memory.of(shim).push(sum);
        }
        Ok(f64::from(u32::try_from(pods)?) / (all / 1000.0))
    })?;
    Ok(vec![
        Row::new("pods_per_s", "pods/s", Better::More, &rates),
        Row::new("crowd_start", "ms", Better::Less, &times),
        Row::new("crowd_pss", "KiB", Better::Less, &memory),
    ])
}

/// Starts them all at once. The time of each is that from the common start until
/// its container had been started.
fn start(node: &Node, shim: Shim, count: usize) -> Result<(Vec<Pod<'_>>, Vec<f64>)> {
    let gate = Barrier::new(count);
    let one = |number: usize| {
        let spec = PodSpec::new("crowd", &format!("pod-{number}")).handler(shim.name());
        gate.wait();
        let begun = Instant::now();
        let pod = node.run_pod(&spec)?;
        pod.run(&sleeper())?;
        Ok::<_, anyhow::Error>((pod, millis(begun.elapsed())))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || one(number)))
            .collect();
        let mut started = (Vec::new(), Vec::new());
        for thread in threads {
            let (pod, took) = thread.join().ok().context("a thread panicked")??;
            started.0.push(pod);
            started.1.push(took);
        }
        Ok(started)
    })
}

/// Removes them side by side, or it takes longer than all the rest.
fn remove(pods: Vec<Pod<'_>>) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = pods
            .into_iter()
            .map(|pod| scope.spawn(move || pod.remove()))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().ok().context("a thread panicked")?)
    })
}
