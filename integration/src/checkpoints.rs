//! What Reprise says about checkpoints: the operators' list, and the log line
//! with which each start is decided.

use crate::node::Node;
use crate::pod::Container;
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// A line of `reprise list --json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Checkpoint {
    /// Its id.
    pub id: String,
    /// The container that it was taken of.
    pub container: String,
    /// That container's pod namespace.
    #[serde(rename = "pod_namespace")]
    pub namespace: String,
    /// That container's image.
    pub image: String,
    /// How big it is.
    pub bytes: u64,
    /// How long its container stood still.
    pub frozen_ms: f64,
}

impl Checkpoint {
    /// How long its container stood still.
    #[must_use]
    pub fn stood_still(&self) -> Duration {
        Duration::from_secs_f64(self.frozen_ms / 1000.0)
    }
}

/// How a container was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// From its image.
    Cold {
        /// Why not from a checkpoint.
        reason: String,
    },
    /// From a checkpoint.
    Restore {
        /// Which one.
        checkpoint: String,
    },
}

impl Node {
    /// The checkpoints on this node that containers can be restored from.
    ///
    /// # Errors
    /// When `reprise list` fails.
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let rows: Vec<Value> = self.run("reprise", ["list", "--json"])?.json()?;
        rows.into_iter()
            .filter(|row| row["state"] == "ready" || row["state"] == "settling")
            .map(|row| Ok(serde_json::from_value(row)?))
            .collect()
    }

    /// The node's record of a checkpoint.
    #[must_use]
    pub fn checkpoint_dir(&self, checkpoint: &Checkpoint) -> PathBuf {
        self.path("/var/lib/reprise/checkpoints")
            .join(&checkpoint.id)
    }

    /// CRIU's images of a checkpoint, in a snapshot of containerd's.
    ///
    /// # Errors
    /// When the record does not lead to them.
    pub fn checkpoint_images(&self, checkpoint: &Checkpoint) -> Result<PathBuf> {
        // The link counts in the node, whose root is not ours.
        let link = self.checkpoint_dir(checkpoint).join("images");
        Ok(self.path(std::fs::read_link(link)?))
    }

    /// How a container was started, as the shim has logged it.
    ///
    /// # Errors
    /// When there is no such log line.
    pub fn decision_of(&self, id: &str) -> Result<Decision> {
        wait_for("the shim's decision in the log", SOON, || {
            for line in self.log()?.lines() {
                if line.contains("container start decided") && line.contains(id) {
                    return decision_in(line).map(Some);
                }
            }
            Ok(None)
        })
    }
}

impl Container<'_> {
    /// Takes a checkpoint with `crictl checkpoint` and waits until other
    /// containers can be started from it.
    ///
    /// # Errors
    /// When it fails.
    pub fn take_checkpoint(&self) -> Result<Checkpoint> {
        self.new_checkpoint(|| self.checkpoint().map(drop))
    }

    /// Does what makes a checkpoint of this container and waits for it.
    ///
    /// # Errors
    /// When it does not come.
    pub fn new_checkpoint(&self, take: impl FnOnce() -> Result<()>) -> Result<Checkpoint> {
        let known = self.node().checkpoints()?;
        let is_known = |id: &str| known.iter().any(|old| old.id == id);
        take()?;
        wait_for("the checkpoint in `reprise list`", SOON, || {
            let now = self.node().checkpoints()?;
            Ok(now
                .into_iter()
                .find(|new| new.container == self.id() && !is_known(&new.id)))
        })
    }

    /// How it was started, as the shim has logged it.
    ///
    /// # Errors
    /// When there is no such log line.
    pub fn decision(&self) -> Result<Decision> {
        self.node().decision_of(self.id())
    }

    /// How long it took from the shim's Create to Start's answer, as the shim has
    /// logged it at debug level.
    ///
    /// # Errors
    /// When there is no such log line.
    pub fn create_to_start(&self) -> Result<Duration> {
        self.logged_time("create_to_start_us")
    }

    /// How long it took to decide how it is started, as the shim has logged it.
    ///
    /// # Errors
    /// When there is no such log line.
    pub fn decided_in(&self) -> Result<Duration> {
        self.logged_time("decide_us")
    }

    fn logged_time(&self, field: &str) -> Result<Duration> {
        wait_for("the shim's time in the log", SOON, || {
            for line in self.node().log()?.lines() {
                if line.contains(field) && line.contains(self.id()) {
                    let us = fields_of(line).remove(field);
                    let us = us.context("a time")?.parse()?;
                    return Ok(Some(Duration::from_micros(us)));
                }
            }
            Ok(None)
        })
    }

    /// The fields by which it missed the nearest checkpoint.
    ///
    /// # Errors
    /// When `reprise explain` fails.
    pub fn differs_in(&self) -> Result<Vec<String>> {
        let words = ["explain", "--json", self.id()];
        let said: Vec<Value> = self.node().run("reprise", words)?.json()?;
        let [said] = said.as_slice() else {
            bail!("not one: {said:?}");
        };
        Ok(serde_json::from_value(said["nearest"]["fields"].clone())?)
    }

    /// Why it was started cold.
    ///
    /// # Errors
    /// When it was restored.
    pub fn reason_for_cold(&self) -> Result<String> {
        match self.decision()? {
            Decision::Cold { reason } => Ok(reason),
            Decision::Restore { checkpoint } => bail!("it was restored from {checkpoint}"),
        }
    }
}

fn decision_in(line: &str) -> Result<Decision> {
    let mut fields = fields_of(line);
    let mut take = |name: &str| {
        fields
            .remove(name)
            .with_context(|| format!("{name} in {line}"))
    };
    match take("plan")?.as_str() {
        "restore" => Ok(Decision::Restore {
            checkpoint: take("checkpoint")?,
        }),
        "cold" => Ok(Decision::Cold {
            reason: take("reason")?,
        }),
        other => bail!("unknown plan {other}"),
    }
}

/// The `key=value` and `key="some value"` pairs of a log line.
pub(crate) fn fields_of(line: &str) -> HashMap<String, String> {
    let mut fields = HashMap::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('=') {
        let key = before.rsplit(' ').next().unwrap_or_default();
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => until_quote(quoted),
            None => after.split_once(' ').unwrap_or((after, "")),
        };
        fields.insert(key.to_owned(), value.replace("\\\"", "\""));
        rest = left;
    }
    fields
}

/// Splits at the first quote that is not escaped.
fn until_quote(text: &str) -> (&str, &str) {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return (&text[..at], &text[at + 1..]),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::{Decision, decision_in};

    #[test]
    fn decisions_are_read_from_the_log() {
        let restore = r#"time="now" level=info msg="container start decided" container=c pod=a/b plan=restore checkpoint=k"#;
        let checkpoint = "k".to_owned();
        assert_eq!(
            decision_in(restore).unwrap(),
            Decision::Restore { checkpoint }
        );

        let cold =
            r#"msg="container start decided" plan=cold reason="args=\"x\" differ" container=c"#;
        let reason = r#"args="x" differ"#.to_owned();
        assert_eq!(decision_in(cold).unwrap(), Decision::Cold { reason });
    }
}
