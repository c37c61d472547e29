//! Decides how a container starts: pure.

use crate::store::Stored;

/// How a container starts.
#[derive(Debug, Clone)]
pub enum Plan {
    /// Cold, and why.
    Cold(Why),
    /// From this checkpoint.
    Restore(Box<Stored>),
}

/// Why a container starts cold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// No checkpoint has this fingerprint.
    NoMatch,
}
