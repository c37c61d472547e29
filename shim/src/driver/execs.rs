//! Processes that are exec'd into the container.

use std::sync::Arc;

use oci_spec::runtime::Process;
use reprise_runtime::worker;
use reprise_runtime::{Error, ErrorKind, Result};

use super::end::DRAIN_BEFORE_EXIT;
use super::{Container, Context, Done, ExecProcess, Message, Reply, blocking, respond};
use crate::events::Event;
use crate::exec::Exec;
use crate::reaper::Exit;
use crate::request::{CreateRequest, ExecRequest};
use crate::stdio::{Copying, Paths};
use crate::task::Task;
use crate::telemetry;

/// The status of a process that could not be started.
const NOT_STARTED: u32 = 255;

impl Container {
    pub(super) fn add_exec(&mut self, request: ExecRequest) -> Result<()> {
        if self.execs.contains_key(&request.exec) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("id {}: already exists", request.exec),
            ));
        }
        // One may be added before the container runs; it cannot start then.
        if !matches!(self.task, Task::Created { .. }) {
            self.task.may_exec()?;
        }
        self.tell(Event::ExecAdded {
            id: self.id(),
            exec: request.exec.clone(),
        });
        self.execs.insert(
            request.exec,
            ExecProcess {
                state: Exec::Added {
                    spec: Box::new(request.process),
                },
                stdio: request.stdio,
                copying: None,
                waiting: Vec::new(),
            },
        );
        Ok(())
    }

    pub(super) fn start_exec(&mut self, id: String, reply: Reply<i32>) {
        let began = self.may_start_exec(&id).and_then(|exec| {
            let process = exec.state.start()?;
            Ok((process, exec.stdio.clone()))
        });
        let (process, stdio) = match began {
            Ok(began) => began,
            Err(error) => return respond(reply, Err(error)),
        };
        let context = Arc::clone(&self.context);
        let request = Arc::clone(&self.request);
        self.beside(async move {
            let result = match *process {
                Ok(process) => run(&context, &request, &id, process, &stdio).await,
                Err(error) => Err(error),
            };
            Done::ExecStarted(id, result, reply)
        });
    }

    pub(super) fn exec_started(
        &mut self,
        id: &str,
        result: Result<(i32, Copying)>,
        reply: Reply<i32>,
    ) {
        let Some(exec) = self.execs.get_mut(id) else {
            return;
        };
        let (pid, copying) = match result {
            Ok(started) => started,
            Err(error) => {
                telemetry::log_failure(&self.request.id, "exec failed", &error);
                let exit = Exit::now(NOT_STARTED);
                exec.state.start_failed(exit);
                for waiting in exec.waiting.drain(..) {
                    respond(waiting, Ok(exit));
                }
                respond(reply, Err(error));
                return self.exec_is_over();
            }
        };
        exec.state.started(pid);
        exec.copying = Some(copying);
        self.tell(Event::ExecStarted {
            id: self.id(),
            exec: id.to_owned(),
            pid,
        });
        respond(reply, Ok(pid));
        let exit = self.context.reaper.exit_of(pid);
        let Some(me) = self.me.upgrade() else { return };
        let id = id.to_owned();
        tokio::spawn(async move {
            if let Ok(exit) = exit.await {
                me.send(Message::Done(Done::ExecExited(id, exit))).ok();
            }
        });
    }

    pub(super) fn exec_exited(&mut self, id: &str, exit: Exit) {
        let Some(exec) = self.execs.get_mut(id) else {
            return;
        };
        exec.state.exited(exit);
        let Some(mut copying) = exec.copying.take() else {
            return;
        };
        let id = id.to_owned();
        self.beside(async move {
            copying.drain(DRAIN_BEFORE_EXIT).await;
            Done::ExecDrained(id, copying)
        });
    }

    pub(super) fn exec_drained(&mut self, id: &str, copying: Copying) {
        let Some(exec) = self.execs.get_mut(id) else {
            return;
        };
        // Kept until Delete: somebody may have inherited the pipes.
        exec.copying = Some(copying);
        let Some((pid, exit)) = exec.state.told() else {
            return;
        };
        let waiting = std::mem::take(&mut exec.waiting);
        self.tell(Event::Exit {
            id: self.id(),
            process: id.to_owned(),
            pid,
            exit,
        });
        for waiting in waiting {
            respond(waiting, Ok(exit));
        }
        self.exec_is_over();
    }

    fn may_start_exec(&mut self, id: &str) -> Result<&mut ExecProcess> {
        if self.task.exit().is_some() {
            let message = "Its init process is not running";
            return Err(Error::new(ErrorKind::Ended, message));
        }
        let allowed = self.task.may_exec();
        let exec = self.exec(id)?;
        allowed.map(|()| exec)
    }

    pub(super) fn delete_exec(&mut self, id: &str) -> Result<(i32, Exit)> {
        let (pid, exit) = self.exec(id)?.state.delete()?;
        self.execs.remove(id);
        Ok((pid, exit.unwrap_or_else(|| Exit::now(0))))
    }

    pub(super) fn exec(&mut self, id: &str) -> Result<&mut ExecProcess> {
        self.execs.get_mut(id).ok_or_else(|| {
            let message = format!("process does not exist {id}: not found");
            Error::new(ErrorKind::NotFound, message)
        })
    }
}

/// Starts a process through a worker, its output copied from the first byte.
async fn run(
    context: &Context,
    request: &CreateRequest,
    id: &str,
    process: Process,
    stdio: &Paths,
) -> Result<(i32, Copying)> {
    let opened = stdio.open(&context.reaper, &context.namespace, id).await?;
    let (theirs, ours) = opened.pipes(request.io_owner)?;
    let command = worker::Exec {
        namespace: request.namespace.clone(),
        id: request.id.clone(),
        exec_id: id.to_owned(),
        bundle: request.bundle.clone(),
        state_root: context.state_root.clone(),
        process,
    };
    let runtime = Arc::clone(&context.runtime);
    let started = blocking(move || runtime.spawn()?.exec(command, theirs)).await?;
    let copying = opened.copy(ours, started.console)?;
    Ok((started.pid, copying))
}
