//! Just enough HTTP to ask a service in a pod.

use crate::programs::Answer;
use crate::wait::patiently;
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// An open connection to a service.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
}

impl Connection {
    /// Connects; to be called in the node's network.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(address: SocketAddr, limit: Duration) -> Result<Self> {
        let limit = patiently(limit);
        let stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Asks for `/` and reads to the connection's end.
    ///
    /// # Errors
    /// When the answer is not a 200.
    pub fn get(mut self) -> Result<Answer> {
        self.stream
            .write_all(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")?;
        let mut response = Vec::new();
        self.stream.read_to_end(&mut response)?;
        body_of(&response)
    }
}

/// What a client heard of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// How many chunks.
    pub chunks: usize,
    /// The longest time between two of them.
    pub longest_silence: Duration,
}

impl Connection {
    /// Asks for a stream of chunks and listens to its end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn listen(mut self, chunks: usize, interval: Duration) -> Result<Heard> {
        let seconds = interval.as_secs_f64();
        write!(
            self.stream,
            "GET /stream?chunks={chunks}&interval={seconds} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n"
        )?;
        let mut all = Vec::new();
        let mut longest_silence = Duration::ZERO;
        let mut last = Instant::now();
        let mut buffer = [0; 4096];
        loop {
            let count = self.stream.read(&mut buffer)?;
            longest_silence = longest_silence.max(last.elapsed());
            last = Instant::now();
            if count == 0 {
                break;
            }
            all.extend_from_slice(&buffer[..count]);
        }
        let chunks = String::from_utf8_lossy(&all).matches("chunk ").count();
        Ok(Heard {
            chunks,
            longest_silence,
        })
    }
}

/// Asks until the first 200; to be called in the node's network.
///
/// # Errors
/// When there was none within the limit.
pub fn first_answer(address: SocketAddr, limit: Duration) -> Result<(Instant, Answer)> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("no answer from {address} within {limit:?}");
        }
        if let Ok(answer) = Connection::open(address, left).and_then(Connection::get) {
            return Ok((Instant::now(), answer));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn body_of(response: &[u8]) -> Result<Answer> {
    let text = std::str::from_utf8(response)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("not a 200: {status}");
    }
    let json = body
        .find('{')
        .zip(body.rfind('}'))
        .map(|(from, to)| &body[from..=to])
        .context("no JSON in the answer")?;
    Ok(serde_json::from_str(json)?)
}

#[cfg(test)]
mod tests {
    use super::body_of;

    #[test]
    fn a_body_is_found_behind_any_framing() {
        let json = r#"{"hostname":"h","pid":1,"boot":"b","count":2}"#;
        let plain = format!("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{json}");
        let chunked = format!("HTTP/1.1 200 OK\r\n\r\n2d\r\n{json}\r\n0\r\n\r\n");
        for response in [plain, chunked] {
            assert_eq!(body_of(response.as_bytes()).unwrap().count, 2);
        }
        let failed = format!("HTTP/1.1 500 Oops\r\n\r\n{json}");
        assert!(body_of(failed.as_bytes()).is_err());
    }
}
