//! Who a checkpointed container was, in the words of containerd's own checkpoints
//! (`internal/cri/server/container_checkpoint_linux.go`), which checkpointctl reads.

use serde::Deserialize;
use serde_json::{Value, json};

use reprise_runtime::checkpoint::Manifest;
use reprise_runtime::timestamp::rfc3339;

use super::base::Base;
use super::containers::Container;

/// Where the CRI plugin keeps what it knows of a container.
const CRI_METADATA: &str = "io.cri-containerd.container.metadata";

#[derive(Deserialize)]
struct Versioned {
    #[serde(rename = "Metadata")]
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    name: String,
    #[serde(rename = "SandboxID")]
    sandbox: String,
}

/// What of a container is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    /// Name, as the CRI plugin makes it, or the id.
    name: String,
    /// Id of its pod's sandbox, if it is in a pod.
    pub(crate) sandbox: Option<String>,
}

impl Description {
    pub(crate) fn of(container: &Container) -> Self {
        let metadata = container
            .extensions
            .get(CRI_METADATA)
            .and_then(|text| serde_json::from_slice::<Versioned>(text).ok())
            .map(|versioned| versioned.metadata);
        match metadata {
            Some(metadata) => Self {
                name: metadata.name,
                sandbox: Some(metadata.sandbox),
            },
            None => Self {
                name: container.id.clone(),
                sandbox: None,
            },
        }
    }

    /// `config.dump`.
    pub(crate) fn config_dump(
        &self,
        container: &Container,
        base: &Base,
        manifest: &Manifest,
    ) -> Value {
        let reference = match &base.manifest {
            Some(descriptor) => format!("{}@{}", repository(&base.name), descriptor.digest),
            None => base.name.clone(),
        };
        json!({
            "id": container.id,
            "name": self.name,
            "rootfsImage": base.name,
            "rootfsImageRef": reference,
            "rootfsImageName": base.name,
            "runtime": container.runtime,
            "createdTime": rfc3339(container.created_unix_s),
            "checkpointedTime": rfc3339(manifest.created_unix_s),
            "restoredTime": "0001-01-01T00:00:00Z",
            "restored": false,
        })
    }
}

/// A reference without its tag or digest.
fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        // A colon before a slash belongs to a port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_digests_are_no_part_of_a_repository() {
        for (name, expected) in [
            (
                "docker.io/reprise/busybox:latest",
                "docker.io/reprise/busybox",
            ),
            ("localhost:5000/a/b", "localhost:5000/a/b"),
            ("localhost:5000/a/b:1@sha256:00", "localhost:5000/a/b"),
        ] {
            assert_eq!(repository(name), expected);
        }
    }
}
