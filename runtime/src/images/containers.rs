//! containerd's containers: the records, not the tasks.

use std::collections::BTreeMap;

use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::{
    Container as ApiContainer, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest,
    ListContainersRequest, UpdateContainerRequest,
};
use prost_types::Any;
use reprise_runtime::{Error, ErrorKind, Result};

use super::client::{mask, optional, to_map};
use super::{Client, Labels};

/// What containerd takes when nobody says another.
const SNAPSHOTTER: &str = "overlayfs";

/// The type of a container's spec (`core/containers` of containerd).
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// A container's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    /// Its id.
    pub(crate) id: String,
    /// Its labels.
    pub(crate) labels: Labels,
    /// Name of the image that it was made from.
    pub(crate) image: String,
    /// Name of the runtime (`io.containerd.reprise.v2`).
    pub(crate) runtime: String,
    /// The snapshotter that has its root file system; containerd's own choice for one
    /// that has none.
    pub(crate) snapshotter: String,
    /// The key of its root file system there; empty when whoever made the container has
    /// mounted one himself.
    pub(crate) snapshot_key: String,
    /// When it was made, in seconds since the epoch.
    pub(crate) created_unix_s: u64,
    /// `config.json`.
    pub(crate) spec: Vec<u8>,
    /// JSON by name, such as the CRI plugin's `io.cri-containerd.container.metadata`.
    pub(crate) extensions: BTreeMap<String, Vec<u8>>,
}

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

impl From<ApiContainer> for Container {
    fn from(container: ApiContainer) -> Self {
        Self {
            id: container.id,
            labels: container.labels.into_iter().collect(),
            image: container.image,
            runtime: container.runtime.unwrap_or_default().name,
            snapshotter: Some(container.snapshotter)
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| SNAPSHOTTER.to_owned()),
            snapshot_key: container.snapshot_key,
            created_unix_s: container
                .created_at
                .and_then(|at| u64::try_from(at.seconds).ok())
                .unwrap_or_default(),
            spec: container.spec.unwrap_or_default().value,
            extensions: container
                .extensions
                .into_iter()
                .map(|(name, any)| (name, any.value))
                .collect(),
        }
    }
}

impl Client {
    fn containers(&self) -> ContainersClient<containerd_client::tonic::transport::Channel> {
        ContainersClient::new(self.channel.clone())
    }

    /// A container's record.
    ///
    /// # Errors
    /// NotFound.
    pub(crate) fn container(&self, id: &str) -> Result<Container> {
        let request = self.request(GetContainerRequest { id: id.to_owned() });
        let mut client = self.containers();
        let found = self.call(
            format_args!("Cannot look at container {id}"),
            client.get(request),
        );
        optional(found)?
            .and_then(|answer| answer.container)
            .map(Container::from)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "There is no container {id} in namespace {}",
                        self.namespace()
                    ),
                )
            })
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
        let mut client = self.containers();
        let doing = format_args!("Cannot make container {}", new.id);
        self.call(doing, client.create(request)).map(drop)
    }

    /// Removes a container's record; none there is no error.
    pub(crate) fn remove_container(&self, id: &str) -> Result<()> {
        let request = self.request(DeleteContainerRequest { id: id.to_owned() });
        let mut client = self.containers();
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
        let mut client = self.containers();
        let answer = self.call("Cannot list containers", client.list(request))?;
        Ok(answer.containers.into_iter().map(Container::from).collect())
    }

    /// Sets labels of a container's record; others stay.
    pub(crate) fn relabel_container(&self, id: &str, labels: &Labels) -> Result<()> {
        let request = self.request(UpdateContainerRequest {
            container: Some(ApiContainer {
                id: id.to_owned(),
                labels: to_map(labels),
                ..ApiContainer::default()
            }),
            update_mask: Some(mask(labels)),
        });
        let mut client = self.containers();
        self.call(
            format_args!("Cannot label container {id}"),
            client.update(request),
        )
        .map(drop)
    }
}
