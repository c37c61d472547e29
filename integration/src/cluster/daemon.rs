//! One of the programs of a cluster, in the namespaces of its node.

use crate::node::only_child;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// A program that runs until it is ended, or until its node is.
#[derive(Debug)]
pub(super) struct Daemon {
    name: String,
    log: PathBuf,
    /// It is the only child of the `nsenter` that went into its node's PID namespace.
    nsenter: Mutex<Option<Child>>,
}

impl Daemon {
    /// Starts it by an `nsenter`; it writes to the log.
    pub(super) fn start(name: &str, log: &Path, command: Command) -> Result<Self> {
        let daemon = Self {
            name: name.to_owned(),
            log: log.to_owned(),
            nsenter: Mutex::new(None),
        };
        daemon.start_again(command)?;
        Ok(daemon)
    }

    pub(super) fn start_again(&self, mut command: Command) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        *self.nsenter() = Some(child);
        Ok(())
    }

    /// Fails when it has ended by itself; the message names its log.
    pub(super) fn check(&self) -> Result<()> {
        let ended = match self.nsenter().as_mut() {
            Some(child) => child.try_wait()?,
            None => None,
        };
        match ended {
            Some(status) => bail!(
                "{} ended with {status}, see {}",
                self.name,
                self.log.display()
            ),
            None => Ok(()),
        }
    }

    /// Ends it and waits for its end.
    pub(super) fn stop(&self, signal: Signal) -> Result<()> {
        let Some(mut nsenter) = self.nsenter().take() else {
            return Ok(());
        };
        match only_child(nsenter.id()) {
            // It may just be ending by itself.
            Ok(program) => drop(kill(program, signal)),
            // Not started yet, or gone with its node.
            Err(_) => nsenter.kill()?,
        }
        nsenter.wait()?;
        Ok(())
    }

    /// Where its log is.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    fn nsenter(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.nsenter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Daemon {
    /// Its node has ended most times, and it with that.
    fn drop(&mut self) {
        self.stop(Signal::SIGKILL).ok();
    }
}
