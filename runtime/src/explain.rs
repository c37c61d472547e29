//! Why a container was or was not restored: the nearest checkpoint, and in what the
//! two differ. Pure.

use serde::Serialize;
use serde_json::{Value, json};

use crate::checkpoint::{Manifest, Origin};
use crate::fingerprint::{Difference, Shown};
use crate::start::Start;

/// The field that says which image it is.
const IMAGE: &str = "image";

/// The checkpoint that a container differs least from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// Its id.
    pub checkpoint: String,
    /// Fields of the fingerprint that differ, sorted.
    pub fields: Vec<String>,
    /// What of them, as far as somebody noted it.
    pub differences: Vec<Difference>,
}

/// The checkpoint with the fewest differing fields; one of a container with the same
/// name comes before all others, then the one that comes first. `None`: there is
/// none that says what it is, or the container does not.
#[must_use]
pub fn nearest<'a>(start: &Start, all: impl IntoIterator<Item = &'a Manifest>) -> Option<Nearest> {
    if start.fields.is_empty() {
        return None;
    }
    let candidates = all.into_iter().filter(|m| !m.fields.is_empty());
    let (manifest, fields) = candidates
        .map(|m| (m, start.fields.differences(&m.fields)))
        .min_by_key(|(m, fields)| (m.origin.name != start.origin.name, fields.len()))?;
    let here = with_image_name(&start.shown, &start.origin);
    let there = with_image_name(&manifest.shown, &manifest.origin);
    Some(Nearest {
        checkpoint: manifest.id.clone(),
        differences: here.differences(&there, &fields),
        fields,
    })
}

/// What people call the image says more than where it is unpacked.
fn with_image_name(shown: &Shown, origin: &Origin) -> Shown {
    let mut image = match shown.get(IMAGE) {
        Some(Value::Object(known)) => Value::Object(known.clone()),
        _ => json!({}),
    };
    image["name"] = json!(origin.image);
    shown.clone().with_image(image)
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
