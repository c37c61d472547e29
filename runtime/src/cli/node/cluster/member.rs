//! A node, as its cluster knows it.

use std::time::{SystemTime, UNIX_EPOCH};

use reprise_runtime::Result;
use reprise_runtime::timestamp::rfc3339;
use serde_json::{Value, json};

use super::api::{Api, Merge};
use super::event::Event;

/// Nodes on which pods of the RuntimeClass are welcome have this label, `true`.
pub(super) const LABEL: &str = "reprise.dev/runtime";
/// The version of Reprise that such a node has.
const ANNOTATION: &str = "reprise.dev/version";

/// A Node object.
pub(super) struct Member {
    api: Api,
    name: String,
    object: Value,
}

impl Member {
    /// The node of this name.
    ///
    /// # Errors
    /// This pod has no token, or the API server's.
    pub(super) fn of(name: &str) -> Result<Self> {
        let api = Api::of_this_pod()?;
        let object = api.get(&path(name))?;
        Ok(Self {
            api,
            name: name.to_owned(),
            object,
        })
    }

    /// Gives it the label, and this version; or takes both away. Whether anything had to
    /// be changed.
    ///
    /// # Errors
    /// The API server's.
    pub(super) fn offer(&self, version: Option<&str>) -> Result<bool> {
        let Some(patch) = patch(&self.object, version) else {
            return Ok(false);
        };
        self.api.patch(&path(&self.name), Merge::Plain, &patch)?;
        Ok(true)
    }

    /// Tells of an event on it.
    ///
    /// # Errors
    /// The API server's.
    pub(super) fn tell(&self, event: &Event) -> Result<()> {
        let uid = self.object["metadata"]["uid"].as_str().unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = rfc3339(now.unwrap_or_default().as_secs());
        event.tell(&self.api, &self.name, uid, &now)
    }
}

fn path(node: &str) -> String {
    format!("/api/v1/nodes/{node}")
}

/// What makes the node have that version's label and annotation, or none; nothing if it
/// is so.
fn patch(node: &Value, version: Option<&str>) -> Option<Value> {
    let metadata = &node["metadata"];
    let (label, version) = (json!(version.map(|_| "true")), json!(version));
    let there = (
        &metadata["labels"][LABEL],
        &metadata["annotations"][ANNOTATION],
    );
    if there == (&label, &version) {
        return None;
    }
    Some(json!({ "metadata": {
        "labels": { LABEL: label },
        "annotations": { ANNOTATION: version },
    }}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_changed() {
        let bare = json!({ "metadata": { "labels": { "kubernetes.io/os": "linux" } } });
        let with = json!({ "metadata": {
            "labels": { LABEL: "true" }, "annotations": { ANNOTATION: "1.0.0" },
        }});
        let by_hand = json!({ "metadata": { "labels": { LABEL: "true" } } });
        assert_eq!(patch(&bare, None), None);
        assert_eq!(patch(&with, Some("1.0.0")), None);
        assert_eq!(patch(&bare, Some("1.0.0")), Some(with.clone()));
        let upgrade = patch(&with, Some("2.0.0")).unwrap();
        assert_eq!(upgrade["metadata"]["annotations"][ANNOTATION], "2.0.0");
        // A null takes away.
        let away = json!({ "metadata": {
            "labels": { LABEL: null }, "annotations": { ANNOTATION: null },
        }});
        assert_eq!(patch(&with, None), Some(away.clone()));
        assert_eq!(patch(&by_hand, None), Some(away));
    }
}
