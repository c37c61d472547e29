//! Create and Start: decide, make, hold, let go. The one place where a restore
//! that fails turns into a cold start.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use libc::SIGKILL;
use reprise_runtime::cgroup;
use reprise_runtime::checkpoint::Origin;
use reprise_runtime::error::Doing;
use reprise_runtime::fingerprint::{self, Hashes, Shown};
use reprise_runtime::plan::Why;
use reprise_runtime::publish;
use reprise_runtime::start::{Decision, Start};
use reprise_runtime::worker::{self, Remove, Restore, Worker};
use reprise_runtime::{Error, ErrorKind, Result};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Container, Context, Done, Facts, Flow, Held, Mark, Message, Reply, blocking, respond};
use crate::events::{Created, Event};
use crate::reaper::{Exit, Reaper};
use crate::request::CreateRequest;
use crate::runtime::{Identity, Planned, Way};
use crate::stdio::{Copying, Opened};
use crate::task::AfterStart;
use crate::telemetry;

/// What it means when a restored container cannot hold its snapshots.
const NOT_HELD: &str = "removing the checkpoint image would take files from this container";

/// The way to break off a preparation.
#[derive(Debug)]
pub(super) struct Abort {
    reaper: Reaper,
    requested: AtomicBool,
    /// The worker at work, 0 when there is none.
    worker: AtomicI32,
    turn: std::sync::Mutex<()>,
}

impl Abort {
    pub(super) fn new(reaper: Reaper) -> Self {
        Self {
            reaper,
            requested: AtomicBool::new(false),
            worker: AtomicI32::new(0),
            turn: std::sync::Mutex::new(()),
        }
    }

    /// Kills the worker at work and keeps others from beginning.
    pub(super) fn request(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.requested.store(true, Ordering::Relaxed);
        let worker = self.worker.load(Ordering::Relaxed);
        // It may have ended by itself.
        self.reaper.signal(worker, SIGKILL).ok();
    }

    pub(super) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// From now on this worker is the one to kill.
    fn watch(&self, pid: i32) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // The reaper vouches for pids that somebody awaits.
        drop(self.reaper.exit_of(pid));
        self.worker.store(pid, Ordering::Relaxed);
        if self.is_requested() {
            return Err(aborted());
        }
        Ok(())
    }
}

fn aborted() -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        "The container was killed while it was being created",
    )
}

/// A container that exists, or one that will at its start.
#[derive(Debug)]
pub(super) struct Made {
    pid: i32,
    held: Held,
    copying: Option<Copying>,
    facts: Facts,
}

impl Container {
    pub(super) fn begin_create(&self, reply: oneshot::Sender<Result<i32>>) {
        let context = Arc::clone(&self.context);
        let request = Arc::clone(&self.request);
        let abort = Arc::clone(&self.abort);
        self.beside(async move {
            let making = Making {
                context,
                request,
                abort,
            };
            Done::Prepared(making.create().await.map(Box::new), reply)
        });
    }

    pub(super) fn prepared(&mut self, result: Result<Box<Made>>, reply: Reply<i32>) -> Flow {
        let made = match result {
            Ok(made) => *made,
            Err(error) => {
                for delete in self.deletes.drain(..) {
                    respond(delete, Ok((0, Exit::killed())));
                }
                respond(reply, Err(error));
                return Flow::Over;
            }
        };
        let pid = made.pid;
        self.task.prepared(pid, made.held);
        self.facts = Some(made.facts);
        self.copying = made.copying;
        self.tell(Event::Create(Box::new(Created {
            id: self.id(),
            pid,
            bundle: self.request.bundle.clone(),
            rootfs: self.request.rootfs.clone(),
            stdio: self.request.stdio.clone(),
            checkpoint: self
                .request
                .checkpoint
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
        })));
        self.watch_init(pid);
        respond(reply, Ok(pid));
        // They came too late to break it off.
        self.kill_if_aborted();
        for delete in std::mem::take(&mut self.deletes) {
            self.delete(delete);
        }
        Flow::On
    }

    /// Init's exit will come as a message, and so will the OOM killer's visits.
    fn watch_init(&mut self, pid: i32) {
        if pid == 0 {
            return;
        }
        let exit = self.context.reaper.exit_of(pid);
        let Some(me) = self.me.upgrade() else { return };
        tokio::spawn(async move {
            if let Ok(exit) = exit.await {
                me.send(Message::Done(Done::Exited(exit))).ok();
            }
        });
        self.watch_oom();
    }

    fn kill_if_aborted(&self) {
        if self.abort.is_requested() {
            // Gone already is as good.
            self.context.reaper.signal(self.task.pid(), SIGKILL).ok();
        }
    }

    pub(super) fn start(&mut self, reply: Reply<i32>) {
        let held = match self.task.start() {
            Ok(held) => held,
            Err(error) => return respond(reply, Err(error)),
        };
        let making = Making {
            context: Arc::clone(&self.context),
            request: Arc::clone(&self.request),
            abort: Arc::clone(&self.abort),
        };
        self.beside(async move {
            let result = match held {
                Held::Worker(worker) => blocking(move || worker.start()).await.map(|()| None),
                Held::Checkpoint => making
                    .restore_and_start()
                    .await
                    .map(|made| Some(Box::new(made))),
            };
            Done::Started(result, reply)
        });
    }

    pub(super) fn started(&mut self, result: Result<Option<Box<Made>>>, reply: Reply<i32>) {
        let made = match result {
            Ok(made) => made,
            Err(error) => return self.start_failed(error, reply),
        };
        if let Some(made) = made {
            // Its exit is awaited only from here on, so it cannot come too early.
            self.facts = Some(made.facts);
            self.copying = made.copying;
            let after = self.task.started(made.pid);
            debug_assert_eq!(after, AfterStart::Runs);
            self.tell_start(reply);
            self.watch_init(self.task.pid());
            return self.kill_if_aborted();
        }
        let after = self.task.started(self.task.pid());
        self.tell_start(reply);
        if after == AfterStart::Ended {
            self.end();
        }
    }

    fn tell_start(&self, reply: Reply<i32>) {
        telemetry::log_started(&self.request.id, self.since);
        let pid = self.task.pid();
        self.tell(Event::Start { id: self.id(), pid });
        respond(reply, Ok(pid));
    }

    fn start_failed(&mut self, error: Error, reply: Reply<i32>) {
        telemetry::log_failure(&self.request.id, "container start failed", &error);
        // The worker kills it; make sure that an exit comes in any case.
        self.context.reaper.signal(self.task.pid(), SIGKILL).ok();
        let after = self.task.start_failed(Exit::killed());
        respond(reply, Err(error));
        if after == AfterStart::Ended {
            self.end();
        }
        if self.task.exit().is_some() {
            self.answer_waiting();
        }
    }
}

/// A container in the making, beside its task.
struct Making {
    context: Arc<Context>,
    request: Arc<CreateRequest>,
    abort: Arc<Abort>,
}

impl Making {
    async fn create(&self) -> Result<Made> {
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

    /// So that `delete` finds what is left if this shim is killed now.
    fn mark(&self) -> Option<Mark> {
        let (state, id) = (&self.context.state_root, &self.request.id);
        let marked = Mark::set(state, id, &self.context.address);
        let noted = |error: &Error| {
            telemetry::log_failure(id, "a shim that is killed now may leave files", error);
        };
        marked.inspect_err(noted).ok()
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

    async fn restore_and_start(&self) -> Result<Made> {
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

    /// For the CLI, which finds us by container, and for `delete` after a crash.
    async fn write_run_files(&self, pid: i32) {
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
    fn begin_note(&self, who: Identity) -> JoinHandle<Noted> {
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
    async fn write_note(&self, note: Option<JoinHandle<Noted>>, decision: Decision) {
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
    fn hold_beside(&self, checkpoint: String) {
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

    async fn note_origin(&self, checkpoint: &str) {
        let dir = self.context.state_root.join(&self.request.id);
        let checkpoint = checkpoint.to_owned();
        let written = blocking(move || write_run_file(&dir, "restored-from", &checkpoint));
        if let Err(error) = written.await {
            telemetry::log_failure(&self.request.id, "cannot note the checkpoint", &error);
        }
    }
}

/// What is noted of a container besides the decision.
type Noted = (Origin, Hashes, Shown);

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

fn write_run_file(dir: &Path, name: &str, text: &str) -> Result<()> {
    std::fs::create_dir_all(dir).doing(format!("Cannot make {}", dir.display()))?;
    let path = dir.join(name);
    std::fs::write(&path, text).doing(format!("Cannot write {}", path.display()))
}

/// The removal of a container.
pub(super) fn remove_of(context: &Context, request: &CreateRequest) -> Remove {
    Remove {
        namespace: request.namespace.clone(),
        id: request.id.clone(),
        bundle: request.bundle.clone(),
        state_root: context.state_root.clone(),
    }
}
