//! CRIU's numbers in words.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Mount, OpenFile, message};

/// Follows the address of a socket that waits for connections.
pub(super) const LISTENING: &str = " listening";

/// `TCP_ESTABLISHED` and `TCP_LISTEN` of the kernel's `tcp_states.h`, which unix
/// sockets use too.
const ESTABLISHED: u32 = 1;
const LISTEN: u32 = 10;

/// A task's state (criu/include/crtools.h).
pub(super) fn state(number: u32) -> &'static str {
    match number {
        1 => "running",
        2 => "dead",
        3 => "stopped",
        _ => "unknown",
    }
}

/// A descriptor, and what it refers to.
pub(super) fn file(
    descriptor: &message::Descriptor,
    files: &HashMap<u32, message::File>,
) -> OpenFile {
    let kind = kind(descriptor.kind);
    let entry = files.get(&descriptor.id);
    let (kind, what) = match entry {
        Some(message::File {
            regular: Some(file),
            ..
        }) => (kind, file.name.clone()),
        Some(message::File {
            inet: Some(socket), ..
        }) => inet(socket),
        Some(message::File {
            unix: Some(socket), ..
        }) => (kind, unix(socket)),
        Some(message::File {
            pipe: Some(pipe), ..
        }) => (kind, format!("{:#x}", pipe.pipe_id)),
        _ => (kind, String::new()),
    };
    OpenFile {
        fd: descriptor.fd,
        kind,
        what,
    }
}

/// `fd_types` of CRIU's `fdinfo.proto`.
fn kind(number: i32) -> &'static str {
    match number {
        1 => "file",
        2 => "pipe",
        3 => "fifo",
        4 => "inet",
        5 => "unix",
        6 => "eventfd",
        7 => "epoll",
        8 => "inotify",
        9 => "signalfd",
        10 => "packet",
        11 => "terminal",
        12 => "fanotify",
        13 => "netlink",
        14 => "namespace",
        15 => "tun",
        16 => "external",
        17 => "timerfd",
        18 => "memfd",
        19 => "bpfmap",
        _ => "unknown",
    }
}

fn inet(socket: &message::Inet) -> (&'static str, String) {
    // IPPROTO_TCP and IPPROTO_UDP.
    let kind = match socket.protocol {
        6 => "tcp",
        17 => "udp",
        _ => "inet",
    };
    let source = address(socket.family, &socket.source, socket.source_port);
    let what = match socket.state {
        LISTEN => format!("{source}{LISTENING}"),
        ESTABLISHED => {
            let target = address(socket.family, &socket.target, socket.target_port);
            format!("{source} to {target}")
        }
        _ => source,
    };
    (kind, what)
}

/// `10.0.0.1:80`, `[::]:80`.
fn address(family: u32, words: &[u32], port: u32) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let ip = if i32::try_from(family) == Ok(libc::AF_INET6) {
        <[u8; 16]>::try_from(bytes)
            .ok()
            .map(|b| IpAddr::V6(Ipv6Addr::from(b)))
    } else {
        <[u8; 4]>::try_from(bytes)
            .ok()
            .map(|b| IpAddr::V4(Ipv4Addr::from(b)))
    };
    match (ip, u16::try_from(port)) {
        (Some(ip), Ok(port)) => SocketAddr::new(ip, port).to_string(),
        _ => "?".to_owned(),
    }
}

fn unix(socket: &message::Unix) -> String {
    let name = match socket.name.split_first() {
        None => "unnamed".to_owned(),
        Some((0, name)) => format!("@{}", String::from_utf8_lossy(name)),
        Some(_) => String::from_utf8_lossy(&socket.name)
            .trim_end_matches('\0')
            .to_owned(),
    };
    if socket.state == LISTEN {
        name + LISTENING
    } else {
        name
    }
}

/// A mount without CRIU's relative path.
pub(super) fn mount(entry: &message::Mount) -> Mount {
    let path = entry.mountpoint.trim_start_matches('.');
    let kind = match (&entry.fsname, entry.root.as_str()) {
        (Some(name), "/") if !name.is_empty() => name.clone(),
        _ => entry.source.clone(),
    };
    Mount {
        path: if path.is_empty() { "/" } else { path }.to_owned(),
        kind,
        external: entry.external.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_shown_as_ss_shows_them() {
        let any = message::Inet {
            family: 2,
            protocol: 6,
            state: LISTEN,
            source_port: 8080,
            source: vec![0],
            ..Default::default()
        };
        assert_eq!(inet(&any), ("tcp", "0.0.0.0:8080 listening".to_owned()));
        let open = message::Inet {
            state: ESTABLISHED,
            source: vec![u32::from_le_bytes([10, 88, 0, 2])],
            target: vec![u32::from_le_bytes([10, 88, 0, 9])],
            target_port: 5432,
            ..any.clone()
        };
        let shown = "10.88.0.2:8080 to 10.88.0.9:5432".to_owned();
        assert_eq!(inet(&open), ("tcp", shown));
        let six = message::Inet {
            family: 10,
            source: vec![0, 0, 0, u32::from_le_bytes([0, 0, 0, 1])],
            ..any
        };
        assert_eq!(inet(&six).1, "[::1]:8080 listening");
    }

    #[test]
    fn abstract_names_begin_with_an_at_sign() {
        let socket = |name: &[u8], state| message::Unix {
            name: name.to_vec(),
            state,
        };
        assert_eq!(unix(&socket(b"\0bus", LISTEN)), "@bus listening");
        assert_eq!(unix(&socket(b"/run/x.sock\0", 7)), "/run/x.sock");
        assert_eq!(unix(&socket(b"", 1)), "unnamed");
    }
}
