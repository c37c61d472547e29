//! A cluster is one: pods of both RuntimeClasses, services, tokens, logs, exec, the
//! kubelet's checkpoint API, restarts and reboots. No part of `cargo test`, since
//! Kubernetes takes minutes to build: `hack/cluster test`.

use anyhow::{Context, Result, ensure};
use integration::programs::{BUSYBOX, Program};
use integration::{
    Cluster, ClusterOptions, NodeOptions, Registry, Worker, eventually, tools, wait_for,
};
use std::env;
use std::fs;
use std::time::{Duration, Instant};

const BOTH: [&str; 2] = ["runc", "reprise"];

/// What `hack/cluster test` asks for, with so many nodes.
fn options(workers: usize) -> ClusterOptions {
    ClusterOptions {
        workers,
        ..ClusterOptions::asked_for()
    }
}

/// A pod and a service that leads to it.
fn pod(name: &str, class: &str, node: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Service\n\
         metadata: {{name: {name}}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}\n\
         ---\n\
         apiVersion: v1\n\
         kind: Pod\n\
         metadata: {{name: {name}, labels: {{app: {name}}}}}\n\
         spec:\n  \
           runtimeClassName: {class}\n  \
           nodeName: {node}\n  \
           terminationGracePeriodSeconds: 1\n  \
           containers: [{{name: app, image: {image}, imagePullPolicy: IfNotPresent{more}}}]\n"
    )
}

fn sleeper(name: &str, class: &str, node: &str) -> String {
    let command = ", command: [sh, -c, 'echo up; exec sleep 1000000']";
    pod(name, class, node, BUSYBOX, command)
}

fn server(name: &str, class: &str, node: &str) -> String {
    let probe = ", readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}";
    pod(name, class, node, &Program::Python.image(), probe)
}

/// Asks the API server, as a pod does that has only its environment and its token.
const ASK_API: &str = r#"
import os, ssl, urllib.error, urllib.request
own = "/var/run/secrets/kubernetes.io/serviceaccount/"
url = "https://%s/api/v1/namespaces/default/pods" % os.environ["KUBERNETES_SERVICE_HOST"]
asked = urllib.request.Request(url, headers={"Authorization": "Bearer " + open(own + "token").read()})
try:
    urllib.request.urlopen(asked, context=ssl.create_default_context(cafile=own + "ca.crt"), timeout=10)
    print("answered")
except urllib.error.HTTPError as refused:
    print(refused.code, refused.read().decode())
"#;

#[test]
fn pods_of_both_classes_run_on_one_node() -> Result<()> {
    let begun = Instant::now();
    let cluster = Cluster::start(&options(1))?;
    let took = begun.elapsed();
    ensure!(took.as_secs() < 30, "ready after {took:?}");

    let kubectl = cluster.kubectl();
    for class in BOTH {
        kubectl.apply(&server(class, class, "node-1"))?;
    }
    for class in BOTH {
        kubectl.wait_ready(class)?;
        eventually("its log", || {
            kubectl
                .logs(class, &[])
                .is_ok_and(|log| log.contains("ready"))
        })?;
        let hostname = kubectl.exec(class, &["cat", "/etc/hostname"])?;
        assert_eq!(hostname.trim(), class);
    }

    // Its token is good, and tells who it is: RBAC refuses by name.
    for class in BOTH {
        let said = kubectl.exec(class, &["python3", "-c", ASK_API])?;
        assert!(
            said.starts_with("403") && said.contains("system:serviceaccount:default:default"),
            "{said}"
        );
        // Through services: the other, and itself.
        for name in BOTH {
            let service = kubectl.get(["service", name])?;
            let address = service["spec"]["clusterIP"]
                .as_str()
                .context("an address")?;
            let said = fetch(&cluster, class, &format!("http://{address}/"))?;
            assert!(said.contains(&format!(r#""hostname":"{name}""#)), "{said}");
        }
        // The kubelet's checkpoint API.
        let archive = kubectl.checkpoint("node-1", class, "app")?;
        let archive = cluster.worker("node-1")?.node().path(archive);
        assert!(archive.metadata()?.len() > 1_000_000);
    }

    // The kubelet's own statistics know both.
    let path = "/api/v1/nodes/node-1/proxy/stats/summary";
    eventually("statistics", || {
        let summary = kubectl.call(["get", "--raw", path]).unwrap_or_default();
        BOTH.iter()
            .all(|class| summary.contains(&format!(r#""name": "{class}""#)))
    })?;

    restarts(&cluster)?;
    drop(cluster);
    assert_eq!(left()?, Vec::<String>::new());
    Ok(())
}

/// Kubelet and containerd may be restarted; pods and their logs are as they were.
fn restarts(cluster: &Cluster) -> Result<()> {
    let (kubectl, worker) = (cluster.kubectl(), cluster.worker("node-1")?);
    worker.stop_kubelet()?;
    worker.node().stop_containerd()?;
    worker.node().start_containerd()?;
    worker.start_kubelet()?;
    for class in BOTH {
        eventually("exec", || kubectl.exec(class, &["true"]).is_ok())?;
        let pod = kubectl.get(["pod", class])?;
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
        kubectl.delete(&["pod", class])?;
    }
    Ok(())
}

/// What is there of clusters that this program started.
fn left() -> Result<Vec<String>> {
    let prefix = format!("reprise-test-{}-", std::process::id());
    let mut left = Vec::new();
    let nodes = tools::target().join("nodes");
    let hierarchies = fs::read_dir("/sys/fs/cgroup")?.map(|entry| entry.map(|e| e.path()));
    for dir in hierarchies.chain([Ok("/sys/fs/cgroup".into()), Ok(nodes)]) {
        // Some of them are files.
        for entry in fs::read_dir(dir?).into_iter().flatten() {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                left.push(entry.path().display().to_string());
            }
        }
    }
    // All of a cluster's programs have one of its directories in their arguments.
    for entry in fs::read_dir("/proc")? {
        let words = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains(&prefix) {
            left.push(words);
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let ours = mounts.lines().filter(|line| line.contains(&prefix));
    left.extend(ours.map(str::to_owned));
    Ok(left)
}

fn fetch(cluster: &Cluster, pod: &str, url: &str) -> Result<String> {
    let script = format!(
        "import urllib.request; print(urllib.request.urlopen('{url}', timeout=10).read().decode())"
    );
    cluster.kubectl().exec(pod, &["python3", "-c", &script])
}

#[test]
fn pods_of_two_nodes_reach_each_other_and_live_through_a_reboot() -> Result<()> {
    let mut cluster = Cluster::start(&options(2))?;
    let kubectl = cluster.kubectl().in_namespace("two")?;
    eventually("its account", || {
        kubectl.get(["serviceaccount", "default"]).is_ok()
    })?;
    kubectl.apply(&server("server", "reprise", "node-2"))?;
    kubectl.apply(&server("client", "reprise", "node-1"))?;
    kubectl.apply(&sleeper("old", "runc", "node-2"))?;
    for pod in ["server", "client", "old"] {
        kubectl.wait_ready(pod)?;
    }
    let ask = |address: &str| {
        let script = format!(
            "import urllib.request; \
             print(urllib.request.urlopen('http://{address}', timeout=10).read().decode())"
        );
        kubectl.exec("client", &["python3", "-c", &script])
    };
    let address = |pod: &str| -> Result<String> {
        let pod = kubectl.get(["pod", pod])?;
        let address = pod["status"]["podIP"].as_str();
        Ok(address.context("an address")?.to_owned())
    };
    assert!(ask(&format!("{}:8080", address("server")?))?.contains("server"));
    let service = kubectl.get(["service", "server"])?;
    let service = service["spec"]["clusterIP"]
        .as_str()
        .context("no address")?;
    assert!(ask(service)?.contains("server"));

    // What one node pushes another one pulls.
    let image = Registry::image("pushed:1");
    let first = cluster.worker("node-1")?.node();
    first.ctr(["images", "tag", BUSYBOX, &image])?;
    first.ctr(["images", "push", "--plain-http", &image])?;
    let puller = sleeper("puller", "reprise", "node-2");
    let puller = puller.replace(BUSYBOX, &image);
    kubectl.apply(&puller.replace("IfNotPresent", "Always"))?;
    kubectl.wait_ready("puller")?;

    let booted = |worker: &Worker| worker.node().path("/proc/sys/kernel/random/boot_id");
    let before = fs::read_to_string(booted(cluster.worker("node-2")?))?;
    cluster.reboot("node-2")?;
    let after = fs::read_to_string(booted(cluster.worker("node-2")?))?;
    assert_ne!(before, after);
    for pod in ["server", "old"] {
        let second = wait_for("its second start", Duration::from_secs(60), || {
            let containers = kubectl.get(["pod", pod])?;
            let status = &containers["status"]["containerStatuses"][0];
            Ok((status["restartCount"] == 1 && status["ready"] == true).then_some(()))
        });
        second.with_context(|| kubectl.call(["describe", "pod", pod]).unwrap_or_default())?;
    }
    eventually("the service", || {
        ask(service).is_ok_and(|said| said.contains("server"))
    })?;
    Ok(())
}

#[test]
fn pristine_nodes_have_no_reprise() -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions {
        node: NodeOptions::pristine(tools::DEFAULT_CONTAINERD),
        ..options(1)
    })?;
    let kubectl = cluster.kubectl();
    assert_eq!(
        kubectl.get(["runtimeclasses"])?["items"],
        serde_json::json!([])
    );
    let bare = sleeper("bare", "none", "node-1");
    kubectl.apply(&bare.replace("  runtimeClassName: none\n", ""))?;
    kubectl.wait_ready("bare")?;
    let node = cluster.worker("node-1")?.node();
    assert_ne!(node.run("which", ["containerd-shim-reprise-v2"])?.code, 0);
    Ok(())
}
