//! What pods may use, and what happens when they want more.

use super::case::{Case, Theme};
use super::ground::Ground;
use super::manifest::{waiting, with};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

pub(super) const THEME: Theme = Theme {
    name: "resources",
    cases: &[
        Case::new("QoS Guaranteed in the cgroup", guaranteed),
        Case::new("QoS Burstable in the cgroup", burstable),
        Case::new("QoS BestEffort in the cgroup", best_effort),
        Case::new("cgroup of the pod", pod_cgroup),
        Case::new("OOMKilled", oom_killed),
        Case::new("OOM kill of a child", oom_of_child),
        Case::new("resize in place", resize),
        Case::new("resize with a restart", resize_restarts),
        Case::new("resources of the pod", pod_level),
        Case::new("CPU limit holds", cpu_limit),
        Case::new("emptyDir over its limit is evicted", evicted).within(150),
    ],
};

/// A container's limits as it sees them, on either version of cgroups: memory, CPU
/// shares or weight, CPU quota and period.
const LIMITS: &str = "cd /sys/fs/cgroup; if [ -e cgroup.controllers ]; then cat memory.max cpu.weight cpu.max; \
     else cat memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us; fi | tr '\\n' ' '";

fn resources(fields: Value) -> Value {
    json!({"resources": fields})
}

/// What cgroups say that were asked for these; the second form is that of version 2,
/// whose weights are between 1 and 10000.
fn limits(ground: &Ground<'_>, wanted: [&str; 2]) -> Result<()> {
    let said = ground.exec("facts", LIMITS)?;
    ensure!(
        wanted.contains(&said.as_str()),
        "it says {said}, not {}",
        wanted[0]
    );
    Ok(())
}

fn qos(ground: &Ground<'_>, class: &str) -> Result<()> {
    let pod = ground.get(&["pod", "facts"])?;
    ensure!(
        pod["status"]["qosClass"] == class,
        "{}",
        pod["status"]["qosClass"]
    );
    Ok(())
}

/// A container with these resources is of this class and has these limits.
fn is_of(ground: &Ground<'_>, container: Value, class: &str, wanted: [&str; 2]) -> Result<()> {
    ground.facts(container, json!({}), LIMITS)?;
    qos(ground, class)?;
    limits(ground, wanted)
}

fn guaranteed(ground: &Ground<'_>) -> Result<()> {
    let container = resources(json!({"limits": {"cpu": "250m", "memory": "64Mi"}}));
    let limits = ["67108864 256 25000 100000", "67108864 10 25000 100000"];
    is_of(ground, container, "Guaranteed", limits)
}

fn burstable(ground: &Ground<'_>) -> Result<()> {
    let container = resources(json!({
        "requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"memory": "128Mi"},
    }));
    let limits = ["134217728 102 -1 100000", "134217728 4 max 100000"];
    is_of(ground, container, "Burstable", limits)
}

fn best_effort(ground: &Ground<'_>) -> Result<()> {
    let limits = ["9223372036854771712 2 -1 100000", "max 1 max 100000"];
    is_of(ground, json!({}), "BestEffort", limits)?;
    let said = ground.exec("facts", "cat /proc/1/oom_score_adj")?;
    ensure!(said == "1000", "{said}");
    Ok(())
}

/// A container's cgroup lies in that of its pod, which the kubelet has made.
fn pod_cgroup(ground: &Ground<'_>) -> Result<()> {
    let container = resources(json!({"limits": {"cpu": "100m", "memory": "64Mi"}}));
    ground.facts(container, json!({}), "true")?;
    let pod = ground.get(&["pod", "facts"])?;
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    let id = pod["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .unwrap_or_default();
    let id = id.trim_start_matches("containerd://");
    // Another cgroup namespace shows the whole path.
    ground.pod(
        "node",
        json!({
            "hostPID": true,
            "containers": [with(waiting(), json!({"securityContext": {"privileged": true}}))],
        }),
    )?;
    ground.wait("pod/node", "condition=Ready")?;
    let script =
        format!("cat /proc/*/cgroup 2>/dev/null | grep -m1 -o '/kubepods.*/pod{uid}/{id}$'");
    let said = ground.exec("node", &script)?;
    ensure!(said.ends_with(&format!("pod{uid}/{id}")), "{said}");
    Ok(())
}

fn oom_killed(ground: &Ground<'_>) -> Result<()> {
    let container = with(
        json!({"command": ["tail", "/dev/zero"]}),
        resources(json!({"limits": {"memory": "32Mi"}})),
    );
    ground.pod(
        "app",
        json!({"restartPolicy": "Never", "containers": [container]}),
    )?;
    ground.wait("pod/app", "jsonpath={.status.phase}=Failed")?;
    let state = ground.container("app", "app")?["state"]["terminated"].clone();
    ensure!(
        state["reason"] == "OOMKilled" && state["exitCode"] == 137,
        "{state}"
    );
    Ok(())
}

fn oom_of_child(ground: &Ground<'_>) -> Result<()> {
    let container = with(waiting(), resources(json!({"limits": {"memory": "32Mi"}})));
    ground.ready_pod("app", json!({"containers": [container]}))?;
    let said = ground.exec("app", "tail /dev/zero >/dev/null; echo ended with $?")?;
    ensure!(said.ends_with("ended with 137"), "{said}");
    let app = ground.container("app", "app")?;
    ensure!(
        app["restartCount"] == 0 && !app["state"]["running"].is_null(),
        "{app}"
    );
    Ok(())
}

fn resize(ground: &Ground<'_>) -> Result<()> {
    let container = resources(json!({
        "requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"},
    }));
    ground.facts(container, json!({}), "true")?;
    let wanted = json!({"spec": {"containers": [{"name": "app", "resources": {
        "requests": {"cpu": "150m", "memory": "96Mi"}, "limits": {"cpu": "300m", "memory": "96Mi"},
    }}]}});
    ground.call(&[
        "patch",
        "pod",
        "facts",
        "--subresource",
        "resize",
        "-p",
        &wanted.to_string(),
    ])?;
    ground.until("the resize", || {
        let pod = ground.get(&["pod", "facts"])?;
        let conditions = pod["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let stuck = conditions.iter().find(|condition| {
            condition["type"] == "PodResizePending" && condition["reason"] == "Infeasible"
        });
        if let Some(stuck) = stuck {
            anyhow::bail!("the kubelet does not resize: {}", stuck["message"]);
        }
        let now = &pod["status"]["containerStatuses"][0]["resources"]["limits"];
        Ok((now["memory"] == "96Mi" && now["cpu"] == "300m").then_some(()))
    })?;
    limits(
        ground,
        ["100663296 153 30000 100000", "100663296 6 30000 100000"],
    )?;
    let app = ground.container("facts", "app")?;
    ensure!(app["restartCount"] == 0, "{app}");
    Ok(())
}

fn resize_restarts(ground: &Ground<'_>) -> Result<()> {
    let container = json!({
        "resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "64Mi"}},
        "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}],
    });
    ground.facts(container, json!({}), "true")?;
    let wanted = json!({"spec": {"containers": [{"name": "app", "resources": {
        "requests": {"memory": "80Mi"}, "limits": {"memory": "80Mi"},
    }}]}});
    ground.call(&[
        "patch",
        "pod",
        "facts",
        "--subresource",
        "resize",
        "-p",
        &wanted.to_string(),
    ])?;
    ground.until_container("facts", "app", "the second start", |status| {
        status["restartCount"] == 1
            && status["ready"] == true
            && status["resources"]["limits"]["memory"] == "80Mi"
    })?;
    let said = ground.exec("facts", LIMITS)?;
    ensure!(said.starts_with("83886080 "), "{said}");
    Ok(())
}

/// Without limits of its own a container may use what the pod may.
fn pod_level(ground: &Ground<'_>) -> Result<()> {
    let spec = json!({"resources": {
        "requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "48Mi"},
    }});
    let container = with(json!({"command": ["tail", "/dev/zero"]}), json!({}));
    ground.pod(
        "app",
        with(
            spec.clone(),
            json!({"restartPolicy": "Never", "containers": [container]}),
        ),
    )?;
    let kept = ground.get(&["pod", "app"])?["spec"]["resources"].clone();
    ensure!(
        kept["limits"]["memory"] == "48Mi",
        "the API server has dropped the pod's resources: {kept}"
    );
    ground.wait("pod/app", "jsonpath={.status.phase}=Failed")?;
    let state = ground.container("app", "app")?["state"]["terminated"].clone();
    ensure!(state["exitCode"] == 137, "{state}");
    Ok(())
}

fn cpu_limit(ground: &Ground<'_>) -> Result<()> {
    let script = "\
import time
begun = time.monotonic()
while time.monotonic() - begun < 3:
    pass
print(time.process_time())
";
    let container = with(
        json!({"python": script}),
        resources(json!({"limits": {"cpu": "100m"}})),
    );
    let said = ground.finished_pod("app", json!({"containers": [container]}))?;
    let used: f64 = said.trim().parse()?;
    ensure!(
        used < 1.0,
        "it has used {used} s of three with a tenth of a CPU"
    );
    Ok(())
}

fn evicted(ground: &Ground<'_>) -> Result<()> {
    let script = "dd if=/dev/zero of=/v/big bs=1M count=4 2>/dev/null; exec sleep 1000000";
    ground.pod(
        "app",
        json!({
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
            "containers": [{"script": script, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        }),
    )?;
    ground.wait("pod/app", "jsonpath={.status.reason}=Evicted")?;
    ground.event("Evicted", "exceeds the limit")
}
