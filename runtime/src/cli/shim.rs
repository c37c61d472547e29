//! The shim of a container, as the commands ask it.

use std::path::Path;
use std::time::Duration;

use containerd_shim_protos::TaskClient;
use containerd_shim_protos::api::{CheckpointTaskRequest, PidsRequest};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use reprise_runtime::publish::IMAGE_HEADER;
use reprise_runtime::{Error, ErrorKind, Result};
use ttrpc::context::{self, Context};

/// How long an answer may take that needs no work.
const SOON: Duration = Duration::from_secs(10);

/// A connection to the shim of one container.
pub(super) struct Shim {
    client: TaskClient,
    address: String,
    namespace: String,
    id: String,
}

impl Shim {
    /// Connects to the one whose address is below `run_root`.
    ///
    /// # Errors
    /// When there is none, or it does not listen ([`ErrorKind::Unavailable`]).
    pub(super) fn of(run_root: &Path, namespace: String, id: String) -> Result<Self> {
        let file = run_root.join(&namespace).join(&id).join("address");
        let address = std::fs::read_to_string(&file)
            .map_err(|e| Error::because(format_args!("Cannot read {}", file.display()), &e))?;
        let address = address.trim().to_owned();
        let client =
            ttrpc::Client::connect(&address).map_err(|e| unreachable(&id, &address, &e))?;
        Ok(Self {
            client: TaskClient::new(client),
            address,
            namespace,
            id,
        })
    }

    /// The container's id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// containerd's namespace that it is in.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The container's processes, by their pids on the node.
    ///
    /// # Errors
    /// The shim's own.
    pub(super) fn pids(&self) -> Result<Vec<u32>> {
        let mut request = PidsRequest::new();
        request.id.clone_from(&self.id);
        let answer = self.client.pids(self.context(SOON), &request);
        let processes = answer.map_err(|e| self.failed(e))?.processes;
        Ok(processes.iter().map(|process| process.pid).collect())
    }

    /// Takes a checkpoint, for an image of this name, and ends the container after it.
    ///
    /// # Errors
    /// The shim's own: its line says what went wrong.
    pub(super) fn checkpoint(
        &self,
        image: Option<&str>,
        exit: bool,
        deadline: Duration,
    ) -> Result<()> {
        let mut context = self.context(deadline);
        if let Some(image) = image {
            context.add(IMAGE_HEADER.to_owned(), image.to_owned());
        }
        self.client
            .checkpoint(context, &request(&self.id, exit))
            .map(drop)
            .map_err(|e| self.failed(e))
    }

    fn context(&self, deadline: Duration) -> Context {
        let nanoseconds = i64::try_from(deadline.as_nanos()).unwrap_or(i64::MAX);
        let mut context = context::with_timeout(nanoseconds);
        context.add(
            "containerd-namespace-ttrpc".to_owned(),
            self.namespace.clone(),
        );
        context
    }

    fn failed(&self, error: ttrpc::Error) -> Error {
        match error {
            ttrpc::Error::RpcStatus(status) => Error::internal(status.message),
            other => unreachable(&self.id, &self.address, &other),
        }
    }
}

fn unreachable(id: &str, address: &str, error: &ttrpc::Error) -> Error {
    Error::because(
        format_args!("Cannot reach the shim of {id} at {address}"),
        error,
    )
    .with_kind(ErrorKind::Unavailable)
}

/// What the shim is asked: an empty path means into the store only.
fn request(id: &str, exit: bool) -> CheckpointTaskRequest {
    let mut request = CheckpointTaskRequest::new();
    request.id = id.to_owned();
    if exit {
        // containerd.runc.v1.CheckpointOptions { exit = 1: true }
        let mut options = Any::new();
        options.type_url = "containerd.runc.v1.CheckpointOptions".to_owned();
        options.value = vec![0x08, 0x01];
        request.options = Some(options).into();
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_goes_into_the_store_and_may_end_the_container() {
        assert!(request("abc", false).options.is_none());
        let request = request("abc", true);
        assert!(request.path.is_empty());
        assert_eq!(request.options.value, [8, 1]);
    }
}
