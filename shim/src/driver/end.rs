//! How a container ends: its other processes first, then its output, then the
//! news; at last, with Delete, everything that it left.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reprise_runtime::Result;
use reprise_runtime::cgroup::Cgroup;

use super::making::remove_of;
use super::{Container, Done, Ending, Flow, Held, Reply, blocking, respond};
use crate::events::Event;
use crate::reaper::Exit;
use crate::stdio::polled;
use crate::task::{Status, Task};
use crate::telemetry;

/// How long a reader of output may hold up the news of an exit.
pub(super) const DRAIN_BEFORE_EXIT: Duration = Duration::from_secs(2);
/// How long it may hold up Delete.
const DRAIN_BEFORE_DELETE: Duration = Duration::from_secs(10);
/// How long execs may outlive init before its exit is told without theirs.
const EXECS_DEADLINE: Duration = Duration::from_secs(10);

impl Container {
    pub(super) fn init_exited(&mut self, exit: Exit) {
        if matches!(self.task, Task::Checkpointing { .. }) {
            // Told once the checkpoint is answered for: containerd hangs up on a
            // container that has ended (`checkpoint --exit`).
            self.ended_in_checkpoint = Some(exit);
            return;
        }
        if matches!(self.task, Task::Created { .. }) {
            // The worker that holds it goes; dropping it may wait.
            if let Ok(held) = self.task.start() {
                drop(tokio::task::spawn_blocking(move || drop(held)));
            }
            self.task.started(self.task.pid());
        }
        let was_frozen = matches!(self.task.status(), Status::Paused | Status::Pausing);
        if self.task.exited(exit) {
            self.kill_others(was_frozen);
        }
    }

    /// The exit that was kept until Start was answered is dealt with now.
    pub(super) fn end(&mut self) {
        self.kill_others(false);
    }

    fn kill_others(&mut self, was_frozen: bool) {
        self.ending = Some(Ending::KillingOthers);
        let facts = self.facts.clone();
        let id = self.id();
        self.beside(async move {
            if let Some(facts) = facts {
                let group = facts.group;
                let result = blocking(move || match (facts.private_pids, was_frozen) {
                    (false, _) => group.kill_all(),
                    // What is left in the namespace dies only once it is thawed.
                    (true, true) => group.thaw(),
                    (true, false) => Ok(()),
                });
                if let Err(error) = result.await {
                    telemetry::log_failure(&id, "cannot end all processes", &error);
                }
            }
            Done::OthersKilled
        });
    }

    pub(super) fn await_execs(&mut self) {
        if self.ending != Some(Ending::KillingOthers) {
            return;
        }
        self.ending = Some(Ending::AwaitingExecs);
        if self.has_pending_execs() {
            self.beside(async {
                tokio::time::sleep(EXECS_DEADLINE).await;
                Done::ExecsGivenUp
            });
        } else {
            self.drain();
        }
    }

    /// An exec's end was told: init's may be next.
    pub(super) fn exec_is_over(&mut self) {
        if self.ending == Some(Ending::AwaitingExecs) && !self.has_pending_execs() {
            self.drain();
        }
    }

    fn has_pending_execs(&self) -> bool {
        self.execs.values().any(|exec| exec.state.is_pending())
    }

    pub(super) fn drain(&mut self) {
        if self.ending != Some(Ending::AwaitingExecs) {
            return;
        }
        self.ending = Some(Ending::Draining);
        let copying = self.copying.take();
        let id = self.id();
        self.beside(async move {
            let Some(mut copying) = copying else {
                return Done::Drained(None);
            };
            if !copying.drain(DRAIN_BEFORE_EXIT).await {
                log::warn!(container = id.as_str(); "output is still being read, its end is told before");
            }
            Done::Drained(Some(copying))
        });
    }

    pub(super) fn init_drained(&mut self, copying: Option<crate::stdio::Copying>) {
        self.copying = copying;
        self.ending = None;
        if let Some(oom) = self.oom.take() {
            oom.abort();
            if let Some(facts) = &self.facts {
                let seen = facts.group.oom_kills().unwrap_or_default();
                if seen > self.oom_told.load(Ordering::Relaxed) {
                    self.tell(Event::Oom { id: self.id() });
                }
            }
        }
        let Some((pid, exit)) = self.task.told() else {
            return;
        };
        self.tell(Event::Exit {
            id: self.id(),
            process: self.id(),
            pid,
            exit,
        });
        self.answer_waiting();
    }

    /// Everybody who waits for the exit hears of it.
    pub(super) fn answer_waiting(&mut self) {
        let Some(exit) = self.task.exit() else { return };
        for waiting in self.waiting.drain(..) {
            respond(waiting, Ok(exit));
        }
    }

    pub(super) fn delete(&mut self, reply: Reply<(i32, Exit)>) {
        if matches!(self.task, Task::Preparing) {
            self.abort.request();
            self.deletes.push(reply);
            return;
        }
        let held = match self.task.delete(Exit::killed()) {
            Ok(held) => held,
            Err(error) => return respond(reply, Err(error)),
        };
        let runtime = Arc::clone(&self.context.runtime);
        let remove = remove_of(&self.context, &self.request);
        let run_dir = self.context.state_root.join(&self.request.id);
        let folder = self.request.folder.clone();
        let copying = self.copying.take();
        if let Some(oom) = self.oom.take() {
            oom.abort();
        }
        self.beside(async move {
            if let Some(mut copying) = copying {
                copying.drain(DRAIN_BEFORE_DELETE).await;
            }
            let result = blocking(move || {
                if let Some(Held::Worker(worker)) = held {
                    drop(worker);
                }
                runtime.spawn()?.remove(remove)?;
                folder.map_or(Ok(()), |folder| folder.remove())?;
                remove_run_dir(&run_dir)
            });
            Done::Removed(result.await, reply)
        });
    }

    pub(super) fn removed(&mut self, result: Result<()>, reply: Reply<(i32, Exit)>) -> Flow {
        if let Err(error) = result {
            telemetry::log_failure(&self.request.id, "container delete failed", &error);
            self.task.remove_failed();
            respond(reply, Err(error));
            return Flow::On;
        }
        let pid = self.task.pid();
        let exit = self.task.exit().unwrap_or_else(Exit::killed);
        self.answer_waiting();
        self.tell(Event::Delete {
            id: self.id(),
            pid,
            exit,
        });
        respond(reply, Ok((pid, exit)));
        Flow::Over
    }

    /// Tells of the OOM killer's visits until the container ends.
    pub(super) fn watch_oom(&mut self) {
        let Some(facts) = &self.facts else { return };
        let group = Arc::clone(&facts.group);
        let (id, events) = (self.id(), self.context.events.clone());
        let told = Arc::clone(&self.oom_told);
        self.oom = Some(tokio::spawn(async move {
            let watch = match group.oom_watch().and_then(polled) {
                Ok(watch) => watch,
                Err(_) => {
                    log::debug!(container = id.as_str(); "the OOM killer is not watched");
                    return;
                }
            };
            while let Ok(mut ready) = watch.readable().await {
                use std::os::fd::AsRawFd;
                let mut buffer = [0; 512];
                // What it says does not matter, only that it spoke.
                let read = nix::unistd::read(watch.as_raw_fd(), &mut buffer);
                ready.clear_ready();
                let seen = kills_beyond(&group, told.load(Ordering::Relaxed)).await;
                if let Some(seen) = seen {
                    told.store(seen, Ordering::Relaxed);
                    events.tell(Event::Oom { id: id.clone() });
                } else if !matches!(read, Ok(1..)) {
                    // The cgroup is gone.
                    return;
                }
            }
        }));
    }
}

/// Waits a moment for the count of kills to go beyond `known`: v1 speaks up
/// before the killer has struck.
async fn kills_beyond(group: &Cgroup, known: u64) -> Option<u64> {
    for _ in 0..10 {
        let kills = group.oom_kills().ok()?;
        if kills > known {
            return Some(kills);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

/// Our own files about the container.
pub(crate) fn remove_run_dir(dir: &std::path::Path) -> Result<()> {
    use reprise_runtime::error::Doing;
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).doing(format!("Cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
