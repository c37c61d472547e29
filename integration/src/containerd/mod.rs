//! A client of containerd's own API: containers of any spec, on layers of any
//! content, as `ctr` makes them, without starting `ctr` for every step.

pub mod proto;

use crate::grpc::{Grpc, Refused};
use anyhow::{Context, Result};
use prost::Message;
use proto::*;
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

const SNAPSHOTTER: &str = "overlayfs";
/// What containerd calls a runtime spec and a process of one.
const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// A blocking client of one containerd namespace.
#[derive(Debug)]
pub struct Containerd(Grpc);

/// A container that is to be made.
#[derive(Clone, Debug)]
pub struct NewTask<'a> {
    /// Its id.
    pub id: &'a str,
    /// The runtime's type, such as `io.containerd.runc.v2`.
    pub runtime: &'a str,
    /// Its runtime spec.
    pub spec: &'a Value,
    /// What its rootfs is mounted from.
    pub rootfs: Vec<Mount>,
    /// Where its output goes.
    pub output: &'a Output,
    /// Whether systemd makes its cgroups.
    pub systemd: bool,
}

/// Where a process's output goes: two files, or one for a terminal.
#[derive(Clone, Debug)]
pub struct Output {
    /// Standard output, as containerd names it.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Whether it is a terminal.
    pub terminal: bool,
}

impl Containerd {
    /// A client of the containerd at this socket.
    ///
    /// # Errors
    /// When no runtime can be made.
    pub fn new(socket: &str, namespace: &str) -> Result<Self> {
        let grpc = Grpc::new(socket)?
            .in_namespace(namespace)?
            .answering_within(Duration::from_secs(30));
        Ok(Self(grpc))
    }

    /// Makes a container and its task, which does not run yet; the pid of its
    /// first process.
    ///
    /// # Errors
    /// containerd's. The container is gone then.
    pub fn create(&self, new: NewTask<'_>) -> Result<u32, Refused> {
        let options = new.systemd.then(|| Any {
            type_url: "containerd.runc.v1.Options".to_owned(),
            value: RuncOptions {
                systemd_cgroup: true,
            }
            .encode_to_vec(),
        });
        let container = Container {
            id: new.id.to_owned(),
            labels: HashMap::new(),
            runtime: Some(Runtime {
                name: new.runtime.to_owned(),
                options: options.clone(),
            }),
            spec: Some(any(SPEC, new.spec)),
        };
        let container = OneContainer {
            container: Some(container),
        };
        self.call::<_, OneContainer>("containers.v1.Containers/Create", container)?;
        let task = CreateTaskRequest {
            container_id: new.id.to_owned(),
            rootfs: new.rootfs,
            stdout: new.output.stdout.clone(),
            stderr: new.output.stderr.clone(),
            terminal: new.output.terminal,
            options,
            ..CreateTaskRequest::default()
        };
        let made = self.call::<_, CreateTaskResponse>("tasks.v1.Tasks/Create", task);
        if made.is_err() {
            self.forget(new.id)?;
        }
        Ok(made?.pid)
    }

    /// Starts a container's first process, or an exec of it.
    ///
    /// # Errors
    /// containerd's.
    pub fn start(&self, id: &str, exec: &str) -> Result<u32, Refused> {
        let started: StartResponse = self.call("tasks.v1.Tasks/Start", process(id, exec))?;
        Ok(started.pid)
    }

    /// Adds a process to a container.
    ///
    /// # Errors
    /// containerd's.
    pub fn exec(&self, id: &str, exec: &str, spec: &Value, output: &Output) -> Result<(), Refused> {
        let request = ExecProcessRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            stdout: output.stdout.clone(),
            stderr: output.stderr.clone(),
            terminal: output.terminal,
            spec: Some(any(PROCESS, spec)),
            ..ExecProcessRequest::default()
        };
        self.call::<_, Empty>("tasks.v1.Tasks/Exec", request)
            .map(drop)
    }

    /// Waits for a process's end; its exit code.
    ///
    /// # Errors
    /// containerd's, or that it did not end in half a minute.
    pub fn wait(&self, id: &str, exec: &str) -> Result<u32, Refused> {
        let ended: WaitResponse = self.call("tasks.v1.Tasks/Wait", process(id, exec))?;
        Ok(ended.exit_status)
    }

    /// Gives the terminal of a container's first process another size.
    ///
    /// # Errors
    /// containerd's.
    pub fn resize(&self, id: &str, columns: u32, rows: u32) -> Result<(), Refused> {
        let request = ResizePtyRequest {
            container_id: id.to_owned(),
            exec_id: String::new(),
            width: columns,
            height: rows,
        };
        self.call::<_, Empty>("tasks.v1.Tasks/ResizePty", request)
            .map(drop)
    }

    /// Gives a container other limits: `linux.resources` of a runtime spec.
    ///
    /// # Errors
    /// containerd's.
    pub fn update(&self, id: &str, resources: &Value) -> Result<(), Refused> {
        let request = UpdateTaskRequest {
            container_id: id.to_owned(),
            resources: Some(any(RESOURCES, resources)),
        };
        self.call::<_, Empty>("tasks.v1.Tasks/Update", request)
            .map(drop)
    }

    /// Kills every process of a container.
    ///
    /// # Errors
    /// containerd's.
    pub fn kill(&self, id: &str) -> Result<(), Refused> {
        let request = KillRequest {
            container_id: id.to_owned(),
            signal: 9,
            all: true,
            ..KillRequest::default()
        };
        self.call::<_, Empty>("tasks.v1.Tasks/Kill", request)
            .map(drop)
    }

    /// Sends a signal to one process of a container.
    ///
    /// # Errors
    /// containerd's.
    pub fn kill_one(&self, id: &str, exec: &str, signal: u32) -> Result<(), Refused> {
        let request = KillRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            signal,
            all: false,
        };
        self.call::<_, Empty>("tasks.v1.Tasks/Kill", request)
            .map(drop)
    }

    /// Deletes a task that has ended; its output is whole after it.
    ///
    /// # Errors
    /// containerd's.
    pub fn delete(&self, id: &str) -> Result<(), Refused> {
        let request = process(id, "");
        self.call::<_, DeleteResponse>("tasks.v1.Tasks/Delete", request)
            .map(drop)
    }

    /// Deletes an exec that has ended.
    ///
    /// # Errors
    /// containerd's.
    pub fn delete_exec(&self, id: &str, exec: &str) -> Result<(), Refused> {
        let request = process(id, exec);
        self.call::<_, DeleteResponse>("tasks.v1.Tasks/DeleteProcess", request)
            .map(drop)
    }

    /// Deletes a container that has no task.
    ///
    /// # Errors
    /// containerd's.
    pub fn forget(&self, id: &str) -> Result<(), Refused> {
        let request = DeleteContainerRequest { id: id.to_owned() };
        self.call::<_, Empty>("containers.v1.Containers/Delete", request)
            .map(drop)
    }

    /// A new, writable layer on a committed one.
    ///
    /// # Errors
    /// containerd's.
    pub fn prepare(
        &self,
        key: &str,
        parent: &str,
        labels: HashMap<String, String>,
    ) -> Result<Vec<Mount>> {
        let request = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
        };
        let prepared = self.call("snapshots.v1.Snapshots/Prepare", request);
        let prepared: PrepareSnapshotResponse =
            prepared.with_context(|| format!("a layer on {parent}"))?;
        Ok(prepared.mounts)
    }

    /// Commits a writable layer under a name, for others to stand on.
    ///
    /// # Errors
    /// containerd's.
    pub fn commit(&self, key: &str, name: &str) -> Result<()> {
        let request = CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            // Else the garbage collector takes it.
            labels: HashMap::from([("containerd.io/gc.root".to_owned(), "here".to_owned())]),
        };
        self.call::<_, Empty>("snapshots.v1.Snapshots/Commit", request)?;
        Ok(())
    }

    /// Removes a layer that nothing stands on.
    ///
    /// # Errors
    /// containerd's.
    pub fn remove_layer(&self, key: &str) -> Result<()> {
        let request = RemoveSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
        };
        self.call::<_, Empty>("snapshots.v1.Snapshots/Remove", request)?;
        Ok(())
    }

    fn call<Q, A>(&self, method: &str, request: Q) -> Result<A, Refused>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        self.0
            .call(&format!("/containerd.services.{method}"), request)
    }
}

/// The directory that holds what a writable layer adds to those below.
///
/// # Errors
/// When the mount is not an overlay.
pub fn upper(mounts: &[Mount]) -> Result<PathBuf> {
    let options = mounts.iter().flat_map(|mount| &mount.options);
    options
        .filter_map(|option| option.strip_prefix("upperdir="))
        .map(PathBuf::from)
        .next()
        .with_context(|| format!("no upperdir in {mounts:?}"))
}

fn process(id: &str, exec: &str) -> ProcessRequest {
    ProcessRequest {
        container_id: id.to_owned(),
        exec_id: exec.to_owned(),
    }
}

fn any(type_url: &str, value: &Value) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value: value.to_string().into_bytes(),
    }
}
