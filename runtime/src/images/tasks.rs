//! containerd's tasks, and the records of containers that we make ourselves.

use std::path::Path;
use std::time::Duration;

use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container as ApiContainer, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest,
    DeleteTaskRequest, KillRequest, ListContainersRequest, StartRequest, WaitRequest,
};
use containerd_client::types::Mount;
use prost_types::Any;
use reprise_runtime::Result;

use super::client::{optional, to_map};
use super::containers::Container;
use super::{Client, Labels};

/// What a restore may take: CRIU's own deadline is shorter by default.
const LONGEST: Duration = Duration::from_secs(300);
/// What the end of a killed process may take.
const END: Duration = Duration::from_secs(30);
/// SIGKILL.
const KILL: u32 = 9;
/// The type of a container's spec (`core/containers` of containerd).
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// A container that is to be made.
#[derive(Debug)]
pub(crate) struct NewContainer<'a> {
    pub(crate) id: &'a str,
    /// The runtime's name.
    pub(crate) runtime: &'a str,
    pub(crate) snapshotter: &'a str,
    pub(crate) snapshot_key: &'a str,
    /// `config.json`.
    pub(crate) spec: Vec<u8>,
    pub(crate) labels: Labels,
}

impl Client {
    fn tasks(&self) -> TasksClient<containerd_client::tonic::transport::Channel> {
        TasksClient::new(self.channel.clone())
    }

    fn records(&self) -> ContainersClient<containerd_client::tonic::transport::Channel> {
        ContainersClient::new(self.channel.clone())
    }

    /// Makes a container's record.
    pub(crate) fn create_container(&self, new: NewContainer<'_>) -> Result<()> {
        let request = self.request(CreateContainerRequest {
            container: Some(ApiContainer {
                id: new.id.to_owned(),
                labels: to_map(&new.labels),
                runtime: Some(Runtime {
                    name: new.runtime.to_owned(),
                    options: None,
                }),
                spec: Some(Any {
                    type_url: SPEC_TYPE.to_owned(),
                    value: new.spec,
                }),
                snapshotter: new.snapshotter.to_owned(),
                snapshot_key: new.snapshot_key.to_owned(),
                ..ApiContainer::default()
            }),
        });
        let mut client = self.records();
        let doing = format_args!("Cannot make container {}", new.id);
        self.call(doing, client.create(request)).map(drop)
    }

    /// Removes a container's record; none there is no error.
    pub(crate) fn remove_container(&self, id: &str) -> Result<()> {
        let request = self.request(DeleteContainerRequest { id: id.to_owned() });
        let mut client = self.records();
        let removed = self.call(
            format_args!("Cannot remove container {id}"),
            client.delete(request),
        );
        optional(removed).map(drop)
    }

    /// Records of containers that have a label.
    pub(crate) fn containers_with(&self, label: &str) -> Result<Vec<Container>> {
        let request = self.request(ListContainersRequest {
            filters: vec![format!("labels.\"{label}\"")],
        });
        let mut client = self.records();
        let answer = self.call("Cannot list containers", client.list(request))?;
        Ok(answer.containers.into_iter().map(Container::from).collect())
    }

    /// Has a container's processes made, without input; what they say goes into a FIFO.
    pub(crate) fn create_task(
        &self,
        container: &str,
        rootfs: Vec<Mount>,
        output: &Path,
    ) -> Result<()> {
        let request = self.request(CreateTaskRequest {
            container_id: container.to_owned(),
            rootfs,
            stdout: output.display().to_string(),
            stderr: output.display().to_string(),
            ..CreateTaskRequest::default()
        });
        let mut client = self.tasks();
        let doing = format_args!("Cannot create the task of {container}");
        self.wait(LONGEST, doing, async {
            client.create(request).await.map(drop)
        })
    }

    /// Lets a container's processes go.
    pub(crate) fn start_task(&self, container: &str) -> Result<()> {
        let request = self.request(StartRequest {
            container_id: container.to_owned(),
            ..StartRequest::default()
        });
        let mut client = self.tasks();
        let doing = format_args!("Cannot start the task of {container}");
        self.wait(LONGEST, doing, async {
            client.start(request).await.map(drop)
        })
    }

    /// Kills a container's processes and removes its task; none there is no error.
    pub(crate) fn remove_task(&self, container: &str) -> Result<()> {
        let doing = format!("Cannot end the task of {container}");
        let kill = self.request(KillRequest {
            container_id: container.to_owned(),
            signal: KILL,
            all: true,
            ..KillRequest::default()
        });
        let wait = self.request(WaitRequest {
            container_id: container.to_owned(),
            ..WaitRequest::default()
        });
        let delete = self.request(DeleteTaskRequest {
            container_id: container.to_owned(),
        });
        let mut client = self.tasks();
        // One that has ended by itself, or was never made, is as good as killed.
        self.call(&doing, client.kill(kill)).ok();
        let ended = self.wait(END, &doing, async { client.wait(wait).await.map(drop) });
        optional(ended)?;
        optional(self.call(&doing, client.delete(delete))).map(drop)
    }
}
