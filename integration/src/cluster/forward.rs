//! A port of the machine's loopback that leads to the API server in its own network.

use super::network::API_SERVER;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{self, Shutdown};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::{Builder, JoinHandle};

/// Listens until it is dropped; what is connected then goes on.
#[derive(Debug)]
pub(super) struct Forward {
    listener: TcpListener,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Forward {
    /// Listens at a port of the loopback, any free one if it is 0.
    pub(super) fn start(port: u16, network: File) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("listening at 127.0.0.1:{port}"))?;
        let address = listener.local_addr()?;
        // A socket stays in the network that it was made in, and threads are where the
        // one is that started them.
        let accepting = listener.try_clone()?;
        let thread = Builder::new()
            .name("forward".to_owned())
            .spawn(move || forward(&accepting, &network))?;
        Ok(Self {
            listener,
            address,
            thread: Some(thread),
        })
    }

    /// The API server's URL from outside.
    pub(super) fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        socket::shutdown(self.listener.as_raw_fd(), Shutdown::Both).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn forward(listener: &TcpListener, network: &File) {
    if setns(network, CloneFlags::CLONE_NEWNET).is_err() {
        return;
    }
    while let Ok((client, _)) = listener.accept() {
        // Whoever asks notices by himself that nobody answers.
        join(client).ok();
    }
}

/// Copies both ways until both have ended.
fn join(client: TcpStream) -> io::Result<()> {
    let server = TcpStream::connect(API_SERVER)?;
    let (from_client, from_server) = (client.try_clone()?, server.try_clone()?);
    spawn_copy(from_client, server)?;
    spawn_copy(from_server, client)
}

fn spawn_copy(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    Builder::new().name("forward".to_owned()).spawn(move || {
        io::copy(&mut from, &mut to).ok();
        to.shutdown(std::net::Shutdown::Write).ok();
    })?;
    Ok(())
}
