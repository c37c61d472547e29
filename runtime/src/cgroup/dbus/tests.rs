//! The protocol, against known bytes and a peer that is not ours.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use proptest::prelude::*;
use zbus::zvariant::serialized::{Context, Data};
use zbus::zvariant::{LE, OwnedValue};

use super::peer::{Manners, Peer};
use super::*;

fn every_value() -> Vec<Value> {
    vec![
        Value::Bool(true),
        Value::Byte(7),
        Value::I16(-7),
        Value::U16(7),
        Value::I32(-7),
        Value::U32(7),
        Value::I64(-7),
        Value::U64(u64::MAX),
        Value::Double(0.5),
        Value::Text("über".to_owned()),
        Value::Texts(vec!["a".to_owned(), String::new()]),
        Value::Numbers(vec![1, 2]),
        Value::Bytes(vec![0, 2]),
        Value::Pairs(vec![("/dev/char/1:3".to_owned(), "rwm".to_owned())]),
        Value::Texts(Vec::new()),
        Value::Pairs(Vec::new()),
    ]
}

/// The same value as zbus has it.
fn theirs(value: &Value) -> OwnedValue {
    use zbus::zvariant::Value as Theirs;
    let value = match value.clone() {
        Value::Bool(v) => Theirs::from(v),
        Value::Byte(v) => Theirs::from(v),
        Value::I16(v) => Theirs::from(v),
        Value::U16(v) => Theirs::from(v),
        Value::I32(v) => Theirs::from(v),
        Value::U32(v) => Theirs::from(v),
        Value::I64(v) => Theirs::from(v),
        Value::U64(v) => Theirs::from(v),
        Value::Double(v) => Theirs::from(v),
        Value::Text(v) => Theirs::from(v),
        Value::Texts(v) => Theirs::from(v),
        Value::Numbers(v) => Theirs::from(v),
        Value::Bytes(v) => Theirs::from(v),
        Value::Pairs(v) => Theirs::from(v),
    };
    value.try_to_owned().unwrap()
}

/// What zvariant reads out of arguments of type `a(sv)`.
fn read_back(properties: &[Property]) -> Vec<(String, OwnedValue)> {
    let body = Body::default().and_properties(properties);
    let data = Data::new(body.bytes().to_vec(), Context::new_dbus(LE, 0));
    data.deserialize().unwrap().0
}

#[test]
fn a_call_has_the_bytes_that_the_specification_gives_it() {
    let call = Call {
        destination: "d",
        path: "/p",
        interface: "i.f",
        member: "M",
        signature: "s",
        body: Body::default().and_text("x"),
    };
    // Each field on a multiple of eight; the length of all ends with the last.
    let expected: &[u8] = b"l\x01\0\x01\x06\0\0\0\x02\0\0\0\x47\0\0\0\
        \x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0\
        \x02\x01s\0\x03\0\0\0i.f\0\0\0\0\0\
        \x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\
        \x06\x01s\0\x01\0\0\0d\0\0\0\0\0\0\0\
        \x08\x01g\0\x01s\0\0\
        \x01\0\0\0x\0";
    let bytes = call.encode(2);
    assert_eq!(bytes, expected, "{}", bytes.escape_ascii());
}

#[test]
fn every_type_of_value_is_read_back_by_another_implementation() {
    let properties: Vec<Property> = every_value()
        .into_iter()
        .enumerate()
        .map(|(n, value)| ("x".repeat(n), value))
        .collect();
    let read = read_back(&properties);
    assert_eq!(read.len(), properties.len());
    for ((name, value), (their_name, their_value)) in properties.iter().zip(&read) {
        assert_eq!(name, their_name);
        assert_eq!(&theirs(value), their_value);
    }
}

proptest! {
    #[test]
    fn properties_of_any_length_and_order_are_read_back(
        picked in proptest::collection::vec((".{0,12}", 0..16_usize), 0..12)
    ) {
        let every = every_value();
        let properties: Vec<Property> = picked
            .into_iter()
            .map(|(name, n)| (name.replace('\0', "0"), every[n].clone()))
            .collect();
        let expected: Vec<_> = properties.iter().map(|(n, v)| (n.clone(), theirs(v))).collect();
        prop_assert_eq!(read_back(&properties), expected);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 16..200)) {
        let mut fixed: [u8; FIXED] = bytes[..FIXED].try_into().unwrap();
        fixed[0] = b'l';
        fixed[3] = 1;
        if let Some(message) = Message::decode(&fixed, &bytes[FIXED..]) {
            let mut arguments = message.arguments();
            prop_assert!(arguments.text().is_none_or(|text| text.len() < 200));
        }
    }
}

#[test]
fn systemds_version_is_asked_for() {
    let peer = Peer::new(Manners::default());
    let mut systemd = Connection::private(&peer.socket).unwrap();
    assert_eq!(systemd.version().unwrap(), 257);
    assert_eq!(number_of("v245.4-1.fc32"), Some(245));
    assert_eq!(number_of("\"v239\""), Some(239));
    assert_eq!(number_of("none"), None);
}

#[test]
fn a_job_that_ended_before_it_was_waited_for_is_known() {
    let peer = Peer::new(Manners {
        result: Some("canceled"),
        ..Manners::default()
    });
    let mut systemd = Connection::private(&peer.socket).unwrap();
    let body = || Body::default().and_text("a.scope").and_text("replace");
    let first = systemd.manager("StopUnit", "ss", body()).unwrap().unwrap();
    let second = systemd.manager("StopUnit", "ss", body()).unwrap().unwrap();
    assert_ne!(first, second);
    assert_eq!(systemd.wait_for_job(&second).unwrap(), "canceled");
    assert_eq!(systemd.wait_for_job(&first).unwrap(), "canceled");
}

#[test]
fn refusals_have_a_name_and_a_line() {
    let peer = Peer::new(Manners {
        knows_none: true,
        ..Manners::default()
    });
    let mut systemd = Connection::private(&peer.socket).unwrap();
    let body = Body::default().and_text("a.scope").and_text("replace");
    let error = systemd.manager("StopUnit", "ss", body).unwrap_err();
    assert!(error.is("NoSuchUnit") && !error.is("UnitExists"));
    let line = error.doing("Cannot stop").message;
    assert!(line.contains("Unit a.scope not loaded."), "{line}");
    let error = systemd.manager("NoSuchMethod", "", Body::default());
    assert!(
        error
            .unwrap_err()
            .doing("x")
            .message
            .contains("UnknownMethod")
    );
}

/// Serves one connection with fixed words.
fn fixed(lines: &'static [&'static [u8]]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for line in lines {
            assert!(stream.read(&mut [0; 512]).unwrap() > 0);
            stream.write_all(line).unwrap();
        }
        // What else is said is heard before the line goes dead.
        drop(stream.read_exact(&mut [0; FIXED]));
    });
    (dir, socket)
}

#[test]
fn who_is_not_let_in_says_so_and_a_broken_peer_does_not_hang() {
    let (_dir, socket) = fixed(&[b"REJECTED EXTERNAL\r\n"]);
    let error = Connection::private(&socket).unwrap_err();
    assert!(error.message.contains("REJECTED"), "{error}");
    let (_dir, socket) = fixed(&[b"OK 1234\r\n", b"l\x02\0\x07............................"]);
    let mut systemd = Connection::private(&socket).unwrap();
    let error = systemd.version().unwrap_err().doing("x");
    assert!(error.message.contains("not a D-Bus message"), "{error}");
    let (_dir, socket) = fixed(&[b"OK 1234\r\n"]);
    let mut systemd = Connection::private(&socket).unwrap();
    assert!(systemd.version().is_err());
    assert!(systemd.wait_for_job("/job/1").is_err());
    let missing = Connection::private(Path::new("/nonexistent/private"));
    assert!(
        missing
            .unwrap_err()
            .message
            .contains("/nonexistent/private")
    );
}
