//! The task service: one short method per request of containerd.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim::ExitSignal;
use containerd_shim::Task;
use containerd_shim::protos::api;
use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::protos::ttrpc::{self, r#async::TtrpcContext};
use reprise_runtime::{Error, ErrorKind, Result};
use tokio::sync::Notify;

use crate::driver::{self, Ask, Context, Handle};
use crate::reaper::Exit;
use crate::request::CreateRequest;
use crate::{metrics, protocol, socket};

/// How long the last answer has to get out before we go.
const LAST_ANSWER: Duration = Duration::from_millis(20);

type Answer<T> = ttrpc::Result<T>;

/// All containers of this shim.
#[derive(Clone)]
pub(crate) struct Service {
    context: Arc<Context>,
    containers: Arc<Mutex<HashMap<String, Handle>>>,
    /// A container has come or gone.
    changed: Arc<Notify>,
    /// containerd asks once, maybe while a container is still being made: we go
    /// when the last one has gone.
    is_unwanted: Arc<AtomicBool>,
    exit: Arc<ExitSignal>,
}

impl Service {
    pub(crate) fn new(context: Arc<Context>, exit: Arc<ExitSignal>) -> Self {
        Self {
            context,
            containers: Arc::default(),
            changed: Arc::default(),
            is_unwanted: Arc::default(),
            exit,
        }
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn container(&self, id: &str) -> Result<Handle> {
        self.containers()
            .get(id)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "container not created"))
    }

    /// Passes a request on to its container.
    async fn ask<T>(&self, id: &str, ask: impl FnOnce(driver::Reply<T>) -> Ask) -> Answer<T> {
        let answer = self.pass_on(id, ask).await;
        answer.map_err(|error| protocol::to_status(id, &error))
    }

    async fn pass_on<T>(&self, id: &str, ask: impl FnOnce(driver::Reply<T>) -> Ask) -> Result<T> {
        self.container(id)?.ask(ask).await
    }

    async fn make(&self, request: CreateRequest) -> Result<i32> {
        let id = request.id.clone();
        let answer = match self.containers().entry(id.clone()) {
            Entry::Occupied(_) => {
                let why = "container with given ID already exists";
                return Err(Error::new(ErrorKind::FailedPrecondition, why));
            }
            Entry::Vacant(place) => {
                let (handle, answer) = driver::create(&self.context, request);
                place.insert(handle);
                self.changed.notify_one();
                answer
            }
        };
        let made = answer
            .await
            .unwrap_or_else(|_dropped| Err(Error::internal("It was given up")));
        if made.is_err() {
            self.forget(&id);
        }
        made
    }

    async fn remove(&self, id: String, exec: String) -> Result<(i32, Exit)> {
        let is_init = exec.is_empty();
        let deleted = self.pass_on(&id, |reply| Ask::Delete(exec, reply)).await?;
        if is_init {
            self.forget(&id);
        }
        Ok(deleted)
    }

    fn forget(&self, id: &str) {
        self.containers().remove(id);
        self.changed.notify_one();
        self.go_if_unwanted();
    }

    fn go_if_unwanted(&self) {
        if !self.is_unwanted.load(Ordering::Relaxed) || !self.is_empty() {
            return;
        }
        // Before the answer: who asks for this pod's shim from now on gets a new one,
        // and when containerd's Delete has ended nothing of ours is left.
        socket::remove(self.address());
        self.leave();
    }

    /// Whether there is no container, nor one being made.
    pub(crate) fn is_empty(&self) -> bool {
        self.containers().is_empty()
    }

    /// Waits until a container has come or gone since the last call.
    pub(crate) async fn has_changed(&self) {
        self.changed.notified().await;
    }

    /// Where containerd finds us.
    pub(crate) fn address(&self) -> &str {
        &self.context.address
    }

    /// Ends the shim, whose socket is gone, once its last answer is out.
    pub(crate) fn leave(&self) {
        let exit = Arc::clone(&self.exit);
        tokio::spawn(async move {
            tokio::time::sleep(LAST_ANSWER).await;
            exit.signal();
        });
    }
}

/// Does a call's work in a task of its own: it has to end well even if the containerd that
/// asked goes away.
async fn to_its_end<T: Send + 'static>(
    call: &str,
    id: &str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Answer<T> {
    let done = tokio::spawn(work)
        .await
        .unwrap_or_else(|e| Err(Error::because(format_args!("{call} broke off"), &e)));
    done.map_err(|error| protocol::to_status(id, &error))
}

#[async_trait]
impl Task for Service {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> Answer<api::CreateTaskResponse> {
        let id = request.id.clone();
        let this = self.clone();
        let made = to_its_end("Create", &id, async move {
            let request = protocol::create(request, &this.context.namespace)?;
            this.make(request).await
        });
        let pid = made.await?;
        Ok(api::CreateTaskResponse {
            pid: pid.unsigned_abs(),
            ..Default::default()
        })
    }

    async fn start(
        &self,
        _: &TtrpcContext,
        request: api::StartRequest,
    ) -> Answer<api::StartResponse> {
        let exec = request.exec_id;
        let started = self.pass_on(&request.id, |reply| Ask::Start(exec, reply));
        let pid = started
            .await
            .map_err(|error| protocol::to_status(&request.id, &error))?;
        Ok(api::StartResponse {
            pid: pid.unsigned_abs(),
            ..Default::default()
        })
    }

    async fn state(
        &self,
        _: &TtrpcContext,
        request: api::StateRequest,
    ) -> Answer<api::StateResponse> {
        let exec = request.exec_id.clone();
        let view = self
            .ask(&request.id, |reply| Ask::State(exec, reply))
            .await?;
        Ok(protocol::state(&request.id, &request.exec_id, view))
    }

    async fn wait(&self, _: &TtrpcContext, request: api::WaitRequest) -> Answer<api::WaitResponse> {
        let exec = request.exec_id;
        let exit = self
            .ask(&request.id, |reply| Ask::Wait(exec, reply))
            .await?;
        Ok(protocol::waited(exit))
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> Answer<api::Empty> {
        let api::KillRequest {
            id,
            exec_id: exec,
            signal,
            all,
            ..
        } = request;
        let signal = i32::try_from(signal).unwrap_or(i32::MAX);
        let ask = |reply| Ask::Kill {
            exec,
            signal,
            all,
            reply,
        };
        self.ask(&id, ask).await.map(|()| api::Empty::new())
    }

    async fn pids(&self, _: &TtrpcContext, request: api::PidsRequest) -> Answer<api::PidsResponse> {
        let pids = self.ask(&request.id, Ask::Pids).await?;
        protocol::pids(pids).map_err(|error| protocol::to_status(&request.id, &error))
    }

    async fn stats(
        &self,
        _: &TtrpcContext,
        request: api::StatsRequest,
    ) -> Answer<api::StatsResponse> {
        let stats = self.ask(&request.id, Ask::Stats).await?;
        let any = metrics::to_any(&stats).map_err(|e| protocol::to_status(&request.id, &e))?;
        Ok(api::StatsResponse {
            stats: MessageField::some(any),
            ..Default::default()
        })
    }

    async fn pause(&self, _: &TtrpcContext, request: api::PauseRequest) -> Answer<api::Empty> {
        let answer = self.ask(&request.id, Ask::Pause).await;
        answer.map(|()| api::Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: api::ResumeRequest) -> Answer<api::Empty> {
        let answer = self.ask(&request.id, Ask::Resume).await;
        answer.map(|()| api::Empty::new())
    }

    async fn update(
        &self,
        _: &TtrpcContext,
        request: api::UpdateTaskRequest,
    ) -> Answer<api::Empty> {
        let resources = protocol::resources(&request)
            .map_err(|error| protocol::to_status(&request.id, &error))?;
        let ask = |reply| Ask::Update(Box::new(resources), reply);
        self.ask(&request.id, ask).await.map(|()| api::Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: api::CloseIORequest) -> Answer<api::Empty> {
        if !request.stdin {
            return Ok(api::Empty::new());
        }
        let exec = request.exec_id;
        let answer = self.ask(&request.id, |reply| Ask::CloseInput(exec, reply));
        answer.await.map(|()| api::Empty::new())
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: api::ResizePtyRequest,
    ) -> Answer<api::Empty> {
        let ask = |reply| Ask::Resize {
            exec: request.exec_id,
            columns: protocol::cells(request.width),
            rows: protocol::cells(request.height),
            reply,
        };
        self.ask(&request.id, ask).await.map(|()| api::Empty::new())
    }

    async fn checkpoint(
        &self,
        context: &TtrpcContext,
        request: api::CheckpointTaskRequest,
    ) -> Answer<api::Empty> {
        let parsed = protocol::checkpoint(&request, &context.metadata)
            .map_err(|error| protocol::to_status(&request.id, &error))?;
        let ask = |reply| Ask::Checkpoint(Box::new(parsed), reply);
        self.ask(&request.id, ask).await.map(|()| api::Empty::new())
    }

    async fn exec(&self, _: &TtrpcContext, request: api::ExecProcessRequest) -> Answer<api::Empty> {
        let id = request.id.clone();
        let added = match protocol::exec(request) {
            Ok(parsed) => {
                let ask = |reply| Ask::Exec(Box::new(parsed), reply);
                self.pass_on(&id, ask).await
            }
            Err(error) => Err(error),
        };
        added.map_err(|error| protocol::to_status(&id, &error))?;
        Ok(api::Empty::new())
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> Answer<api::DeleteResponse> {
        let id = request.id.clone();
        let this = self.clone();
        // A container that is gone and not forgotten would keep the shim.
        let deleted = to_its_end("Delete", &id, async move {
            this.remove(request.id, request.exec_id).await
        });
        let (pid, exit) = deleted.await?;
        Ok(protocol::deleted(pid, exit))
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: api::ConnectRequest,
    ) -> Answer<api::ConnectResponse> {
        let view = self.ask(&request.id, |reply| Ask::State(String::new(), reply));
        // Without that container the answer is about us alone.
        let pid = view.await.map_or(0, |view| view.pid);
        Ok(api::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: pid.unsigned_abs(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: api::ShutdownRequest) -> Answer<api::Empty> {
        self.is_unwanted.store(true, Ordering::Relaxed);
        self.go_if_unwanted();
        Ok(api::Empty::new())
    }
}
