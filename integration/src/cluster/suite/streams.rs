//! What goes in and out: exec, attach, logs, port-forward, cp.

use super::case::{Case, Theme};
use super::ground::Ground;
use super::manifest::waiting;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

pub(super) const THEME: Theme = Theme {
    name: "streams",
    cases: &[
        Case::new("exec has codes, two outputs and an input", exec),
        Case::new("exec of what is not there", exec_missing),
        Case::new("exec -it", exec_tty),
        Case::new("exec of a megabyte", exec_much),
        Case::new("attach -i", attach),
        Case::new("attach -it", attach_tty),
        Case::new("stdinOnce", stdin_once),
        Case::new("run -i --rm", run_rm),
        Case::new("logs -f to the end", logs_follow),
        Case::new("logs --previous, --tail, --timestamps", logs_previous),
        Case::new("logs in one piece", logs_much),
        Case::new("port-forward", port_forward),
        Case::new("cp in and out", cp),
    ],
};

fn exec(ground: &Ground<'_>) -> Result<()> {
    ground.ready_pod("app", json!({"containers": [waiting()]}))?;
    let said = ground.run(&[
        "exec",
        "app",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ])?;
    ensure!(
        said.code == 7 && said.stdout == "out\n" && said.stderr.starts_with("err\n"),
        "{said:?}"
    );
    let mut talk = ground.conversation(
        false,
        &["exec", "-i", "app", "--", "sh", "-c", "cat; echo end"],
    )?;
    talk.types("first")?;
    talk.shows("first")?;
    talk.types("second")?;
    talk.closes_input();
    talk.shows("second\nend\n")?;
    ensure!(talk.ends()? == 0, "it did not end well");
    Ok(())
}

fn exec_missing(ground: &Ground<'_>) -> Result<()> {
    ground.ready_pod("app", json!({"containers": [waiting()]}))?;
    let said = ground.run(&["exec", "app", "--", "/no/such/program"])?;
    ensure!(
        said.code != 0 && said.stderr.contains("/no/such/program"),
        "{said:?}"
    );
    ensure!(
        said.stderr.contains("no such file or directory"),
        "{}",
        said.stderr
    );
    let said = ground.run(&["exec", "app", "--", "/etc/passwd"])?;
    ensure!(
        said.code != 0 && said.stderr.contains("permission denied"),
        "{said:?}"
    );
    Ok(())
}

fn exec_tty(ground: &Ground<'_>) -> Result<()> {
    ground.ready_pod("app", json!({"containers": [waiting()]}))?;
    let mut talk = ground.conversation(true, &["exec", "-it", "app", "--", "sh"])?;
    // kubectl tells the window's size once the process runs: it may come later.
    talk.types("tty; until stty size; do sleep 0.1; done; echo $((40 + 2))")?;
    let screen = talk.shows("42")?;
    ensure!(
        screen.contains("/dev/pts/0") && screen.contains("33 111"),
        "{screen}"
    );
    talk.types("exit 5")?;
    ensure!(talk.ends()? == 5, "another code");
    Ok(())
}

fn exec_much(ground: &Ground<'_>) -> Result<()> {
    ground.ready_pod("app", json!({"containers": [waiting()]}))?;
    let script = "dd if=/dev/zero bs=1024 count=1024 2>/dev/null | tr '\\0' x";
    let said = ground.call(&["exec", "app", "--", "sh", "-c", script])?;
    ensure!(said.len() == 1 << 20, "{} bytes came", said.len());
    Ok(())
}

fn attach(ground: &Ground<'_>) -> Result<()> {
    let script = "while read line; do echo got $line; done; exec sleep 1000000";
    ground.ready_pod(
        "app",
        json!({"containers": [{"script": script, "stdin": true}]}),
    )?;
    let mut talk = ground.conversation(false, &["attach", "-i", "app"])?;
    talk.types("hello")?;
    talk.shows("got hello")?;
    drop(talk);
    // Whoever comes later is heard, too.
    let mut talk = ground.conversation(false, &["attach", "-i", "app"])?;
    talk.types("again")?;
    talk.shows("got again")?;
    Ok(())
}

fn attach_tty(ground: &Ground<'_>) -> Result<()> {
    let container = json!({"command": ["sh"], "stdin": true, "tty": true});
    ground.ready_pod("app", json!({"containers": [container]}))?;
    let mut talk = ground.conversation(true, &["attach", "-it", "app"])?;
    // kubectl makes the terminal larger for a moment, so that programs draw it anew.
    ground.until("its size", || {
        talk.types("stty size; echo $((40 + 2))")?;
        talk.shows("42")?;
        Ok(talk.shows_now("33 111").then_some(()))
    })
}

fn stdin_once(ground: &Ground<'_>) -> Result<()> {
    let container = json!({"script": "cat; echo end", "stdin": true, "stdinOnce": true});
    ground.ready_pod(
        "app",
        json!({"restartPolicy": "Never", "containers": [container]}),
    )?;
    let mut talk = ground.conversation(false, &["attach", "-i", "app"])?;
    talk.types("hello")?;
    talk.shows("hello")?;
    talk.closes_input();
    ground.wait("pod/app", "jsonpath={.status.phase}=Succeeded")?;
    let said = ground.call(&["logs", "app"])?;
    ensure!(said == "hello\nend\n", "{said}");
    Ok(())
}

fn run_rm(ground: &Ground<'_>) -> Result<()> {
    let overrides = json!({"spec": {"runtimeClassName": ground.class()}}).to_string();
    let overrides = format!("--overrides={overrides}");
    let image = format!("--image={}", crate::programs::BUSYBOX);
    let mut talk = ground.conversation(
        false,
        &[
            "run",
            "app",
            &image,
            "--image-pull-policy=IfNotPresent",
            "--restart=Never",
            &overrides,
            "-i",
            "--rm",
            "--",
            "sh",
            "-c",
            "read line; echo got $line; exit 3",
        ],
    )?;
    talk.types("hello")?;
    talk.shows("got hello")?;
    ensure!(talk.ends()? == 3, "another code");
    Ok(())
}

fn logs_follow(ground: &Ground<'_>) -> Result<()> {
    let script = "for i in 1 2 3 4; do echo line $i; sleep 0.5; done";
    let spec = json!({"restartPolicy": "Never", "containers": [{"script": script}]});
    ground.pod("app", spec)?;
    ground.until_container("app", "app", "its start", |status| {
        status["state"]["waiting"].is_null() && !status["state"].is_null()
    })?;
    let said = ground.call(&["logs", "-f", "app"])?;
    ensure!(said == "line 1\nline 2\nline 3\nline 4\n", "{said}");
    Ok(())
}

fn logs_previous(ground: &Ground<'_>) -> Result<()> {
    let mounts = json!([{"name": "shared", "mountPath": "/shared"}]);
    ground.pod("app", json!({
        "volumes": [{"name": "shared", "emptyDir": {}}],
        "containers": [{
            "script": "if [ ! -e /shared/again ]; then touch /shared/again; echo first life; exit 1; fi; \
                       echo two >&2; sleep 1; echo one; echo three; exec sleep 1000000",
            "volumeMounts": mounts,
        }],
    }))?;
    ground.until_container("app", "app", "its second start", |status| {
        status["restartCount"] == 1 && !status["state"]["running"].is_null()
    })?;
    let said = ground.call(&["logs", "app", "--previous"])?;
    ensure!(said == "first life\n", "{said}");
    ground.until("its log", || {
        Ok(ground
            .call(&["logs", "app"])?
            .contains("three")
            .then_some(()))
    })?;
    let said = ground.call(&["logs", "app", "--tail=1", "--timestamps"])?;
    ensure!(
        said.starts_with("20") && said.ends_with("Z three\n"),
        "{said}"
    );
    let mut lines: Vec<String> = ground
        .call(&["logs", "app"])?
        .lines()
        .map(str::to_owned)
        .collect();
    // The two streams come by pipes of their own: what is written at once has no order.
    lines.sort();
    ensure!(lines == ["one", "three", "two"], "{lines:?}");
    Ok(())
}

fn logs_much(ground: &Ground<'_>) -> Result<()> {
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i + 1)); done";
    let said = ground.finished_pod("app", json!({"containers": [{"script": script}]}))?;
    let whole = said
        .lines()
        .enumerate()
        .all(|(index, line)| line == format!("line {index}"));
    ensure!(
        whole && said.lines().count() == 20000,
        "{} lines",
        said.lines().count()
    );
    Ok(())
}

fn port_forward(ground: &Ground<'_>) -> Result<()> {
    let script = "mkdir /www; echo hello >/www/index.html; exec httpd -f -p 127.0.0.1:8080 -h /www";
    ground.ready_pod("app", json!({"containers": [{"script": script}]}))?;
    let talk = ground.conversation(false, &["port-forward", "pod/app", ":8080"])?;
    let said = talk.shows("-> 8080")?;
    let port = said
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let port: u16 = port.context("no port")?.parse()?;
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(
            answer.contains("200 OK") && answer.ends_with("hello\n"),
            "{answer}"
        );
    }
    Ok(())
}

fn cp(ground: &Ground<'_>) -> Result<()> {
    ground.ready_pod("app", json!({"containers": [waiting()]}))?;
    let dir = tempfile::tempdir()?;
    let (sent, received) = (dir.path().join("sent"), dir.path().join("received"));
    let content: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    fs::create_dir_all(sent.join("below"))?;
    fs::write(sent.join("below/file"), &content)?;
    ground.call(&["cp", &sent.to_string_lossy(), "app:/tmp/there"])?;
    let said = ground.exec(
        "app",
        "wc -c </tmp/there/below/file; echo more >/tmp/there/more",
    )?;
    ensure!(said == content.len().to_string(), "{said}");
    ground.call(&["cp", "app:/tmp/there", &received.to_string_lossy()])?;
    ensure!(
        fs::read_to_string(received.join("below/file"))? == content,
        "it has changed"
    );
    ensure!(
        fs::read_to_string(received.join("more"))? == "more\n",
        "more has changed"
    );
    Ok(())
}
