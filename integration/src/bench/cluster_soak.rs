//! Many restored pods under a kubelet, while containerd is restarted at random moments:
//! none is lost, each exit code is right, and nothing is left. Under runc, which starts
//! them cold, it shows what containerd itself loses and leaves.

use super::Options;
use crate::checkpoints::Decision;
use crate::cluster::{Cluster, ClusterOptions, Kubectl, Worker};
use crate::leftovers::Leftovers;
use crate::node::Node;
use crate::programs::BUSYBOX;
use crate::runtime::Runtime;
use crate::wait::wait_for;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::time::Duration;

/// How many pods are there at once: what two cores can bear.
const BATCH: usize = 20;
/// One of so many lives until it is deleted.
const STAYS: usize = 5;
/// Within how long a batch has come and ended.
const LIFE: Duration = Duration::from_secs(240);
/// Within how long a kubelet has forgotten pods that are gone: it looks once a minute.
const FORGETS: Duration = Duration::from_secs(150);
/// A containerd is restarted so long after its batch was wished for, in milliseconds, at
/// most: later all of them have ended.
const RESTART_WITHIN: u64 = 8000;

/// Waits until it sees another hostname, so until it was restored.
const WAIT: &str = "read first < /proc/sys/kernel/hostname; now=$first; \
    while [ $now = $first ]; do sleep 0.1; read now < /proc/sys/kernel/hostname; done; ";
/// Lives for some seconds and ends with the code that its own pod has in an annotation, or
/// does not end.
const LIVE: &str = "read code < /etc/about/code; echo restored $now $code; \
    n=$((code % 6 * 10)); while [ $code = 0 ] || [ $n -gt 0 ]; do sleep 0.1; n=$((n-1)); done; exit $code";

/// Runs it on a cluster of its own, and tells how it went.
///
/// # Errors
/// When a pod is lost, was not restored or has another exit code, and when anything is
/// left of them.
#[allow(clippy::print_stdout, reason = "a benchmark talks to its user")]
pub(super) fn run(options: &Options) -> Result<()> {
    let (pods, restarts) = (options.pods, options.restarts);
    let seed = options.seed.unwrap_or_else(random);
    let soak = Soak {
        cluster: Cluster::start(&ClusterOptions::asked_for())?,
        handler: options.handler,
    };
    println!(
        "--pods {pods} --restarts {restarts} --seed {seed} --handler {}",
        soak.handler.name()
    );
    let node = soak.worker()?.node();
    println!("log: {}", node.log_file().display());
    soak.start_original()?;
    let before = Leftovers::of(node)?;

    let mut moments = Moments(seed);
    let (mut restarted, mut forgotten) = (0, 0);
    for first in (0..pods).step_by(BATCH) {
        let numbers = first..pods.min(first + BATCH);
        // Spread over all batches.
        let until_now = restarts * numbers.end / pods;
        let moments = moments.next(until_now - restarted);
        forgotten += soak.batch(numbers.clone(), &moments)?;
        restarted = until_now;
        println!("{} pods, {restarted} restarts of containerd", numbers.end);
    }
    let mut left = String::new();
    let clean = wait_for("the node to be as before", FORGETS, || {
        left = Leftovers::of(node)?.since(&before);
        let clean = left.lines().all(is_anothers);
        Ok(clean.then_some(()))
    });
    let unnoted = unnoted(node, &left)?;
    if !unnoted.0.is_empty() {
        println!(
            "({} network namespaces that nobody has used: containerd was stopped after it had \
             made them and before it had noted them: {})",
            unnoted.0.len(),
            unnoted.0.join(" ")
        );
    }
    let left: Vec<_> = left.lines().filter(|line| !unnoted.tell(line)).collect();
    if !left.iter().all(|line| is_anothers(line)) {
        clean.with_context(|| format!("left behind:\n{}", left.join("\n")))?;
    }
    println!(
        "{pods} pods under {}, {restarted} restarts of containerd: none lost, {}nothing left",
        soak.handler.name(),
        if soak.restores() {
            "each exit code right, "
        } else {
            ""
        },
    );
    if forgotten > 0 {
        println!(
            "({forgotten} of the codes were told to containerd, which was stopped before it had \
             noted them)"
        );
    }
    Ok(())
}

/// Names of network namespaces that containerd itself has lost.
struct Unnoted(Vec<String>);

impl Unnoted {
    /// Whether a line of what is left tells of one of them.
    fn tell(&self, line: &str) -> bool {
        let name = line.rsplit('/').next().unwrap_or_default();
        line.contains(" /run/netns/") && self.0.iter().any(|known| known == name)
    }
}

/// Those that are left and have no interface: containerd makes a namespace, then notes
/// its name, then has CNI make interfaces, and only then comes to any shim. Stopped before
/// the note it never finds the namespace again. Under runc the same run leaves them, too.
fn unnoted(node: &Node, left: &str) -> Result<Unnoted> {
    let names = left
        .lines()
        .filter_map(|line| line.strip_prefix("mount /run/netns/"));
    let mut unnoted = Vec::new();
    for name in names {
        let path = format!("--net=/run/netns/{name}");
        let seen = node.run("nsenter", [&path, "cat", "/proc/net/dev"])?.ok()?;
        let mut interfaces = seen.lines().filter_map(|line| line.split_once(':'));
        if interfaces.all(|(interface, _)| interface.trim() == "lo") {
            unnoted.push(name.to_owned());
        }
    }
    Ok(Unnoted(unnoted))
}

/// What has another pid from time to time: containerd, and the original's own child.
fn is_anothers(line: &str) -> bool {
    line.contains("containerd --config")
        || (line.starts_with("process ") && line.trim_end().ends_with(" sleep 0.1"))
}

/// When containerd is stopped, counted from its last start or from the pods' creation.
/// The same for the same seed: the SplitMix64 generator.
struct Moments(u64);

impl Moments {
    fn next(&mut self, count: usize) -> Vec<Duration> {
        (0..count)
            .map(|_| Duration::from_millis(self.random() % (RESTART_WITHIN / count as u64)))
            .collect()
    }

    fn random(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Whether pods under it are restored; under the other one they start cold.
fn restores(handler: Runtime) -> bool {
    handler == Runtime::Reprise
}

/// A pod and the exit code that its annotation asks for; 0 asks for none.
fn pod(handler: Runtime, name: &str, code: usize) -> String {
    let wait = if restores(handler) { WAIT } else { "" };
    let handler = handler.name();
    format!(
        "apiVersion: v1\n\
         kind: Pod\n\
         metadata: {{name: {name}, labels: {{app: soak}}, annotations: {{code: \"{code}\"}}}}\n\
         spec:\n  \
           runtimeClassName: {handler}\n  \
           restartPolicy: Never\n  \
           terminationGracePeriodSeconds: 5\n  \
           containers:\n  \
           - name: app\n    \
             image: {BUSYBOX}\n    \
             imagePullPolicy: IfNotPresent\n    \
             command: [sh, -c, \"trap 'exit 7' TERM; {wait}{LIVE}\"]\n    \
             volumeMounts: [{{name: about, mountPath: /etc/about}}]\n  \
           volumes:\n  \
           - name: about\n    \
             downwardAPI: {{items: [{{path: code, fieldRef: {{fieldPath: \"metadata.annotations['code']\"}}}}]}}\n"
    )
}

/// What a pod has to end with; 0 if it does not end.
fn code_of(number: usize) -> usize {
    match number % STAYS {
        0 => 0,
        _ => 1 + number % 250,
    }
}

/// A cluster, and what its pods run under.
struct Soak {
    cluster: Cluster,
    handler: Runtime,
}

impl Soak {
    fn worker(&self) -> Result<&Worker> {
        self.cluster.worker("node-1")
    }

    fn restores(&self) -> bool {
        restores(self.handler)
    }

    /// The pod that all others are restored from, and its checkpoint.
    fn start_original(&self) -> Result<()> {
        let (kubectl, worker) = (self.cluster.kubectl(), self.worker()?);
        kubectl.apply(&pod(self.handler, "original", 0))?;
        kubectl.wait_ready("original")?;
        if !self.restores() {
            return Ok(());
        }
        let archive = kubectl.checkpoint(worker.name(), "original", "app")?;
        std::fs::remove_file(worker.node().path(archive))?;
        wait_for("the checkpoint", Duration::from_secs(20), || {
            Ok((!worker.node().checkpoints()?.is_empty()).then_some(()))
        })
    }

    /// Makes pods, restarts containerd at these moments, and deletes them when all have
    /// become what they were to become. How many exit codes containerd has forgotten.
    #[allow(clippy::print_stdout, reason = "a benchmark talks to its user")]
    fn batch(&self, numbers: Range<usize>, moments: &[Duration]) -> Result<usize> {
        let (kubectl, worker) = (self.cluster.kubectl(), self.worker()?);
        let pod = |number| pod(self.handler, &format!("pod-{number}"), code_of(number));
        let yaml: Vec<String> = numbers.clone().map(pod).collect();
        kubectl.apply(&yaml.join("---\n"))?;
        for moment in moments {
            std::thread::sleep(*moment);
            worker.node().stop_containerd()?;
            worker.node().start_containerd()?;
        }
        let mut seen = BTreeMap::new();
        let done = wait_for("the pods", LIFE, || {
            seen = states(kubectl)?;
            if let Some((name, _)) = seen.iter().find(|(_, state)| state.was_given_up()) {
                // As the controller of a Job or a Deployment would.
                let number = name.trim_start_matches("pod-").parse()?;
                kubectl.delete(&["pod", name])?;
                kubectl.apply(&pod(number))?;
                return Ok(None);
            }
            let all = numbers.clone().all(|number| {
                let state = seen.get(&format!("pod-{number}"));
                state.is_some_and(|state| state.is_final(number))
            });
            Ok(all.then_some(()))
        });
        done.with_context(|| format!("{seen:#?}"))?;
        let mut forgotten = 0;
        for number in numbers {
            let name = format!("pod-{number}");
            let state = seen.get(&name).context("looked at")?;
            if state.was_forgotten(worker, number)? {
                forgotten += 1;
            } else if let Err(wrong) = state.is_right(number) {
                // runc's shim is here for what is left, not to be judged.
                ensure!(!self.restores(), "{name}: {wrong:#}");
                println!("{name} has another exit code: {:?}", state.code);
            }
            if self.restores() {
                let decision = worker.node().decision_of(&state.container)?;
                ensure!(
                    matches!(decision, Decision::Restore { .. }),
                    "{name}: {decision:?}"
                );
            }
        }
        let all = [
            "pods",
            "-l",
            "app=soak",
            "--field-selector",
            "metadata.name!=original",
        ];
        kubectl.delete(&all)?;
        Ok(forgotten)
    }
}

/// What became of a pod.
#[derive(Debug)]
struct State {
    container: String,
    running: bool,
    code: Option<usize>,
    whole: Value,
}

impl State {
    fn is_final(&self, number: usize) -> bool {
        match code_of(number) {
            0 => self.running || self.code.is_some(),
            _ => self.code.is_some(),
        }
    }

    /// Whether containerd was stopped while it waited for the shim to start the container:
    /// it then takes the start for failed, whichever shim it is.
    fn was_given_up(&self) -> bool {
        let terminated = &self.whole["containerStatuses"][0]["state"]["terminated"];
        let message = terminated["message"].as_str().unwrap_or_default();
        terminated["reason"] == "StartError" && message.ends_with("context canceled")
    }

    /// Whether containerd got the right code from the shim, and was stopped after it had
    /// deleted the task and before it had noted the code: what it then knows is 255,
    /// "Unknown", whichever shim it was.
    fn was_forgotten(&self, worker: &Worker, number: usize) -> Result<bool> {
        let terminated = &self.whole["containerStatuses"][0]["state"]["terminated"];
        if self.code != Some(255) || terminated["reason"] != "Unknown" {
            return Ok(false);
        }
        let status = format!(" exit_status:{} ", code_of(number));
        Ok(worker.node().log()?.lines().any(|line| {
            line.contains("received container exit event")
                && line.contains(&self.container)
                && line.contains(&status)
        }))
    }

    fn is_right(&self, number: usize) -> Result<()> {
        let code = code_of(number);
        let wanted = (code != 0).then_some(code);
        // A container that was being created when containerd went is made once more by the
        // kubelet, as attempt 1; one that has run is not, by the pod's restartPolicy.
        if self.code != wanted {
            bail!("it was to end with {wanted:?}: {:#}", self.whole);
        }
        Ok(())
    }
}

/// What became of all pods that are there.
fn states(kubectl: &Kubectl) -> Result<BTreeMap<String, State>> {
    let pods = kubectl.get(["pods", "-l", "app=soak"])?;
    let pods = pods["items"].as_array().context("pods")?.iter();
    Ok(pods
        .map(|pod| {
            let container = &pod["status"]["containerStatuses"][0];
            let id = container["containerID"].as_str().unwrap_or_default();
            let state = State {
                container: id.trim_start_matches("containerd://").to_owned(),
                running: container["state"]["running"].is_object(),
                code: container["state"]["terminated"]["exitCode"]
                    .as_u64()
                    .and_then(|code| usize::try_from(code).ok()),
                whole: pod["status"].clone(),
            };
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            (name.to_owned(), state)
        })
        .collect())
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
