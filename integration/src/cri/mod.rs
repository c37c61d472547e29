//! A CRI client over gRPC, so that a measured time is that of the call itself
//! and not that of starting `crictl`.

pub mod proto;

use crate::grpc::Grpc;
use crate::wait::patience;
use anyhow::{Context, Result};
use prost::Message;
use proto::*;

/// A blocking client; usable from many threads at once.
#[derive(Debug)]
pub struct Cri(Grpc);

impl Cri {
    /// A client of the CRI at this unix socket; connects when first used.
    ///
    /// # Errors
    /// When no runtime can be made.
    pub fn new(socket: &str) -> Result<Self> {
        Ok(Self(Grpc::new(socket)?))
    }

    /// Whether runtime and network are ready.
    pub fn ready(&self) -> bool {
        let status = self.call::<_, proto::StatusResponse>("Status", Empty {});
        status.is_ok_and(|answer| {
            let conditions = answer.status.unwrap_or_default().conditions;
            ["RuntimeReady", "NetworkReady"].iter().all(|wanted| {
                conditions
                    .iter()
                    .any(|condition| condition.kind == *wanted && condition.status)
            })
        })
    }

    /// Makes a pod's sandbox and returns its id.
    ///
    /// # Errors
    /// containerd's.
    pub fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Result<String> {
        let request = RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: handler.to_owned(),
        };
        Ok(self.call::<_, Id>("RunPodSandbox", request)?.id)
    }

    /// Stops a pod and everything in it.
    ///
    /// # Errors
    /// containerd's.
    pub fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.by_id("StopPodSandbox", id)
    }

    /// Removes a pod and everything in it.
    ///
    /// # Errors
    /// containerd's.
    pub fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.by_id("RemovePodSandbox", id)
    }

    /// What containerd says about a pod.
    ///
    /// # Errors
    /// containerd's.
    pub fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse> {
        self.call("PodSandboxStatus", verbose(id))
    }

    /// Makes a container and returns its id.
    ///
    /// # Errors
    /// containerd's.
    pub fn create_container(
        &self,
        pod: &str,
        config: ContainerConfig,
        pod_config: PodSandboxConfig,
    ) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: Some(pod_config),
        };
        Ok(self.call::<_, Id>("CreateContainer", request)?.id)
    }

    /// Starts a container.
    ///
    /// # Errors
    /// containerd's.
    pub fn start_container(&self, id: &str) -> Result<()> {
        self.by_id("StartContainer", id)
    }

    /// Stops a container: its stop signal, and SIGKILL after so many seconds.
    ///
    /// # Errors
    /// containerd's.
    pub fn stop_container(&self, id: &str, timeout: i64) -> Result<()> {
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout,
        };
        self.call::<_, Empty>("StopContainer", request)?;
        Ok(())
    }

    /// Removes a container.
    ///
    /// # Errors
    /// containerd's.
    pub fn remove_container(&self, id: &str) -> Result<()> {
        self.by_id("RemoveContainer", id)
    }

    /// What containerd says about a container, with its internals as JSON.
    ///
    /// # Errors
    /// containerd's.
    pub fn container_status(&self, id: &str) -> Result<ContainerStatusResponse> {
        self.call("ContainerStatus", verbose(id))
    }

    /// Runs a command in a container, for a minute at most.
    ///
    /// # Errors
    /// containerd's.
    pub fn exec_sync(&self, id: &str, cmd: &[&str]) -> Result<ExecSyncResponse> {
        let request = ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: cmd.iter().map(|&arg| arg.to_owned()).collect(),
            timeout: 60 * i64::from(patience()),
        };
        self.call("ExecSync", request)
    }

    /// Writes a container's checkpoint to a file.
    ///
    /// # Errors
    /// containerd's.
    pub fn checkpoint_container(&self, id: &str, location: &str) -> Result<()> {
        let request = CheckpointContainerRequest {
            container_id: id.to_owned(),
            location: location.to_owned(),
            timeout: 0,
        };
        self.call::<_, Empty>("CheckpointContainer", request)?;
        Ok(())
    }

    /// Gives a container other limits.
    ///
    /// # Errors
    /// containerd's.
    pub fn update_container(&self, id: &str, limits: LinuxContainerResources) -> Result<()> {
        let request = UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(limits),
        };
        self.call::<_, Empty>("UpdateContainerResources", request)?;
        Ok(())
    }

    /// What a container uses.
    ///
    /// # Errors
    /// containerd's.
    pub fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let answer: ContainerStatsResponse = self.call("ContainerStats", Id { id: id.into() })?;
        answer.stats.context("no stats")
    }

    /// The containers of a pod.
    ///
    /// # Errors
    /// containerd's.
    pub fn list_containers(&self, pod: &str) -> Result<Vec<ListedContainer>> {
        let request = ListContainersRequest {
            filter: Some(ContainerFilter {
                pod_sandbox_id: pod.to_owned(),
            }),
        };
        let answer: ListContainersResponse = self.call("ListContainers", request)?;
        Ok(answer.containers)
    }

    fn by_id(&self, method: &'static str, id: &str) -> Result<()> {
        self.call::<_, Empty>(method, Id { id: id.to_owned() })?;
        Ok(())
    }

    fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        self.0
            .call(&format!("/runtime.v1.RuntimeService/{method}"), request)
            .map_err(|refused| anyhow::anyhow!("CRI {method}: {refused}"))
    }
}

fn verbose(id: &str) -> proto::StatusRequest {
    proto::StatusRequest {
        id: id.to_owned(),
        verbose: true,
    }
}
