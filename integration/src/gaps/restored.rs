//! The same looks at a container that was restored from a checkpoint, and at
//! runc's own.

use super::case::{Bundle, Exec, Program, Restored};
use super::place::Place;
use super::run::Run;
use super::stand::Stand;
use crate::Decision;
use crate::Runtime;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// What was seen of both, and how ours was started.
#[derive(Debug)]
pub(super) struct Compared {
    /// runc's, cold.
    pub(super) runc: Value,
    /// Ours.
    pub(super) reprise: Value,
    /// Why it was not restored, when that is by design.
    pub(super) why: Option<String>,
}

/// Runs a case on a container that is restored, or that by design is not.
///
/// # Errors
/// When it was not restored, or restored against the design, or anything fails
/// that is no part of the case.
pub(super) fn compare(stand: &Stand, bundle: &Bundle, tag: &str) -> Result<Compared> {
    let runc = Place::new(stand, Runtime::Runc)?;
    let runc = waiting(&runc, bundle, tag)?.looked_at(bundle, &inside(bundle))?;
    if runc.get("create").or(runc.get("start")).is_some() {
        let cold = Place::new(stand, Runtime::Reprise)?;
        return Ok(Compared {
            runc,
            reprise: waiting(&cold, bundle, tag)?.looked_at(bundle, &inside(bundle))?,
            why: Some("refused, so there is nothing to restore".to_owned()),
        });
    }

    let original = Place::new(stand, Runtime::Reprise)?;
    let run = waiting(&original, bundle, tag)?;
    let taken = run.while_running(bundle, || {
        let args = [
            "checkpoint",
            "--json",
            "--namespace",
            "k8s.io",
            original.id(),
        ];
        stand.node().run("reprise", args)
    })?;
    if let Restored::NoCheckpoint(words) = bundle.restored {
        let said = format!("{}{}", taken.stderr, taken.stdout);
        if taken.code == 0 || !said.contains(words) {
            bail!("its checkpoint should be refused with {words:?}: {taken:?}");
        }
        let said = original.plain(said.trim());
        let reprise = json!({ "checkpoint": "refused", "said": said });
        return Ok(Compared {
            runc,
            reprise,
            why: Some(said),
        });
    }
    let listed: Value = taken.json().context("its checkpoint")?;
    let checkpoint = listed[0]["id"].as_str().context("no checkpoint id")?;

    let second = Place::new(stand, Runtime::Reprise)?;
    let seen = waiting(&second, bundle, tag)?.looked_at(bundle, &inside(bundle))?;
    let decision = stand.node().decision_of(second.id())?;
    stand.node().reprise(["rm", checkpoint])?;
    let why = match (decision, &bundle.restored) {
        (Decision::Restore { checkpoint: from }, Restored::Yes) if from == checkpoint => None,
        (Decision::Cold { reason }, Restored::ColdBecause(words)) if reason.contains(words) => {
            Some(format!("starts cold by design: {reason}"))
        }
        (decision, expected) => bail!("expected {expected:?} of {checkpoint}, got {decision:?}"),
    };
    Ok(Compared {
        runc,
        reprise: seen,
        why,
    })
}

/// A container of the case that waits, and whose checkpoints no other case finds.
fn waiting<'p>(place: &'p Place<'p>, bundle: &Bundle, tag: &str) -> Result<Run<'p>> {
    let mut run = Run::new(place, bundle, true)?;
    run.spec().env(&format!("GAPS_CASE={tag}"));
    Ok(run)
}

/// What the case's own process would have done, done by another.
fn inside(bundle: &Bundle) -> Vec<Exec> {
    match bundle.program {
        Program::Script(script) => vec![Exec {
            name: "inside",
            script,
            change: None,
        }],
        Program::Waits | Program::Own => Vec::new(),
    }
}
