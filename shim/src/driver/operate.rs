//! Requests to a container that is there: look, wait, signal, freeze, limit,
//! checkpoint.

use std::collections::HashMap;
use std::sync::Arc;

use libc::SIGKILL;
use nix::errno::Errno;
use oci_spec::runtime::LinuxResources;
use reprise_runtime::cgroup::{Cgroup, Stats};
use reprise_runtime::{Error, ErrorKind, Result};

use super::{Container, Done, Reply, View, blocking, respond};
use crate::checkpoint;
use crate::events::Event;
use crate::folder::Folder;
use crate::reaper::{Exit, send_signal};
use crate::request::CheckpointRequest;
use crate::runtime::Subject;
use crate::task::{Status, Task};
use crate::telemetry;

impl Container {
    pub(super) fn view(&mut self, exec: &str) -> Result<View> {
        let bundle = self.request.bundle.clone();
        if exec.is_empty() {
            return Ok(View {
                bundle,
                pid: self.task.pid(),
                status: self.task.status(),
                stdio: self.request.stdio.clone(),
                exit: self.task.exit(),
            });
        }
        let init = self.task.status();
        let exec = self.exec(exec)?;
        let status = match (exec.state.status(), init) {
            // An exec is as frozen as its container.
            (Status::Running, Status::Paused | Status::Pausing) => init,
            (status, _) => status,
        };
        Ok(View {
            bundle,
            pid: exec.state.pid(),
            status,
            stdio: exec.stdio.clone(),
            exit: exec.state.exit(),
        })
    }

    pub(super) fn wait(&mut self, exec: &str, reply: Reply<Exit>) {
        let (exit, waiting) = if exec.is_empty() {
            (self.task.exit(), &mut self.waiting)
        } else {
            match self.exec(exec) {
                Ok(exec) => (exec.state.exit(), &mut exec.waiting),
                Err(error) => return respond(reply, Err(error)),
            }
        };
        match exit {
            Some(exit) => respond(reply, Ok(exit)),
            None => waiting.push(reply),
        }
    }

    pub(super) fn kill(&mut self, exec: &str, signal: i32, all: bool, reply: Reply<()>) {
        if !exec.is_empty() {
            return respond(reply, self.kill_exec(exec, signal));
        }
        let pid = self.task.pid();
        if pid == 0 && matches!(self.task, Task::Preparing | Task::Starting { .. }) {
            self.abort.request();
            return respond(reply, Ok(()));
        }
        if !self.task.is_alive() {
            // As with runc, whoever wants all of them gone has got that.
            return respond(reply, if all { Ok(()) } else { Err(finished()) });
        }
        if self.request.folder.as_ref().is_some_and(Folder::is_gone) {
            return self.kill_deleted(reply);
        }
        if !all && let Err(errno) = self.context.reaper.signal(pid, signal) {
            return respond(reply, Err(refused(errno, signal)));
        }
        let frozen = matches!(self.task.status(), Status::Paused | Status::Pausing);
        let thaws = signal == SIGKILL && frozen;
        if !all && !thaws {
            return respond(reply, Ok(()));
        }
        let group = match self.facts() {
            Ok(facts) => Arc::clone(&facts.group),
            Err(error) => return respond(reply, Err(error)),
        };
        tokio::spawn(async move {
            let result = blocking(move || {
                if all {
                    signal_all(&group, signal)?;
                }
                // Nothing dies while it is frozen (cgroup v1).
                if thaws { group.thaw() } else { Ok(()) }
            });
            respond(reply, result.await);
        });
    }

    /// A container that somebody has deleted is not there; what runs of it ends.
    fn kill_deleted(&mut self, reply: Reply<()>) {
        let group = match self.facts() {
            Ok(facts) => Arc::clone(&facts.group),
            Err(error) => return respond(reply, Err(error)),
        };
        tokio::spawn(async move {
            let killed = blocking(move || group.kill_all().and_then(|()| group.thaw())).await;
            let gone = Error::new(ErrorKind::NotFound, "It was deleted by somebody else");
            respond(reply, killed.and(Err(gone)));
        });
    }

    fn kill_exec(&mut self, exec: &str, signal: i32) -> Result<()> {
        let exec = self.exec(exec)?;
        if exec.state.exit().is_some() {
            return Err(finished());
        }
        let pid = exec.state.pid();
        if pid == 0 {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                "The process is not started",
            ));
        }
        self.context
            .reaper
            .signal(pid, signal)
            .map_err(|errno| refused(errno, signal))
    }

    pub(super) fn pids(&mut self, reply: Reply<Vec<(i32, Option<String>)>>) {
        // Not an empty list: a containerd that has just started takes that for a
        // shim to clean up, and the exit status would be lost.
        if self.task.exit().is_some() {
            let ended = "It has ended and has no processes";
            return respond(reply, Err(Error::new(ErrorKind::FailedPrecondition, ended)));
        }
        let group = match self.facts() {
            Ok(facts) => Arc::clone(&facts.group),
            Err(error) => return respond(reply, Err(error)),
        };
        let execs: HashMap<i32, String> = self
            .execs
            .iter()
            .map(|(id, exec)| (exec.state.pid(), id.clone()))
            .collect();
        tokio::spawn(async move {
            let pids = blocking(move || group.pids()).await;
            let named = pids.map(|pids| {
                let name = |pid: i32| (pid, execs.get(&pid).cloned());
                pids.into_iter().map(name).collect()
            });
            respond(reply, named);
        });
    }

    pub(super) fn stats(&mut self, reply: Reply<Stats>) {
        match self.facts() {
            Ok(facts) => {
                let group = Arc::clone(&facts.group);
                tokio::spawn(async move {
                    respond(reply, blocking(move || group.stats()).await);
                });
            }
            Err(error) => respond(reply, Err(error)),
        }
    }

    pub(super) fn update(&mut self, resources: Box<LinuxResources>, reply: Reply<()>) {
        let group = self.task.may_update().and_then(|()| self.facts());
        match group {
            Ok(facts) => {
                let group = Arc::clone(&facts.group);
                tokio::spawn(async move {
                    respond(reply, blocking(move || group.update(&resources)).await);
                });
            }
            Err(error) => respond(reply, Err(error)),
        }
    }

    pub(super) fn close_input(&mut self, exec: &str) -> Result<()> {
        let copying = if exec.is_empty() {
            &mut self.copying
        } else {
            // Here alone runc's shim has no code for it.
            let exec = self.exec(exec);
            &mut exec
                .map_err(|e| e.with_kind(ErrorKind::FailedPrecondition))?
                .copying
        };
        if let Some(copying) = copying {
            copying.close_input();
        }
        Ok(())
    }

    pub(super) fn resize(&mut self, exec: &str, columns: u16, rows: u16) -> Result<()> {
        let copying = if exec.is_empty() {
            &self.copying
        } else {
            let exec = self.exec(exec)?;
            if exec.state.exit().is_some() {
                return Err(Error::new(
                    ErrorKind::FailedPrecondition,
                    "cannot resize a stopped container",
                ));
            }
            &exec.copying
        };
        match copying {
            Some(copying) => copying.resize(columns, rows),
            None => Ok(()),
        }
    }

    pub(super) fn pause(&mut self, reply: Reply<()>) {
        let group = match self.facts().map(|facts| Arc::clone(&facts.group)) {
            Ok(group) => group,
            Err(error) => return respond(reply, Err(error)),
        };
        match self.task.pause() {
            Ok(()) => self
                .beside(async move { Done::Paused(blocking(move || group.freeze()).await, reply) }),
            Err(error) => respond(reply, Err(error)),
        }
    }

    pub(super) fn paused(&mut self, result: Result<()>, reply: Reply<()>) {
        self.task.paused(result.is_ok());
        if result.is_ok() {
            self.tell(Event::Paused { id: self.id() });
        }
        respond(reply, result);
    }

    pub(super) fn resume(&mut self, reply: Reply<()>) {
        let group = match self.facts().map(|facts| Arc::clone(&facts.group)) {
            Ok(group) => group,
            Err(error) => return respond(reply, Err(error)),
        };
        match self.task.resume() {
            Ok(()) => self
                .beside(async move { Done::Resumed(blocking(move || group.thaw()).await, reply) }),
            Err(error) => respond(reply, Err(error)),
        }
    }

    pub(super) fn resumed(&mut self, result: Result<()>, reply: Reply<()>) {
        self.task.resumed(result.is_ok());
        if result.is_ok() {
            self.tell(Event::Resumed { id: self.id() });
        }
        respond(reply, result);
    }

    pub(super) fn checkpoint(&mut self, request: CheckpointRequest, reply: Reply<()>) {
        let facts = match self.facts() {
            Ok(facts) => facts.clone(),
            Err(error) => return respond(reply, Err(error)),
        };
        let pid = match self.task.checkpoint() {
            Ok(pid) => pid,
            Err(error) => return respond(reply, Err(error)),
        };
        let subject = Subject {
            namespace: self.request.namespace.clone(),
            id: self.id(),
            pid,
            bundle: self.request.bundle.clone(),
            state_root: self.context.state_root.clone(),
            rootfs: self.request.rootfs.clone(),
            layers: facts.layers,
            containerd: self.context.containerd.clone(),
        };
        let runtime = Arc::clone(&self.context.runtime);
        let events = self.context.events.clone();
        self.beside(async move {
            let id = subject.id.clone();
            let path = request.path.clone().unwrap_or_default();
            let result = blocking(move || checkpoint::take(&runtime, &subject, &request)).await;
            match &result {
                Ok(dumped) => {
                    telemetry::log_checkpoint(&id, dumped);
                    events.tell(Event::Checkpointed {
                        id,
                        path: path.to_string_lossy().into_owned(),
                    });
                }
                Err(error) => telemetry::log_failure(&id, "checkpoint failed", error),
            }
            Done::Checkpointed(result.map(|_dumped| ()), reply)
        });
    }
}

fn signal_all(group: &Cgroup, signal: i32) -> Result<()> {
    if signal == SIGKILL {
        return group.kill_all();
    }
    for pid in group.pids()? {
        match send_signal(pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(refused(errno, signal)),
        }
    }
    Ok(())
}

fn finished() -> Error {
    Error::new(ErrorKind::NotFound, "process already finished")
}

fn refused(errno: Errno, signal: i32) -> Error {
    match errno {
        Errno::ESRCH => finished(),
        Errno::EINVAL => Error::new(
            ErrorKind::InvalidArgument,
            format!("There is no signal {signal}"),
        ),
        other => Error::internal(format!("Cannot send signal {signal}: {}", other.desc())),
    }
}
