//! Whatever is restarted around pods, they go on.

use super::case::{Case, Theme};
use super::ground::{Ground, NODE};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

pub(super) const THEME: Theme = Theme {
    name: "disturbances",
    cases: &[
        Case::new("kubelet is restarted", kubelet).alone(),
        Case::new("containerd is restarted", containerd).alone(),
        Case::new("containerd is killed", killed).alone(),
        Case::new("pods end while the kubelet is away", without_kubelet).alone(),
        Case::new("pods end while containerd is away", without_containerd).alone(),
        Case::new("node reboots", reboot).alone().within(180),
    ],
};

/// Pods of several kinds, at work.
fn load(ground: &Ground<'_>) -> Result<()> {
    ground.create(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "app"}},
            "template": {
                "metadata": {"labels": {"app": "app"}},
                "spec": {"containers": [{
                    "script": "i=0; while :; do echo line $i; i=$((i + 1)); sleep 0.2; done",
                    "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1, "timeoutSeconds": 10},
                }]},
            },
        },
    }))?;
    ground.call(&["rollout", "status", "deployment/app", "--timeout=60s"])?;
    Ok(())
}

fn pods(ground: &Ground<'_>) -> Result<Vec<(String, Value)>> {
    let pods = ground.get(&["pods", "-l", "app=app"])?;
    let items = pods["items"].as_array().cloned().unwrap_or_default();
    let name = |pod: &Value| {
        pod["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    Ok(items.into_iter().map(|pod| (name(&pod), pod)).collect())
}

/// The pods are those of before, none of them started again; exec works, and their logs
/// have every line and grow.
fn as_before(ground: &Ground<'_>, before: &[(String, Value)]) -> Result<()> {
    ground.call(&["rollout", "status", "deployment/app", "--timeout=60s"])?;
    let now = pods(ground)?;
    ensure!(now.len() == before.len(), "{} pods", now.len());
    for ((name, now), (_, before)) in now.iter().zip(before) {
        ensure!(
            now["metadata"]["uid"] == before["metadata"]["uid"],
            "{name} is another"
        );
        let status = &now["status"]["containerStatuses"][0];
        ensure!(status["restartCount"] == 0, "{status}");
        ground.until("exec", || {
            Ok((ground.run(&["exec", name, "--", "true"])?.code == 0).then_some(()))
        })?;
        let lines = ground.call(&["logs", name])?.lines().count();
        ground.until("more lines", || {
            let log = ground.call(&["logs", name])?;
            let whole = log
                .lines()
                .enumerate()
                .all(|(index, line)| line == format!("line {index}"));
            ensure!(whole, "lines of {name} are missing");
            Ok((log.lines().count() > lines).then_some(()))
        })?;
    }
    // And new ones come.
    ground.call(&["scale", "deployment/app", "--replicas=4"])?;
    ground.call(&["rollout", "status", "deployment/app", "--timeout=60s"])?;
    Ok(())
}

fn kubelet(ground: &Ground<'_>) -> Result<()> {
    load(ground)?;
    let before = pods(ground)?;
    {
        let cluster = ground.cluster();
        let worker = cluster.worker(NODE)?;
        worker.stop_kubelet()?;
        worker.start_kubelet()?;
    }
    as_before(ground, &before)
}

fn containerd(ground: &Ground<'_>) -> Result<()> {
    load(ground)?;
    let before = pods(ground)?;
    {
        let cluster = ground.cluster();
        let node = cluster.worker(NODE)?.node();
        node.stop_containerd()?;
        node.start_containerd()?;
    }
    as_before(ground, &before)
}

fn killed(ground: &Ground<'_>) -> Result<()> {
    load(ground)?;
    let before = pods(ground)?;
    {
        let cluster = ground.cluster();
        let node = cluster.worker(NODE)?.node();
        node.kill_containerd()?;
        node.start_containerd()?;
    }
    as_before(ground, &before)
}

fn without_kubelet(ground: &Ground<'_>) -> Result<()> {
    ends_unseen(ground, false)?;
    for code in ["0", "3"] {
        let said = ground.call(&["logs", &format!("app-{code}")])?;
        ensure!(said == "last words\n", "{said:?}");
    }
    Ok(())
}

/// Who would write the log is away; the codes are the shim's to keep.
fn without_containerd(ground: &Ground<'_>) -> Result<()> {
    ends_unseen(ground, true)
}

/// Containers end while the kubelet is away, and containerd if that is asked for.
fn ends_unseen(ground: &Ground<'_>, containerd: bool) -> Result<()> {
    let dir = ground.node_dir()?;
    for code in ["0", "3"] {
        let script = format!(
            "while [ ! -e /node/end ]; do sleep 0.1; done; \
             echo last words; touch /node/ended-{code}; exit {code}"
        );
        let spec = json!({
            "restartPolicy": "Never",
            "volumes": [{"name": "node", "hostPath": {"path": dir}}],
            "containers": [{
                "script": script,
                "volumeMounts": [{"name": "node", "mountPath": "/node"}],
            }],
        });
        ground.ready_pod(&format!("app-{code}"), spec)?;
    }
    {
        let cluster = ground.cluster();
        let worker = cluster.worker(NODE)?;
        worker.stop_kubelet()?;
        if containerd {
            worker.node().stop_containerd()?;
        }
        let dir = worker.node().path(&dir);
        std::fs::write(dir.join("end"), "")?;
        let ended = ground.until("their end", || {
            let ended = ["0", "3"].map(|code| dir.join(format!("ended-{code}")).exists());
            Ok((ended == [true, true]).then_some(()))
        });
        // Others need them, whatever became of this.
        if containerd {
            worker.node().start_containerd()?;
        }
        worker.start_kubelet()?;
        ended?;
    }
    for (code, reason) in [(0, "Completed"), (3, "Error")] {
        let name = format!("app-{code}");
        let status = ground.until_container(&name, "app", "its end", |status| {
            !status["state"]["terminated"].is_null()
        })?;
        let state = &status["state"]["terminated"];
        ensure!(
            state["exitCode"] == code && state["reason"] == reason,
            "{state}"
        );
    }
    Ok(())
}

fn reboot(ground: &Ground<'_>) -> Result<()> {
    load(ground)?;
    let before = pods(ground)?;
    ground.reboot()?;
    for (name, before) in &before {
        ground.until_container(name, "app", "its second start", |status| {
            status["restartCount"] == 1 && status["ready"] == true
        })?;
        let now = ground.get(&["pod", name])?;
        ensure!(
            now["metadata"]["uid"] == before["metadata"]["uid"],
            "{name} is another"
        );
        ground.until("exec", || {
            Ok((ground.run(&["exec", name, "--", "true"])?.code == 0).then_some(()))
        })?;
    }
    Ok(())
}
