//! Which nodes pods of the RuntimeClass are sent to, and what an installer's token is good
//! for. No part of `cargo test`: `hack/cluster test`.

use anyhow::{Context, Result, ensure};
use integration::cluster::helm::{Helm, pristine};
use integration::node::Finished;
use integration::programs::BUSYBOX;
use integration::{Cluster, Kubectl, eventually, tools, wait_for};
use serde_json::Value;
use std::fs;
use std::process::Command;
use std::time::Duration;

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: sent}\nspec:\n  \
    runtimeClassName: reprise\n  containers:\n    - {name: main, image: @IMAGE@, \
    imagePullPolicy: IfNotPresent, command: [sleep, infinity]}\n";

/// A node that nobody runs, and to which the chart's selectors send nobody.
const OTHER: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: other}\n";

const CORDON: &str = r#"{"spec": {"unschedulable": true}}"#;

/// Without Helm: the API server takes what the chart's defaults give.
fn the_base_is_accepted(kubectl: &Kubectl) -> Result<()> {
    let mut apply = Command::new(kubectl.program());
    apply.arg("--kubeconfig").arg(kubectl.kubeconfig());
    apply.args(["apply", "--dry-run=server", "-k"]);
    apply.arg(tools::workspace().join("hack/deploy/kustomize"));
    Finished::of("kubectl apply -k".to_owned(), &mut apply)?.ok()?;
    Ok(())
}

/// What an event needs besides what it is about.
fn event_of(node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Event\nmetadata: {{name: about-{node}, namespace: default}}\n\
         involvedObject: {{apiVersion: v1, kind: Node, name: {node}}}\nreason: Test\n"
    )
}

/// Whoever has an installer's token: what it lets them do, and what not.
fn a_token_is_good_for_its_own_node(kubectl: &Kubectl) -> Result<()> {
    kubectl.apply(OTHER)?;
    let pods = kubectl.get(["pods", "-n", "reprise"])?;
    let pod = pods["items"][0]["metadata"]["name"].as_str();
    let bound = format!("--bound-object-name={}", pod.context("an installer")?);
    let create = ["create", "token", "reprise-installer", "-n", "reprise"];
    let of_pod = ["--bound-object-kind=Pod", &bound];
    let own = kubectl.call([&create[..], &of_pod].concat())?;
    let homeless = kubectl.call(create)?;
    let with = |token: &str, words: &[&str]| {
        let token = format!("--token={}", token.trim());
        kubectl.run([&[token.as_str()], words].concat())
    };
    let label = |node, label| ["label", "--overwrite", "node", node, label];
    let refused = |token: &str, words: &[&str], why: &str| -> Result<()> {
        let said = with(token, words)?;
        let told = said.code != 0 && said.stderr.contains(why);
        ensure!(told, "{words:?}: {said:?}");
        Ok(())
    };
    let alone = "may change that node alone";
    let (ours, theirs) = ("reprise.dev/runtime=maybe", "pool=mine");
    // A policy that was just made takes effect a moment later.
    let effective = || Ok(refused(&own, &label("other", ours), alone).ok());
    wait_for("the policy", Duration::from_secs(20), effective)?;
    refused(&homeless, &label("node-1", ours), alone)?;
    refused(&own, &label("node-1", theirs), "no label but")?;
    refused(&own, &label("node-1", "kubernetes.io/os-"), "no label but")?;
    refused(
        &own,
        &["annotate", "node", "node-1", theirs],
        "no annotation but",
    )?;
    let cordon = ["patch", "node", "node-1", "-p", CORDON];
    refused(&own, &cordon, "no more of a node")?;
    refused(
        &own,
        &["taint", "node", "node-1", "a=b:NoExecute"],
        "no more of a node",
    )?;
    refused(&own, &["get", "nodes"], "cannot list")?;
    refused(&own, &["get", "secrets"], "cannot list")?;
    with(&own, &label("node-1", ours))?.ok()?;
    with(&own, &label("node-1", "reprise.dev/runtime-"))?.ok()?;
    let dir = tempfile::tempdir()?;
    let tell = |node: &str| -> Result<Finished> {
        let file = dir.path().join(node);
        fs::write(&file, event_of(node))?;
        with(
            &own,
            &[
                "create",
                "--validate=false",
                "-f",
                &file.display().to_string(),
            ],
        )
    };
    tell("node-1")?.ok()?;
    let said = tell("other")?;
    assert!(
        said.stderr.contains("may tell of that node alone"),
        "{said:?}"
    );
    // What the cluster's own compiler finds odd in the policies it says there.
    let policies = kubectl.get(["validatingadmissionpolicies"])?.to_string();
    ensure!(policies.contains("\"typeChecking\""), "{policies}");
    ensure!(!policies.contains("expressionWarnings"), "{policies}");
    kubectl.delete(&["node", "other"])
}

/// Why the scheduler keeps a pod, if it does.
fn unscheduled(kubectl: &Kubectl, pod: &str) -> Result<Option<String>> {
    let pod = kubectl.get(["pod", pod])?;
    let conditions = pod["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let kept = conditions.find(|condition| condition["reason"] == "Unschedulable");
    Ok(kept.map(|condition| condition["message"].to_string()))
}

#[test]
fn pods_come_to_a_node_that_is_fit_and_to_no_other() -> Result<()> {
    let options = pristine();
    if let Some(missing) = Cluster::missing(&options.kubernetes) {
        println!("skipped: {missing}");
        return Ok(());
    }
    let cluster = Cluster::start(&options)?;
    let (kubectl, node) = (cluster.kubectl(), cluster.worker("node-1")?.node());
    let helm = Helm::on(&cluster)?;
    fs::create_dir_all(node.path("/etc/reprise"))?;
    let settings = node.path("/etc/reprise/config.toml");
    let broken = || fs::write(&settings, "version = 1\nrestore = 'yes'\n");

    // A label that somebody gave it by hand does not make it fit.
    broken()?;
    kubectl.call(["label", "node", "node-1", "reprise.dev/runtime=true"])?;
    the_base_is_accepted(kubectl)?;
    helm.begin("install", "1.0.0")?;
    let told = |times: u64| -> Result<()> {
        let mut last = Vec::new();
        let told = wait_for("the event", Duration::from_secs(60), || {
            last = helm.events("RepriseNotFit")?;
            let enough = last.iter().map(|(count, _)| count).sum::<u64>() >= times;
            Ok(enough.then_some(()))
        });
        told.with_context(|| format!("{last:?}\n{}", helm.told()))
    };
    told(1)?;
    assert_eq!(helm.marks()?, [Value::Null, Value::Null]);
    let described = kubectl.call(["describe", "node", "node-1"])?;
    let shown = described
        .lines()
        .find(|line| line.contains("RepriseNotFit"));
    assert!(
        shown.is_some_and(|line| line.contains("config: ")),
        "{described}"
    );
    kubectl.apply(&POD.replace("@IMAGE@", BUSYBOX))?;
    let mut why = None;
    eventually("the scheduler's answer", || {
        why = unscheduled(kubectl, "sent").ok().flatten();
        why.is_some()
    })?;
    let why = why.unwrap_or_default();
    assert!(why.contains("node affinity/selector"), "{why}");

    // The kubelet's next tries are the same event, counted.
    helm.try_again()?;
    told(2)?;
    assert_eq!(helm.events("RepriseNotFit")?.len(), 1);
    a_token_is_good_for_its_own_node(kubectl)?;

    // What cannot be told is done and kept, but it is a failure.
    let binding = ["clusterrolebinding", "reprise-installer"];
    let saved = kubectl.get(binding)?.to_string();
    kubectl.delete(&binding)?;
    fs::remove_file(&settings)?;
    helm.try_again()?;
    eventually("the refusal", || helm.told().contains("is forbidden"))?;
    let status: Value = node.reprise_node("status", &["--json"])?.json()?;
    assert_eq!(status["installed"], "1.0.0", "{status}");
    assert_eq!(helm.marks()?, [Value::Null, Value::Null]);

    kubectl.apply(&saved)?;
    helm.try_again()?;
    helm.rolled_out()?;
    assert_eq!(helm.marks()?, ["true", "1.0.0"]);
    kubectl.wait_ready("sent")?;

    // One that is fit no longer keeps its label until its pods are gone: a kubelet that is
    // restarted ends those whose node has it no more.
    let restarted = || -> Result<()> {
        let worker = cluster.worker("node-1")?;
        worker.stop_kubelet()?;
        worker.start_kubelet()
    };
    broken()?;
    helm.try_again()?;
    told(3)?;
    restarted()?;
    helm.try_again()?;
    told(4)?;
    assert_eq!(helm.marks()?, ["true", "1.0.0"]);
    let sent = kubectl.get(["pod", "sent"])?;
    assert_eq!(sent["status"]["phase"], "Running", "{sent}");
    kubectl.delete(&["pod", "sent", "--grace-period=1"])?;
    helm.try_again()?;
    wait_for("no label", Duration::from_secs(60), || {
        let marks = helm.marks()?;
        Ok((marks == [Value::Null, Value::Null]).then_some(()))
    })
}
