//! What a case has: a namespace of its own, and those who act in it.

use super::manifest::complete;
use crate::cluster::{Cluster, Kubectl};
use crate::node::{Finished, time_limit_of};
use crate::terminal::Terminal;
use crate::wait::patiently;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

/// The node that all pods run on.
pub(super) const NODE: &str = "node-1";

/// How often something is asked for that cannot be waited for: each time is a process.
const PAUSE: Duration = Duration::from_millis(300);

/// One case under one RuntimeClass.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    kubectl: Kubectl,
    class: &'static str,
    cluster: &'a RwLock<Cluster>,
    deadline: Instant,
}

impl<'a> Ground<'a> {
    /// Makes the namespace, and waits until pods can be made in it.
    pub(super) fn new(
        cluster: &'a RwLock<Cluster>,
        namespace: &str,
        class: &'static str,
        limit: Duration,
    ) -> Result<Self> {
        let kubectl = read(cluster).kubectl().in_namespace(namespace)?;
        let ground = Self {
            kubectl,
            class,
            cluster,
            deadline: Instant::now() + patiently(limit),
        };
        ground.until("its service account", || {
            let account = ground.run(&["get", "serviceaccount", "default"])?;
            Ok((account.code == 0).then_some(()))
        })?;
        Ok(ground)
    }

    /// The RuntimeClass.
    pub(super) fn class(&self) -> &'static str {
        self.class
    }

    pub(super) fn namespace(&self) -> &str {
        self.kubectl.namespace()
    }

    /// The cluster, to look at.
    pub(super) fn cluster(&self) -> RwLockReadGuard<'_, Cluster> {
        read(self.cluster)
    }

    /// Cuts the node's power and starts it again.
    pub(super) fn reboot(&self) -> Result<()> {
        let mut cluster = self.cluster.write().unwrap_or_else(PoisonError::into_inner);
        cluster.reboot(NODE)
    }

    /// A path inside the node, as this program reaches it.
    pub(super) fn on_node(&self, path: &str) -> Result<PathBuf> {
        Ok(self.cluster().worker(NODE)?.node().path(path))
    }

    /// A directory on the node that is this case's own, in and outside of pods the same.
    pub(super) fn node_dir(&self) -> Result<String> {
        let dir = format!("/var/lib/suite/{}", self.namespace());
        fs::create_dir_all(self.on_node(&dir)?)?;
        Ok(dir)
    }

    /// Runs `kubectl` until the case's deadline.
    pub(super) fn run(&self, args: &[&str]) -> Result<Finished> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "{}", self.too_late());
        let finished = self.kubectl.run_within(time_limit_of(left), args)?;
        // What `timeout` ends with when it had to end the other.
        ensure!(
            !matches!(finished.code, 124 | 137) || Instant::now() < self.deadline,
            "{}: `{}` {}",
            self.too_late(),
            finished.command,
            finished.stderr.trim()
        );
        Ok(finished)
    }

    fn too_late(&self) -> String {
        "the deadline is over".to_owned()
    }

    /// Runs `kubectl` and returns its output.
    pub(super) fn call(&self, args: &[&str]) -> Result<String> {
        self.run(args)?.ok()
    }

    /// Runs `kubectl` at a terminal or with its standard input held open.
    pub(super) fn conversation(&self, tty: bool, args: &[&str]) -> Result<Terminal> {
        let asked = self.kubectl.command(args);
        let program = asked.get_program().to_string_lossy().into_owned();
        let words = asked.get_args().map(|arg| quoted(&arg.to_string_lossy()));
        let line = format!("{program} {}", words.collect::<Vec<_>>().join(" "));
        let mut command = if tty {
            let line = format!("stty rows 33 cols 111; exec {line}");
            let mut script = Command::new("script");
            script.args(["--quiet", "--flush", "--return", "--command", &line]);
            script.arg("/dev/null");
            script
        } else {
            // A parent, which is whom a terminal's end is for.
            let mut timeout = Command::new("timeout");
            timeout.args(["120", "sh", "-c", &format!("exec {line}")]);
            timeout
        };
        for (name, value) in asked.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        Terminal::watch(command)
    }

    /// Asks again and again until there is an answer or the deadline is over.
    pub(super) fn until<T>(
        &self,
        what: &str,
        mut ask: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        loop {
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            if Instant::now() > self.deadline {
                bail!("waited in vain for {what}");
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until `pod/a` or the like is such as `condition=Ready`, `delete` or
    /// `jsonpath={.status.phase}=Failed`.
    pub(super) fn wait(&self, what: &str, until: &str) -> Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let limit = format!("--timeout={}s", left.as_secs().max(1));
        self.call(&["wait", &format!("--for={until}"), &limit, what])?;
        Ok(())
    }

    /// Makes what a manifest says.
    pub(super) fn create(&self, mut manifest: Value) -> Result<()> {
        complete(&mut manifest, self.class);
        self.apply_as_is(&manifest)
    }

    /// Makes what a manifest says, whatever its RuntimeClass.
    pub(super) fn apply_as_is(&self, manifest: &Value) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), manifest.to_string())?;
        let path = file.path().to_string_lossy();
        self.call(&["create", "-f", &path])
            .with_context(|| format!("creating {manifest}"))?;
        Ok(())
    }

    /// Makes a pod.
    pub(super) fn pod(&self, name: &str, spec: Value) -> Result<()> {
        self.create(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": spec,
        }))
    }

    /// Makes a pod and waits until it is ready.
    pub(super) fn ready_pod(&self, name: &str, spec: Value) -> Result<()> {
        self.pod(name, spec)?;
        self.wait(&format!("pod/{name}"), "condition=Ready")
            .with_context(|| self.last_warning(name))
    }

    /// What Kubernetes complained of last about an object, also after the deadline.
    fn last_warning(&self, name: &str) -> String {
        let about = format!("--field-selector=type=Warning,involvedObject.name={name}");
        let message = "--output=jsonpath={.items[-1:].message}";
        let asked = ["get", "events", "--sort-by=.lastTimestamp", &about, message];
        self.kubectl
            .run_within(time_limit_of(Duration::from_secs(10)), asked)
            .map_or_else(|error| error.to_string(), |said| said.stdout)
    }

    /// Makes a pod that is not started again, and waits until it has ended; what it
    /// wrote.
    pub(super) fn finished_pod(&self, name: &str, spec: Value) -> Result<String> {
        let spec = super::manifest::with(spec, json!({"restartPolicy": "Never"}));
        self.pod(name, spec)?;
        let ended = self.until("the pod's end", || {
            let phase = self.get(&["pod", name])?["status"]["phase"].clone();
            Ok((phase == "Succeeded" || phase == "Failed").then_some(phase))
        })?;
        let log = self.call(&["logs", name])?;
        ensure!(ended == "Succeeded", "the pod is {ended}: {log}");
        Ok(log)
    }

    /// What the first process of a container finds by a script, and a process that is
    /// executed in it as well: both have to find the same.
    pub(super) fn facts(&self, container: Value, spec: Value, script: &str) -> Result<String> {
        let lasting = format!("{script}\necho end\nexec sleep 1000000");
        let container = super::manifest::with(container, json!({"script": lasting}));
        let spec = super::manifest::with(spec, json!({"containers": [container]}));
        self.ready_pod("facts", spec)?;
        let own = self.until("what it says", || {
            let log = self.call(&["logs", "facts", "-c", "app"])?;
            Ok(log.strip_suffix("end\n").map(|own| own.trim().to_owned()))
        })?;
        let executed = self.exec("facts", script)?;
        ensure!(
            own == executed,
            "the container's process says\n{own}\nand one executed in it\n{executed}"
        );
        Ok(own)
    }

    /// Runs a shell's script in a pod; what it wrote, without spaces around it.
    pub(super) fn exec(&self, pod: &str, script: &str) -> Result<String> {
        Ok(self
            .call(&["exec", pod, "--", "sh", "-c", script])?
            .trim()
            .to_owned())
    }

    /// Runs a shell's script in one container of a pod.
    pub(super) fn exec_in(&self, pod: &str, container: &str, script: &str) -> Result<String> {
        Ok(self
            .call(&["exec", pod, "-c", container, "--", "sh", "-c", script])?
            .trim()
            .to_owned())
    }

    /// `kubectl get ... -o json`.
    pub(super) fn get(&self, what: &[&str]) -> Result<Value> {
        self.run(&[&["get", "-o", "json"], what].concat())?.json()
    }

    /// A container's status, init containers and ephemeral ones included.
    pub(super) fn container(&self, pod: &str, container: &str) -> Result<Value> {
        let pod = self.get(&["pod", pod])?;
        let lists = [
            "containerStatuses",
            "initContainerStatuses",
            "ephemeralContainerStatuses",
        ];
        let found = lists
            .iter()
            .filter_map(|list| pod["status"][list].as_array())
            .flatten()
            .find(|status| status["name"] == container);
        Ok(found.cloned().unwrap_or_default())
    }

    /// Waits until a container's status is as wanted.
    pub(super) fn until_container(
        &self,
        pod: &str,
        container: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let found = self.until(what, || {
            last = self.container(pod, container)?;
            Ok(wanted(&last).then(|| last.clone()))
        });
        found.with_context(|| format!("{container} is {last}"))
    }

    /// Waits until one of the namespace's events has this reason and these words.
    pub(super) fn event(&self, reason: &str, words: &str) -> Result<()> {
        let mut last = String::new();
        let found = self.until(&format!("the event {reason}"), || {
            let events = self.get(&["events", "--field-selector", &format!("reason={reason}")])?;
            let items = events["items"].as_array().cloned().unwrap_or_default();
            last = format!(
                "{:?}",
                items
                    .iter()
                    .map(|event| &event["message"])
                    .collect::<Vec<_>>()
            );
            let said = |event: &Value| event["message"].as_str().is_some_and(|m| m.contains(words));
            Ok(items.iter().any(said).then_some(()))
        });
        found.with_context(|| format!("they say {last}"))
    }

    /// What became of everything here, for whoever reads why a case failed.
    pub(super) fn describe(&self) -> String {
        let ask = |args: &[&str]| {
            self.kubectl
                .run(args)
                .map(|said| said.stdout)
                .unwrap_or_default()
        };
        [
            ask(&["get", "all", "-o", "wide"]),
            ask(&["describe", "pods"]),
            ask(&["get", "events", "--sort-by=.lastTimestamp"]),
        ]
        .join("\n")
    }

    /// Has the namespace removed, without waiting for it.
    pub(super) fn leave(&self) {
        let name = self.namespace();
        self.kubectl
            .run(["delete", "namespace", name, "--wait=false"])
            .ok();
    }
}

fn read(cluster: &RwLock<Cluster>) -> RwLockReadGuard<'_, Cluster> {
    cluster.read().unwrap_or_else(PoisonError::into_inner)
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
