//! How containers begin and end, and what is told about it.

use super::case::{Case, Theme};
use super::ground::Ground;
use super::manifest::{waiting, with};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

pub(super) const THEME: Theme = Theme {
    name: "lifecycle",
    cases: &[
        Case::new("postStart", post_start),
        Case::new("postStart that fails", failing_post_start),
        Case::new("postStart by http", http_hook),
        Case::new("preStop by exec and sleep", pre_stop),
        Case::new("SIGTERM within the grace period", sigterm),
        Case::new("SIGKILL after the grace period", sigkill),
        Case::new("deletion at once", at_once),
        Case::new("activeDeadlineSeconds", active_deadline),
        Case::new("exit codes and reasons", exit_codes),
        Case::new("killed by a signal", by_signal),
        Case::new("a program that does not exist", no_program),
        Case::new("a working directory that does not exist", working_dir),
        Case::new("CrashLoopBackOff and restart counts", crash_loop),
        Case::new("restartPolicy OnFailure", on_failure),
        Case::new("restartPolicyRules", restart_rules),
        Case::new("stopSignal", stop_signal),
        Case::new("termination messages", termination_message),
        Case::new("hostname and DNS", hostname),
        Case::new("service environment and fieldRef", environment),
    ],
};

/// A container that can write into the case's own directory on the node.
fn on_node(ground: &Ground<'_>, container: Value, more: Value) -> Result<(String, Value)> {
    let dir = ground.node_dir()?;
    let container = with(
        container,
        json!({"volumeMounts": [{"name": "node", "mountPath": "/node"}]}),
    );
    let spec = json!({
        "volumes": [{"name": "node", "hostPath": {"path": dir}}],
        "containers": [container],
    });
    Ok((dir, with(spec, more)))
}

fn post_start(ground: &Ground<'_>) -> Result<()> {
    let container = with(
        waiting(),
        json!({"lifecycle": {"postStart": {"exec": {
            "command": ["sh", "-c", "sleep 1; echo started >/started"],
        }}}}),
    );
    ground.ready_pod("app", json!({"containers": [container]}))?;
    let said = ground.exec("app", "cat /started")?;
    ensure!(said == "started", "{said}");
    Ok(())
}

fn failing_post_start(ground: &Ground<'_>) -> Result<()> {
    let container = with(
        waiting(),
        json!({"lifecycle": {"postStart": {"exec": {
            "command": ["sh", "-c", "echo no luck; exit 1"],
        }}}}),
    );
    ground.pod("app", json!({"containers": [container]}))?;
    ground.event("FailedPostStartHook", "PostStartHook failed")?;
    ground.until_container("app", "app", "its second start", |status| {
        status["restartCount"].as_u64() >= Some(1)
    })?;
    Ok(())
}

fn http_hook(ground: &Ground<'_>) -> Result<()> {
    let server = json!({"script": "mkdir /www; cd /www; echo ok >hook; exec httpd -f -v -p 8080"});
    ground.ready_pod("server", json!({"containers": [server]}))?;
    let address = ground.get(&["pod", "server"])?["status"]["podIP"].clone();
    let hook = json!({"httpGet": {"host": address, "port": 8080, "path": "/hook"}});
    let container = with(waiting(), json!({"lifecycle": {"postStart": hook}}));
    ground.ready_pod("app", json!({"containers": [container]}))?;
    ground.until("the request", || {
        let log = ground.call(&["logs", "server"])?;
        Ok(log.contains("response:200").then_some(()))
    })
}

fn pre_stop(ground: &Ground<'_>) -> Result<()> {
    let container = json!({
        "script": "trap 'echo ended >>/node/order; exit 0' TERM; while :; do sleep 0.1; done",
        "lifecycle": {"preStop": {"exec": {
            "command": ["sh", "-c", "echo asked >>/node/order; sleep 1; echo waited >>/node/order"],
        }}},
    });
    let (dir, spec) = on_node(
        ground,
        container,
        json!({"terminationGracePeriodSeconds": 20}),
    )?;
    ground.ready_pod("app", spec)?;
    ground.call(&["delete", "pod", "app"])?;
    let order = fs::read_to_string(ground.on_node(&dir)?.join("order"))?;
    ensure!(order == "asked\nwaited\nended\n", "{order}");

    let container = with(
        waiting(),
        json!({"lifecycle": {"preStop": {"sleep": {"seconds": 2}}}}),
    );
    ground.ready_pod(
        "sleep",
        json!({"containers": [container], "terminationGracePeriodSeconds": 3}),
    )?;
    let begun = Instant::now();
    ground.call(&["delete", "pod", "sleep"])?;
    ensure!(
        begun.elapsed() >= Duration::from_secs(2),
        "it took {:?}",
        begun.elapsed()
    );
    Ok(())
}

fn sigterm(ground: &Ground<'_>) -> Result<()> {
    let script =
        "trap 'sleep 0.5; echo ended >/node/end; exit 0' TERM; while :; do sleep 0.1; done";
    let (dir, spec) = on_node(
        ground,
        json!({"script": script}),
        json!({"terminationGracePeriodSeconds": 30}),
    )?;
    ground.ready_pod("app", spec)?;
    let begun = Instant::now();
    ground.call(&["delete", "pod", "app"])?;
    ensure!(
        begun.elapsed() < Duration::from_secs(15),
        "it took {:?}",
        begun.elapsed()
    );
    let end = fs::read_to_string(ground.on_node(&dir)?.join("end"))?;
    ensure!(end == "ended\n", "{end}");
    Ok(())
}

fn sigkill(ground: &Ground<'_>) -> Result<()> {
    let script = "trap 'echo asked >/node/asked' TERM; while :; do sleep 0.1; done";
    let (dir, spec) = on_node(
        ground,
        json!({"script": script}),
        json!({"terminationGracePeriodSeconds": 3}),
    )?;
    ground.ready_pod("app", spec)?;
    let begun = Instant::now();
    ground.call(&["delete", "pod", "app"])?;
    let took = begun.elapsed();
    ensure!(
        took >= Duration::from_secs(3) && took < Duration::from_secs(15),
        "it took {took:?}"
    );
    ensure!(
        ground.on_node(&dir)?.join("asked").exists(),
        "it was not asked"
    );
    Ok(())
}

fn at_once(ground: &Ground<'_>) -> Result<()> {
    let spec = json!({"containers": [waiting()], "terminationGracePeriodSeconds": 600});
    ground.ready_pod("app", spec.clone())?;
    ground.call(&["delete", "pod", "app", "--grace-period=0", "--force"])?;
    // The name is free, and the new pod is another.
    ground.ready_pod("app", spec)?;
    let begun = Instant::now();
    ground.call(&["delete", "pod", "app", "--now"])?;
    ensure!(
        begun.elapsed() < Duration::from_secs(15),
        "it took {:?}",
        begun.elapsed()
    );
    Ok(())
}

fn active_deadline(ground: &Ground<'_>) -> Result<()> {
    ground.pod(
        "app",
        json!({"containers": [waiting()], "activeDeadlineSeconds": 2}),
    )?;
    ground.wait("pod/app", "jsonpath={.status.reason}=DeadlineExceeded")?;
    let phase = ground.get(&["pod", "app"])?["status"]["phase"].clone();
    ensure!(phase == "Failed", "{phase}");
    Ok(())
}

fn terminated(ground: &Ground<'_>, name: &str, container: Value) -> Result<Value> {
    let spec = json!({"restartPolicy": "Never", "containers": [container]});
    ground.pod(name, spec)?;
    let status = ground.until_container(name, "app", "its end", |status| {
        !status["state"]["terminated"].is_null()
    })?;
    Ok(status["state"]["terminated"].clone())
}

fn exit_codes(ground: &Ground<'_>) -> Result<()> {
    for (code, reason) in [
        (0, "Completed"),
        (1, "Error"),
        (42, "Error"),
        (255, "Error"),
    ] {
        let state = terminated(
            ground,
            &format!("app-{code}"),
            json!({"script": format!("exit {code}")}),
        )?;
        ensure!(
            state["exitCode"] == code && state["reason"] == reason,
            "{code}: {state}"
        );
        ensure!(
            state["startedAt"].as_str() <= state["finishedAt"].as_str(),
            "{state}"
        );
    }
    Ok(())
}

fn by_signal(ground: &Ground<'_>) -> Result<()> {
    let container = json!({"python": "import ctypes; ctypes.string_at(0)"});
    let state = terminated(ground, "segv", container)?;
    ensure!(
        state["exitCode"] == 139 && state["reason"] == "Error",
        "{state}"
    );
    let script = "trap 'exit 7' USR1; kill -USR1 1; sleep 5";
    let state = terminated(ground, "handled", json!({"script": script}))?;
    ensure!(state["exitCode"] == 7, "{state}");
    Ok(())
}

fn no_program(ground: &Ground<'_>) -> Result<()> {
    let state = terminated(ground, "app", json!({"command": ["/no/such/program"]}))?;
    ensure!(
        state["exitCode"] == 128 && state["reason"] == "StartError",
        "{state}"
    );
    let said = state["message"].as_str().unwrap_or_default();
    ensure!(
        said.contains("/no/such/program") && said.contains("no such file or directory"),
        "{said}"
    );
    Ok(())
}

fn working_dir(ground: &Ground<'_>) -> Result<()> {
    let container = json!({"script": "pwd", "workingDir": "/made/on/the/way"});
    let said = ground.finished_pod("app", json!({"containers": [container]}))?;
    ensure!(said == "/made/on/the/way\n", "{said}");
    Ok(())
}

fn crash_loop(ground: &Ground<'_>) -> Result<()> {
    ground.pod(
        "app",
        json!({"containers": [{"script": "echo failing; exit 9"}]}),
    )?;
    ground.event("BackOff", "Back-off restarting failed container")?;
    let status = ground.until("CrashLoopBackOff", || {
        // The kubelet tells of it with its next look at the pod, which may not come
        // before the next start; a change of the pod makes it look.
        let now = format!("look={:?}", Instant::now());
        ground.call(&["annotate", "--overwrite", "pod", "app", &now])?;
        let status = ground.container("app", "app")?;
        let waits = status["state"]["waiting"]["reason"] == "CrashLoopBackOff";
        Ok((waits && status["restartCount"].as_u64() >= Some(1)).then_some(status))
    })?;
    ensure!(
        status["lastState"]["terminated"]["exitCode"] == 9,
        "{status}"
    );
    // What was the previous container may be removed just now.
    ground.until("its log", || {
        let said = ground.run(&["logs", "app", "--previous"])?;
        Ok((said.stdout == "failing\n").then_some(()))
    })
}

fn on_failure(ground: &Ground<'_>) -> Result<()> {
    let mounts = json!([{"name": "shared", "mountPath": "/shared"}]);
    ground.pod(
        "app",
        json!({
            "restartPolicy": "OnFailure",
            "volumes": [{"name": "shared", "emptyDir": {}}],
            "containers": [{
                "script": "[ -e /shared/tried ] && exit 0; touch /shared/tried; exit 1",
                "volumeMounts": mounts,
            }],
        }),
    )?;
    ground.wait("pod/app", "jsonpath={.status.phase}=Succeeded")?;
    let app = ground.container("app", "app")?;
    ensure!(app["restartCount"] == 1, "{app}");
    Ok(())
}

fn termination_message(ground: &Ground<'_>) -> Result<()> {
    let container = json!({"script": "printf 'my last words' >/dev/termination-log; exit 1"});
    let state = terminated(ground, "file", container)?;
    ensure!(state["message"] == "my last words", "{state}");
    let container = json!({
        "script": "printf elsewhere >/tmp/words", "terminationMessagePath": "/tmp/words",
    });
    let state = terminated(ground, "elsewhere", container)?;
    ensure!(state["message"] == "elsewhere", "{state}");
    let container = json!({
        "script": "echo from the log; exit 1",
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    let state = terminated(ground, "log", container)?;
    ensure!(state["message"] == "from the log\n", "{state}");
    Ok(())
}

fn hostname(ground: &Ground<'_>) -> Result<()> {
    let spec = json!({
        "hostname": "alpha", "subdomain": "sub", "setHostnameAsFQDN": true,
        "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["known.example"]}],
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["192.0.2.53"], "searches": ["example.org"], "options": [{"name": "ndots", "value": "3"}]},
    });
    let script = "hostname; cat /etc/hostname; grep known /etc/hosts | tr '\\t' ' '; grep alpha /etc/hosts | tr '\\t' ' ' | cut -d' ' -f2-; cat /etc/resolv.conf";
    let said = ground.facts(json!({}), spec, script)?;
    let full = format!("alpha.sub.{}.svc.cluster.local", ground.namespace());
    let wanted = format!(
        "{full}\n{full}\n192.0.2.7 known.example\n{full} alpha\nsearch example.org\nnameserver 192.0.2.53\noptions ndots:3"
    );
    ensure!(said == wanted, "{said}");
    Ok(())
}

fn environment(ground: &Ground<'_>) -> Result<()> {
    ground.create(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "front-door"},
        "spec": {"ports": [{"port": 8123}]},
    }))?;
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let container = json!({
        "env": [
            {"name": "POD", "valueFrom": field("metadata.name")},
            {"name": "ADDRESS", "valueFrom": field("status.podIP")},
            {"name": "NODE", "valueFrom": field("spec.nodeName")},
            {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
            {"name": "BOTH", "value": "$(POD)-$(NODE)"},
        ],
        "resources": {"limits": {"memory": "64Mi"}},
    });
    // Environment of services is there when the kubelet has heard of them.
    ground.until("the service", || {
        let endpoints = ground.get(&["service", "front-door"])?;
        Ok(endpoints["spec"]["clusterIP"].is_string().then_some(()))
    })?;
    let script = "echo $POD $NODE $LIMIT $BOTH $FRONT_DOOR_SERVICE_PORT; [ \"$ADDRESS\" = \"$(hostname -i)\" ] && echo same";
    let said = ground.facts(container, json!({}), script)?;
    ensure!(
        said == "facts node-1 67108864 facts-node-1 8123\nsame",
        "{said}"
    );
    Ok(())
}

fn restart_rules(ground: &Ground<'_>) -> Result<()> {
    let mounts = json!([{"name": "shared", "mountPath": "/shared"}]);
    ground.pod(
        "app",
        json!({
            "restartPolicy": "Never",
            "volumes": [{"name": "shared", "emptyDir": {}}],
            "containers": [{
                "script": "[ -e /shared/tried ] && exit 5; touch /shared/tried; exit 42",
                "volumeMounts": mounts,
                "restartPolicy": "Never",
                "restartPolicyRules": [{
                    "action": "Restart", "exitCodes": {"operator": "In", "values": [42]},
                }],
            }],
        }),
    )?;
    ground.wait("pod/app", "jsonpath={.status.phase}=Failed")?;
    let app = ground.container("app", "app")?;
    ensure!(
        app["restartCount"] == 1 && app["state"]["terminated"]["exitCode"] == 5,
        "{app}"
    );
    Ok(())
}

fn stop_signal(ground: &Ground<'_>) -> Result<()> {
    let container = json!({
        "script": "trap 'echo USR1 >/node/end; exit 0' USR1; while :; do sleep 0.1; done",
        "lifecycle": {"stopSignal": "SIGUSR1"},
    });
    let more = json!({"os": {"name": "linux"}, "terminationGracePeriodSeconds": 30});
    let (dir, spec) = on_node(ground, container, more)?;
    ground.ready_pod("app", spec)?;
    let kept = ground.get(&["pod", "app"])?["spec"]["containers"][0]["lifecycle"].clone();
    ensure!(
        kept["stopSignal"] == "SIGUSR1",
        "the API server has dropped stopSignal: {kept}"
    );
    ground.call(&["delete", "pod", "app"])?;
    let end = fs::read_to_string(ground.on_node(&dir)?.join("end"))?;
    ensure!(end == "USR1\n", "{end}");
    Ok(())
}
