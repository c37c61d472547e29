//! Who gets the system calls that a filter intercepts (`SCMP_ACT_NOTIFY`): a program
//! of the node's, at a unix socket. It gets the filter's descriptor together with
//! the container's state, as the runtime spec has it.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use oci_spec::runtime::{LinuxSeccomp, Spec};
use serde_json::json;

use super::{Inside, words};
use crate::worker::hooks::{OCI_VERSION, State};

/// An agent and what it is told.
#[derive(Debug, Clone)]
pub(in crate::worker) struct Agent {
    path: PathBuf,
    metadata: String,
    state: State,
    /// The container's first process, when another is being started.
    init: Option<i32>,
}

impl Agent {
    /// The agent of a spec's filter, if that names one.
    pub(in crate::worker) fn of(
        spec: &Spec,
        id: &str,
        bundle: &Path,
        init: Option<i32>,
    ) -> Option<Self> {
        let seccomp = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref())?;
        let path = seccomp.listener_path().clone()?;
        let status = if init.is_some() {
            "running"
        } else {
            "creating"
        };
        (!path.as_os_str().is_empty()).then(|| Self {
            path,
            metadata: metadata(seccomp),
            state: State::new(spec, id, bundle, status),
            init,
        })
    }

    /// Hands it the descriptor of the filter of process `pid`.
    pub(super) fn send(&self, pid: i32, listener: &OwnedFd) -> Inside<()> {
        let shown = self.path.display();
        let socket = UnixStream::connect(&self.path).map_err(|e| {
            let e = nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or_default());
            format!(
                "failed to connect with seccomp agent specified in the seccomp profile: \
                 dial unix {shown}: connect: {}",
                words(e)
            )
        })?;
        let state = self.state(pid).to_string();
        let text = [IoSlice::new(state.as_bytes())];
        let fds = [listener.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(socket.as_raw_fd(), &text, &rights, MsgFlags::empty(), None)
            .map(drop)
            .map_err(|e| format!("cannot send seccomp fd to {shown}: {}", words(e)))
    }

    /// The spec's `ContainerProcessState`.
    fn state(&self, pid: i32) -> serde_json::Value {
        let mut whole = json!({
            "ociVersion": OCI_VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "state": self.state.clone().with_pid(self.init.unwrap_or(pid)),
        });
        if !self.metadata.is_empty() {
            whole["metadata"] = json!(self.metadata);
        }
        whole
    }
}

fn metadata(seccomp: &LinuxSeccomp) -> String {
    seccomp.listener_metadata().clone().unwrap_or_default()
}
