//! Real services, and clients that are connected while a checkpoint is taken.

use anyhow::{Context, Result};
use integration::{Decision, Node, Pod, PodSpec, Program};
use std::time::Duration;

fn pod(name: &str) -> PodSpec {
    PodSpec::new("services", name)
}

/// The second pod answers as the first one, in its own name.
fn is_restored(program: Program) -> Result<()> {
    let node = Node::start()?;
    let spec = program.container();
    let first_pod = node.run_pod(&pod("first"))?;
    let (first, original, _) = first_pod.run_service(&spec)?;
    let checkpoint = first.take_checkpoint()?.id;
    assert_eq!(first_pod.get()?.boot, original.boot, "it still answers");

    for name in ["second", "third"] {
        let next_pod = node.run_pod(&pod(name))?;
        let (next, answer, _) = next_pod.run_service(&spec)?;
        let checkpoint = checkpoint.clone();
        assert_eq!(next.decision()?, Decision::Restore { checkpoint });
        assert_eq!(answer.boot, original.boot);
        assert_eq!(answer.hostname, name);
        assert_eq!(answer.count, original.count + 1);
        assert_ne!(next_pod.ip(), first_pod.ip());
    }
    Ok(())
}

#[test]
fn python_is_restored() -> Result<()> {
    is_restored(Program::Python)
}

#[test]
fn java_is_restored() -> Result<()> {
    is_restored(Program::Java)
}

/// Takes a checkpoint while a client reads a stream. Returns the longest time
/// for which the client heard nothing.
fn standstill(pod: &Pod<'_>, checkpoint: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let (chunks, interval) = (100, Duration::from_millis(20));
    let stream = pod.connect()?;
    std::thread::scope(|scope| {
        let client = scope.spawn(|| stream.listen(chunks, interval));
        std::thread::sleep(interval * 10);
        checkpoint()?;
        let heard = client.join().ok().context("the client panicked")??;
        assert_eq!(heard.chunks, chunks, "the connection is kept to its end");
        Ok(heard.longest_silence)
    })
}

#[test]
fn our_own_checkpoint_stops_a_service_for_the_dump_alone_and_keeps_its_clients() -> Result<()> {
    let node = Node::start()?;
    let spec = Program::Python.container();
    let first_pod = node.run_pod(&pod("first"))?;
    let (first, original, _) = first_pod.run_service(&spec)?;

    let silence = standstill(&first_pod, || {
        first
            .new_checkpoint(|| node.reprise(["checkpoint", first.id()]).map(drop))
            .map(drop)
    })?;
    // Not for the copying and storing around it, nor for containerd's archive.
    let dumped = node.checkpoints()?.remove(0).stood_still();
    assert!(
        silence <= dumped + Duration::from_millis(300),
        "silent for {silence:?}, dumped in {dumped:?}"
    );
    assert_eq!(first_pod.get()?.boot, original.boot);

    // What was dumped with a connection is restored without it.
    let second_pod = node.run_pod(&pod("second"))?;
    let (_second, answer, _) = second_pod.run_service(&spec)?;
    assert_eq!(answer.boot, original.boot);
    Ok(())
}

#[test]
fn an_idle_connection_outlives_the_checkpoint() -> Result<()> {
    let node = Node::start()?;
    let first_pod = node.run_pod(&pod("first"))?;
    let (first, original, _) = first_pod.run_service(&Program::Python.container())?;
    let idle = first_pod.connect()?;
    first.take_checkpoint()?;
    assert_eq!(idle.get()?.boot, original.boot);
    Ok(())
}
