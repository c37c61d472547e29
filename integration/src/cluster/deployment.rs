//! A Deployment of one container, and the pods that it has at a moment.

use super::{Cluster, Kubectl, Worker};
use crate::checkpoints::{Checkpoint, Decision};
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::Duration;

/// Ten services that start cold on two cores take half of it.
const READY: Duration = Duration::from_secs(120);

/// What a Deployment's pods are like.
#[derive(Clone, Debug)]
pub struct Template {
    /// The name of the Deployment, and the value of its label `app`.
    pub name: String,
    /// The RuntimeClass.
    pub class: String,
    /// The container's image.
    pub image: String,
    /// More fields of the container, as YAML in flow style, each with a comma before it.
    pub container: String,
    /// More fields of the pod, in the same form.
    pub pod: String,
    /// Its annotations, in the same form but for the first comma.
    pub annotations: String,
}

impl Template {
    /// A container of this image, with nothing else.
    #[must_use]
    pub fn new(name: &str, class: &str, image: &str) -> Self {
        Self {
            name: name.to_owned(),
            class: class.to_owned(),
            image: image.to_owned(),
            container: String::new(),
            pod: String::new(),
            annotations: String::new(),
        }
    }

    fn yaml(&self, replicas: usize) -> String {
        let Self {
            name,
            class,
            image,
            container,
            pod,
            annotations,
        } = self;
        format!(
            "apiVersion: apps/v1\n\
             kind: Deployment\n\
             metadata: {{name: {name}}}\n\
             spec:\n  \
               replicas: {replicas}\n  \
               selector: {{matchLabels: {{app: {name}}}}}\n  \
               template:\n    \
                 metadata: {{labels: {{app: {name}}}, annotations: {{{annotations}}}}}\n    \
                 spec: {{runtimeClassName: {class}, terminationGracePeriodSeconds: 1, containers: [\
                 {{name: app, image: \"{image}\", imagePullPolicy: IfNotPresent{container}}}]{pod}}}\n"
        )
    }
}

/// A Deployment in a cluster.
#[derive(Debug)]
pub struct Deployment<'c> {
    cluster: &'c Cluster,
    kubectl: Kubectl,
    name: String,
}

/// A pod of a Deployment, as the API server tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployedPod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The node that it is on; empty until it is scheduled.
    pub node: String,
    /// The id of its container that was started last; empty until there is one.
    pub container: String,
    /// How often that was started again.
    pub restarts: u64,
    /// Whether it is ready.
    pub ready: bool,
}

impl<'c> Deployment<'c> {
    /// Makes one with so many pods, in `kubectl`'s namespace, or changes the one of this
    /// name.
    ///
    /// # Errors
    /// When it is not accepted.
    pub fn apply(
        cluster: &'c Cluster,
        kubectl: &Kubectl,
        template: &Template,
        replicas: usize,
    ) -> Result<Self> {
        kubectl.apply(&template.yaml(replicas))?;
        Ok(Self {
            cluster,
            kubectl: kubectl.clone(),
            name: template.name.clone(),
        })
    }

    /// Its pods that are not being deleted, in the order of their names.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn pods(&self) -> Result<Vec<DeployedPod>> {
        let label = format!("app={}", self.name);
        let listed = self.kubectl.get(["pods", "-l", &label])?;
        let pods = listed["items"].as_array().context("pods")?.iter();
        Ok(pods
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(DeployedPod::of)
            .collect())
    }

    /// Sets how many pods it has, and does not wait for them.
    ///
    /// # Errors
    /// When it is not accepted.
    pub fn scale(&self, replicas: usize) -> Result<()> {
        let (name, replicas) = (&self.name, format!("--replicas={replicas}"));
        self.kubectl
            .call(["scale", "deployment", name, &replicas])
            .map(drop)
    }

    /// Has all of its pods replaced, and waits until they are.
    ///
    /// # Errors
    /// When they are not within two minutes.
    pub fn restart(&self) -> Result<Vec<DeployedPod>> {
        let before = self.pods()?;
        let deployment = format!("deployment/{}", self.name);
        self.kubectl.call(["rollout", "restart", &deployment])?;
        self.kubectl
            .call(["rollout", "status", "--timeout=120s", &deployment])?;
        let now = self.ready(before.len())?;
        if let Some(old) = now.iter().find(|pod| before.contains(pod)) {
            bail!("{} is one of those before the restart", old.name);
        }
        Ok(now)
    }

    /// Waits until it has exactly so many pods, and all are ready.
    ///
    /// # Errors
    /// When that does not come within two minutes; the message tells of its pods.
    pub fn ready(&self, count: usize) -> Result<Vec<DeployedPod>> {
        let ready = wait_for("the Deployment's pods", READY, || {
            let pods = self.pods()?;
            let all = pods.len() == count && pods.iter().all(|pod| pod.ready);
            Ok(all.then_some(pods))
        });
        ready.with_context(|| {
            let label = format!("app={}", self.name);
            self.kubectl
                .call(["describe", "pods", "-l", &label])
                .unwrap_or_default()
        })
    }

    /// Waits until one of its pods is ready and has had so many restarts.
    ///
    /// # Errors
    /// When that does not come within two minutes.
    pub fn restarted(&self, name: &str, restarts: u64) -> Result<DeployedPod> {
        wait_for("the restarted container", READY, || {
            let mut pods = self.pods()?.into_iter();
            Ok(pods.find(|pod| pod.name == name && pod.ready && pod.restarts == restarts))
        })
    }

    /// Asks the kubelet for a checkpoint of a pod's container, and waits until others
    /// can be started from it.
    ///
    /// # Errors
    /// The kubelet's, and when it does not come.
    pub fn checkpoint(&self, pod: &DeployedPod) -> Result<Checkpoint> {
        let node = self.worker(pod)?.node();
        let archive = self.kubectl.checkpoint(&pod.node, &pod.name, "app")?;
        // The kubelet keeps its archive for ever; nobody here reads it.
        std::fs::remove_file(node.path(archive))?;
        wait_for("the checkpoint", Duration::from_secs(20), || {
            let mut all = node.checkpoints()?.into_iter();
            Ok(all.find(|checkpoint| checkpoint.container == pod.container))
        })
    }

    /// Takes a checkpoint of a pod's container on its node, once that is idle.
    ///
    /// # Errors
    /// When it does not become idle within a minute, and as `reprise checkpoint`.
    pub fn checkpoint_idle(&self, pod: &DeployedPod) -> Result<()> {
        let node = self.worker(pod)?.node();
        let taken = node.reprise(["checkpoint", "--when-idle", &pod.container]);
        taken.map(drop)
    }

    /// How a pod's container was started.
    ///
    /// # Errors
    /// When its shim has not logged that.
    pub fn decision(&self, pod: &DeployedPod) -> Result<Decision> {
        self.worker(pod)?.node().decision_of(&pod.container)
    }

    /// Deletes it and waits until its pods are gone.
    ///
    /// # Errors
    /// When they are not within two minutes.
    pub fn delete(self) -> Result<()> {
        self.kubectl.delete(&["deployment", &self.name])?;
        let label = format!("app={}", self.name);
        wait_for("the pods' end", READY, || {
            let left = self.kubectl.get(["pods", "-l", &label])?;
            Ok(left["items"]
                .as_array()
                .is_some_and(Vec::is_empty)
                .then_some(()))
        })
    }

    fn worker(&self, pod: &DeployedPod) -> Result<&'c Worker> {
        self.cluster.worker(&pod.node)
    }
}

impl DeployedPod {
    fn of(pod: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let container = &pod["status"]["containerStatuses"][0];
        let id = text(&container["containerID"]);
        Self {
            name: text(&pod["metadata"]["name"]),
            uid: text(&pod["metadata"]["uid"]),
            node: text(&pod["spec"]["nodeName"]),
            container: id.trim_start_matches("containerd://").to_owned(),
            restarts: container["restartCount"].as_u64().unwrap_or_default(),
            ready: container["ready"] == true,
        }
    }
}
