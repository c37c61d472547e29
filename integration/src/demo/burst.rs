//! Many pods at the same time.

use super::program::checkpoint_under_runc;
use super::progress::{measured, step};
use super::report::Burst;
use crate::measure::millis;
use crate::node::Node;
use crate::pod::{ContainerSpec, PodSpec};
use crate::programs::{Answer, Program};
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Starts `count` pods at once in each way; the time is that of the last one's
/// first answer. The program's checkpoint is already known to the node.
pub(super) fn measure(node: &Node, program: Program, count: usize) -> Result<Burst> {
    let spec = program.container();
    let (archive, _) = checkpoint_under_runc(node, program)?;
    let cri = spec.clone().from_archive(&archive);

    let (runc, _) = start(node, "cold under runc's shim", "runc", &spec, count)?;
    let (cri, _) = start(node, "restored by containerd", "runc", &cri, count)?;
    let (restored, answers) = start(node, "restored by reprise", "reprise", &spec, count)?;
    Ok(Burst {
        program: program.name().to_owned(),
        pods: count,
        runc_cold_ms: millis(runc),
        cri_restore_ms: millis(cri),
        restored_ms: millis(restored),
        restored: with_one_boot(&answers),
    })
}

/// How many share the most frequent boot id.
fn with_one_boot(answers: &[Answer]) -> usize {
    let mut boots = HashMap::new();
    for answer in answers {
        *boots.entry(answer.boot.as_str()).or_insert(0) += 1;
    }
    match boots.values().max() {
        Some(&count) if count > 1 => count,
        _ => 0,
    }
}

fn start(
    node: &Node,
    what: &str,
    handler: &str,
    spec: &ContainerSpec,
    count: usize,
) -> Result<(Duration, Vec<Answer>)> {
    let pods = step(&format!("{count} sandboxes ({handler})"), || {
        (1..=count)
            .map(|n| node.run_pod(&PodSpec::new("demo", &format!("burst-{n}")).handler(handler)))
            .collect::<Result<Vec<_>>>()
    })?;
    let run = || {
        let gate = Barrier::new(count + 1);
        std::thread::scope(|scope| {
            let threads: Vec<_> = pods
                .iter()
                .map(|pod| {
                    scope.spawn(|| {
                        gate.wait();
                        let (_, answer, _) = pod.run_service(spec)?;
                        Ok::<_, anyhow::Error>((Instant::now(), answer))
                    })
                })
                .collect();
            gate.wait();
            let begun = Instant::now();
            let mut last = Duration::ZERO;
            let mut answers = Vec::new();
            for thread in threads {
                let (at, answer) = thread.join().ok().context("a thread panicked")??;
                last = last.max(at.duration_since(begun));
                answers.push(answer);
            }
            Ok((last, answers))
        })
    };
    measured(what, run, |(took, _)| {
        format!("last of {count} answers after {:.0} ms", millis(*took))
    })
}
