//! Create and Start: what becomes of the container's task.

use std::sync::Arc;

use libc::SIGKILL;
use reprise_runtime::{Error, Result};
use tokio::sync::oneshot;

use super::making::{Made, Making};
use super::{Container, Done, Flow, Held, Message, Reply, blocking, respond};
use crate::events::{Created, Event};
use crate::reaper::Exit;
use crate::task::AfterStart;
use crate::telemetry;

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
