//! What makes two containers interchangeable: pure, versioned.

use serde::{Deserialize, Serialize};

/// A fingerprint: version and hash, `v1-<64 hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);
