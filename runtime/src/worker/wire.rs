//! One message, one `SEQPACKET` datagram: a byte that says where the JSON is, a
//! byte that says which descriptors came along, and the JSON itself. What does
//! not fit comfortably travels in a memfd.

use std::io::{IoSlice, IoSliceMut, Read, Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Doing, Error, Result};
use crate::sys;

/// JSON beyond this goes into a memfd: safely below the default send buffer.
const INLINE: usize = 64 * 1024;
const MAX_FDS: usize = 4;

/// Sends `message`; `fds[i]` arrives as the i-th of the other side's.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[Option<BorrowedFd<'_>>],
) -> Result<()> {
    let json = serde_json::to_vec(message).doing("cannot encode a message")?;
    let mut present = 0u8;
    let mut raw: Vec<RawFd> = Vec::with_capacity(MAX_FDS);
    for (i, fd) in fds.iter().enumerate() {
        if let Some(fd) = fd {
            present |= 1 << i;
            raw.push(fd.as_raw_fd());
        }
    }
    let large = (json.len() > INLINE).then(|| in_memfd(&json)).transpose()?;
    if let Some(file) = &large {
        raw.push(file.as_raw_fd());
    }
    let header = [u8::from(large.is_some()), present];
    let body: &[u8] = if large.is_some() { &[] } else { &json };
    let control = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() {
        &control[..0]
    } else {
        &control[..]
    };
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&header), IoSlice::new(body)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .doing("cannot send a message")?;
    Ok(())
}

/// Receives a message with up to three descriptors; `None` when the other side
/// has closed.
pub(super) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> Result<Option<(T, [Option<OwnedFd>; 3])>> {
    let mut header = [0u8; 2];
    let mut body = vec![0u8; INLINE];
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut slices = [IoSliceMut::new(&mut header), IoSliceMut::new(&mut body)];
    let got = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .doing("cannot receive a message")?;
    let mut fds = Vec::new();
    for message in got.cmsgs().doing("cannot receive descriptors")? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            fds.extend(raw.into_iter().map(sys::own));
        }
    }
    let bytes = got.bytes;
    if bytes < 2 {
        return Ok(None);
    }
    body.truncate(bytes - 2);
    if header[0] == 1 {
        let file = fds
            .pop()
            .ok_or_else(|| Error::internal("a large message came without its body"))?;
        body = from_memfd(file)?;
    }
    let message = serde_json::from_slice(&body).doing("cannot decode a message")?;
    let mut fds = fds.into_iter();
    let slots = [0, 1, 2].map(|i| {
        if header[1] & (1 << i) == 0 {
            None
        } else {
            fds.next()
        }
    });
    Ok(Some((message, slots)))
}

/// Receives the console's master from libcontainer, whatever text comes with it.
pub(super) fn receive_console(socket: &std::os::unix::net::UnixStream) -> Result<OwnedFd> {
    let mut text = [0u8; 256];
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let mut slices = [IoSliceMut::new(&mut text)];
    let got = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .doing("cannot receive the console")?;
    for message in got.cmsgs().doing("cannot receive the console")? {
        if let ControlMessageOwned::ScmRights(raw) = message
            && let Some(fd) = raw.into_iter().map(sys::own).next()
        {
            return Ok(fd);
        }
    }
    Err(Error::internal("no console came"))
}

fn in_memfd(json: &[u8]) -> Result<std::fs::File> {
    use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
    let fd = memfd_create(c"reprise-message", MemFdCreateFlag::MFD_CLOEXEC)
        .doing("cannot make a memfd")?;
    let mut file = std::fs::File::from(fd);
    file.write_all(json).doing("cannot write a message")?;
    Ok(file)
}

fn from_memfd(fd: OwnedFd) -> Result<Vec<u8>> {
    let mut file = std::fs::File::from(fd);
    let mut json = Vec::new();
    file.rewind().doing("cannot rewind a message")?;
    file.read_to_end(&mut json).doing("cannot read a message")?;
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::os::fd::AsFd;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap()
    }

    #[test]
    fn descriptors_keep_their_places() {
        let (a, b) = pair();
        let null = std::fs::File::open("/dev/null").unwrap();
        send(a.as_fd(), &"hello", &[None, Some(null.as_fd()), None]).unwrap();
        let (text, fds): (String, _) = receive(b.as_fd()).unwrap().unwrap();
        assert_eq!(text, "hello");
        assert_eq!(fds.map(|fd| fd.is_some()), [false, true, false]);
    }

    #[test]
    fn large_messages_arrive_whole() {
        let (a, b) = pair();
        let long = "x".repeat(5_000_000);
        let null = std::fs::File::open("/dev/null").unwrap();
        send(a.as_fd(), &long, &[Some(null.as_fd()), None, None]).unwrap();
        let (text, fds): (String, _) = receive(b.as_fd()).unwrap().unwrap();
        assert_eq!(text, long);
        assert_eq!(fds.map(|fd| fd.is_some()), [true, false, false]);
    }

    #[test]
    fn a_closed_socket_is_no_message() {
        let (a, b) = pair();
        drop(a);
        assert!(receive::<String>(b.as_fd()).unwrap().is_none());
    }
}
