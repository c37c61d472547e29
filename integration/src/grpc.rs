//! gRPC over a unix socket: what the clients of containerd's two APIs share.

use crate::wait::patiently;
use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use prost::Message;
use std::time::Duration;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tower::service_fn;

/// What a server answers when it refuses.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The code.
    pub code: Code,
    /// The words.
    pub message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self {
            code: status.code(),
            message: status.message().to_owned(),
        }
    }
}

/// A blocking client; usable from many threads at once.
#[derive(Debug)]
pub struct Grpc {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    namespace: Option<MetadataValue<Ascii>>,
    limit: Duration,
}

impl Grpc {
    /// A client of the server at this unix socket; connects when first used.
    ///
    /// # Errors
    /// When no runtime can be made.
    pub fn new(socket: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let socket = socket.to_owned();
        let connect = service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(socket).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let channel = runtime.block_on(async {
            Endpoint::from_static("http://socket").connect_with_connector_lazy(connect)
        });
        Ok(Self {
            runtime,
            channel,
            namespace: None,
            limit: Duration::from_secs(120),
        })
    }

    /// In this namespace of containerd's.
    ///
    /// # Errors
    /// When its name cannot be sent.
    pub fn in_namespace(mut self, namespace: &str) -> Result<Self> {
        self.namespace = Some(namespace.parse().context("containerd's namespace")?);
        Ok(self)
    }

    /// Waits this long for an answer.
    #[must_use]
    pub fn answering_within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// One call: `/package.Service/Method`.
    ///
    /// # Errors
    /// The server's own, code and words.
    pub fn call<Q, A>(&self, path: &str, request: Q) -> Result<A, Refused>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(path.to_owned())
            .map_err(|error| Status::internal(error.to_string()))?;
        let mut client =
            tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        let mut request = Request::new(request);
        request.set_timeout(patiently(self.limit));
        if let Some(namespace) = &self.namespace {
            let metadata = request.metadata_mut();
            metadata.insert("containerd-namespace", namespace.clone());
        }
        self.runtime.block_on(async move {
            client
                .ready()
                .await
                .map_err(|error| Status::unavailable(error.to_string()))?;
            let codec = tonic::codec::ProstCodec::<Q, A>::default();
            let answer = client.unary(request, path, codec).await?;
            Ok(answer.into_inner())
        })
    }
}
