//! A ttrpc client that asks one thing at a time and waits for the answer.
//!
//! ```text
//!  length u32 | stream u32 | type u8 | flags u8 | message        (big endian)
//! ```

use anyhow::{Context, Result, bail};
use prost::Message;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
/// No answer that we read is nearly as long.
const LONGEST: u32 = 4 << 20;

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    /// Streams of a client have odd numbers.
    next: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    timeout_nano: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

impl Client {
    /// Connects.
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("connecting to {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, next: 1 })
    }

    /// Asks and waits for the answer.
    pub(super) fn call<A: Message + Default>(
        &mut self,
        service: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<A> {
        let response = self.ask(service, method, request)?;
        match response.status {
            Some(status) if status.code != 0 => {
                bail!("{method}: {} (code {})", status.message, status.code)
            }
            _ => Ok(A::decode(response.payload.as_slice())?),
        }
    }

    /// Asks; the code and the message of the answer, 0 and none when all is well.
    pub(super) fn code_of(
        &mut self,
        service: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<(i32, String)> {
        let status = self.ask(service, method, request)?.status;
        let status = status.unwrap_or_default();
        Ok((status.code, status.message))
    }

    fn ask(&mut self, service: &str, method: &str, request: &impl Message) -> Result<Response> {
        let stream = self.send(service, method, request)?;
        self.receive(stream).with_context(|| method.to_owned())
    }

    /// Asks, and does not wait for the answer. The stream that it will come on.
    pub(super) fn send(
        &mut self,
        service: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<u32> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano: 0,
        }
        .encode_to_vec();
        let stream = self.next;
        self.next += 2;
        let mut frame = Vec::with_capacity(10 + request.len());
        frame.extend(u32::try_from(request.len())?.to_be_bytes());
        frame.extend(stream.to_be_bytes());
        frame.extend([REQUEST, 0]);
        frame.extend(request);
        self.stream.write_all(&frame)?;
        Ok(stream)
    }

    fn receive(&mut self, stream: u32) -> Result<Response> {
        let mut header = [0; 10];
        self.stream.read_exact(&mut header)?;
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, _flags] = header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let from = u32::from_be_bytes([s0, s1, s2, s3]);
        if kind != RESPONSE || from != stream || length > LONGEST {
            bail!("a frame of type {kind} and length {length} for stream {from}");
        }
        let mut message = vec![0; usize::try_from(length)?];
        self.stream.read_exact(&mut message)?;
        Ok(Response::decode(message.as_slice())?)
    }
}
