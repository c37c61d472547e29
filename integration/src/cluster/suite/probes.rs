//! Probes of all kinds: what they see, and what follows from it.

use super::case::{Case, Theme};
use super::ground::Ground;
use super::manifest::{waiting, with};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

pub(super) const THEME: Theme = Theme {
    name: "probes",
    cases: &[
        Case::new("liveness by exec", liveness_exec),
        Case::new("liveness by http", liveness_http),
        Case::new("liveness by tcp", liveness_tcp),
        Case::new("readiness by exec comes and goes", readiness_exec),
        Case::new("readiness by http leads a service", readiness_http),
        Case::new("readiness by tcp", readiness_tcp),
        Case::new("readiness by grpc", readiness_grpc),
        Case::new("startup by http holds liveness back", startup),
        Case::new("startup that fails", startup_fails),
        Case::new("exec probe that hangs", hanging),
        Case::new("failed liveness has its own grace period", probe_grace),
    ],
};

/// Asks each second, and once is enough.
fn each_second(probe: Value) -> Value {
    with(probe, json!({"periodSeconds": 1, "failureThreshold": 1}))
}

fn by_exec(script: &str) -> Value {
    each_second(json!({"exec": {"command": ["sh", "-c", script]}}))
}

fn http() -> Value {
    each_second(json!({"httpGet": {"path": "/index.html", "port": 8080}}))
}

fn tcp() -> Value {
    each_second(json!({"tcpSocket": {"port": 8080}}))
}

/// A web server that is there after a while.
fn server(after: &str) -> Value {
    let script = format!(
        "mkdir /www; echo hello >/www/index.html; sleep {after}; exec httpd -f -p 8080 -h /www"
    );
    json!({"script": script, "ports": [{"containerPort": 8080}]})
}

fn app(container: Value, probes: Value) -> Value {
    json!({"containers": [with(container, probes)]})
}

fn restarted(ground: &Ground<'_>, probe: &str) -> Result<()> {
    ground.until_container("app", "app", "its second start", |status| {
        status["restartCount"].as_u64() >= Some(1) && !status["state"]["running"].is_null()
    })?;
    ground.event("Unhealthy", probe)?;
    ground.event("Killing", "failed")
}

fn liveness_exec(ground: &Ground<'_>) -> Result<()> {
    let probe = by_exec("test ! -e /ill || { echo it is ill; exit 1; }");
    ground.ready_pod("app", app(waiting(), json!({"livenessProbe": probe})))?;
    ground.exec("app", "touch /ill")?;
    restarted(ground, "Liveness probe failed: it is ill")?;
    let last = ground.container("app", "app")?["lastState"]["terminated"].clone();
    ensure!(last["exitCode"] == 137, "{last}");
    Ok(())
}

fn liveness_http(ground: &Ground<'_>) -> Result<()> {
    let probe = with(http(), json!({"initialDelaySeconds": 1}));
    let container = json!({
        "script": "mkdir -p /www; echo hello >/www/index.html; exec httpd -f -p 8080 -h /www",
    });
    ground.ready_pod("app", app(container, json!({"livenessProbe": probe})))?;
    ground.exec("app", "rm /www/index.html")?;
    restarted(ground, "HTTP probe failed with statuscode: 404")
}

fn liveness_tcp(ground: &Ground<'_>) -> Result<()> {
    let container = json!({
        "script": "httpd -p 8080; exec sleep 1000000",
    });
    let probe = with(tcp(), json!({"initialDelaySeconds": 1}));
    ground.ready_pod("app", app(container, json!({"livenessProbe": probe})))?;
    ground.exec("app", "killall httpd")?;
    restarted(ground, "connection refused")
}

fn readiness_exec(ground: &Ground<'_>) -> Result<()> {
    let probe = by_exec("test -e /ready");
    ground.pod("app", app(waiting(), json!({"readinessProbe": probe})))?;
    ground.event("Unhealthy", "Readiness probe failed")?;
    ground.exec("app", "touch /ready")?;
    ground.wait("pod/app", "condition=Ready")?;
    ground.exec("app", "rm /ready")?;
    ground.wait("pod/app", "condition=Ready=false")?;
    let app = ground.container("app", "app")?;
    ensure!(app["restartCount"] == 0, "{app}");
    Ok(())
}

fn readiness_http(ground: &Ground<'_>) -> Result<()> {
    let probes = json!({"readinessProbe": http()});
    ground.create(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "app"},
        "spec": {"selector": {"app": "app"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }))?;
    ground.pod("app", app(server("1"), probes))?;
    ground.ready_pod("client", json!({"containers": [waiting()]}))?;
    ground.wait("pod/app", "condition=Ready")?;
    let address = ground.get(&["service", "app"])?["spec"]["clusterIP"].clone();
    let ask = format!(
        "wget -q -O - http://{}/ || true",
        address.as_str().unwrap_or_default()
    );
    ground.until("an answer", || {
        Ok((ground.exec("client", &ask)? == "hello").then_some(()))
    })
}

fn readiness_tcp(ground: &Ground<'_>) -> Result<()> {
    ground.ready_pod("app", app(server("1"), json!({"readinessProbe": tcp()})))
}

/// The health service of gRPC, which says SERVING to whatever is asked: HTTP/2 frames by
/// hand, since none of the images has a library for it.
const GRPC: &str = r#"
import socket, struct, threading

def frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body

def literal(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

def exactly(peer, count):
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data

def serve(peer):
    try:
        exactly(peer, 24)
        peer.sendall(frame(4, 0, 0))
        while True:
            head = exactly(peer, 9)
            size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            stream = int.from_bytes(head[5:], "big") & 0x7fffffff
            body = exactly(peer, size)
            if kind == 4 and not flags & 1:
                peer.sendall(frame(4, 1, 0))
            elif kind == 6 and not flags & 1:
                peer.sendall(frame(6, 1, 0, body))
            elif kind in (0, 1) and flags & 1:
                headers = b"\x88" + literal(b"content-type", b"application/grpc")
                answer = b"\x00" + struct.pack(">I", 2) + b"\x08\x01"
                peer.sendall(frame(1, 4, stream, headers) + frame(0, 0, stream, answer)
                             + frame(1, 5, stream, literal(b"grpc-status", b"0")))
    except (EOFError, OSError):
        pass

listener = socket.create_server(("", 9000))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

fn readiness_grpc(ground: &Ground<'_>) -> Result<()> {
    let probe = each_second(json!({"grpc": {"port": 9000}}));
    ground.ready_pod(
        "app",
        app(json!({"python": GRPC}), json!({"readinessProbe": probe})),
    )?;
    // The same probe finds out where nobody answers.
    let probe = each_second(json!({"grpc": {"port": 9001}}));
    ground.pod(
        "other",
        app(json!({"python": GRPC}), json!({"readinessProbe": probe})),
    )?;
    ground.event("Unhealthy", "9001")
}

fn startup(ground: &Ground<'_>) -> Result<()> {
    let probes = json!({
        "startupProbe": with(http(), json!({"failureThreshold": 30})),
        "livenessProbe": http(),
    });
    ground.ready_pod("app", app(server("3"), probes))?;
    let app = ground.container("app", "app")?;
    ensure!(app["restartCount"] == 0 && app["started"] == true, "{app}");
    Ok(())
}

fn startup_fails(ground: &Ground<'_>) -> Result<()> {
    let probe = with(by_exec("exit 1"), json!({"failureThreshold": 2}));
    ground.pod("app", app(waiting(), json!({"startupProbe": probe})))?;
    ground.event("Killing", "failed startup probe")?;
    ground.until_container("app", "app", "its second start", |status| {
        status["restartCount"].as_u64() >= Some(1)
    })?;
    Ok(())
}

fn hanging(ground: &Ground<'_>) -> Result<()> {
    let probe = with(by_exec("exec sleep 1000"), json!({"timeoutSeconds": 1}));
    ground.pod("app", app(waiting(), json!({"livenessProbe": probe})))?;
    ground.event("Unhealthy", "timed out")?;
    ground.until_container("app", "app", "its second start", |status| {
        status["restartCount"].as_u64() >= Some(1)
    })?;
    Ok(())
}

fn probe_grace(ground: &Ground<'_>) -> Result<()> {
    let probe = with(
        by_exec("test ! -e /ill"),
        json!({"terminationGracePeriodSeconds": 1}),
    );
    let spec = app(
        json!({"script": "trap '' TERM; while :; do sleep 0.2; done"}),
        json!({"livenessProbe": probe}),
    );
    ground.ready_pod(
        "app",
        with(spec, json!({"terminationGracePeriodSeconds": 600})),
    )?;
    ground.exec("app", "touch /ill")?;
    ground.until_container("app", "app", "its second start", |status| {
        status["restartCount"].as_u64() >= Some(1)
    })?;
    // The namespace goes with its pods.
    ground.call(&["delete", "pod", "app", "--grace-period=1"])?;
    Ok(())
}
