//! What a shim notes of a container's start, for `reprise explain` and for a later
//! checkpoint: `start.json` beside the container's state. Formats are pure; reading
//! and writing are one call each.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Origin;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::fingerprint::{Hashes, Shown};

/// Name of the file in a container's directory below `/run/reprise/<namespace>/`.
const FILE: &str = "start.json";
/// The format that this build writes; others are refused.
const VERSION: u32 = 1;

/// How a container has started, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    version: u32,
    /// How, and why so.
    pub decision: Decision,
    /// Who it is.
    pub origin: Origin,
    /// A hash for each field of its fingerprint. None, when its image or its volumes
    /// cannot be compared.
    pub fields: Hashes,
    /// The fields as people may see them.
    pub shown: Shown,
}

/// How a container has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "plan", rename_all = "lowercase")]
pub enum Decision {
    /// Cold.
    Cold {
        /// A constant word ([`Why::label`]).
        ///
        /// [`Why::label`]: crate::plan::Why::label
        why: String,
        /// The whole reason.
        reason: String,
    },
    /// From a checkpoint.
    Restore {
        /// Its id.
        checkpoint: String,
    },
}

impl Start {
    /// A note.
    #[must_use]
    pub fn new(decision: Decision, origin: Origin, fields: Hashes, shown: Shown) -> Self {
        Self {
            version: VERSION,
            decision,
            origin,
            fields,
            shown,
        }
    }

    /// Writes it into a container's directory, which must be there: it goes with the
    /// container.
    ///
    /// # Errors
    /// I/O.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let doing = || format!("Cannot write {}", path.display());
        let text = serde_json::to_vec(self).doing(doing())?;
        fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(&text))
            .doing(doing())
    }

    /// Reads it from a container's directory; absent if the container is of a shim
    /// that noted nothing.
    ///
    /// # Errors
    /// FailedPrecondition: it is unreadable, or of another version.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        let unreadable = |why: String| {
            Error::new(
                ErrorKind::FailedPrecondition,
                format!("{} cannot be read: {why}", path.display()),
            )
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unreadable(e.to_string())),
        };
        let head: Head = serde_json::from_slice(&text).map_err(|e| unreadable(e.to_string()))?;
        if head.version != VERSION {
            return Err(unreadable(format!(
                "it has version {}, and this build reads version {VERSION}",
                head.version
            )));
        }
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| unreadable(e.to_string()))
    }
}

/// What every version starts with.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_and_other_versions_are_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Start::read(dir.path()), Ok(None));
        let origin = Origin {
            namespace: "k8s.io".to_owned(),
            container: "abc".to_owned(),
            name: Some("web".to_owned()),
            pod: None,
            pod_namespace: None,
            image: None,
        };
        let decision = Decision::Cold {
            why: "no_match".to_owned(),
            reason: "no checkpoint matches this container".to_owned(),
        };
        let start = Start::new(decision, origin, Hashes::default(), Shown::default());
        start.write(dir.path()).unwrap();
        assert_eq!(Start::read(dir.path()), Ok(Some(start)));
        for (text, why) in [("{", "EOF"), (r#"{"version":9,"x":1}"#, "version 9")] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let error = Start::read(dir.path()).unwrap_err();
            assert!(error.message.contains(why), "{error}");
        }
    }
}
