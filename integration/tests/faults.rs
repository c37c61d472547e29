//! When something breaks: the container runs all the same, and nothing is left
//! behind.

use anyhow::{Context, Result};
use integration::{
    CgroupDriver, Checkpoint, ContainerSpec, Decision, Leftovers, Node, NodeOptions, PodSpec,
    Program, eventually, heart, wait_for,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn pod(name: &str) -> PodSpec {
    PodSpec::new("faults", name)
}

/// Finds a file anywhere in a checkpoint.
fn find(dir: &Path, name: &str) -> Result<PathBuf> {
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.file_name().is_some_and(|found| found == name) {
                return Ok(path);
            }
        }
    }
    anyhow::bail!("no {name} in {}", dir.display())
}

/// Breaks a checkpoint; the next pod starts cold, and nothing is left of it.
fn falls_back(break_it: impl FnOnce(&Node, &Checkpoint) -> Result<()>) -> Result<()> {
    let node = Node::start()?;
    let (first_pod, first) = node.run_heart(&pod("web-1"))?;
    let life = first.life()?;
    let checkpoint = first.take_checkpoint()?;
    first_pod.remove()?;
    break_it(&node, &checkpoint)?;

    let before = Leftovers::of(&node)?;
    let (second_pod, second) = node.run_heart(&pod("web-2"))?;
    assert_ne!(second.life()?, life);
    assert_eq!(second.beats()?[0].count, 1);
    assert!(!second.reason_for_cold()?.is_empty());
    assert_eq!(second.beats()?[0].host, "web-2");
    assert_eq!(second.exec(&["true"])?.code, 0);
    second.stop(20)?;
    assert_eq!(second.status()?.exit_code, heart::EXIT_CODE);
    second_pod.remove()?;
    node.is_as_before(&before)
}

#[test]
fn a_missing_image_file_means_a_cold_start() -> Result<()> {
    falls_back(|node, checkpoint| {
        let file = find(&node.checkpoint_images(checkpoint)?, "core-1.img")?;
        Ok(fs::remove_file(file)?)
    })
}

#[test]
fn truncated_pages_mean_a_cold_start() -> Result<()> {
    falls_back(|node, checkpoint| {
        let file = find(&node.checkpoint_images(checkpoint)?, "pages-1.img")?;
        Ok(fs::File::options().write(true).open(file)?.set_len(4096)?)
    })
}

#[test]
fn garbage_in_an_image_file_means_a_cold_start() -> Result<()> {
    falls_back(|node, checkpoint| {
        let file = find(&node.checkpoint_images(checkpoint)?, "inventory.img")?;
        Ok(fs::write(file, "this is no image\n".repeat(50))?)
    })
}

#[test]
fn images_whose_directory_is_gone_mean_a_cold_start() -> Result<()> {
    falls_back(|node, checkpoint| Ok(fs::remove_dir_all(node.checkpoint_images(checkpoint)?)?))
}

#[test]
fn a_broken_index_means_a_cold_start() -> Result<()> {
    falls_back(|node, _| {
        let index = node.path("/var/lib/reprise/index");
        fs::remove_dir_all(&index)?;
        Ok(fs::write(&index, "no directory")?)
    })
}

#[test]
fn a_broken_checkpoint_is_an_error_where_restore_is_required() -> Result<()> {
    let node = Node::start()?;
    let (first_pod, first) = node.run_heart(&pod("web-1"))?;
    let checkpoint = first.take_checkpoint()?;
    first_pod.remove()?;
    fs::remove_file(find(&node.checkpoint_images(&checkpoint)?, "core-1.img")?)?;

    let before = Leftovers::of(&node)?;
    let required = node.run_pod(&pod("web-2").restore("require"))?;
    assert!(required.run(&heart::spec()).is_err());
    required.remove()?;
    node.is_as_before(&before)
}

#[test]
fn a_pod_deleted_while_it_restores_leaves_nothing() -> Result<()> {
    let node = Node::start()?;
    let spec = Program::Python.container();
    let first_pod = node.run_pod(&pod("python-1"))?;
    let (first, ..) = first_pod.run_service(&spec)?;
    first.take_checkpoint()?;
    first_pod.remove()?;

    let before = Leftovers::of(&node)?;
    // A restore takes some 200 ms: hit it in every phase.
    for delay in [0, 5, 10, 20, 40, 80, 120, 160, 240] {
        let doomed = node.run_pod(&pod("python-2"))?;
        let container = doomed.create(&spec)?;
        std::thread::scope(|scope| {
            scope.spawn(|| container.start().ok());
            std::thread::sleep(Duration::from_millis(delay));
            // As a kubelet does it: again, until it is gone.
            wait_for("the pod's removal", Duration::from_secs(30), || {
                Ok(doomed.remove().ok())
            })
        })
        .with_context(|| format!("deleted after {delay} ms"))?;
        node.is_as_before(&before)
            .with_context(|| format!("deleted after {delay} ms"))?;
    }
    Ok(())
}

#[test]
fn a_restore_broken_off_by_a_stopping_containerd_leaves_nothing() -> Result<()> {
    // As under systemd, / is shared: what CRIU mounts aside is seen by the node.
    let mut options = NodeOptions::default();
    options.kubelet = true;
    options.cgroup_driver = CgroupDriver::Cgroupfs;
    let node = Node::start_with(&options)?;
    let spec = Program::Python.container();
    let first_pod = node.run_pod(&pod("python-1"))?;
    let (first, ..) = first_pod.run_service(&spec)?;
    first.take_checkpoint()?;
    first_pod.remove()?;

    let before = Leftovers::of(&node)?;
    for delay in [60, 80, 100, 120, 140, 160] {
        let doomed = node.run_pod(&pod("python-2"))?;
        let container = doomed.create(&spec)?;
        std::thread::scope(|scope| {
            scope.spawn(|| container.start().ok());
            std::thread::sleep(Duration::from_millis(delay));
            node.stop_containerd()
        })?;
        node.start_containerd()?;
        wait_for("the pod's removal", Duration::from_secs(30), || {
            Ok(doomed.remove().ok())
        })?;
        // It has another pid by now.
        let restarted = |line: &str| line.contains("containerd --config");
        node.is_as_before_but(&before, Duration::from_secs(10), restarted)
            .with_context(|| format!("stopped after {delay} ms"))?;
    }
    Ok(())
}

/// The pids of a pod's shim and its helpers, as the node sees them.
fn shims_of(node: &Node, pod: &str) -> Result<Vec<String>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir(node.path("/proc"))? {
        let entry = entry?;
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("containerd-shim") && line.contains(pod) {
            pids.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(pids)
}

fn kill_shims_of(node: &Node, pod: &str) -> Result<()> {
    let shims = shims_of(node, pod)?;
    assert!(!shims.is_empty(), "no shim found for {pod}");
    let kill = format!("kill -KILL {}", shims.join(" "));
    node.run("sh", ["-c", &kill])?.ok().map(drop)
}

#[test]
fn a_pod_whose_shim_was_killed_is_removed_without_a_trace() -> Result<()> {
    let node = Node::start()?;
    let before = Leftovers::of(&node)?;
    let (cold_pod, cold) = node.run_heart(&pod("web-1"))?;
    cold.next_beat()?;
    kill_shims_of(&node, cold_pod.id())?;
    wait_for("the pod's removal", Duration::from_secs(30), || {
        Ok(cold_pod.remove().ok())
    })?;
    node.is_as_before(&before)
}

#[test]
fn a_restored_pod_whose_shim_was_killed_is_removed_without_a_trace() -> Result<()> {
    let node = Node::start()?;
    let (first_pod, first) = node.run_heart(&pod("web-1"))?;
    first.take_checkpoint()?;
    first_pod.remove()?;

    let before = Leftovers::of(&node)?;
    let (restored_pod, restored) = node.run_heart(&pod("web-2"))?;
    assert!(matches!(restored.decision()?, Decision::Restore { .. }));
    kill_shims_of(&node, restored_pod.id())?;
    wait_for("the pod's removal", Duration::from_secs(30), || {
        Ok(restored_pod.remove().ok())
    })?;
    node.is_as_before(&before)?;

    // The node is as good as new.
    let (_pod, again) = node.run_heart(&pod("web-3"))?;
    assert!(matches!(again.decision()?, Decision::Restore { .. }));
    Ok(())
}

#[test]
fn a_shim_killed_while_it_restores_leaves_nothing() -> Result<()> {
    let node = Node::start()?;
    let spec = Program::Python.container();
    let first_pod = node.run_pod(&pod("python-1"))?;
    let (first, ..) = first_pod.run_service(&spec)?;
    first.take_checkpoint()?;
    first_pod.remove()?;

    let before = Leftovers::of(&node)?;
    for delay in [10, 40, 100] {
        let doomed = node.run_pod(&pod("python-2"))?;
        let container = doomed.create(&spec)?;
        std::thread::scope(|scope| {
            scope.spawn(|| container.start().ok());
            std::thread::sleep(Duration::from_millis(delay));
            kill_shims_of(&node, doomed.id())
        })?;
        wait_for("the pod's removal", Duration::from_secs(30), || {
            Ok(doomed.remove().ok())
        })?;
        node.is_as_before(&before)
            .with_context(|| format!("killed after {delay} ms"))?;
    }
    Ok(())
}

#[test]
fn restored_pods_live_through_a_restart_of_containerd() -> Result<()> {
    let node = Node::start()?;
    let (_first_pod, first) = node.run_heart(&pod("web-1"))?;
    let first_checkpoint = first.take_checkpoint()?;
    let (second_pod, second) = node.run_heart(&pod("web-2"))?;
    let (_third_pod, third) = node.run_heart(&pod("web-3"))?;
    let life = first.life()?;
    let pid = second.pid()?;

    node.stop_containerd()?;
    assert!(node.path(format!("/proc/{pid}")).exists());
    node.start_containerd()?;

    assert!(second.is_running()?);
    assert_eq!(second.pid()?, pid);
    assert_eq!(second.life()?, life);
    assert_eq!(second.shell("hostname")?, "web-2\n");
    second.stop(20)?;
    assert_eq!(second.status()?.exit_code, heart::EXIT_CODE);
    second_pod.remove()?;

    // Checkpoint and restore go on.
    let checkpoint = third.take_checkpoint()?;
    assert_ne!(checkpoint.id, first_checkpoint.id);
    let (_fourth_pod, fourth) = node.run_heart(&pod("web-4"))?;
    assert_eq!(fourth.life()?, life);
    Ok(())
}

#[test]
fn an_exit_while_containerd_is_away_is_told_later() -> Result<()> {
    let node = Node::start()?;
    let (_first_pod, first) = node.run_heart(&pod("web-1"))?;
    first.take_checkpoint()?;
    let (_second_pod, second) = node.run_heart(&pod("web-2"))?;
    assert!(matches!(second.decision()?, Decision::Restore { .. }));
    let pid = second.pid()?;

    node.stop_containerd()?;
    node.run("sh", ["-c", &format!("kill -TERM {pid}")])?.ok()?;
    let process = node.path(format!("/proc/{pid}"));
    eventually("the container's end", || !process.exists())?;
    node.start_containerd()?;
    assert_eq!(second.wait()?, heart::EXIT_CODE);
    Ok(())
}

#[test]
fn one_pods_trouble_is_not_anothers() -> Result<()> {
    let node = Node::start()?;
    let (_first_pod, first) = node.run_heart(&pod("web-1"))?;
    let (second_pod, _second) = node.run_heart(&pod("web-2"))?;
    kill_shims_of(&node, second_pod.id())?;
    let third_pod = node.run_pod(&pod("web-3"))?;
    let third = third_pod.run(&ContainerSpec::shell("exit 4"))?;
    assert_eq!(third.wait()?, 4);
    first.next_beat()?;
    Ok(())
}
