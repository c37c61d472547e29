//! A containerd that is stopped at a bad moment forgets shims: none of them stays.

use anyhow::{Context, Result};
use integration::shim::{empty_shims_go, goes_after_a_broken_off_delete};
use integration::{ContainerSpec, Node, PodSpec, wait_for};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

const SHIM: &str = "containerd-shim-reprise-v2";

fn shim(node: &Node) -> PathBuf {
    node.tools().program(SHIM)
}

#[test]
fn an_empty_shim_without_a_bundle_goes_and_no_other() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&PodSpec::new("forgotten", "web-1").handler("runc"))?;
    let like = pod.run(&ContainerSpec::shell("while :; do sleep 1000; done"))?;
    empty_shims_go(&node, &shim(&node), &like)
}

#[test]
fn a_shim_goes_although_a_delete_was_broken_off() -> Result<()> {
    let node = Node::start()?;
    let pod = node.run_pod(&PodSpec::new("forgotten", "web-1").handler("runc"))?;
    let like = pod.run(&ContainerSpec::shell("while :; do sleep 1000; done"))?;
    goes_after_a_broken_off_delete(&node, &shim(&node), &like)
}

#[test]
fn a_shim_goes_whose_containerd_was_killed_before_it_asked_for_a_container() -> Result<()> {
    let node = Node::start()?;
    let living = node.run_pod(&PodSpec::new("forgotten", "lives"))?;
    // A `start` that has made its shim and has not answered yet.
    let (slow, reached) = (node.dir().join("tmp/slow"), node.dir().join("tmp/reached"));
    let program = node.dir().join("bin").join(SHIM);
    fs::remove_file(&program)?;
    let script = format!(
        "#!/bin/bash\n\
         for last; do :; done\n\
         if [ \"$last\" = start ] && [ -e {slow} ]; then\n\
             answer=$(mktemp -p {tmp}); {shim} \"$@\" > $answer; touch {reached}\n\
             while [ -e {slow} ]; do sleep 0.1; done; exec cat $answer\n\
         fi\n\
         exec {shim} \"$@\"\n",
        slow = slow.display(),
        tmp = node.dir().join("tmp").display(),
        reached = reached.display(),
        shim = shim(&node).display(),
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
    fs::write(&slow, "")?;
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(|| node.run_pod(&PodSpec::new("forgotten", "doomed")).err());
        let at_most = Duration::from_secs(20);
        wait_for("the shim", at_most, || Ok(reached.exists().then_some(())))?;
        node.kill_containerd()
    })?;
    let of_living = |line: &String| line.contains(living.id());
    let doomed = node.shims_with(" -socket ")?;
    let doomed = doomed.iter().find(|line| !of_living(line));
    let doomed = doomed.context("no shim was started")?;
    node.start_containerd()?;
    fs::remove_file(&slow)?;

    wait_for("its end", Duration::from_secs(90), || {
        Ok(node.shims_with(doomed)?.is_empty().then_some(()))
    })?;
    let shims = node.shims_with(" -socket ")?;
    assert!(shims.len() == 1 && shims.iter().all(of_living), "{shims:?}");
    let socket = doomed.split("unix://").nth(1).context("no socket")?.trim();
    assert!(!node.path(socket).exists());
    living.run(&ContainerSpec::shell("exit 3"))?.wait()?;
    Ok(())
}
