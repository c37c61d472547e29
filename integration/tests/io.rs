//! Where a container's output goes and its input comes from: log URIs, large
//! output, terminals that change their size. All of this is the same under
//! runc's shim: `REPRISE_TEST_HANDLER=runc`.

use anyhow::{Context, Result};
use integration::programs::BUSYBOX;
use integration::{ContainerSpec, Node, PodSpec, wait_for};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

const GIBIBYTE: u64 = 1 << 30;
/// What the shim may hold more while output flows than before.
const FLAT_KIB: u64 = 4096;

fn runtime() -> &'static str {
    match std::env::var("REPRISE_TEST_HANDLER").as_deref() {
        Ok("runc") => "io.containerd.runc.v2",
        _ => "io.containerd.reprise.v2",
    }
}

/// Runs a script in a container whose output goes to a URI, and waits for the
/// words in that file.
fn logged_to(node: &Node, id: &str, uri: &str, file: &str, words: &str) -> Result<String> {
    let cgroup = format!("{}/{id}", node.cgroup());
    let script = format!("echo out of {id}; echo err of {id} >&2");
    let run = [
        "run",
        "--detach",
        "--runtime",
        runtime(),
        "--cgroup",
        &cgroup,
        "--log-uri",
        uri,
    ];
    node.ctr(run.iter().chain(&[BUSYBOX, id, "/bin/sh", "-c", &script]))?;
    wait_for(
        &format!("{words:?} in {file}"),
        Duration::from_secs(20),
        || {
            let text = fs::read_to_string(file).unwrap_or_default();
            Ok(text.contains(words).then_some(text))
        },
    )
}

#[test]
fn output_goes_to_a_file_by_its_uri() -> Result<()> {
    let node = Node::start()?;
    let file = node.dir().join("tmp/output.log").display().to_string();
    let uri = format!("file://{file}");
    let text = logged_to(&node, "to-file", &uri, &file, "err of to-file\n")?;
    assert!(text.contains("out of to-file\n"), "{text}");
    Ok(())
}

#[test]
fn output_goes_to_a_log_binary_by_its_uri() -> Result<()> {
    let node = Node::start()?;
    let dir = node.dir().join("tmp");
    let (binary, file) = (dir.join("log-it"), dir.join("logged"));
    // Descriptors 3 and 4 are the output, 5 is closed to say "ready".
    let script = "#!/bin/bash\nexec 5>&-\n\
         { echo \"for $CONTAINER_NAMESPACE/$CONTAINER_ID $*\"; cat <&3 & cat <&4; wait; } >\"$2\"\n";
    fs::write(&binary, script)?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
    let file = file.display().to_string();
    let uri = format!("binary://{}?to={file}", binary.display());
    let text = logged_to(&node, "to-binary", &uri, &file, "err of to-binary\n")?;
    assert!(
        text.starts_with(&format!("for k8s.io/to-binary to {file}\n")),
        "{text}"
    );
    assert!(text.contains("out of to-binary\n"), "{text}");
    Ok(())
}

#[test]
fn a_gibibyte_of_output_comes_whole_and_the_shims_memory_stays_flat() -> Result<()> {
    let node = Node::start()?;
    let flow = format!("yes 0123456789abcdef | head -c {GIBIBYTE}");
    let cgroup = format!("{}/flood", node.cgroup());
    // Its start waits for a line, so that the shim can be looked at before.
    let run = format!(
        "set -o pipefail; ctr run --rm --runtime {} --cgroup {cgroup} {BUSYBOX} flood \
         /bin/sh -c 'read go; {flow}' | md5sum",
        runtime()
    );
    let mut counting = node
        .command("bash")
        .args(["-c", &run])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let shim = shim_of(&node, "flood")?;
    let before = peak_kib(&node, &shim).context("the shim's memory")?;
    // Dropped at the end of the statement: it is the end of the input, too.
    std::io::Write::write_all(&mut counting.stdin.take().context("no input")?, b"go\n")?;
    let mut peak = before;
    while counting.try_wait()?.is_none() {
        peak = peak.max(peak_kib(&node, &shim).unwrap_or(peak));
        std::thread::sleep(Duration::from_millis(50));
    }
    let arrived = counting.wait_with_output()?;
    let expected = node
        .run("bash", ["-c", &format!("{flow} | md5sum")])?
        .stdout;
    assert!(arrived.status.success());
    assert_eq!(String::from_utf8_lossy(&arrived.stdout), expected);
    assert!(
        peak <= before + FLAT_KIB,
        "{before} KiB before, {peak} KiB at its peak"
    );
    Ok(())
}

/// The pid of a container's shim, as the node sees it.
fn shim_of(node: &Node, id: &str) -> Result<String> {
    let find = format!("pgrep -f 'containerd-shim-[a-z]*-v2 .*-id {id} '");
    wait_for("the shim", Duration::from_secs(20), || {
        let running = node
            .ctr(["task", "ls"])?
            .lines()
            .any(|line| line.starts_with(id) && line.contains("RUNNING"));
        // Asked after that: before, it may be the one that starts it.
        let told = node
            .run("bash", ["-c", &format!("{find} | head -n 1")])?
            .stdout;
        Ok((running && !told.trim().is_empty()).then(|| told.trim().to_owned()))
    })
}

/// The most that a process has held so far.
fn peak_kib(node: &Node, pid: &str) -> Option<u64> {
    let status = fs::read_to_string(node.path(format!("/proc/{pid}/status"))).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn a_terminal_that_changes_its_size_tells_the_container() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&PodSpec::new("io", "web-1"))?;
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done";
    let container = pod.run(&ContainerSpec::shell(script).tty())?;
    container.wait_for_log("ready")?;

    node.containerd()?.resize(container.id(), 132, 43)?;
    container.wait_for_log("43 132")?;
    node.containerd()?.resize(container.id(), 80, 24)?;
    container.wait_for_log("24 80")?;
    Ok(())
}
