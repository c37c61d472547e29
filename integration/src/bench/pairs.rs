//! Measuring two or more shims side by side.
//!
//! What else happens on the machine hits all of them alike: they take turns, and
//! who begins changes with each run.

use anyhow::{Context, Result};

/// A shim that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shim {
    Reprise,
    Runc,
    /// Ours, as it was once.
    Baseline,
}

impl Shim {
    /// The two that containerd knows.
    pub(super) const BOTH: [Self; 2] = [Self::Reprise, Self::Runc];

    /// Its name, which is also that of its runtime handler.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reprise => "reprise",
            Self::Runc => "runc",
            Self::Baseline => "baseline",
        }
    }
}

/// The measurements of each shim.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    pub(super) reprise: Vec<f64>,
    pub(super) runc: Vec<f64>,
    pub(super) baseline: Vec<f64>,
}

impl Values {
    pub(super) fn of(&mut self, shim: Shim) -> &mut Vec<f64> {
        match shim {
            Shim::Reprise => &mut self.reprise,
            Shim::Runc => &mut self.runc,
            Shim::Baseline => &mut self.baseline,
        }
    }
}

/// Measures in turns. A first run warms the caches and does not count.
pub(super) fn in_turns(
    runs: usize,
    shims: &[Shim],
    mut measure: impl FnMut(Shim, usize) -> Result<f64>,
) -> Result<Values> {
    let mut values = Values::default();
    for run in 0..=runs {
        for turn in 0..shims.len() {
            let shim = shims[(run + turn) % shims.len()];
            let value = measure(shim, run)
                .with_context(|| format!("run {run} of {}'s shim", shim.name()))?;
            if run > 0 {
                values.of(shim).push(value);
            }
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::{Shim, in_turns};

    #[test]
    fn they_take_turns_and_the_first_run_does_not_count() {
        let mut order = Vec::new();
        let values = in_turns(2, &Shim::BOTH, |shim, run| {
            order.push((shim.name(), run));
            Ok(0.0)
        })
        .unwrap();
        let (ours, theirs) = ("reprise", "runc");
        assert_eq!(
            order,
            [
                (ours, 0),
                (theirs, 0),
                (theirs, 1),
                (ours, 1),
                (ours, 2),
                (theirs, 2)
            ]
        );
        assert_eq!((values.reprise.len(), values.runc.len()), (2, 2));
    }
}
