//! Calls as users make them: `ctr run --rm`, the CRI's verbs, an exec.

use super::pairs::{Shim, Values, in_turns};
use crate::measure::millis;
use crate::node::Node;
use crate::pod::{Container, ContainerSpec, Pod, PodSpec};
use crate::programs::BUSYBOX;
use anyhow::{Result, bail};
use std::process::Stdio;
use std::time::Instant;

/// A container that does nothing until it is killed.
pub(super) fn sleeper() -> ContainerSpec {
    ContainerSpec::shell("while :; do sleep 1000; done")
}

/// `ctr run --rm` of `/bin/true`: from the start of ctr to its end.
pub(super) fn ctr_run_rm(node: &Node, runs: usize) -> Result<Values> {
    in_turns(runs, &Shim::BOTH, |shim, run| {
        let name = shim.name();
        let id = format!("rm-{name}-{run}");
        let mut ctr = node.command("ctr");
        ctr.args(["run", "--rm", "--runtime"])
            .arg(format!("io.containerd.{name}.v2"))
            .arg("--cgroup")
            .arg(format!("{}/{id}", node.cgroup()))
            .args([BUSYBOX, &id, "/bin/true"])
            .stdin(Stdio::null());
        let begun = Instant::now();
        let done = ctr.output()?;
        let took = millis(begun.elapsed());
        if !done.status.success() {
            bail!("ctr run: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(took)
    })
}

/// CreateContainer, StartContainer, StopContainer and RemoveContainer in a pod.
pub(super) fn cri_cycle(node: &Node, runs: usize) -> Result<Values> {
    let pods = Pods::run(node)?;
    in_turns(runs, &Shim::BOTH, |shim, run| {
        let spec = sleeper().name(&format!("cycle-{run}"));
        let begun = Instant::now();
        let container = pods.of(shim).run(&spec)?;
        container.stop(0)?;
        container.remove()?;
        Ok(millis(begun.elapsed()))
    })
}

/// ExecSync of `/bin/true`.
pub(super) fn exec(node: &Node, runs: usize) -> Result<Values> {
    let pods = Pods::run(node)?;
    let containers: Vec<(Shim, Container<'_>)> = Shim::BOTH
        .into_iter()
        .map(|shim| Ok((shim, pods.of(shim).run(&sleeper())?)))
        .collect::<Result<_>>()?;
    in_turns(runs, &Shim::BOTH, |shim, _| {
        let of_shim = containers.iter().find(|(whose, _)| *whose == shim);
        let Some((_, container)) = of_shim else {
            bail!("no container");
        };
        let begun = Instant::now();
        let done = container.exec(&["/bin/true"])?;
        let took = millis(begun.elapsed());
        if done.code != 0 {
            bail!("true ended with {}: {}", done.code, done.stderr);
        }
        Ok(took)
    })
}

/// A pod of each.
pub(super) struct Pods<'n> {
    reprise: Pod<'n>,
    runc: Pod<'n>,
}

impl<'n> Pods<'n> {
    pub(super) fn run(node: &'n Node) -> Result<Self> {
        let run = |shim: Shim| {
            let name = shim.name();
            node.run_pod(&PodSpec::new("bench", name).handler(name))
        };
        Ok(Self {
            reprise: run(Shim::Reprise)?,
            runc: run(Shim::Runc)?,
        })
    }

    pub(super) fn of(&self, shim: Shim) -> &Pod<'n> {
        match shim {
            Shim::Runc => &self.runc,
            Shim::Reprise | Shim::Baseline => &self.reprise,
        }
    }
}
