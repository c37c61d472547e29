//! Checkpoints under a kubelet: one pod of a Deployment is checkpointed through the
//! kubelet's API, and however Kubernetes starts the next one, it comes from there, with
//! what is its own. No part of `cargo test`: `hack/cluster test`.

use anyhow::{Context, Result, ensure};
use integration::checkpoints::{Checkpoint, Decision};
use integration::cluster::{DeployedPod, Deployment, Template};
use integration::{Answer, Cluster, ClusterOptions, Kubectl, NodeOptions, Program, Registry};
use std::collections::BTreeSet;

/// Everything that the kubelet gives to a pod, for a program that reads none of it.
const CONTAINER: &str = ", \
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}, \
    livenessProbe: {exec: {command: [sh, -c, '! test -e /tmp/sick']}, periodSeconds: 1, failureThreshold: 1}, \
    volumeMounts: [{name: settings, mountPath: /etc/settings}, {name: about, mountPath: /etc/about}, \
                   {name: vault, mountPath: /etc/vault}, {name: scratch, mountPath: /scratch}]";
const POD: &str = ", volumes: [{name: settings, configMap: {name: settings}}, {name: scratch, emptyDir: {}}, \
    {name: about, downwardAPI: {items: [\
        {path: name, fieldRef: {fieldPath: metadata.name}}, {path: labels, fieldRef: {fieldPath: metadata.labels}}]}}, \
    {name: vault, projected: {sources: [\
        {configMap: {name: settings}}, {serviceAccountToken: {path: token, audience: vault}}]}}]";

const SETTINGS: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: red}\n";

/// Asks the API server whose the token is that a pod has.
const WHO_AM_I: &str = r#"
import json, os, ssl, urllib.request
own = "/var/run/secrets/kubernetes.io/serviceaccount/"
url = "https://%s/apis/authentication.k8s.io/v1/selfsubjectreviews" % os.environ["KUBERNETES_SERVICE_HOST"]
review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
asked = urllib.request.Request(url, json.dumps(review).encode(), {
    "Authorization": "Bearer " + open(own + "token").read(), "Content-Type": "application/json"})
answer = urllib.request.urlopen(asked, context=ssl.create_default_context(cafile=own + "ca.crt"), timeout=10)
print(json.load(answer)["status"]["userInfo"]["extra"]["authentication.kubernetes.io/pod-uid"][0])
"#;

/// The pod's uid in a token of another audience, which nobody here would accept.
const WHOSE_VAULT: &str = r#"
import base64, json
claims = open("/etc/vault/token").read().split(".")[1]
print(json.loads(base64.urlsafe_b64decode(claims + "==="))["kubernetes.io"]["pod"]["uid"])
"#;

/// A cluster as `hack/cluster test` asks for it; `None`, with the reason printed, when
/// its programs have not been built.
fn cluster(workers: usize, node: NodeOptions) -> Result<Option<Cluster>> {
    let options = ClusterOptions {
        workers,
        node,
        ..ClusterOptions::asked_for()
    };
    if let Some(missing) = Cluster::missing(&options.kubernetes) {
        println!("skipped: {missing}");
        return Ok(None);
    }
    Cluster::start(&options).map(Some)
}

fn template(name: &str) -> Template {
    Template {
        container: CONTAINER.to_owned(),
        pod: POD.to_owned(),
        ..Template::new(name, "reprise", &Program::Python.image())
    }
}

/// What a pod's service says of itself.
fn answer(kubectl: &Kubectl, pod: &DeployedPod) -> Result<Answer> {
    let script =
        "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/').read().decode())";
    let said = kubectl.exec(&pod.name, &["python3", "-c", script])?;
    serde_json::from_str(&said).with_context(|| said)
}

/// The original of all the others.
struct Original<'d> {
    deployment: &'d Deployment<'d>,
    kubectl: &'d Kubectl,
    checkpoint: Checkpoint,
    boot: String,
}

impl Original<'_> {
    /// That a pod was restored, by its shim's word and by its program's memory, and has
    /// what is its own.
    fn is_origin_of(&self, pod: &DeployedPod) -> Result<()> {
        let decision = self.deployment.decision(pod)?;
        let checkpoint = self.checkpoint.id.clone();
        assert_eq!(decision, Decision::Restore { checkpoint }, "{pod:?}");
        let said = answer(self.kubectl, pod)?;
        assert_eq!(said.boot, self.boot, "{pod:?}");
        assert_eq!(said.hostname, pod.name);
        self.has_its_own(pod)
    }

    fn has_its_own(&self, pod: &DeployedPod) -> Result<()> {
        let python = |script| self.kubectl.exec(&pod.name, &["python3", "-c", script]);
        assert_eq!(python(WHO_AM_I)?.trim(), pod.uid, "the account's token");
        assert_eq!(python(WHOSE_VAULT)?.trim(), pod.uid, "the vault's token");
        let shell = "cat /etc/about/name; echo; cat /etc/hostname; tail -n 1 /etc/hosts; \
                     cat /etc/settings/colour /etc/vault/colour; echo; env; ls -A /scratch";
        let said = self.kubectl.exec(&pod.name, &["sh", "-c", shell])?;
        let mut lines = said.lines();
        assert_eq!(lines.next(), Some(&*pod.name), "/etc/about/name");
        assert_eq!(lines.next(), Some(&*pod.name), "/etc/hostname");
        let hosts = lines.next().unwrap_or_default();
        assert!(hosts.ends_with(&pod.name), "/etc/hosts: {hosts}");
        assert_eq!(lines.next(), Some("redred"));
        assert!(lines.any(|line| line.starts_with("LATER_SERVICE_HOST=10.96.")));
        assert!(!said.contains("original"), "/scratch is the original's");
        Ok(())
    }
}

#[test]
fn however_kubernetes_starts_the_next_pod_it_is_restored() -> Result<()> {
    let Some(cluster) = cluster(1, NodeOptions::default())? else {
        return Ok(());
    };
    let kubectl = cluster.kubectl();
    kubectl.apply(SETTINGS)?;
    let deployment = Deployment::apply(&cluster, kubectl, &template("web"), 1)?;
    let pods = deployment.ready(1)?;
    let [first] = pods.as_slice() else {
        unreachable!("one was waited for");
    };
    let boot = answer(kubectl, first)?.boot;
    kubectl.exec(&first.name, &["touch", "/scratch/original"])?;
    let original = Original {
        deployment: &deployment,
        kubectl,
        checkpoint: deployment.checkpoint(first)?,
        boot,
    };
    // A service that the checkpointed program has never heard of.
    kubectl.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: later}\nspec: {ports: [{port: 80}]}\n",
    )?;

    deployment.scale(10)?;
    let ten = deployment.ready(10)?;
    for pod in ten.iter().filter(|pod| *pod != first) {
        original.is_origin_of(pod)?;
    }

    // Ten others, of another ReplicaSet: only its hash and an annotation differ.
    let others = deployment.restart()?;
    for pod in &others {
        original.is_origin_of(pod)?;
    }

    let gone = &others[3];
    kubectl.delete(&["pod", &gone.name])?;
    let now = deployment.ready(10)?;
    let before: BTreeSet<_> = others.iter().map(|pod| &pod.name).collect();
    let new = now.iter().find(|pod| !before.contains(&pod.name));
    original.is_origin_of(new.context("a new pod")?)?;

    // Its liveness probe fails: the same pod, another container.
    let sick = &now[0];
    kubectl.exec(&sick.name, &["touch", "/tmp/sick"])?;
    let well = deployment.restarted(&sick.name, 1)?;
    ensure!(well.container != sick.container, "{well:?}");
    original.is_origin_of(&well)?;
    // And what it has written since is nobody's but its own.
    kubectl.exec(&well.name, &["test", "!", "-e", "/tmp/sick"])?;

    deployment.scale(1)?;
    deployment.ready(1)?;
    for (names, template) in differing() {
        is_cold(&cluster, &original, names, &template)?;
    }
    Ok(())
}

/// Pods in which the program itself would be told something else, and what that is.
fn differing() -> [(&'static str, Template); 3] {
    let same = template("web");
    let with_env = Template {
        container: format!(
            "{CONTAINER}, env: [{{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]"
        ),
        ..same.clone()
    };
    let name = "{downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}, ";
    let projected = Template {
        pod: POD.replace("sources: [", &format!("sources: [{name}")),
        ..same.clone()
    };
    let elsewhere = Template {
        container: format!("{CONTAINER}, workingDir: /tmp"),
        ..same
    };
    [
        ("env", with_env),
        ("volumes", projected),
        ("cwd", elsewhere),
    ]
}

/// That such a pod starts cold and says why, and so has only what is its own.
fn is_cold(
    cluster: &Cluster,
    original: &Original<'_>,
    field: &str,
    template: &Template,
) -> Result<()> {
    let changed = Deployment::apply(cluster, original.kubectl, template, 1)?;
    let pod = cluster.worker("node-1")?;
    let pods = integration::wait_for(field, std::time::Duration::from_secs(60), || {
        let pods = changed.pods()?;
        Ok((pods.len() == 1 && !pods[0].container.is_empty()).then_some(pods))
    })?;
    match changed.decision(&pods[0])? {
        Decision::Cold { reason } => assert!(reason.contains("no checkpoint matches"), "{reason}"),
        Decision::Restore { .. } => anyhow::bail!("{field}: restored"),
    }
    let said = pod.node().reprise(["explain", &pods[0].name])?;
    assert!(said.contains(field), "{said}");
    Ok(())
}

#[test]
fn a_node_that_got_the_image_restores_its_first_pod() -> Result<()> {
    let config = "version = 1\n[images]\ntrusted = [\"127.0.0.1:5000/checkpoints/*\"]\n";
    let Some(cluster) = cluster(2, NodeOptions::with_config(config))? else {
        return Ok(());
    };
    let kubectl = cluster.kubectl();
    kubectl.apply(SETTINGS)?;
    let [here, there] = cluster.workers() else {
        unreachable!("two were asked for");
    };
    kubectl.call(["cordon", there.name()])?;
    let deployment = Deployment::apply(&cluster, kubectl, &template("web"), 1)?;
    let pods = deployment.ready(1)?;
    let boot = answer(kubectl, &pods[0])?.boot;
    let checkpoint = deployment.checkpoint(&pods[0])?;

    let image = Registry::image("checkpoints/web:1");
    here.node().reprise(["push", &checkpoint.id, &image])?;
    there
        .node()
        .ctr(["images", "pull", "--plain-http", &image])?;
    kubectl.call(["uncordon", there.name()])?;
    kubectl.call(["cordon", here.name()])?;
    kubectl.delete(&["pod", &pods[0].name])?;
    let moved = deployment.ready(1)?;
    assert_eq!(moved[0].node, there.name());
    let decision = deployment.decision(&moved[0])?;
    ensure!(
        matches!(decision, Decision::Restore { .. }),
        "{decision:?}: {}",
        there.node().reprise(["explain", &moved[0].name])?
    );
    let said = answer(kubectl, &moved[0])?;
    assert_eq!((said.boot, said.hostname), (boot, moved[0].name.clone()));
    Ok(())
}
