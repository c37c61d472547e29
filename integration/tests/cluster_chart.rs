//! The chart on a real cluster: `helm install`, `upgrade` under running pods, `uninstall`.
//! No part of `cargo test`: `hack/cluster test`.

use anyhow::{Context, Result};
use integration::cluster::helm::{Helm, pristine};
use integration::cluster::{DeployedPod, Deployment, Template};
use integration::installed::Files;
use integration::programs::BUSYBOX;
use integration::{Cluster, Leftovers, eventually};
use serde_json::Value;
use std::time::Duration;

/// How many pods run through the upgrade, under each runtime.
const PODS: usize = 10;

/// Within how long a kubelet has forgotten pods that are gone: it looks once a minute.
const FORGETS: Duration = Duration::from_secs(150);

fn sleepers<'c>(cluster: &'c Cluster, class: &str) -> Result<Deployment<'c>> {
    let template = Template {
        container: ", command: [sleep, infinity]".to_owned(),
        ..Template::new(&format!("under-{class}"), class, BUSYBOX)
    };
    Deployment::apply(cluster, cluster.kubectl(), &template, PODS)
}

fn is_as_before(deployment: &Deployment<'_>, before: &[DeployedPod]) -> Result<()> {
    assert_eq!(deployment.ready(PODS)?, before);
    assert!(before.iter().all(|pod| pod.restarts == 0), "{before:?}");
    Ok(())
}

#[test]
fn pods_live_through_install_upgrade_and_uninstall() -> Result<()> {
    let options = pristine();
    if let Some(missing) = Cluster::missing(&options.kubernetes) {
        println!("skipped: {missing}");
        return Ok(());
    }
    let cluster = Cluster::start(&options)?;
    let (kubectl, node) = (cluster.kubectl(), cluster.worker("node-1")?.node());
    let helm = Helm::on(&cluster)?;
    kubectl.apply(
        "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: runc}\nhandler: runc\n",
    )?;
    let runc = sleepers(&cluster, "runc")?;
    let under_runc = runc.ready(PODS)?;
    let files = Files::of(node)?;
    let leftovers = Leftovers::of(node)?;
    let metadata = || -> Result<[Value; 2]> {
        let node = kubectl.get(["node", "node-1"])?;
        Ok(["labels", "annotations"].map(|what| node["metadata"][what].clone()))
    };
    let metadata_before = metadata()?;

    helm.apply("install", "1.0.0")?;
    assert_eq!(helm.marks()?, ["true", "1.0.0"]);
    let told = helm.events("RepriseInstalled")?;
    assert_eq!(told, [(1, "Reprise 1.0.0 is installed".to_owned())]);
    eventually("CRI", || node.cri().ready())?;
    let reprise = sleepers(&cluster, "reprise")?;
    let under_reprise = reprise.ready(PODS)?;
    is_as_before(&runc, &under_runc)?;

    let containerd = node.containerd_pid()?;
    helm.apply("upgrade", "2.0.0")?;
    let status = node.reprise_node("status", &["--json"])?;
    let status: serde_json::Value = status.json()?;
    assert_eq!(status["installed"], "2.0.0", "{status}");
    assert_eq!(helm.marks()?, ["true", "2.0.0"]);
    assert_eq!(status["running"]["1.0.0"], PODS, "{status}");
    assert_eq!(
        node.containerd_pid()?,
        containerd,
        "no restart for an upgrade"
    );
    is_as_before(&runc, &under_runc)?;
    is_as_before(&reprise, &under_reprise)?;

    // As long as one of them runs it stays, and Helm says so.
    let refused = helm.run(&["uninstall", "reprise", "--timeout=15s"])?;
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(helm.told().contains("still run: 10"), "{}", helm.told());
    is_as_before(&reprise, &under_reprise)?;
    // No more of them come, and that is told once.
    assert_eq!(helm.marks()?, [Value::Null, Value::Null]);
    let told = helm.events("RepriseStays")?;
    assert_eq!(told.len(), 1, "{told:?}");

    reprise.delete()?;
    let gone = helm.run(&["uninstall", "reprise", "--timeout=200s"])?;
    gone.ok().with_context(|| helm.told())?;
    is_as_before(&runc, &under_runc)?;
    let classes = kubectl.call(["get", "runtimeclasses", "-o", "name"])?;
    assert_eq!(classes.trim(), "runtimeclass.node.k8s.io/runc");
    assert_eq!(files.diff(&Files::of(node)?), "");
    assert_eq!(metadata()?, metadata_before);
    assert_eq!(helm.events("RepriseRemoved")?.len(), 1);
    // It was restarted twice.
    let restarted = |line: &str| line.contains("containerd --config");
    node.is_as_before_but(&leftovers, FORGETS, restarted)?;
    is_as_before(&runc, &under_runc)
}
