//! containerd's tasks.

use std::path::Path;
use std::time::Duration;

use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    CreateTaskRequest, DeleteTaskRequest, KillRequest, StartRequest, WaitRequest,
};
use containerd_client::types::Mount;
use reprise_runtime::Result;

use super::Client;
use super::client::optional;

/// What a restore may take: CRIU's own deadline is shorter by default.
const LONGEST: Duration = Duration::from_secs(300);
/// What the end of a killed process may take.
const END: Duration = Duration::from_secs(30);
/// SIGKILL.
const KILL: u32 = 9;
impl Client {
    fn tasks(&self) -> TasksClient<containerd_client::tonic::transport::Channel> {
        TasksClient::new(self.channel.clone())
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
