//! A connection to containerd. Every call blocks, has a deadline, and turns what
//! containerd answers into an error of ours.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request, Response, Status};
use reprise_runtime::error::Doing;
use reprise_runtime::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Runtime};

use super::Labels;

/// What one call may take. containerd answers in milliseconds; a collection of its
/// garbage holds all others up for as long as it takes.
const DEADLINE: Duration = Duration::from_secs(30);
/// What a call may take that reads or writes a whole image.
pub(super) const LONG: Duration = Duration::from_secs(3600);

/// containerd, in one of its namespaces, under a lease or none.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    runtime: Arc<Runtime>,
    pub(super) channel: Channel,
    namespace: String,
    lease: Option<MetadataValue<Ascii>>,
}

impl Client {
    /// Connects to the socket at `address`.
    ///
    /// # Errors
    /// Unavailable when nobody serves it; a namespace that cannot be sent.
    pub(crate) fn connect(address: &Path, namespace: &str) -> Result<Self> {
        sendable(namespace)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.doing("Cannot make a runtime")?;
        let doing = format!(
            "Cannot reach containerd at {}; name its socket with --address or with address \
             below [containerd] in the config file",
            address.display()
        );
        let connecting = containerd_client::connect(address);
        let connected =
            runtime.block_on(async { tokio::time::timeout(DEADLINE, connecting).await });
        let channel = match connected {
            Ok(connected) => connected.doing(doing),
            Err(late) => Err(Error::because(doing, &late)),
        };
        Ok(Self {
            channel: channel.map_err(|e| e.with_kind(ErrorKind::Unavailable))?,
            runtime: Arc::new(runtime),
            namespace: namespace.to_owned(),
            lease: None,
        })
    }

    /// The same connection in another namespace.
    ///
    /// # Errors
    /// A namespace that cannot be sent.
    pub(crate) fn within(&self, namespace: &str) -> Result<Self> {
        sendable(namespace)?;
        Ok(Self {
            namespace: namespace.to_owned(),
            lease: None,
            ..self.clone()
        })
    }

    /// The same connection, whose calls keep what they make under a lease.
    ///
    /// # Errors
    /// An id that cannot be sent.
    pub(crate) fn under(&self, lease: &str) -> Result<Self> {
        Ok(Self {
            lease: Some(sendable(lease)?),
            ..self.clone()
        })
    }

    /// containerd's namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A request with what containerd reads from its headers.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let headers = request.metadata_mut();
        if let Ok(namespace) = sendable(&self.namespace) {
            headers.insert("containerd-namespace", namespace);
        }
        if let Some(lease) = &self.lease {
            headers.insert("containerd-lease", lease.clone());
        }
        request
    }

    /// Waits for one answer.
    pub(super) fn call<T>(
        &self,
        doing: impl Display,
        answer: impl Future<Output = std::result::Result<Response<T>, Status>>,
    ) -> Result<T> {
        self.wait(DEADLINE, doing, async {
            answer.await.map(Response::into_inner)
        })
    }

    /// Waits for something that containerd does, so long at most.
    pub(super) fn wait<T>(
        &self,
        deadline: Duration,
        doing: impl Display,
        answer: impl Future<Output = std::result::Result<T, Status>>,
    ) -> Result<T> {
        let answered = self
            .runtime
            .block_on(async { tokio::time::timeout(deadline, answer).await });
        match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(refused(doing, &status)),
            Err(_late) => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "{doing}: containerd did not answer in {} s",
                    deadline.as_secs()
                ),
            )),
        }
    }
}

/// containerd's refusal as an error of ours.
fn refused(doing: impl Display, status: &Status) -> Error {
    let kind = match status.code() {
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::InvalidArgument => ErrorKind::InvalidArgument,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("{doing}: containerd says {}", said(status)))
}

fn said(status: &Status) -> String {
    match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    }
}

/// A text as a header's value.
fn sendable(text: &str) -> Result<MetadataValue<Ascii>> {
    text.parse().map_err(|_bad| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("{text:?} is no name in containerd; plain letters and digits make one"),
        )
    })
}

/// What is not there is an answer, too.
pub(super) fn optional<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Labels as the API's types hold them.
pub(super) fn to_map(labels: &Labels) -> HashMap<String, String> {
    labels.clone().into_iter().collect()
}

/// Names of the labels as a mask, so that an update leaves all others alone.
pub(super) fn mask(labels: &Labels) -> prost_types::FieldMask {
    prost_types::FieldMask {
        paths: labels.keys().map(|name| format!("labels.{name}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_keep_their_kind_and_containerds_words() {
        let error = refused("Cannot look", &Status::not_found("image \"x\": not found"));
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert_eq!(
            error.message,
            "Cannot look: containerd says image \"x\": not found"
        );
        let error = refused("Cannot look", &Status::deadline_exceeded(""));
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(
            error
                .message
                .ends_with("Deadline expired before operation could complete")
        );
    }

    #[test]
    fn nobody_there_is_unavailable_and_says_what_to_do() {
        let error =
            Client::connect(Path::new("/nonexistent/containerd.sock"), "k8s.io").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(
            error.message.contains("/nonexistent/containerd.sock"),
            "{error}"
        );
        assert!(error.message.contains("--address"), "{error}");
        let error = Client::connect(Path::new("/nonexistent"), "a\nb").unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument);
    }
}
