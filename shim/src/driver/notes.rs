//! What is noted on the node of a container in the making: for the CLI, for `delete` after
//! a crash, and for containerd's garbage collector.

use std::path::Path;
use std::sync::Arc;

use reprise_runtime::checkpoint::Origin;
use reprise_runtime::error::Doing;
use reprise_runtime::fingerprint::{Hashes, Shown};
use reprise_runtime::publish;
use reprise_runtime::start::{Decision, Start};
use reprise_runtime::{Error, Result};
use tokio::task::JoinHandle;

use super::making::Making;
use super::{Mark, blocking};
use crate::runtime::Identity;
use crate::telemetry;

/// What it means when a restored container cannot hold its snapshots.
const NOT_HELD: &str = "removing the checkpoint image would take files from this container";

/// What is noted of a container besides the decision.
pub(super) type Noted = (Origin, Hashes, Shown);

impl Making {
    /// So that `delete` finds what is left if this shim is killed now.
    pub(super) fn mark(&self) -> Option<Mark> {
        let (state, id) = (&self.context.state_root, &self.request.id);
        let marked = Mark::set(state, id, &self.context.address);
        let noted = |error: &Error| {
            telemetry::log_failure(id, "a shim that is killed now may leave files", error);
        };
        marked.inspect_err(noted).ok()
    }

    /// For the CLI, which finds us by container, and for `delete` after a crash.
    pub(super) async fn write_run_files(&self, pid: i32) {
        let dir = self.context.state_root.join(&self.request.id);
        let address = self.context.address.clone();
        let folder = self.request.folder.clone();
        let written = blocking(move || {
            write_run_file(&dir, "address", &address)?;
            write_run_file(&dir, "pid", &pid.to_string())?;
            folder.map_or(Ok(()), |folder| folder.make(pid))
        });
        if let Err(error) = written.await {
            telemetry::log_failure(&self.request.id, "cannot note the address", &error);
        }
    }

    /// Works out what will be noted, beside the worker's work.
    pub(super) fn begin_note(&self, who: Identity) -> JoinHandle<Noted> {
        let runtime = Arc::clone(&self.context.runtime);
        let request = Arc::clone(&self.request);
        tokio::task::spawn_blocking(move || {
            let likeness = match who.likeness {
                Some(likeness) => Some(likeness),
                // The container starts all the same, and the plan has said why.
                None => runtime.likeness(&request).unwrap_or_default(),
            };
            let (fields, shown) = likeness
                .map(|likeness| (likeness.hashes(), likeness.shown()))
                .unwrap_or_default();
            (who.origin, fields, shown)
        })
    }

    /// Notes how the container has started, for `reprise explain`. Its directory is
    /// there by now.
    pub(super) async fn write_note(&self, note: Option<JoinHandle<Noted>>, decision: Decision) {
        let Some(Ok((origin, fields, shown))) = (match note {
            Some(note) => Some(note.await),
            None => None,
        }) else {
            return;
        };
        let dir = self.context.state_root.join(&self.request.id);
        let start = Start::new(decision, origin, fields, shown);
        if let Err(error) = blocking(move || start.write(&dir)).await {
            telemetry::log_failure(&self.request.id, "cannot note the start", &error);
        }
    }

    /// Has containerd keep what the container reads of its checkpoint, should the
    /// image be removed. Nobody waits for it. Until it is done, whoever removes the
    /// image must be faster than the restore was.
    pub(super) fn hold_beside(&self, checkpoint: String) {
        let context = Arc::clone(&self.context);
        let container = self.request.id.clone();
        tokio::spawn(async move {
            let (address, namespace) = (context.containerd.clone(), context.namespace.clone());
            let id = container.clone();
            let started =
                blocking(move || publish::start(&address, "hold", &[&namespace, &id, &checkpoint]));
            let ended = match started.await {
                Ok(pid) => context.reaper.exit_of(pid).await,
                Err(error) => return telemetry::log_failure(&container, NOT_HELD, &error),
            };
            if ended.is_ok_and(|exit| exit.status != 0) {
                log::warn!(container = container.as_str(); "{NOT_HELD}; `reprise hold` says why");
            }
        });
    }

    pub(super) async fn note_origin(&self, checkpoint: &str) {
        let dir = self.context.state_root.join(&self.request.id);
        let checkpoint = checkpoint.to_owned();
        let written = blocking(move || write_run_file(&dir, "restored-from", &checkpoint));
        if let Err(error) = written.await {
            telemetry::log_failure(&self.request.id, "cannot note the checkpoint", &error);
        }
    }
}

fn write_run_file(dir: &Path, name: &str, text: &str) -> Result<()> {
    std::fs::create_dir_all(dir).doing(format!("Cannot make {}", dir.display()))?;
    let path = dir.join(name);
    std::fs::write(&path, text).doing(format!("Cannot write {}", path.display()))
}
