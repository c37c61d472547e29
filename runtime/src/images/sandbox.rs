//! The namespaces of a pod that does not exist: network, IPC and host name, for as long
//! as somebody holds them.

use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};
use reprise_runtime::error::Doing;
use reprise_runtime::{Error, Result, sys};

/// A thread in namespaces of its own, which end with it.
#[derive(Debug)]
pub(super) struct Sandbox {
    thread: Option<JoinHandle<()>>,
    ends: Option<Sender<()>>,
    tid: Pid,
}

impl Sandbox {
    /// Makes them, with a loopback that is up: programs listen on it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn make() -> Result<Self> {
        let doing = "Cannot make the namespaces of a pod";
        let (tell, told) = channel::<std::io::Result<Pid>>();
        let (ends, end) = channel::<()>();
        let thread = std::thread::Builder::new().name("sandbox".to_owned());
        let thread = thread
            .spawn(move || {
                let flags =
                    CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
                let made = unshare(flags).map_err(std::io::Error::from);
                let made = made.and_then(|()| sys::loopback_up());
                // Nothing is ever sent: it ends when the sandbox is dropped.
                if tell.send(made.map(|()| gettid())).is_ok() {
                    end.recv().ok();
                }
            })
            .doing(doing)?;
        let tid = match told.recv() {
            Ok(made) => made.map_err(|e| Error::because(doing, &e))?,
            Err(died) => return Err(Error::because(doing, &died)),
        };
        Ok(Self {
            thread: Some(thread),
            ends: Some(ends),
            tid,
        })
    }

    /// Where a namespace is that a spec calls so; `None` for those that no pod shares.
    pub(super) fn path(&self, typ: &str) -> Option<PathBuf> {
        let name = match typ {
            "network" => "net",
            "ipc" => "ipc",
            "uts" => "uts",
            _ => return None,
        };
        let (pid, tid) = (std::process::id(), self.tid);
        Some(PathBuf::from(format!("/proc/{pid}/task/{tid}/ns/{name}")))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.ends.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
