//! Values in one form, whatever made them: sets in order, keys sorted, no blanks.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Anything that serialises, as JSON.
pub(super) fn value<T: Serialize>(thing: &T) -> Value {
    // The types of the OCI spec have no maps with keys that JSON cannot have.
    serde_json::to_value(thing).unwrap_or(Value::Null)
}

/// A text, or null when it is empty or absent.
pub(super) fn filled(text: Option<&str>) -> Value {
    json!(text.filter(|t| !t.is_empty()))
}

/// A set, in canonical order.
pub(super) fn sorted<'a, T: Serialize + 'a>(items: impl Iterator<Item = &'a T>) -> Vec<Value> {
    let mut values: Vec<Value> = items.map(value).collect();
    values.sort_by_cached_key(canonical);
    values
}

/// SHA-256 of the canonical JSON, in hex.
pub(super) fn hash(value: &Value) -> String {
    hex(&Sha256::digest(canonical(value)))
}

/// The hash of `[name, value]`. Written straight into `text`, whose content goes: a
/// start has thirty of them, and a copy of each value would cost more than its hash.
pub(super) fn hash_named(name: &str, value: &Value, text: &mut Vec<u8>) -> String {
    text.clear();
    text.push(b'[');
    write_text(name, text);
    text.push(b',');
    write(value, text);
    text.push(b']');
    hex(&Sha256::digest(&text))
}

/// The hash of `{"fields":{"<name>":"<hash>",...},"version":<version>}`.
pub(super) fn hash_of_hashes(hashes: &BTreeMap<String, String>, version: u32) -> String {
    let mut text = Vec::with_capacity(4096);
    text.extend_from_slice(b"{\"fields\":");
    write_object(hashes.iter(), &mut text, |hash, text| {
        write_text(hash, text);
    });
    text.extend_from_slice(format!(",\"version\":{version}}}").as_bytes());
    hex(&Sha256::digest(&text))
}

/// Bytes as hex digits. By hand, since a start does a thousand of them, and a
/// formatter would make a text of each.
fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or_default();
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// JSON with sorted keys and no blanks, whatever order `value` keeps them in.
pub(super) fn canonical(value: &Value) -> Vec<u8> {
    let mut text = Vec::with_capacity(256);
    write(value, &mut text);
    text
}

/// Adds a value to a text. One buffer for all: a filter has hundreds of names, and
/// every start waits for this.
fn write(value: &Value, text: &mut Vec<u8>) {
    match value {
        Value::Array(items) => {
            text.push(b'[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    text.push(b',');
                }
                write(item, text);
            }
            text.push(b']');
        }
        Value::Object(map) => {
            let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
            pairs.sort_unstable_by_key(|(key, _)| *key);
            write_object(pairs.into_iter(), text, write);
        }
        Value::String(plain) => write_text(plain, text),
        plain => write_plain(plain, text),
    }
}

/// Pairs that are in the order of their keys.
fn write_object<'a, V>(
    pairs: impl Iterator<Item = (&'a String, V)>,
    text: &mut Vec<u8>,
    write: impl Fn(V, &mut Vec<u8>),
) {
    text.push(b'{');
    for (n, (key, value)) in pairs.enumerate() {
        if n > 0 {
            text.push(b',');
        }
        write_text(key, text);
        text.push(b':');
        write(value, text);
    }
    text.push(b'}');
}

/// Most need no escapes, and are copied as they are.
fn write_text(plain: &str, text: &mut Vec<u8>) {
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if plain.bytes().all(is_plain) {
        text.push(b'"');
        text.extend_from_slice(plain.as_bytes());
        text.push(b'"');
    } else {
        write_plain(&plain, text);
    }
}

fn write_plain(value: &impl Serialize, text: &mut Vec<u8>) {
    // Neither a text nor a number can fail, nor can memory.
    serde_json::to_writer(text, value).ok();
}
