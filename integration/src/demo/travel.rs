//! A checkpoint of one node starts the first pod of its kind on another one, by way of a
//! registry.

use super::progress::{measured, step};
use crate::measure::millis;
use crate::node::{Node, NodeOptions};
use crate::pod::PodSpec;
use crate::programs::Program;
use crate::registry::Registry;
use anyhow::{Context, Result};
use serde::Serialize;

/// The label by which a node trusts who made an image.
const TRUSTED: &str = "reprise.dev/trusted=true";

/// How it went.
#[derive(Clone, Debug, Serialize)]
pub struct Travel {
    /// Which program.
    pub program: String,
    /// Milliseconds from CreateContainer to the other node's first answer.
    pub first_ms: f64,
    /// Whether the other node's first pod has the life of the first node's.
    pub restored: bool,
}

/// Pushes the first node's checkpoint of a program, and starts the program's first pod on
/// a second node.
pub(super) fn show(here: &Node, program: Program, containerd: &str) -> Result<Travel> {
    let name = program.name();
    let spec = program.container();
    let original = {
        let pod = here.run_pod(&PodSpec::new("demo", &format!("{name}-before")))?;
        pod.run_service(&spec)?.1
    };
    let known = here.checkpoints()?;
    let checkpoint = known.iter().find(|one| one.image == program.image());
    let id = checkpoint.context("a checkpoint")?.id.clone();
    let storage = here.dir().join("registry");
    let image = Registry::image(&format!("checkpoints/{name}:1"));
    step("node A: reprise push, to docker-registry", || {
        let _registry = Registry::serve(here, &storage)?;
        here.reprise(["push", &id, &image])
    })?;
    let there = step("starting node B, with a containerd of its own", || {
        Node::start_with(&NodeOptions::with_containerd(containerd))
    })?;
    step("node B: ctr images pull", || {
        let _registry = Registry::serve(&there, &storage)?;
        there.ctr(["images", "pull", "--plain-http", "--label", TRUSTED, &image])
    })?;
    let first = PodSpec::new("demo", &format!("{name}-on-b"));
    let (answer, took) = measured(
        &format!("node B: its first pod of {name}"),
        || {
            let pod = there.run_pod(&first)?;
            let (_, answer, took) = pod.run_service(&spec)?;
            Ok((answer, took))
        },
        |(answer, took)| {
            format!(
                "{:.0} ms   {} boot {} request {}",
                millis(*took),
                answer.hostname,
                answer.boot.get(..8).unwrap_or(&answer.boot),
                answer.count
            )
        },
    )?;
    Ok(Travel {
        program: name.to_owned(),
        first_ms: millis(took),
        restored: answer.boot == original.boot,
    })
}
