//! What is run under both RuntimeClasses.

use super::ground::Ground;
use anyhow::Result;
use std::time::Duration;

/// Something that users do. It passes when what it returns is no error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) check: fn(&Ground<'_>) -> Result<()>,
    /// It disturbs the node: nothing else may run meanwhile.
    pub(super) alone: bool,
    /// How long it may take on this machine.
    pub(super) limit: Duration,
}

impl Case {
    pub(super) const fn new(name: &'static str, check: fn(&Ground<'_>) -> Result<()>) -> Self {
        Self {
            name,
            check,
            alone: false,
            limit: Duration::from_secs(90),
        }
    }

    pub(super) const fn alone(self) -> Self {
        Self {
            alone: true,
            ..self
        }
    }

    pub(super) const fn within(self, seconds: u64) -> Self {
        Self {
            limit: Duration::from_secs(seconds),
            ..self
        }
    }
}

/// The cases of one subject.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    pub(super) name: &'static str,
    pub(super) cases: &'static [Case],
}
