//! A Kubernetes cluster on this machine, made of its real programs.
//!
//! The control plane (etcd, API server, controller manager, scheduler) and each worker
//! node have processes and a network of their own; a worker is a [`Node`](crate::Node)
//! with a kubelet and a kube-proxy. A bridge in the control plane's network joins them.
//! From outside, the API server is reached through a port of the loopback. All of it
//! ends with the [`Cluster`], or with the program that holds it, however that ends.

mod control;
mod credentials;
mod daemon;
mod deployment;
mod forward;
pub mod helm;
mod kubectl;
mod network;
mod options;
pub(crate) mod report;
pub mod suite;
mod worker;

pub use deployment::{DeployedPod, Deployment, Template};
pub use kubectl::Kubectl;
pub use options::{ClusterOptions, DEFAULT_KUBERNETES};
pub use worker::Worker;

use crate::wait::wait_for;
use anyhow::{Context, Result, bail, ensure};
use control::ControlPlane;
use forward::Forward;
use std::thread::Builder;
use std::time::Duration;

/// The handlers of all nodes.
const RUNTIME_CLASSES: &str = include_str!("runtime-classes.yaml");

/// A control plane and its workers. What is dropped first was started last.
#[derive(Debug)]
pub struct Cluster {
    workers: Vec<Worker>,
    kubectl: Kubectl,
    _forward: Forward,
    control: ControlPlane,
}

impl Cluster {
    /// Why a cluster with this Kubernetes cannot be started, and what makes it
    /// possible; nothing when it can.
    #[must_use]
    pub fn missing(kubernetes: &str) -> Option<String> {
        let missing = options::programs(kubernetes)
            .into_iter()
            .find(|program| !program.exists())?;
        Some(format!(
            "{} is missing: run `KUBERNETES={kubernetes} hack/setup cluster` (8 minutes, once)",
            missing.display()
        ))
    }

    /// Starts one and waits until all nodes are ready for pods.
    ///
    /// # Errors
    /// When a program is missing or something does not come up; the message names its
    /// log.
    pub fn start(options: &ClusterOptions) -> Result<Self> {
        if let Some(missing) = Self::missing(&options.kubernetes) {
            bail!(missing);
        }
        ensure!(
            (1..=9).contains(&options.workers),
            "a cluster has 1 to 9 workers, not {}",
            options.workers
        );
        // Nodes take longest: the control plane comes up meanwhile.
        let (control, nodes) = std::thread::scope(|scope| -> Result<_> {
            // Logs are named after the thread that starts something.
            let name = std::thread::current().name().unwrap_or("main").to_owned();
            let nodes: Vec<_> = (1..=options.workers)
                .map(|number| {
                    let thread = Builder::new().name(format!("{name}-node-{number}"));
                    thread.spawn_scoped(scope, move || worker::node(options, number))
                })
                .collect::<Result<_, _>>()?;
            let control = ControlPlane::start(options);
            let nodes: Result<Vec<_>> = nodes
                .into_iter()
                .map(|thread| match thread.join() {
                    Ok(node) => node,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect();
            Ok((control?, nodes?))
        })?;
        let forward = Forward::start(options.port, control.network()?)?;
        let kubectl = Kubectl::new(&options.kubernetes, control.dir(), |kubeconfig| {
            control.write_admin_config(kubeconfig, &forward.url())
        })?;
        let mut cluster = Self {
            workers: Vec::new(),
            kubectl,
            _forward: forward,
            control,
        };
        // Where Reprise is to be installed first, whoever does that brings its class.
        if !options.node.pristine {
            cluster.kubectl.apply(RUNTIME_CLASSES)?;
        }
        for (index, node) in nodes.into_iter().enumerate() {
            let worker = Worker::join(&cluster.control, options, node, index + 1)?;
            cluster.workers.push(worker);
        }
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// How tests talk to it, in the namespace `default`.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The workers, `node-1` first.
    #[must_use]
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// The worker of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn worker(&self, name: &str) -> Result<&Worker> {
        self.workers
            .iter()
            .find(|worker| worker.name() == name)
            .with_context(|| format!("no worker {name}"))
    }

    /// Cuts a worker's power and starts it again: `/run`, its network and all processes
    /// are new, its disk is what it was. Returns when it is ready for pods.
    ///
    /// # Errors
    /// When it does not come up again.
    pub fn reboot(&mut self, name: &str) -> Result<()> {
        let worker = self
            .workers
            .iter_mut()
            .find(|worker| worker.name() == name)
            .with_context(|| format!("no worker {name}"))?;
        worker.reboot(&self.control)?;
        self.wait_until_ready()
    }

    /// Waits until every node is ready and pods may be scheduled on it, and a pod of
    /// the namespace `default` has its service account.
    ///
    /// # Errors
    /// When that does not happen within a minute.
    pub fn wait_until_ready(&self) -> Result<()> {
        let ready = wait_for("the nodes", Duration::from_secs(60), || {
            for daemon in self.workers.iter().flat_map(Worker::daemons) {
                daemon.check()?;
            }
            self.control.check()?;
            let nodes = self.kubectl.get(["nodes"])?;
            let ready = nodes["items"].as_array().map_or(0, |nodes| {
                nodes.iter().filter(|node| worker::is_ready(node)).count()
            });
            Ok((ready == self.workers.len()).then_some(()))
        });
        ready.with_context(|| format!("see the logs {}", self.control.logs()))?;
        wait_for("a service account", Duration::from_secs(30), || {
            let account = self.kubectl.run(["get", "serviceaccount", "default"])?;
            Ok((account.code == 0).then_some(()))
        })
    }
}
