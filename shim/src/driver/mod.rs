//! The spine: one task per container owns its state. Everybody else sends it
//! requests; what takes long runs beside it and sends back what came of it.
//!
//! ```text
//!  server ── Ask ──> ┌────────────┐ ── blocking calls ──> worker, cgroup, store
//!                    │ Container  │ <─────── Done ───────
//!  reaper ── Done ─> └────────────┘ ── Event ──> events
//! ```

mod abort;
mod create;
mod end;
mod execs;
mod making;
mod mark;
mod notes;
mod operate;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use oci_spec::runtime::{LinuxResources, Process};
use reprise_runtime::cgroup::{Cgroup, Stats};
use reprise_runtime::worker::Worker;
use reprise_runtime::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::events::{Event, Teller};
use crate::exec::Exec;
use crate::house::House;
use crate::reaper::{Exit, Reaper};
use crate::request::{CheckpointRequest, CreateRequest, ExecRequest};
use crate::rest::Rest;
use crate::stdio::{Copying, Paths};
use crate::task::{Status, Task};

use abort::Abort;
pub(crate) use end::remove_run_dir;
use making::Made;
pub(crate) use mark::Mark;

/// What all containers of a shim share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) runtime: Arc<House>,
    pub(crate) reaper: Reaper,
    pub(crate) events: Teller,
    pub(crate) rest: Rest,
    pub(crate) namespace: String,
    /// `/run/reprise/<namespace>`.
    pub(crate) state_root: PathBuf,
    /// Our own ttrpc address, for the CLI.
    pub(crate) address: String,
    /// containerd's socket, for what speaks to it on our behalf.
    pub(crate) containerd: PathBuf,
}

/// How a process looks from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) bundle: PathBuf,
    pub(crate) pid: i32,
    pub(crate) status: Status,
    pub(crate) stdio: Paths,
    pub(crate) exit: Option<Exit>,
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// A request to a container; an empty `exec` is init.
#[derive(Debug)]
pub(crate) enum Ask {
    Start(String, Reply<i32>),
    State(String, Reply<View>),
    Wait(String, Reply<Exit>),
    Kill {
        exec: String,
        signal: i32,
        all: bool,
        reply: Reply<()>,
    },
    Pids(Reply<Vec<(i32, Option<String>)>>),
    Stats(Reply<Stats>),
    Pause(Reply<()>),
    Resume(Reply<()>),
    Update(Box<LinuxResources>, Reply<()>),
    CloseInput(String, Reply<()>),
    Resize {
        exec: String,
        columns: u16,
        rows: u16,
        reply: Reply<()>,
    },
    Checkpoint(Box<CheckpointRequest>, Reply<()>),
    Exec(Box<ExecRequest>, Reply<()>),
    Delete(String, Reply<(i32, Exit)>),
}

/// What came of something that ran beside the container's task.
#[derive(Debug)]
enum Done {
    Prepared(Result<Box<Made>>, Reply<i32>),
    Started(Result<Option<Box<Made>>>, Reply<i32>),
    Exited(Exit),
    OthersKilled,
    ExecsGivenUp,
    Drained(Option<Copying>),
    ExecStarted(String, Result<(i32, Copying)>, Reply<i32>),
    ExecExited(String, Exit),
    ExecDrained(String, Copying),
    Paused(Result<()>, Reply<()>),
    Resumed(Result<()>, Reply<()>),
    Checkpointed(Result<()>, Reply<()>),
    Removed(Result<()>, Reply<(i32, Exit)>),
}

#[derive(Debug)]
enum Message {
    Ask(Ask),
    Done(Done),
}

/// A container's address.
#[derive(Debug, Clone)]
pub(crate) struct Handle(mpsc::UnboundedSender<Message>);

impl Handle {
    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// The container's answer; `NotFound` when it is gone.
    pub(crate) async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::new(ErrorKind::NotFound, "The container is gone");
        self.0
            .send(Message::Ask(ask(reply)))
            .map_err(|_closed| gone())?;
        answer.await.unwrap_or_else(|_dropped| Err(gone()))
    }
}

/// What holds a created container still.
#[derive(Debug)]
enum Held {
    /// The worker that made it.
    Worker(Worker),
    /// Nothing: it is restored from a given checkpoint only at its start.
    Checkpoint,
}

/// Where the end of init stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Processes that outlive init are being killed.
    KillingOthers,
    /// Exits of execs come first.
    AwaitingExecs,
    /// The last output is on its way.
    Draining,
}

/// An exec'd process and who waits for it.
#[derive(Debug)]
struct ExecProcess {
    state: Exec<Box<Result<Process>>>,
    stdio: Paths,
    copying: Option<Copying>,
    waiting: Vec<Reply<Exit>>,
}

/// What is known of a container once it was planned.
#[derive(Debug, Clone)]
struct Facts {
    group: Arc<Cgroup>,
    private_pids: bool,
    /// Layers of the checkpoint that it came from.
    layers: Vec<PathBuf>,
}

/// The owner of one container's state.
#[derive(Debug)]
struct Container {
    context: Arc<Context>,
    request: Arc<CreateRequest>,
    task: Task<Held>,
    abort: Arc<Abort>,
    facts: Option<Facts>,
    copying: Option<Copying>,
    ending: Option<Ending>,
    /// Its exit, while a checkpoint is still being answered for.
    ended_in_checkpoint: Option<Exit>,
    execs: BTreeMap<String, ExecProcess>,
    waiting: Vec<Reply<Exit>>,
    /// Deletes that came while it was being made.
    deletes: Vec<Reply<(i32, Exit)>>,
    oom: Option<JoinHandle<()>>,
    oom_told: Arc<std::sync::atomic::AtomicU64>,
    /// When Create came in.
    since: Instant,
    me: mpsc::WeakUnboundedSender<Message>,
}

/// Whether the container's task goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Over,
}

/// Begins to make a container. The answer is init's pid.
pub(crate) fn create(
    context: &Arc<Context>,
    request: CreateRequest,
) -> (Handle, oneshot::Receiver<Result<i32>>) {
    let (send, mut inbox) = mpsc::unbounded_channel();
    let (reply, answer) = oneshot::channel();
    let mut container = Container {
        context: Arc::clone(context),
        request: Arc::new(request),
        task: Task::Preparing,
        abort: Arc::new(Abort::new(context.reaper.clone())),
        facts: None,
        copying: None,
        ending: None,
        ended_in_checkpoint: None,
        execs: BTreeMap::new(),
        waiting: Vec::new(),
        deletes: Vec::new(),
        oom: None,
        oom_told: Arc::default(),
        since: Instant::now(),
        me: send.downgrade(),
    };
    let handle = Handle(send);
    container.begin_create(reply);
    let keep = handle.clone();
    tokio::spawn(async move {
        while let Some(message) = inbox.recv().await {
            container.context.rest.disturb();
            let flow = match message {
                Message::Ask(ask) => container.answer(ask),
                Message::Done(done) => container.note(done),
            };
            if flow == Flow::Over {
                break;
            }
        }
        drop(keep);
    });
    (handle, answer)
}

impl Container {
    fn answer(&mut self, ask: Ask) -> Flow {
        match ask {
            Ask::Start(exec, reply) if exec.is_empty() => self.start(reply),
            Ask::Start(exec, reply) => self.start_exec(exec, reply),
            Ask::State(exec, reply) => respond(reply, self.view(&exec)),
            Ask::Wait(exec, reply) => self.wait(&exec, reply),
            Ask::Kill {
                exec,
                signal,
                all,
                reply,
            } => self.kill(&exec, signal, all, reply),
            Ask::Pids(reply) => self.pids(reply),
            Ask::Stats(reply) => self.stats(reply),
            Ask::Pause(reply) => self.pause(reply),
            Ask::Resume(reply) => self.resume(reply),
            Ask::Update(resources, reply) => self.update(resources, reply),
            Ask::CloseInput(exec, reply) => respond(reply, self.close_input(&exec)),
            Ask::Resize {
                exec,
                columns,
                rows,
                reply,
            } => respond(reply, self.resize(&exec, columns, rows)),
            Ask::Checkpoint(request, reply) => self.checkpoint(*request, reply),
            Ask::Exec(request, reply) => respond(reply, self.add_exec(*request)),
            Ask::Delete(exec, reply) if exec.is_empty() => self.delete(reply),
            Ask::Delete(exec, reply) => respond(reply, self.delete_exec(&exec)),
        }
        Flow::On
    }

    fn note(&mut self, done: Done) -> Flow {
        match done {
            Done::Prepared(result, reply) => return self.prepared(result, reply),
            Done::Started(result, reply) => self.started(result, reply),
            Done::Exited(exit) => self.init_exited(exit),
            Done::OthersKilled => self.await_execs(),
            Done::ExecsGivenUp => self.drain(),
            Done::Drained(copying) => self.init_drained(copying),
            Done::ExecStarted(exec, result, reply) => self.exec_started(&exec, result, reply),
            Done::ExecExited(exec, exit) => self.exec_exited(&exec, exit),
            Done::ExecDrained(exec, copying) => self.exec_drained(&exec, copying),
            Done::Paused(result, reply) => self.paused(result, reply),
            Done::Resumed(result, reply) => self.resumed(result, reply),
            Done::Checkpointed(result, reply) => {
                self.task.checkpointed();
                respond(reply, result);
                if let Some(exit) = self.ended_in_checkpoint.take() {
                    self.init_exited(exit);
                }
            }
            Done::Removed(result, reply) => return self.removed(result, reply),
        }
        Flow::On
    }

    fn id(&self) -> String {
        self.request.id.clone()
    }

    fn tell(&self, event: Event) {
        self.context.events.tell(event);
    }

    /// Runs something beside this task and notes what came of it.
    fn beside(&self, work: impl Future<Output = Done> + Send + 'static) {
        let Some(me) = self.me.upgrade() else { return };
        tokio::spawn(async move {
            let done = work.await;
            // The container is gone: nobody needs to know.
            me.send(Message::Done(done)).ok();
        });
    }

    fn facts(&self) -> Result<&Facts> {
        self.facts.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::FailedPrecondition,
                "The container is still being created",
            )
        })
    }
}

/// Answers; who asked may have gone.
fn respond<T>(reply: Reply<T>, result: Result<T>) {
    reply.send(result).ok();
}

/// Runs a blocking call on a thread of its own.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(call)
        .await
        .unwrap_or_else(|e| Err(Error::because("A call of the runtime broke off", &e)))
}
