//! Figures out of many measurements.

use serde::Serialize;
use std::time::Duration;

/// What many measurements of one thing say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Half of them are at most this.
    pub median: f64,
    /// 99 of 100 are at least as good as this; of fewer than a hundred, all are.
    pub p99: f64,
}

impl Figures {
    /// Of measurements of which less is better.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        Self {
            median: median(values),
            p99: nearest_rank(values, 0.99),
        }
    }

    /// Of measurements of which more is better.
    #[must_use]
    pub fn of_rates(values: &[f64]) -> Self {
        Self {
            median: median(values),
            p99: nearest_rank(values, 0.01),
        }
    }
}

/// A duration in milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The median, or zero when there is nothing.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The smallest value that this share of them does not exceed.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rank is small and not negative"
)]
fn nearest_rank(values: &[f64], share: f64) -> f64 {
    let rank = (share * values.len() as f64).ceil() as usize;
    let sorted = sorted(values);
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::{Figures, median};

    fn is(value: f64, expected: f64) -> bool {
        (value - expected).abs() < 1e-9
    }

    #[test]
    fn a_median_is_the_middle_value() {
        for (values, expected) in [
            (vec![], 0.0),
            (vec![3.0], 3.0),
            (vec![9.0, 1.0, 2.0], 2.0),
            (vec![4.0, 1.0, 2.0, 9.0], 3.0),
        ] {
            assert!(is(median(&values), expected), "{values:?}");
        }
    }

    #[test]
    fn the_last_percent_is_the_worst() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert!(is(Figures::of(&values).p99, 198.0));
        assert!(is(Figures::of_rates(&values).p99, 2.0));
        assert!(is(Figures::of(&values[..20]).p99, 200.0));
        assert!(is(Figures::of(&[]).p99, 0.0));
    }
}
