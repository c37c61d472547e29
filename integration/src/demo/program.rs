//! One program, started in every way.

#![allow(clippy::print_stdout, reason = "the demo talks to its user")]

use super::progress::{measured, step};
use super::report::ProgramReport;
use crate::measure::{median, millis};
use crate::node::Node;
use crate::pod::{Container, ContainerSpec, Pod, PodSpec};
use crate::programs::{Answer, Program};
use crate::wait::wait_for;
use anyhow::{Result, bail};
use std::time::Duration;

/// A pod with its first answer and how long that took.
type Started<'n> = (Pod<'n>, Container<'n>, Answer, Duration);

/// Starts a program `runs` times in each way, one after the other in turn, so
/// that whatever disturbs the machine disturbs them all.
pub(super) fn measure(node: &Node, program: Program, runs: usize) -> Result<ProgramReport> {
    let name = program.name();
    let spec = program.container();

    let (pod_1, first, original, _) = start(
        node,
        &format!("{name}-1 under reprise, cold"),
        &PodSpec::new("demo", &format!("{name}-1")),
        &spec,
    )?;
    step(&format!("crictl checkpoint {name}-1"), || {
        first.checkpoint()?;
        wait_until_known(node)
    })?;
    let (archive, from_runc) = checkpoint_under_runc(node, program)?;

    let mut times = [const { Vec::new() }; 4];
    let [runc, cold, cri, restored] = &mut times;
    let mut proven = 0;
    for run in 1..=runs {
        let of = format!("{run}/{runs}");
        let pod = |kind: &str, handler: &str| {
            PodSpec::new("demo", &format!("{name}-{kind}-{run}")).handler(handler)
        };
        runc.push(once(
            node,
            &format!("cold under runc's shim {of}"),
            &pod("runc", "runc"),
            &spec,
        )?);
        cri.push(restored_by_containerd(
            node,
            &of,
            &pod("cri", "runc"),
            &spec,
            &archive,
            &from_runc,
        )?);
        cold.push(once(
            node,
            &format!("cold under reprise {of}"),
            &pod("cold", "reprise").restore("never"),
            &spec,
        )?);
        let next = PodSpec::new("demo", &format!("{name}-{}", run + 1));
        let what = format!("{name}-{}, restored {of}", run + 1);
        let (pod, _, answer, took) = start(node, &what, &next, &spec)?;
        restored.push(millis(took));
        if answer.boot == original.boot && answer.hostname == pod.name() {
            proven += 1;
        } else {
            println!("    NOT RESTORED: it answers {answer:?}");
        }
    }
    drop(pod_1);
    Ok(ProgramReport {
        program: name.to_owned(),
        runc_cold_ms: median(runc),
        cold_ms: median(cold),
        cri_restore_ms: median(cri),
        restored_ms: median(restored),
        restored: proven,
        runs,
    })
}

/// Makes a pod and measures its container's way to the first answer.
fn start<'n>(
    node: &'n Node,
    what: &str,
    pod: &PodSpec,
    container: &ContainerSpec,
) -> Result<Started<'n>> {
    measured(
        what,
        || {
            let pod = node.run_pod(pod)?;
            let (container, answer, took) = pod.run_service(container)?;
            Ok((pod, container, answer, took))
        },
        |(pod, _, answer, took)| {
            format!(
                "{:.0} ms   {} boot {} request {}",
                millis(*took),
                pod.ip(),
                short(&answer.boot),
                answer.count
            )
        },
    )
}

/// The same for a pod that is not needed afterwards; in milliseconds.
fn once(node: &Node, what: &str, pod: &PodSpec, container: &ContainerSpec) -> Result<f64> {
    let (_, _, _, took) = start(node, what, pod, container)?;
    Ok(millis(took))
}

/// A checkpoint of the same program for containerd's own restore, which only
/// restores what runc has dumped.
pub(super) fn checkpoint_under_runc(node: &Node, program: Program) -> Result<(String, Answer)> {
    step("a checkpoint for containerd's own restore", || {
        let pod = node.run_pod(&PodSpec::new("demo", "for-cri").handler("runc"))?;
        let (container, answer, _) = pod.run_service(&program.container())?;
        container.wait_until_no_connection()?;
        Ok((container.checkpoint()?.display().to_string(), answer))
    })
}

fn restored_by_containerd(
    node: &Node,
    of: &str,
    pod: &PodSpec,
    container: &ContainerSpec,
    archive: &str,
    original: &Answer,
) -> Result<f64> {
    let container = container.clone().from_archive(archive);
    let what = format!("restored by containerd {of}");
    let (_, _, answer, took) = start(node, &what, pod, &container)?;
    if answer.boot != original.boot {
        bail!("containerd's own restore did not restore");
    }
    Ok(millis(took))
}

/// Waits until a checkpoint can be found by the next pod.
pub(super) fn wait_until_known(node: &Node) -> Result<()> {
    wait_for(
        "the checkpoint in `reprise list`",
        Duration::from_secs(20),
        || {
            let list = node.run("reprise", ["list", "--json"])?;
            let known: Vec<serde_json::Value> = list.json()?;
            Ok((!known.is_empty()).then_some(()))
        },
    )
}

fn short(boot: &str) -> &str {
    boot.get(..8).unwrap_or(boot)
}
