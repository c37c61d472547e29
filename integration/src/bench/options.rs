//! The benchmarks' command line.

use crate::runtime::Runtime;
use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: bench cluster|cluster-soak|cold|lookup|miss|restore-busybox|soak \
    [--runs N] [--pods N] [--rounds N] [--cycles N] [--scales N] [--restarts N] [--seed N] \
    [--handler runc|reprise] [--only NAME,NAME]";

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A Deployment of a Kubernetes cluster, from one pod to ten.
    Cluster,
    /// Restored pods of a Kubernetes cluster, while containerd is restarted.
    ClusterSoak,
    /// The cold path against runc's shim: times, memory, a hundred pods.
    Cold,
    /// What a decision costs with a thousand checkpoints on the node.
    Lookup,
    /// What looking for a checkpoint costs a container that has none.
    Miss,
    /// A restored shell.
    RestoreBusybox,
    /// A thousand containers through one shim.
    Soak,
}

/// What shall be measured, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) what: What,
    /// Repetitions of each measurement.
    pub(super) runs: usize,
    /// Pods that start at once, or all pods of a soak.
    pub(super) pods: usize,
    /// How often they do.
    pub(super) rounds: usize,
    /// Containers of a soak.
    pub(super) cycles: usize,
    /// How often a Deployment grows.
    pub(super) scales: usize,
    /// How often containerd is restarted.
    pub(super) restarts: usize,
    /// When containerd is restarted; another time each run when it is not given.
    pub(super) seed: Option<u64>,
    /// The handler of a soak's pods.
    pub(super) handler: Runtime,
    /// Names of measurements; all when empty.
    only: Vec<String>,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// When there is an unknown option or a bad value.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut words = words.into_iter();
        let what = match words.next().as_deref() {
            Some("cluster") => What::Cluster,
            Some("cluster-soak") => What::ClusterSoak,
            Some("cold") => What::Cold,
            Some("lookup") => What::Lookup,
            Some("miss") => What::Miss,
            Some("restore-busybox") => What::RestoreBusybox,
            Some("soak") => What::Soak,
            _ => bail!(USAGE),
        };
        let mut options = Self {
            what,
            runs: 30,
            pods: if what == What::ClusterSoak { 200 } else { 100 },
            rounds: 3,
            cycles: 1000,
            scales: 3,
            restarts: 10,
            seed: None,
            handler: Runtime::Reprise,
            only: Vec::new(),
        };
        while let Some(word) = words.next() {
            let value = words.next().context(USAGE)?;
            let number = || value.parse().context(USAGE);
            match word.as_str() {
                "--runs" => options.runs = number()?,
                "--pods" => options.pods = number()?,
                "--rounds" => options.rounds = number()?,
                "--cycles" => options.cycles = number()?,
                "--restarts" => options.restarts = number()?,
                "--scales" => options.scales = number()?,
                "--seed" => options.seed = Some(value.parse().context(USAGE)?),
                "--handler" => options.handler = Runtime::named(&value).context(USAGE)?,
                "--only" => options.only = value.split(',').map(str::to_owned).collect(),
                other => bail!("unknown option {other}: {USAGE}"),
            }
        }
        Ok(options)
    }

    /// Whether this measurement is asked for.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == name)
    }
}

#[cfg(test)]
mod tests {
    use super::{Options, What};

    fn parse(line: &str) -> anyhow::Result<Options> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_have_defaults() {
        let options = parse("cold --only exec,create").unwrap();
        assert_eq!(options.what, What::Cold);
        assert_eq!(
            (options.runs, options.pods, options.cycles),
            (30, 100, 1000)
        );
        assert!(options.wants("exec") && !options.wants("shim_pss"));
        assert!(parse("miss").unwrap().wants("exec"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "",
            "warm",
            "cold --runs",
            "cold --runs many",
            "cold --fast 1",
            "cluster-soak --seed ten",
            "cluster-soak --handler kata",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
