//! What makes pods, and what pods are made of.

use super::case::{Case, Theme};
use super::ground::{Ground, NODE};
use super::manifest::waiting;
use anyhow::{Result, ensure};
use serde_json::{Value, json};

pub(super) const THEME: Theme = Theme {
    name: "workloads",
    cases: &[
        Case::new("Deployment scales, rolls on and back", deployment),
        Case::new("StatefulSet keeps names and order", stateful_set),
        Case::new("DaemonSet", daemon_set),
        Case::new("Job counts completions", job),
        Case::new("Job gives up and tells why", failing_job),
        Case::new("CronJob", cron_job),
        Case::new("init containers run one by one", init_containers),
        Case::new("native sidecar", sidecar),
        Case::new("Job ends beside a sidecar", sidecar_of_job),
        Case::new("several containers share a network and a volume", several),
        Case::new("ephemeral container by kubectl debug", ephemeral),
        Case::new("copy of a pod by kubectl debug", debug_copy),
        Case::new("sidecars end after the app, the last first", sidecars_end),
        Case::new("hostPort", host_port),
    ],
};

fn workload(kind: &str, more: &Value, containers: Value) -> Value {
    let mut spec = json!({
        "selector": {"matchLabels": {"app": "app"}},
        "template": {
            "metadata": {"labels": {"app": "app"}},
            "spec": {"containers": containers},
        },
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        spec[name] = value.clone();
    }
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "app"}, "spec": spec})
}

fn rolled_out(ground: &Ground<'_>, what: &str) -> Result<()> {
    ground.call(&["rollout", "status", what, "--timeout=60s"])?;
    Ok(())
}

fn deployment(ground: &Ground<'_>) -> Result<()> {
    let containers = json!([{
        "script": "echo version $VERSION; exec sleep 1000000",
        "env": [{"name": "VERSION", "value": "1"}],
    }]);
    ground.create(workload("Deployment", &json!({"replicas": 2}), containers))?;
    rolled_out(ground, "deployment/app")?;
    ground.call(&["scale", "deployment/app", "--replicas=3"])?;
    rolled_out(ground, "deployment/app")?;
    ground.call(&["set", "env", "deployment/app", "VERSION=2"])?;
    rolled_out(ground, "deployment/app")?;
    settled(ground, 3)?;
    let said = ground.call(&["logs", "deployment/app"])?;
    ensure!(said == "version 2\n", "{said}");
    ground.call(&["rollout", "undo", "deployment/app"])?;
    rolled_out(ground, "deployment/app")?;
    settled(ground, 3)?;
    let said = ground.exec("deployment/app", "echo $VERSION")?;
    ensure!(said == "1", "{said}");
    ground.call(&["scale", "deployment/app", "--replicas=0"])?;
    settled(ground, 0)
}

/// Waits until there are so many pods, those that are still ending included.
fn settled(ground: &Ground<'_>, count: usize) -> Result<()> {
    ground.until("so many pods", || {
        let pods = ground.get(&["pods"])?;
        Ok((pods["items"].as_array().map(Vec::len) == Some(count)).then_some(()))
    })
}

fn stateful_set(ground: &Ground<'_>) -> Result<()> {
    let more = json!({"replicas": 2, "serviceName": "app"});
    ground.create(workload("StatefulSet", &more, json!([waiting()])))?;
    rolled_out(ground, "statefulset/app")?;
    let before = ground.get(&["pod", "app-0"])?["metadata"]["uid"].clone();
    ground.call(&["delete", "pod", "app-0"])?;
    ground.until("another app-0", || {
        let Ok(pod) = ground.get(&["pod", "app-0"]) else {
            return Ok(None);
        };
        Ok((pod["metadata"]["uid"] != before).then_some(()))
    })?;
    ground.wait("pod/app-0", "condition=Ready")?;
    for name in ["app-0", "app-1"] {
        let said = ground.exec(name, "hostname")?;
        ensure!(said == name, "{said}");
    }
    Ok(())
}

fn daemon_set(ground: &Ground<'_>) -> Result<()> {
    ground.create(workload("DaemonSet", &json!({}), json!([waiting()])))?;
    rolled_out(ground, "daemonset/app")?;
    ground.call(&["rollout", "restart", "daemonset/app"])?;
    rolled_out(ground, "daemonset/app")?;
    let pods = ground.get(&["pods", "-l", "app=app"])?;
    ensure!(pods["items"][0]["spec"]["nodeName"] == NODE, "{pods}");
    Ok(())
}

fn job_of(name: &str, spec: &Value, pod: Value) -> Value {
    let mut spec = spec.clone();
    spec["template"] =
        json!({"spec": super::manifest::with(json!({"restartPolicy": "Never"}), pod)});
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})
}

fn job(ground: &Ground<'_>) -> Result<()> {
    let spec = json!({"completions": 3, "parallelism": 2, "completionMode": "Indexed"});
    let container = json!({"script": "echo index $JOB_COMPLETION_INDEX of $(hostname)"});
    ground.create(job_of("app", &spec, json!({"containers": [container]})))?;
    ground.wait("job/app", "condition=Complete")?;
    let job = ground.get(&["job", "app"])?;
    ensure!(
        job["status"]["succeeded"] == 3 && job["status"]["completedIndexes"] == "0-2",
        "{}",
        job["status"]
    );
    let said = ground.call(&["logs", "-l", "job-name=app", "--tail=-1"])?;
    for index in 0..3 {
        ensure!(
            said.contains(&format!("index {index} of app-{index}")),
            "{said}"
        );
    }
    Ok(())
}

fn failing_job(ground: &Ground<'_>) -> Result<()> {
    let spec = json!({"backoffLimit": 0});
    let pod = json!({"containers": [{"script": "exit 3"}]});
    ground.create(job_of("app", &spec, pod))?;
    let spec = json!({"backoffLimit": 5, "podFailurePolicy": {"rules": [{
        "action": "FailJob",
        "onExitCodes": {"operator": "In", "values": [42]},
    }]}});
    let pod = json!({"containers": [{"script": "exit 42"}]});
    ground.create(job_of("policy", &spec, pod))?;
    for (name, reason) in [
        ("app", "BackoffLimitExceeded"),
        ("policy", "PodFailurePolicy"),
    ] {
        ground.wait(&format!("job/{name}"), "condition=Failed")?;
        let job = ground.get(&["job", name])?;
        let conditions = job["status"]["conditions"].to_string();
        ensure!(conditions.contains(reason), "{conditions}");
    }
    Ok(())
}

fn cron_job(ground: &Ground<'_>) -> Result<()> {
    let job = job_of(
        "unused",
        &json!({}),
        json!({"containers": [{"script": "echo ran"}]}),
    );
    ground.create(json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "app"},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job["spec"]}},
    }))?;
    ground.call(&["create", "job", "--from=cronjob/app", "now"])?;
    ground.wait("job/now", "condition=Complete")?;
    let said = ground.call(&["logs", "job/now"])?;
    ensure!(said == "ran\n", "{said}");
    Ok(())
}

fn init_containers(ground: &Ground<'_>) -> Result<()> {
    let mounts = json!([{"name": "shared", "mountPath": "/shared"}]);
    let add = |name: &str| {
        json!({"name": name, "volumeMounts": mounts, "script": format!(
            "echo {name} begins >>/shared/order; sleep 0.3; echo {name} ends >>/shared/order"
        )})
    };
    ground.ready_pod("app", json!({
        "volumes": [{"name": "shared", "emptyDir": {}}],
        "initContainers": [add("first"), add("second")],
        "containers": [{"script": "cat /shared/order; exec sleep 1000000", "volumeMounts": mounts}],
    }))?;
    let order = ground.exec("app", "cat /shared/order")?;
    let lines: Vec<&str> = order.lines().collect();
    ensure!(
        lines == ["first begins", "first ends", "second begins", "second ends"],
        "{order}"
    );
    for name in ["first", "second"] {
        let state = ground.container("app", name)?["state"]["terminated"].clone();
        ensure!(
            state["exitCode"] == 0 && state["reason"] == "Completed",
            "{state}"
        );
    }

    // One that fails keeps the others from starting.
    ground.pod(
        "failing",
        json!({
            "restartPolicy": "Never",
            "initContainers": [{"name": "first", "script": "exit 5"}],
            "containers": [waiting()],
        }),
    )?;
    ground.wait("pod/failing", "jsonpath={.status.phase}=Failed")?;
    let first = ground.container("failing", "first")?["state"]["terminated"].clone();
    ensure!(first["exitCode"] == 5, "{first}");
    let app = ground.container("failing", "app")?;
    ensure!(
        app["state"]["waiting"]["reason"] == "PodInitializing",
        "{app}"
    );
    Ok(())
}

fn sidecar(ground: &Ground<'_>) -> Result<()> {
    let mounts = json!([{"name": "shared", "mountPath": "/shared"}]);
    ground.ready_pod("app", json!({
        "volumes": [{"name": "shared", "emptyDir": {}}],
        "initContainers": [{
            "name": "side", "restartPolicy": "Always", "volumeMounts": mounts,
            "script": "sleep 0.5; echo up >/shared/up; while [ ! -e /shared/end ]; do sleep 0.1; done; rm /shared/end",
            "startupProbe": {"exec": {"command": ["test", "-e", "/shared/up"]}, "periodSeconds": 1},
        }],
        "containers": [{"script": "cat /shared/up; exec sleep 1000000", "volumeMounts": mounts}],
    }))?;
    let said = ground.call(&["logs", "app", "-c", "app"])?;
    ensure!(said == "up\n", "{said}");
    ground.exec("app", "touch /shared/end")?;
    ground.until_container("app", "side", "the sidecar's second start", |status| {
        status["restartCount"] == 1 && status["ready"] == true
    })?;
    let app = ground.container("app", "app")?;
    ensure!(app["restartCount"] == 0, "{app}");
    Ok(())
}

fn sidecar_of_job(ground: &Ground<'_>) -> Result<()> {
    let pod = json!({
        "terminationGracePeriodSeconds": 5,
        "initContainers": [{
            "name": "side", "restartPolicy": "Always",
            "script": "trap 'exit 0' TERM; while :; do sleep 0.1; done",
        }],
        "containers": [{"script": "sleep 0.5"}],
    });
    ground.create(job_of("app", &json!({}), pod))?;
    ground.wait("job/app", "condition=Complete")?;
    let pods = ground.get(&["pods"])?;
    let side = &pods["items"][0]["status"]["initContainerStatuses"][0]["state"]["terminated"];
    ensure!(side["exitCode"] == 0, "{side}");
    Ok(())
}

fn several(ground: &Ground<'_>) -> Result<()> {
    let mounts = json!([{"name": "shared", "mountPath": "/shared"}]);
    ground.ready_pod(
        "app",
        json!({
            "volumes": [{"name": "shared", "emptyDir": {}}],
            "containers": [
                {
                    "name": "server", "volumeMounts": mounts,
                    "script": "echo hello >/shared/index.html; exec httpd -f -p 8080 -h /shared",
                },
                {"name": "client", "script": "exec sleep 1000000", "volumeMounts": mounts},
            ],
        }),
    )?;
    ground.until("an answer", || {
        let said = ground.exec_in(
            "app",
            "client",
            "wget -q -O - http://127.0.0.1:8080/ || true",
        )?;
        Ok((said == "hello").then_some(()))
    })?;
    ground.exec_in("app", "client", "echo again >/shared/more")?;
    let said = ground.exec_in("app", "server", "cat /shared/more; hostname")?;
    ensure!(said == "again\napp", "{said}");
    // Each has its own processes.
    let seen = ground.exec_in("app", "client", "ps | grep -c '[h]ttpd' || true")?;
    ensure!(
        seen == "0",
        "the client sees {seen} of the server's processes"
    );
    Ok(())
}

fn ephemeral(ground: &Ground<'_>) -> Result<()> {
    ground.ready_pod("app", json!({"containers": [waiting()]}))?;
    ground.call(&[
        "debug",
        "app",
        "--image",
        crate::programs::BUSYBOX,
        "--image-pull-policy=IfNotPresent",
        "--target=app",
        "--container=look",
        "--profile=general",
        "--",
        "sh",
        "-c",
        "ps; echo end; exec sleep 1000000",
    ])?;
    ground.until_container("app", "look", "the ephemeral container", |status| {
        !status["state"]["running"].is_null()
    })?;
    let seen = ground.until("its log", || {
        let log = ground.call(&["logs", "app", "-c", "look"])?;
        Ok(log.ends_with("end\n").then_some(log))
    })?;
    ensure!(seen.contains("sleep 1000000"), "it sees {seen}");
    let seen = ground.exec_in("app", "look", "tr '\\0' ' ' </proc/1/cmdline")?;
    ensure!(seen == "sleep 1000000", "{seen}");
    let app = ground.container("app", "app")?;
    ensure!(app["restartCount"] == 0, "{app}");
    Ok(())
}

fn debug_copy(ground: &Ground<'_>) -> Result<()> {
    ground.ready_pod("app", json!({"containers": [waiting()]}))?;
    ground.call(&[
        "debug",
        "app",
        "--copy-to=copy",
        "--container=look",
        "--share-processes",
        "--image",
        crate::programs::BUSYBOX,
        "--image-pull-policy=IfNotPresent",
        "--profile=general",
        "--",
        "sleep",
        "1000000",
    ])?;
    ground.wait("pod/copy", "condition=Ready")?;
    let class = ground.get(&["pod", "copy"])?["spec"]["runtimeClassName"].clone();
    ensure!(class == ground.class(), "{class}");
    let seen = ground.exec_in("copy", "look", "ps | grep -c '[s]leep 1000000'")?;
    ensure!(seen == "2", "it sees {seen} of both containers' processes");
    Ok(())
}

fn sidecars_end(ground: &Ground<'_>) -> Result<()> {
    let dir = ground.node_dir()?;
    let mounts = json!([{"name": "node", "mountPath": "/node"}]);
    let container = |name: &str| {
        json!({"name": name, "volumeMounts": mounts, "script": format!(
            "trap 'sleep 0.3; echo {name} >>/node/order; exit 0' TERM; while :; do sleep 0.1; done"
        )})
    };
    let side =
        |name: &str| super::manifest::with(container(name), json!({"restartPolicy": "Always"}));
    let spec = json!({
        "terminationGracePeriodSeconds": 30,
        "volumes": [{"name": "node", "hostPath": {"path": dir}}],
        "initContainers": [side("first"), side("second")],
        "containers": [container("app")],
    });
    ground.ready_pod("app", spec)?;
    ground.call(&["delete", "pod", "app"])?;
    let order = std::fs::read_to_string(ground.on_node(&dir)?.join("order"))?;
    ensure!(order == "app\nsecond\nfirst\n", "{order}");
    Ok(())
}

fn host_port(ground: &Ground<'_>) -> Result<()> {
    // Both classes' pods are on one node.
    let port = match ground.class() {
        "runc" => 18080,
        _ => 18081,
    };
    ground.ready_pod(
        "app",
        json!({"containers": [{
            "script": "mkdir /www; echo hello >/www/index.html; exec httpd -f -p 8080 -h /www",
            "ports": [{"containerPort": 8080, "hostPort": port}],
        }]}),
    )?;
    ground.ready_pod("client", json!({"containers": [waiting()]}))?;
    let address = ground.get(&["pod", "app"])?["status"]["hostIP"].clone();
    let address = address.as_str().unwrap_or_default();
    let ask =
        format!("printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc {address} {port} || true");
    ground.until("an answer", || {
        Ok(ground
            .exec("client", &ask)?
            .ends_with("hello")
            .then_some(()))
    })
}
