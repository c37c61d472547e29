//! States of a container and the ways between them: pure.
//!
//! ```text
//!  Preparing ─> Created ─> Starting ─> Running <─> Pausing, Paused, Resuming
//!      │           │          │          │  ╲         │
//!      │           │          │          │   Checkpointing (and back)
//!      └───────────┴──────────┴──────────┴──────────┴──> Exiting ─> Exited ─> Removing
//! ```
//!
//! An exit may come in every state from Created on. In Starting it is kept until
//! Start has been answered, so that nobody hears of an end before the beginning.
//! Exiting lasts until the exit may be told: other processes dead, output drained.

use crate::reaper::Exit;
use reprise_runtime::{Error, ErrorKind};

/// State of a container. `H` is what holds a container still before its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task<H> {
    /// A worker makes it exist.
    Preparing,
    /// It exists and stands still.
    Created { pid: i32, held: H },
    /// It is being let go; an exit that came meanwhile is kept.
    Starting { pid: i32, early: Option<Exit> },
    /// It runs.
    Running { pid: i32 },
    /// It is being frozen.
    Pausing { pid: i32 },
    /// It is frozen.
    Paused { pid: i32 },
    /// It is being thawed.
    Resuming { pid: i32 },
    /// A worker dumps it; afterwards it is as before.
    Checkpointing { pid: i32, paused: bool },
    /// Init is dead, which is not told yet.
    Exiting { pid: i32, exit: Exit },
    /// Init is dead.
    Exited { pid: i32, exit: Exit },
    /// What is left of it is being removed.
    Removing { pid: i32, exit: Exit },
}

/// How the state looks from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Created,
    Running,
    Pausing,
    Paused,
    Stopped,
}

/// What came of the end of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterStart {
    /// It runs.
    Runs,
    /// It has ended meanwhile.
    Ended,
}

impl<H> Task<H> {
    /// How the state looks from outside.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Preparing | Self::Created { .. } | Self::Starting { .. } => Status::Created,
            Self::Running { .. }
            | Self::Resuming { .. }
            | Self::Checkpointing { paused: false, .. }
            | Self::Exiting { .. } => Status::Running,
            Self::Pausing { .. } => Status::Pausing,
            Self::Paused { .. } | Self::Checkpointing { paused: true, .. } => Status::Paused,
            Self::Exited { .. } | Self::Removing { .. } => Status::Stopped,
        }
    }

    /// Init's pid, 0 while there is none.
    pub(crate) fn pid(&self) -> i32 {
        match *self {
            Self::Preparing => 0,
            Self::Created { pid, .. }
            | Self::Starting { pid, .. }
            | Self::Running { pid }
            | Self::Pausing { pid }
            | Self::Paused { pid }
            | Self::Resuming { pid }
            | Self::Checkpointing { pid, .. }
            | Self::Exiting { pid, .. }
            | Self::Exited { pid, .. }
            | Self::Removing { pid, .. } => pid,
        }
    }

    /// How it ended, once that may be told.
    pub(crate) fn exit(&self) -> Option<Exit> {
        match *self {
            Self::Exited { exit, .. } | Self::Removing { exit, .. } => Some(exit),
            Self::Preparing
            | Self::Created { .. }
            | Self::Starting { .. }
            | Self::Running { .. }
            | Self::Pausing { .. }
            | Self::Paused { .. }
            | Self::Resuming { .. }
            | Self::Checkpointing { .. }
            | Self::Exiting { .. } => None,
        }
    }

    /// Whether init is there and has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Self::Created { .. }
            | Self::Running { .. }
            | Self::Pausing { .. }
            | Self::Paused { .. }
            | Self::Resuming { .. }
            | Self::Checkpointing { .. }
            | Self::Starting { early: None, .. } => true,
            Self::Preparing
            | Self::Starting { .. }
            | Self::Exiting { .. }
            | Self::Exited { .. }
            | Self::Removing { .. } => false,
        }
    }

    /// The worker has made it.
    pub(crate) fn prepared(&mut self, pid: i32, held: H) {
        debug_assert!(matches!(self, Self::Preparing));
        *self = Self::Created { pid, held };
    }

    /// Start was asked for: gives out what holds it.
    pub(crate) fn start(&mut self) -> Result<H, Error> {
        let pid = self.pid();
        match std::mem::replace(self, Self::Starting { pid, early: None }) {
            Self::Created { held, .. } => Ok(held),
            other => {
                *self = other;
                Err(self.refused("start a {} process"))
            }
        }
    }

    /// The start came to its end; `pid` is known by now.
    pub(crate) fn started(&mut self, pid: i32) -> AfterStart {
        match *self {
            Self::Starting {
                early: Some(exit), ..
            } => {
                *self = Self::Exiting { pid, exit };
                AfterStart::Ended
            }
            _ => {
                *self = Self::Running { pid };
                AfterStart::Runs
            }
        }
    }

    /// The start failed. Without a process there will be no exit to wait for.
    pub(crate) fn start_failed(&mut self, now: Exit) -> AfterStart {
        match *self {
            Self::Starting { pid: 0, early } => {
                *self = Self::Exited {
                    pid: 0,
                    exit: early.unwrap_or(now),
                };
                AfterStart::Runs
            }
            Self::Starting { pid, .. } => self.started(pid),
            _ => AfterStart::Runs,
        }
    }

    /// Init has ended. True if it may be told from now on (see Starting).
    pub(crate) fn exited(&mut self, exit: Exit) -> bool {
        match self {
            Self::Starting { early, .. } => {
                *early = Some(exit);
                false
            }
            Self::Preparing
            | Self::Exiting { .. }
            | Self::Exited { .. }
            | Self::Removing { .. } => false,
            Self::Created { pid, .. }
            | Self::Running { pid }
            | Self::Pausing { pid }
            | Self::Paused { pid }
            | Self::Resuming { pid }
            | Self::Checkpointing { pid, .. } => {
                *self = Self::Exiting { pid: *pid, exit };
                true
            }
        }
    }

    /// The exit is being told.
    pub(crate) fn told(&mut self) -> Option<(i32, Exit)> {
        let Self::Exiting { pid, exit } = *self else {
            return None;
        };
        *self = Self::Exited { pid, exit };
        Some((pid, exit))
    }

    /// Pause was asked for.
    pub(crate) fn pause(&mut self) -> Result<(), Error> {
        let Self::Running { pid } = *self else {
            return Err(self.refused("pause a {} container"));
        };
        *self = Self::Pausing { pid };
        Ok(())
    }

    /// The freeze came to its end.
    pub(crate) fn paused(&mut self, frozen: bool) {
        if let Self::Pausing { pid } = *self {
            *self = if frozen {
                Self::Paused { pid }
            } else {
                Self::Running { pid }
            };
        }
    }

    /// Resume was asked for.
    pub(crate) fn resume(&mut self) -> Result<(), Error> {
        let Self::Paused { pid } = *self else {
            return Err(self.refused("resume a {} container"));
        };
        *self = Self::Resuming { pid };
        Ok(())
    }

    /// The thaw came to its end.
    pub(crate) fn resumed(&mut self, thawed: bool) {
        if let Self::Resuming { pid } = *self {
            *self = if thawed {
                Self::Running { pid }
            } else {
                Self::Paused { pid }
            };
        }
    }

    /// A checkpoint was asked for.
    pub(crate) fn checkpoint(&mut self) -> Result<i32, Error> {
        let (pid, paused) = match *self {
            Self::Running { pid } => (pid, false),
            Self::Paused { pid } => (pid, true),
            _ => return Err(self.refused("checkpoint a {} container")),
        };
        *self = Self::Checkpointing { pid, paused };
        Ok(pid)
    }

    /// The checkpoint came to its end, whichever.
    pub(crate) fn checkpointed(&mut self) {
        if let Self::Checkpointing { pid, paused } = *self {
            *self = if paused {
                Self::Paused { pid }
            } else {
                Self::Running { pid }
            };
        }
    }

    /// One more process may be added or started.
    pub(crate) fn may_exec(&self) -> Result<(), Error> {
        match self {
            Self::Running { .. }
            | Self::Resuming { .. }
            | Self::Checkpointing { paused: false, .. } => Ok(()),
            _ => Err(self.refused("exec in a {} state")),
        }
    }

    /// Limits may be changed.
    pub(crate) fn may_update(&self) -> Result<(), Error> {
        if self.is_alive() {
            Ok(())
        } else {
            Err(self.refused("update a {} container"))
        }
    }

    /// Delete was asked for: of an ended container, or of one never started,
    /// whose holder is given out so that it can be dropped. `now` is the exit of
    /// one that was never started.
    pub(crate) fn delete(&mut self, now: Exit) -> Result<Option<H>, Error> {
        match *self {
            Self::Exited { pid, exit } => {
                *self = Self::Removing { pid, exit };
                Ok(None)
            }
            Self::Created { pid, .. } => {
                match std::mem::replace(self, Self::Removing { pid, exit: now }) {
                    Self::Created { held, .. } => Ok(Some(held)),
                    _ => Ok(None),
                }
            }
            _ => Err(self.refused("delete a {} process")),
        }
    }

    /// The removal failed: Delete may be asked for again.
    pub(crate) fn remove_failed(&mut self) {
        if let Self::Removing { pid, exit } = *self {
            *self = Self::Exited { pid, exit };
        }
    }

    /// In the words of runc's shim; `what` has `{}` where the state belongs.
    fn refused(&self, what: &str) -> Error {
        let state = match self {
            Self::Preparing => "half-created",
            Self::Created { .. } => "created",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Pausing { .. } => "pausing",
            Self::Paused { .. } => "paused",
            Self::Resuming { .. } => "resuming",
            Self::Checkpointing { .. } => "checkpointing",
            Self::Exiting { .. } | Self::Exited { .. } => "stopped",
            Self::Removing { .. } => "deleting",
        };
        let message = format!("cannot {}", what.replace("{}", state));
        Error::new(ErrorKind::FailedPrecondition, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy)]
    enum Input {
        Prepared,
        Start,
        Started,
        StartFailed,
        Exited,
        Told,
        Pause,
        PauseDone(bool),
        Resume,
        ResumeDone(bool),
        Checkpoint,
        CheckpointDone,
        Delete,
        RemoveFailed,
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            Just(Input::Prepared),
            Just(Input::Start),
            Just(Input::Started),
            Just(Input::StartFailed),
            Just(Input::Exited),
            Just(Input::Told),
            Just(Input::Pause),
            any::<bool>().prop_map(Input::PauseDone),
            Just(Input::Resume),
            any::<bool>().prop_map(Input::ResumeDone),
            Just(Input::Checkpoint),
            Just(Input::CheckpointDone),
            Just(Input::Delete),
            Just(Input::RemoveFailed),
        ]
    }

    /// Applies one input if it can come in this state at all.
    fn apply(task: &mut Task<()>, input: Input) -> Result<(), Error> {
        match input {
            Input::Prepared if matches!(task, Task::Preparing) => task.prepared(42, ()),
            Input::Started if matches!(task, Task::Starting { .. }) => {
                task.started(42);
            }
            Input::StartFailed => {
                task.start_failed(Exit::now(255));
            }
            Input::Start => task.start()?,
            Input::Exited => {
                task.exited(Exit::now(1));
            }
            Input::Told => {
                task.told();
            }
            Input::Pause => task.pause()?,
            Input::PauseDone(frozen) => task.paused(frozen),
            Input::Resume => task.resume()?,
            Input::ResumeDone(thawed) => task.resumed(thawed),
            Input::Checkpoint => {
                task.checkpoint()?;
            }
            Input::CheckpointDone => task.checkpointed(),
            Input::Delete => {
                task.delete(Exit::now(137))?;
            }
            Input::RemoveFailed => task.remove_failed(),
            Input::Prepared | Input::Started => {}
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn no_way_leads_back_from_an_end(inputs in prop::collection::vec(input(), 0..60)) {
            let mut task = Task::Preparing;
            let mut dead = false;
            let mut told: Option<Exit> = None;
            for input in inputs {
                apply(&mut task, input).ok();
                if dead {
                    prop_assert!(!task.is_alive(), "{task:?} after an end");
                }
                if let Some(exit) = told {
                    prop_assert_eq!(task.exit(), Some(exit), "an exit never changes");
                }
                dead = dead || task.exit().is_some();
                told = told.or(task.exit());
            }
        }

        #[test]
        fn a_refused_request_changes_nothing(inputs in prop::collection::vec(input(), 0..60)) {
            let mut task = Task::Preparing;
            for input in inputs {
                let before = task.clone();
                if apply(&mut task, input).is_err() {
                    prop_assert_eq!(before, task.clone());
                }
            }
        }

        #[test]
        fn a_checkpoint_leaves_the_state_as_it_was(inputs in prop::collection::vec(input(), 0..40)) {
            let mut task = Task::Preparing;
            for input in inputs {
                apply(&mut task, input).ok();
                let before = task.clone();
                if task.checkpoint().is_ok() {
                    prop_assert_eq!(task.status(), before.status());
                    task.checkpointed();
                    prop_assert_eq!(before, task.clone());
                }
            }
        }

        #[test]
        fn a_living_process_has_a_pid(inputs in prop::collection::vec(input(), 0..40)) {
            let mut task = Task::Preparing;
            for input in inputs {
                apply(&mut task, input).ok();
                if task.is_alive() {
                    prop_assert_ne!(task.pid(), 0);
                }
            }
        }
    }

    #[test]
    fn an_exit_before_start_was_answered_waits() {
        let mut task = Task::Preparing;
        task.prepared(7, ());
        task.start().unwrap();
        assert!(!task.exited(Exit::now(3)));
        assert_eq!(task.told(), None);
        assert_eq!(task.started(7), AfterStart::Ended);
        assert_eq!(task.told().unwrap().1.status, 3);
    }

    #[test]
    fn a_refusal_names_the_state() {
        let mut task: Task<()> = Task::Running { pid: 3 };
        let error = task.delete(Exit::now(137)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::FailedPrecondition);
        assert_eq!(error.message, "cannot delete a running process");
    }
}
