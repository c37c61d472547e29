//! Events of a node, as `kubectl describe node` shows them.

use reprise_runtime::ErrorKind;
use reprise_runtime::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::api::{Api, Merge};

/// Nodes are in no namespace; what happens to them is told in this one.
const EVENTS: &str = "/api/v1/namespaces/default/events";
/// Who tells.
const COMPONENT: &str = "reprise-installer";
/// As much as Kubernetes' newer events may say, in bytes.
const MESSAGE_MAX: usize = 1024;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// `Normal` or `Warning`.
    pub(super) kind: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Event {
    pub(super) fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new("Normal", reason, message)
    }

    pub(super) fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new("Warning", reason, message)
    }

    fn new(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        let whole = |at: &usize| message.is_char_boundary(*at);
        let cut = (0..=MESSAGE_MAX.min(message.len())).rev().find(whole);
        message.truncate(cut.unwrap_or(0));
        Self {
            kind,
            reason,
            message,
        }
    }

    /// The same words about the same node have the same name: a kubelet that tries again
    /// for days has one event that is counted.
    fn name(&self, uid: &str) -> String {
        let words = [uid, self.reason, &self.message].join("\n");
        let hash = Sha256::digest(words.as_bytes());
        let hash: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("reprise.{hash}")
    }

    fn object(&self, node: &str, uid: &str, now: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "name": self.name(uid), "namespace": "default" },
            "involvedObject": { "apiVersion": "v1", "kind": "Node", "name": node, "uid": uid },
            "type": self.kind,
            "reason": self.reason,
            "message": self.message,
            "source": { "component": COMPONENT, "host": node },
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        })
    }

    /// Tells it, or counts it if it was told within the hour for which events are kept.
    ///
    /// # Errors
    /// The API server's.
    pub(super) fn tell(&self, api: &Api, node: &str, uid: &str, now: &str) -> Result<()> {
        let posted = api.post(EVENTS, &self.object(node, uid, now));
        if !matches!(&posted, Err(e) if e.kind == ErrorKind::AlreadyExists) {
            return posted.map(drop);
        }
        let path = format!("{EVENTS}/{}", self.name(uid));
        // The answer has the count: the right to read events is not needed.
        let there = api.patch(&path, Merge::Plain, &json!({ "lastTimestamp": now }))?;
        let count = there["count"].as_u64().unwrap_or(0) + 1;
        api.patch(&path, Merge::Plain, &json!({ "count": count }))
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::warning("RepriseNotFit", "criu: none")
    }

    #[test]
    fn the_same_words_have_the_same_name() {
        let name = event().name("u-1");
        assert_eq!(event().name("u-1"), name);
        assert_ne!(event().name("u-2"), name);
        let other = Event::warning("RepriseNotFit", "criu: 3.0");
        assert_ne!(other.name("u-1"), name);
        let other = Event::warning("RepriseInstallFailed", "criu: none");
        assert_ne!(other.name("u-1"), name);
        // A DNS subdomain, as names of events must be.
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.';
        assert!(name.len() == 24 && name.chars().all(fine), "{name}");
    }

    #[test]
    fn it_is_about_the_node() {
        let object = event().object("node-1", "u-1", "2026-11-28T05:00:00Z");
        assert_eq!(object["metadata"]["namespace"], "default");
        let about = json!({ "apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "u-1" });
        assert_eq!(object["involvedObject"], about);
        assert_eq!(object["type"], "Warning");
        assert_eq!(object["count"], 1);
    }

    #[test]
    fn a_long_message_is_cut_between_letters() {
        let long = Event::normal("RepriseInstalled", "é".repeat(600) + "x");
        assert_eq!(long.message.len(), MESSAGE_MAX);
        let odd = Event::normal("RepriseInstalled", "x".to_owned() + &"é".repeat(600));
        assert_eq!(odd.message.len(), MESSAGE_MAX - 1);
    }
}
