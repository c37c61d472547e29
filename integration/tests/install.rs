//! Reprise comes to a node, is upgraded, and goes, while pods run.

use anyhow::{Context, Result};
use integration::installed::Files;
use integration::node::{PACKAGED_CONFIG, SERVICE_RESTART};
use integration::{Container, Leftovers, Node, NodeOptions, Pod, PodSpec, Process, eventually};
use serde_json::Value;
use std::fs;

/// A pod that is watched: it must beat on, in the same process.
struct Watched<'n> {
    pod: Pod<'n>,
    heart: Container<'n>,
    pid: u32,
}

impl<'n> Watched<'n> {
    fn start(node: &'n Node, handler: &str, name: &str) -> Result<Self> {
        let spec = PodSpec::new("install", name).handler(handler);
        let (pod, heart) = node.run_heart(&spec)?;
        let pid = heart.pid()?;
        Ok(Self { pod, heart, pid })
    }

    fn lives_on(&self) -> Result<()> {
        let name = self.pod.name();
        self.heart.next_beat().with_context(|| name.to_owned())?;
        assert_eq!(self.heart.pid()?, self.pid, "{name}");
        assert_eq!(self.heart.exec(&["/bin/sh", "-c", "exit 3"])?.code, 3);
        Ok(())
    }

    fn shim(&self) -> Result<String> {
        let shim = Process::shim_of(&self.pod)?.executable()?;
        Ok(shim.display().to_string())
    }
}

fn refused(node: &Node) -> Result<()> {
    let spec = PodSpec::new("install", "refused").handler("reprise");
    let error = node.run_pod(&spec).err().context("there is no handler")?;
    assert!(format!("{error:#}").contains("no runtime for"), "{error:#}");
    Ok(())
}

fn pods_live_through_everything(containerd: &str) -> Result<()> {
    let node = Node::start_with(&NodeOptions::pristine(containerd))?;
    let files = Files::of(&node)?;
    let leftovers = Leftovers::of(&node)?;
    let runc = Watched::start(&node, "runc", "runc")?;
    refused(&node)?;

    let first = node.containerd_pid()?;
    let said = node.install("1.0.0")?;
    assert!(said.contains("containerd was restarted"), "{said}");
    assert_ne!(node.containerd_pid()?, first);
    let old = Watched::start(&node, "reprise", "old")?;
    assert_eq!(
        old.shim()?,
        "/opt/reprise/1.0.0/bin/containerd-shim-reprise-v2"
    );

    // A second time there is nothing to do; an upgrade needs no restart.
    let second = node.containerd_pid()?;
    assert_eq!(node.install("1.0.0")?, "1.0.0 is installed already\n");
    let said = node.install("2.0.0")?;
    assert!(said.contains("1.0.0 stays"), "{said}");
    assert_eq!(node.containerd_pid()?, second);
    let new = Watched::start(&node, "reprise", "new")?;
    assert!(new.shim()?.starts_with("/opt/reprise/2.0.0/"));
    assert!(old.shim()?.starts_with("/opt/reprise/1.0.0/"));
    for pod in [&runc, &old, &new] {
        pod.lives_on()?;
    }
    let old_shim = Process::shim_of(&old.pod)?;
    old.pod.remove()?;
    eventually("the old shim's end", || old_shim.executable().is_err())?;
    let said = node.install("2.0.0")?;
    assert!(said.contains("1.0.0 is removed"), "{said}");

    let status = node.reprise_node("status", &["--json"])?;
    assert_eq!(status.code, 0, "{}", status.stdout);
    let status: Value = status.json()?;
    assert_eq!(status["installed"], "2.0.0");
    assert_eq!(status["running"]["2.0.0"], 1);

    // Reprise stays whole until its last pod is gone.
    let said = node.reprise_node("uninstall", &[])?;
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stdout.contains("still run: 1"), "{said:?}");
    assert_eq!(node.containerd_pid()?, second);
    node.run("sh", ["-c", SERVICE_RESTART])?.ok()?;
    eventually("CRI", || node.cri().ready())?;
    runc.lives_on()?;
    new.lives_on()?;
    new.pod.remove()?;
    // A shim ends shortly after its pod.
    node.reprise_node("uninstall", &["--wait", "20"])?.ok()?;
    eventually("CRI", || node.cri().ready())?;
    refused(&node)?;

    assert_eq!(files.diff(&Files::of(&node)?), "");
    runc.lives_on()?;
    runc.pod.remove()?;
    let left = Leftovers::of(&node)?.since(&leftovers);
    let left: Vec<&str> = left
        .lines()
        .filter(|line| !line.contains("containerd --config"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn on_containerd_2_2() -> Result<()> {
    pods_live_through_everything("2.2")
}

#[test]
fn on_containerd_2_3() -> Result<()> {
    pods_live_through_everything("2.3")
}

#[test]
fn on_containerd_2_4() -> Result<()> {
    pods_live_through_everything("2.4")
}

/// Installs in vain: the code and the words, and that nothing has changed.
fn fails(node: &Node, args: &[&str], code: i32, words: &str) -> Result<()> {
    let (files, pid) = (Files::of(node)?, node.containerd_pid()?);
    let said = node.reprise_node("install", args)?;
    assert_eq!(said.code, code, "{said:?}");
    let text = format!("{}{}", said.stdout, said.stderr);
    assert!(text.contains(words), "{text}");
    assert_eq!(files.diff(&Files::of(node)?), "");
    assert_eq!(node.containerd_pid()?, pid);
    Ok(())
}

#[test]
fn what_is_wrong_with_a_node_is_told_and_changes_nothing() -> Result<()> {
    let node = Node::start_with(&NodeOptions::pristine("2.3"))?;
    let main = node.path(PACKAGED_CONFIG);
    let good = fs::read_to_string(&main)?;
    fs::write(&main, format!("{good}\n[grpc\n"))?;
    fails(&node, &[], 1, "is broken")?;
    let number = "max_container_log_line_size = 'long'";
    let cri = "[plugins.'io.containerd.cri.v1.runtime']";
    fs::write(&main, good.replace(cri, &format!("{cri}\n  {number}")))?;
    fails(&node, &[], 1, "mend it and install again")?;
    fs::write(&main, &good)?;

    fs::create_dir_all(node.path("/etc/reprise"))?;
    let settings = node.path("/etc/reprise/config.toml");
    fs::write(&settings, "version = 1\nrestore = 'yes'\n")?;
    fails(&node, &[], 3, "not fit: config: ")?;
    fs::remove_file(&settings)?;

    // The configuration is put back when containerd does not come up with it.
    fails(
        &node,
        &["--restart-command", "exit 5"],
        1,
        "`sh -c exit 5` failed",
    )
}

#[test]
fn what_was_there_comes_back() -> Result<()> {
    let node = Node::start_with(&NodeOptions::pristine("2.3"))?;
    // No main file, programs of the operator's own, and a link.
    fs::remove_file(node.path(PACKAGED_CONFIG))?;
    let own = node.path("/usr/local/bin/reprise");
    fs::write(&own, "#!/bin/sh\necho own\n")?;
    std::os::unix::fs::symlink(
        "/nowhere",
        node.path("/usr/local/bin/containerd-shim-reprise-v2"),
    )?;
    let files = Files::of(&node)?;
    let pid = node.containerd_pid()?;
    let installed = node.reprise_node("install", &["--no-restart"])?.ok()?;
    assert!(installed.contains("has to be restarted"), "{installed}");
    let status = node.reprise_node("status", &[])?;
    assert_eq!(status.code, 3);
    assert!(status.stdout.contains("has to be restarted"), "{status:?}");
    let dump = ["--config", PACKAGED_CONFIG, "config", "dump"];
    let dump = node.run("containerd", dump)?.ok()?;
    assert!(dump.contains("io.containerd.reprise.v2"), "{dump}");

    node.reprise_node("uninstall", &["--no-restart"])?.ok()?;
    assert_eq!(files.diff(&Files::of(&node)?), "");
    assert_eq!(node.containerd_pid()?, pid);

    // What the operator writes in the meantime stays.
    fs::write(
        node.path(PACKAGED_CONFIG),
        "version = 3\n[debug]\nlevel = 'info'\n",
    )?;
    node.reprise_node("install", &["--no-restart"])?.ok()?;
    let main = fs::read_to_string(node.path(PACKAGED_CONFIG))?;
    fs::write(node.path(PACKAGED_CONFIG), main.replace("info", "warn"))?;
    node.reprise_node("uninstall", &["--no-restart"])?.ok()?;
    assert_eq!(
        fs::read_to_string(node.path(PACKAGED_CONFIG))?,
        "version = 3\n[debug]\nlevel = 'warn'\n"
    );
    assert_eq!(fs::read_to_string(&own)?, "#!/bin/sh\necho own\n");
    Ok(())
}

/// containerd 2.2 would forget what a file of version 2 says of CRI if it imported one
/// of version 3.
#[test]
fn an_old_main_file_keeps_its_meaning() -> Result<()> {
    for version in ["2.2", "2.4"] {
        let node = Node::start_with(&NodeOptions::pristine(version))?;
        let cri = "plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc";
        let main = format!(
            "version = 2\n[{cri}]\nruntime_type = 'io.containerd.runc.v2'\n\
             [{cri}.options]\nSystemdCgroup = true\n"
        );
        fs::write(node.path(PACKAGED_CONFIG), &main)?;
        node.reprise_node("install", &["--no-restart"])?.ok()?;
        let dump = ["--config", PACKAGED_CONFIG, "config", "dump"];
        let dump = node.run("containerd", dump)?.ok()?;
        assert!(dump.contains("io.containerd.reprise.v2"), "{dump}");
        assert!(dump.contains("SystemdCgroup = true"), "{dump}");
        node.reprise_node("uninstall", &["--no-restart"])?.ok()?;
        assert_eq!(fs::read_to_string(node.path(PACKAGED_CONFIG))?, main);
    }
    Ok(())
}

/// As in a DaemonSet: the node's root is below a directory, its processes are seen.
/// And where containerd does not look for shims, the handler has the path.
#[test]
fn from_a_container_and_with_links_elsewhere() -> Result<()> {
    let node = Node::start_with(&NodeOptions::pristine("2.3"))?;
    let files = Files::of(&node)?;
    let reprise = node.tools().program("reprise").display().to_string();
    let containerd = node.tools().program("containerd").display().to_string();
    let inside = |command: &str| {
        let host = node.dir().join("tmp/host").display().to_string();
        let script = format!(
            "mkdir -p {host} && mount --rbind / {host} && {reprise} node {command} --root {host} \
             --containerd {containerd} --restart-command '{SERVICE_RESTART}'"
        );
        node.run("unshare", ["--mount", "sh", "-c", &script])
    };
    inside("install --bin-dir /opt/reprise-links --accept criu")?.ok()?;
    eventually("CRI", || node.cri().ready())?;
    let pod = Watched::start(&node, "reprise", "elsewhere")?;
    pod.lives_on()?;
    assert!(pod.shim()?.starts_with("/opt/reprise/"));
    pod.pod.remove()?;
    inside("uninstall")?.ok()?;
    assert_eq!(files.diff(&Files::of(&node)?), "");
    Ok(())
}
