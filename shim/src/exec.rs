//! Processes that are exec'd into a container: `Added → Starting → Running →
//! Exiting → Exited`, pure like `task`.

use crate::reaper::Exit;
use crate::task::Status;
use reprise_runtime::{Error, ErrorKind};

/// State of an exec'd process. `S` is what it takes to start it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exec<S> {
    /// containerd told us of it.
    Added { spec: S },
    /// A worker starts it.
    Starting,
    /// It runs.
    Running { pid: i32 },
    /// It has ended; its output is being drained.
    Exiting { pid: i32, exit: Exit },
    /// It has ended, or could not be started (then the pid is 0).
    Exited { pid: i32, exit: Exit },
}

impl<S> Exec<S> {
    /// How the state looks from outside.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Added { .. } | Self::Starting => Status::Created,
            Self::Running { .. } | Self::Exiting { .. } => Status::Running,
            Self::Exited { .. } => Status::Stopped,
        }
    }

    /// Its pid, 0 while there is none.
    pub(crate) fn pid(&self) -> i32 {
        match *self {
            Self::Added { .. } | Self::Starting => 0,
            Self::Running { pid } | Self::Exiting { pid, .. } | Self::Exited { pid, .. } => pid,
        }
    }

    /// How it ended, once that may be told.
    pub(crate) fn exit(&self) -> Option<Exit> {
        match *self {
            Self::Exited { exit, .. } => Some(exit),
            Self::Added { .. } | Self::Starting | Self::Running { .. } | Self::Exiting { .. } => {
                None
            }
        }
    }

    /// Whether its exit is still to be told.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(
            self,
            Self::Starting | Self::Running { .. } | Self::Exiting { .. }
        )
    }

    /// Start was asked for: gives out what it takes.
    pub(crate) fn start(&mut self) -> Result<S, Error> {
        match std::mem::replace(self, Self::Starting) {
            Self::Added { spec } => Ok(spec),
            other => {
                *self = other;
                Err(self.refused("start"))
            }
        }
    }

    /// It runs.
    pub(crate) fn started(&mut self, pid: i32) {
        *self = Self::Running { pid };
    }

    /// It could not be started.
    pub(crate) fn start_failed(&mut self, now: Exit) {
        *self = Self::Exited { pid: 0, exit: now };
    }

    /// It has ended.
    pub(crate) fn exited(&mut self, exit: Exit) {
        if let Self::Running { pid } = *self {
            *self = Self::Exiting { pid, exit };
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

    /// Whether it may be deleted, and how it ended if it ever ran.
    pub(crate) fn delete(&self) -> Result<(i32, Option<Exit>), Error> {
        match *self {
            Self::Added { .. } => Ok((0, None)),
            Self::Exited { pid, exit } => Ok((pid, Some(exit))),
            Self::Starting | Self::Running { .. } | Self::Exiting { .. } => {
                Err(self.refused("delete"))
            }
        }
    }

    fn refused(&self, what: &str) -> Error {
        let state = match self {
            Self::Added { .. } => "created",
            Self::Starting => "starting",
            Self::Running { .. } => "running",
            Self::Exiting { .. } | Self::Exited { .. } => "stopped",
        };
        Error::new(
            ErrorKind::FailedPrecondition,
            format!("cannot {what} a {state} process"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lives_once() {
        let mut exec = Exec::Added { spec: "sh" };
        assert_eq!(exec.status(), Status::Created);
        assert_eq!(exec.start().unwrap(), "sh");
        assert!(exec.start().is_err());
        exec.started(5);
        assert!(exec.delete().is_err());
        exec.exited(Exit::now(2));
        assert_eq!(exec.exit(), None);
        assert_eq!(exec.told().unwrap().1.status, 2);
        assert_eq!(exec.told(), None);
        assert_eq!(exec.delete().unwrap().0, 5);
    }
}
