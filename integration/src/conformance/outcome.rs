//! What can become of a test.

use std::collections::BTreeMap;
use std::fmt;

/// What became of each test, by its name.
pub(crate) type Results = BTreeMap<String, Tried>;

/// What became of a test; the texts are the test's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran and was content.
    Passed,
    /// It found that it cannot be run here.
    Skipped(String),
    /// It ran and was not content.
    Failed(String),
    /// It was ended at its deadline.
    TimedOut(String),
}

impl Outcome {
    /// It failed since a part of it, a subtest, did.
    pub(super) fn of_part(part: &str) -> Self {
        Self::Failed(format!("for {part} failed"))
    }

    /// The part that it failed for, if it did for one.
    pub(super) fn failed_part(&self) -> Option<&str> {
        match self {
            Self::Failed(why) => why.strip_prefix("for ")?.strip_suffix(" failed"),
            Self::Passed | Self::Skipped(_) | Self::TimedOut(_) => None,
        }
    }

    /// Whether it passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        *self == Self::Passed
    }

    /// The worse of two, for names that occur twice.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        if self.rank() >= other.rank() {
            self
        } else {
            other
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Skipped(_) => 1,
            Self::Failed(_) => 2,
            Self::TimedOut(_) => 3,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(f, "passed"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::TimedOut(why) => write!(f, "timed out: {why}"),
        }
    }
}

/// What became of a test in the end.
#[derive(Clone, Debug)]
pub(crate) struct Tried {
    /// The outcome that counts.
    pub(crate) outcome: Outcome,
    /// Those of other tries, where they were not the same.
    pub(crate) others: Vec<Outcome>,
}

impl Tried {
    pub(crate) fn once(outcome: Outcome) -> Self {
        Self {
            outcome,
            others: Vec::new(),
        }
    }

    /// With the outcome of one more try. A pass counts, whichever it was.
    pub(crate) fn then(mut self, outcome: Outcome) -> Self {
        if outcome == self.outcome {
            return self;
        }
        if self.outcome.passed() {
            self.others.push(outcome);
        } else {
            self.others
                .push(std::mem::replace(&mut self.outcome, outcome));
        }
        self
    }
}
