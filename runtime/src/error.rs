//! The one error of the runtime. It crosses the process border between worker
//! and shim, so it is data: a kind that decides the wire code, one line for the
//! user, and the detail that belongs in the log.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Result of every fallible call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What sort of failure it was; the shim maps each to one ttrpc code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The container, process or file does not exist.
    NotFound,
    /// It exists already.
    AlreadyExists,
    /// The request does not fit the state that the container is in.
    FailedPrecondition,
    /// The container has ended, and nothing more can begin in it.
    Ended,
    /// The request itself is wrong.
    InvalidArgument,
    /// Reprise does not do this.
    Unimplemented,
    /// Something that may go away by itself (a worker died, a deadline passed).
    Unavailable,
    /// Anything else.
    Internal,
}

/// A failure: one capitalised sentence for the user, detail for the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Decides the wire code.
    pub kind: ErrorKind,
    /// One line: what happened and what to do next. Causes are joined with `: `.
    pub message: String,
    /// Lines for the log, such as CRIU's own error lines.
    pub detail: Vec<String>,
    /// The full log, when there is one (CRIU's).
    pub log: Option<PathBuf>,
}

impl Error {
    /// An error with a kind and its one line.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            detail: Vec::new(),
            log: None,
        }
    }

    /// An internal error.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Wraps `source`, whole chain in one line, below what was being done.
    pub fn because(doing: impl std::fmt::Display, source: &dyn std::error::Error) -> Self {
        let mut message = format!("{doing}: {source}");
        let mut next = source.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            next = cause.source();
        }
        Self::internal(message)
    }

    /// The same error, as another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }
}

/// Says what was being done when an error came up.
pub trait Doing<T> {
    /// Turns the error into ours, prefixed with `what`.
    ///
    /// # Errors
    /// The error of `self`, wrapped.
    fn doing(self, what: impl std::fmt::Display) -> Result<T>;
}

impl<T, E: std::error::Error> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl std::fmt::Display) -> Result<T> {
        self.map_err(|e| Error::because(what, &e))
    }
}
