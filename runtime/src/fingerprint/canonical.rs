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
    let digest = Sha256::digest(canonical(value).as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON with sorted keys and no blanks, whatever order `value` keeps them in.
pub(super) fn canonical(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let items: Vec<String> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", json!(key), canonical(value)))
                .collect();
            format!("{{{}}}", items.join(","))
        }
        plain => plain.to_string(),
    }
}
