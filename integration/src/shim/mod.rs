//! A shim driven as containerd drives it, without containerd between: what is
//! measured is the shim's own.

mod codes;
mod forgotten;
mod proto;
mod ttrpc;

pub use codes::{Answered, answers};
pub use forgotten::{empty_shims_go, goes_after_a_broken_off_delete};
pub use proto::Mount;

use crate::node::Node;
use anyhow::{Context, Result, bail};
use prost::Message;
use proto::{BootstrapParams, BootstrapResult, ById, Connected, CreateTask, Kill, Nothing, Waited};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use ttrpc::Client;

const TASK: &str = "containerd.task.v3.Task";
/// Not containerd's own: it must not take these containers for its pods.
const NAMESPACE: &str = "direct";
const GRPC: &str = "/run/containerd/containerd.sock";

/// A shim that was started for one bundle.
#[derive(Debug)]
pub struct DirectShim {
    client: Client,
    socket: PathBuf,
    id: String,
    bundle: PathBuf,
}

impl DirectShim {
    /// Runs `shim start` in a bundle of the node, as containerd does, and connects.
    /// Returns once the shim has answered.
    ///
    /// # Errors
    /// What the shim says.
    pub fn start(node: &Node, shim: &Path, id: &str, bundle: &Path) -> Result<Self> {
        let params = BootstrapParams {
            instance_id: id.to_owned(),
            namespace: NAMESPACE.to_owned(),
            containerd_ttrpc_address: format!("{GRPC}.ttrpc"),
            containerd_grpc_address: GRPC.to_owned(),
        };
        let mut child = node
            .command("sh")
            // Not exec'd: its parent's oom score becomes the shim's, and a parent
            // outside the node's PID namespace would have none.
            .args(["-c", r#"cd "$0" && "$@"; exit $?"#])
            .arg(bundle)
            .arg(shim)
            .args(["-namespace", NAMESPACE, "-address", GRPC, "-id", id])
            .arg("start")
            .env("TTRPC_ADDRESS", &params.containerd_ttrpc_address)
            .env("GRPC_ADDRESS", GRPC)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", shim.display()))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(&params.encode_to_vec())?;
        drop(stdin);
        let done = child.wait_with_output()?;
        if !done.status.success() {
            bail!(
                "{} start: {}",
                shim.display(),
                String::from_utf8_lossy(&done.stderr)
            );
        }
        let answer = BootstrapResult::decode(done.stdout.as_slice())?;
        let socket = answer.address.strip_prefix("unix://");
        let socket = node.path(socket.context("not a unix socket")?);
        let mut shim = Self {
            client: Client::connect(&socket)?,
            socket,
            id: id.to_owned(),
            bundle: bundle.to_owned(),
        };
        // It has no such container yet; that it answers is what counts.
        shim.call::<Connected>("Connect", &shim.by_id()).ok();
        Ok(shim)
    }

    /// Creates the container of the bundle, without any stdio.
    ///
    /// # Errors
    /// The shim's.
    pub fn create(&mut self, rootfs: &[Mount]) -> Result<()> {
        let request = CreateTask {
            id: self.id.clone(),
            bundle: self.bundle.display().to_string(),
            rootfs: rootfs.to_vec(),
        };
        self.call::<Nothing>("Create", &request).map(drop)
    }

    /// Starts it.
    ///
    /// # Errors
    /// The shim's.
    pub fn run(&mut self) -> Result<()> {
        self.call::<Nothing>("Start", &self.by_id()).map(drop)
    }

    /// Kills it.
    ///
    /// # Errors
    /// The shim's.
    pub fn kill(&mut self) -> Result<()> {
        let signal = libc::SIGKILL.unsigned_abs();
        let id = self.id.clone();
        self.call::<Nothing>("Kill", &Kill { id, signal }).map(drop)
    }

    /// Waits for its end and returns its exit code.
    ///
    /// # Errors
    /// The shim's.
    pub fn wait(&mut self) -> Result<u32> {
        Ok(self.call::<Waited>("Wait", &self.by_id())?.exit_status)
    }

    /// Deletes it.
    ///
    /// # Errors
    /// The shim's.
    pub fn delete(&mut self) -> Result<()> {
        self.call::<Nothing>("Delete", &self.by_id()).map(drop)
    }

    /// Asks for the deletion and hangs up, as a containerd does that is stopped just
    /// then; another one comes.
    fn break_off_delete(&mut self) -> Result<()> {
        self.client.send(TASK, "Delete", &self.by_id())?;
        self.client = Client::connect(&self.socket)?;
        Ok(())
    }

    /// Whether it is there, whatever it has.
    fn serves(&self) -> bool {
        Client::connect(&self.socket).is_ok()
    }

    /// Ends the shim. runc's goes before it has answered.
    pub fn shut_down(mut self) {
        self.call::<Nothing>("Shutdown", &self.by_id()).ok();
    }

    fn by_id(&self) -> ById {
        ById {
            id: self.id.clone(),
        }
    }

    fn call<A: Message + Default>(&mut self, method: &str, request: &impl Message) -> Result<A> {
        self.client.call(TASK, method, request)
    }
}
