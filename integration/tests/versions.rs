//! The same on the oldest and on the newest containerd that we support.

use anyhow::Result;
use integration::{Decision, Leftovers, Node, NodeOptions, PodSpec, heart};

/// Cold, checkpoint, restore, exec, delete.
fn works_on(containerd: &str) -> Result<()> {
    let node = Node::start_with(&NodeOptions::with_containerd(containerd))?;
    let version = node.ctr(["version"])?;
    assert!(version.contains(&format!("v{containerd}.")), "{version}");
    let before = Leftovers::of(&node)?;

    let (first_pod, first) = node.run_heart(&PodSpec::new("versions", "web-1"))?;
    assert_eq!(first.exec(&["/bin/sh", "-c", "exit 3"])?.code, 3);
    let checkpoint = first.take_checkpoint()?.id;
    first.next_beat()?;

    let (second_pod, second) = node.run_heart(&PodSpec::new("versions", "web-2"))?;
    assert_eq!(second.decision()?, Decision::Restore { checkpoint });
    assert_eq!(second.life()?, first.life()?);
    assert_eq!(second.shell("hostname")?, "web-2\n");
    second.stop(20)?;
    assert_eq!(second.status()?.exit_code, heart::EXIT_CODE);

    first_pod.remove()?;
    second_pod.remove()?;
    // The checkpoint stays, and nothing else does.
    let left = Leftovers::of(&node)?.since(&before);
    let others: Vec<&str> = left
        .lines()
        .filter(|line| !line.starts_with("file /var/lib/reprise"))
        .collect();
    assert!(others.is_empty(), "{left}");
    Ok(())
}

#[test]
fn containerd_2_2_with_the_old_bootstrap_protocol() -> Result<()> {
    works_on("2.2")
}

#[test]
fn containerd_2_3() -> Result<()> {
    works_on("2.3")
}

#[test]
fn containerd_2_4() -> Result<()> {
    works_on("2.4")
}
