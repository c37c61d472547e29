//! A container is made: cold, or from a checkpoint. The one place where a restore that
//! fails turns into a cold start.

use std::sync::Arc;
use std::time::Instant;

use reprise_runtime::cgroup;
use reprise_runtime::fingerprint;
use reprise_runtime::plan::Why;
use reprise_runtime::start::Decision;
use reprise_runtime::worker::{self, Remove, Restore, Worker};
use reprise_runtime::{Error, ErrorKind, Result};

use super::abort::{Abort, aborted};
use super::{Context, Facts, Held, blocking};
use crate::request::CreateRequest;
use crate::runtime::{Planned, Way};
use crate::stdio::{Copying, Opened};
use crate::telemetry;

/// A container that exists, or one that will at its start.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) pid: i32,
    pub(super) held: Held,
    pub(super) copying: Option<Copying>,
    pub(super) facts: Facts,
}

/// A container in the making, beside its task.
pub(super) struct Making {
    pub(super) context: Arc<Context>,
    pub(super) request: Arc<CreateRequest>,
    pub(super) abort: Arc<Abort>,
}

impl Making {
    pub(super) async fn create(&self) -> Result<Made> {
        // Nobody waits for these: they only make later steps cheaper.
        drop(tokio::task::spawn_blocking(cgroup::prewarm));
        drop(tokio::task::spawn_blocking(fingerprint::prewarm));
        let _mark = self.mark();
        if self.request.checkpoint.is_some() {
            return self.create_from_checkpoint().await;
        }
        // A worker takes a moment to come up, and so do the spec and the store.
        let (planned, worker) = tokio::join!(self.plan(), self.spawn());
        let mut planned = planned?;
        telemetry::log_decision(&self.request.id, &planned);
        let note = planned.identity.take().map(|who| self.begin_note(who));
        let opened = self.open_stdio().await?;
        let (facts, checkpoint) = match planned.way.clone() {
            Way::Cold { why } if planned.required => {
                return Err(Error::new(
                    ErrorKind::FailedPrecondition,
                    format!("reprise.dev/restore is \"require\", but no checkpoint fits: {why}"),
                ));
            }
            Way::Cold { why } => (facts(&planned, &[]), Err(why)),
            Way::Restore { checkpoint, from } => {
                (facts(&planned, &from.layers), Ok((checkpoint, from)))
            }
        };
        let (checkpoint, from) = match checkpoint {
            Ok(checkpoint) => checkpoint,
            Err(why) => {
                let made = self.attempt(worker?, None, opened, facts).await;
                let made = made.map_err(|(e, _)| e)?;
                self.write_note(note, cold(&why)).await;
                return Ok(made);
            }
        };
        match self
            .attempt(worker?, Some(from), opened, facts.clone())
            .await
        {
            Ok(made) => {
                self.note_origin(&checkpoint).await;
                self.hold_beside(checkpoint.clone());
                self.write_note(note, Decision::Restore { checkpoint })
                    .await;
                Ok(made)
            }
            Err((error, None)) => Err(error),
            Err((error, _)) if self.abort.is_requested() => Err(error),
            Err((error, _)) if planned.required => {
                telemetry::log_failure(&self.request.id, "restore failed", &error);
                Err(error.with_kind(ErrorKind::FailedPrecondition))
            }
            Err((error, Some(opened))) => {
                telemetry::log_failure(
                    &self.request.id,
                    "restore failed, the container starts cold",
                    &error,
                );
                let facts = Facts {
                    layers: Vec::new(),
                    ..facts
                };
                let worker = self.spawn().await?;
                let made = self.attempt(worker, None, opened, facts).await;
                let made = made.map_err(|(e, _)| e)?;
                let why = Why::RestoreFailed(error.message);
                self.write_note(note, cold(&why)).await;
                Ok(made)
            }
        }
    }

    /// containerd changes the root file system between Create and Start, so it
    /// is mounted now and the rest waits.
    async fn create_from_checkpoint(&self) -> Result<Made> {
        let planned = self.plan().await?;
        let request = Arc::clone(&self.request);
        blocking(move || worker::mount_rootfs(&request.bundle, &request.rootfs)).await?;
        Ok(Made {
            pid: 0,
            held: Held::Checkpoint,
            copying: None,
            facts: facts(&planned, &[]),
        })
    }

    pub(super) async fn restore_and_start(&self) -> Result<Made> {
        let (planned, worker) = tokio::join!(self.plan(), self.spawn());
        let (planned, worker) = (planned?, worker?);
        let opened = self.open_stdio().await?;
        let images = self.request.checkpoint.clone().unwrap_or_default();
        telemetry::log_given(&self.request.id, &planned, &images);
        let from = Restore {
            images,
            layers: Vec::new(),
        };
        let facts = facts(&planned, &[]);
        let made = self.attempt(worker, Some(from), opened, facts).await;
        let mut made = made.map_err(|(error, _)| error)?;
        if let Held::Worker(worker) = std::mem::replace(&mut made.held, Held::Checkpoint) {
            blocking(move || worker.start()).await?;
        }
        Ok(made)
    }

    /// Makes the container once. Gives the opened stdio back on failure.
    async fn attempt(
        &self,
        mut worker: Worker,
        restore: Option<Restore>,
        opened: Opened,
        facts: Facts,
    ) -> std::result::Result<Made, (Error, Option<Opened>)> {
        let began = Instant::now();
        if let Err(error) = self.abort.watch(worker.pid()) {
            return Err((error, Some(opened)));
        }
        let (theirs, ours) = match opened.pipes(self.request.io_owner) {
            Ok(pipes) => pipes,
            Err(error) => return Err((error, Some(opened))),
        };
        let create = self.command(restore);
        let restored = create.restore.is_some();
        let prepared = blocking(move || {
            let prepared = worker.prepare(create, theirs);
            Ok((worker, prepared))
        });
        let (worker, prepared) = match prepared.await {
            Ok((worker, Ok(prepared))) => (worker, prepared),
            Ok((worker, Err(error))) => {
                self.clean_up(worker, &error).await;
                let error = if self.abort.is_requested() {
                    aborted()
                } else {
                    error
                };
                return Err((error, Some(opened)));
            }
            Err(error) => return Err((error, Some(opened))),
        };
        telemetry::log_prepared(&self.request.id, restored, began, &prepared.timings);
        let pid = prepared.pid;
        // The process is held still: nothing is written before the copies run. A
        // failure here drops the worker, which undoes all.
        let copying = match opened.copy(ours, prepared.console) {
            Ok(copying) => copying,
            Err(error) => {
                log::error!(container = self.request.id.as_str(), error = error.message.as_str(); "cannot copy output");
                return Err((error, None));
            }
        };
        self.write_run_files(pid).await;
        Ok(Made {
            pid,
            held: Held::Worker(worker),
            copying: Some(copying),
            facts,
        })
    }

    /// A worker that answered has undone everything. One that died has not.
    async fn clean_up(&self, worker: Worker, error: &Error) {
        // Dropping may wait for the process.
        drop(tokio::task::spawn_blocking(move || drop(worker)).await);
        if error.kind != ErrorKind::Unavailable && !self.abort.is_requested() {
            return;
        }
        let runtime = Arc::clone(&self.context.runtime);
        let remove = remove_of(&self.context, &self.request);
        if let Err(error) = blocking(move || runtime.spawn()?.remove(remove)).await {
            telemetry::log_failure(&self.request.id, "clean-up failed", &error);
        }
    }

    async fn plan(&self) -> Result<Planned> {
        let runtime = Arc::clone(&self.context.runtime);
        let request = Arc::clone(&self.request);
        let containerd = self.context.containerd.clone();
        blocking(move || runtime.plan(&request, &containerd)).await
    }

    async fn spawn(&self) -> Result<Worker> {
        let runtime = Arc::clone(&self.context.runtime);
        blocking(move || runtime.spawn()).await
    }

    async fn open_stdio(&self) -> Result<Opened> {
        let Context {
            reaper, namespace, ..
        } = &*self.context;
        self.request
            .stdio
            .open(reaper, namespace, &self.request.id)
            .await
    }

    fn command(&self, restore: Option<Restore>) -> worker::Create {
        let request = &self.request;
        // With a given checkpoint the rootfs has been mounted at Create.
        let mounted = request.checkpoint.is_some();
        worker::Create {
            namespace: request.namespace.clone(),
            id: request.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: if mounted {
                Vec::new()
            } else {
                request.rootfs.clone()
            },
            terminal: request.stdio.terminal,
            state_root: self.context.state_root.clone(),
            restore,
            criu: self.context.runtime.criu(),
            no_pivot_root: request.no_pivot_root,
        }
    }
}

fn cold(why: &Why) -> Decision {
    Decision::Cold {
        why: why.label().to_owned(),
        reason: why.to_string(),
    }
}

fn facts(planned: &Planned, layers: &[std::path::PathBuf]) -> Facts {
    Facts {
        group: Arc::clone(&planned.group),
        private_pids: planned.private_pids,
        layers: layers.to_vec(),
    }
}

/// The removal of a container.
pub(super) fn remove_of(context: &Context, request: &CreateRequest) -> Remove {
    Remove {
        namespace: request.namespace.clone(),
        id: request.id.clone(),
        bundle: request.bundle.clone(),
        state_root: context.state_root.clone(),
        criu_work: context.runtime.criu().work_root,
    }
}
