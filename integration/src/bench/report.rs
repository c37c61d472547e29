//! What was measured: a table, a file for programs and a plot.

use super::pairs::Values;
use crate::chart::{Bar, Group, svg};
use crate::measure::Figures;
use serde::Serialize;
use std::fmt::Write;

/// Whether small figures are good ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    Less,
    More,
}

/// One measurement of both shims.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) reprise: Figures,
    pub(super) runc: Figures,
    /// Of our median to runc's.
    pub(super) ratio: f64,
    /// The same of an older shim of ours, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) baseline: Option<Figures>,
}

impl Row {
    pub(super) fn new(
        name: &'static str,
        unit: &'static str,
        better: Better,
        values: &Values,
    ) -> Self {
        let figures = match better {
            Better::Less => Figures::of,
            Better::More => Figures::of_rates,
        };
        let (reprise, runc) = (figures(&values.reprise), figures(&values.runc));
        Self {
            name,
            unit,
            reprise,
            runc,
            ratio: reprise.median / runc.median,
            baseline: (!values.baseline.is_empty()).then(|| figures(&values.baseline)),
        }
    }

    /// One line of the table.
    pub(super) fn line(&self) -> String {
        let Self {
            name,
            unit,
            reprise,
            runc,
            ratio,
            ..
        } = self;
        let mut line = format!(
            "{name:<14} {:>10.2} {:>10.2}   {:>10.2} {:>10.2}   {ratio:>5.2}  {unit}",
            reprise.median, reprise.p99, runc.median, runc.p99
        );
        if let Some(baseline) = &self.baseline {
            let more = reprise.median - baseline.median;
            write!(
                line,
                "   {more:+.2} to the older shim's {:.2}",
                baseline.median
            )
            .ok();
        }
        line
    }
}

/// The first line of the table.
pub(super) fn head() -> String {
    format!(
        "{:<14} {:>10} {:>10}   {:>10} {:>10}   ratio  unit",
        "", "reprise", "p99", "runc", "p99"
    )
}

/// The table as bars: medians.
pub(super) fn plot(rows: &[Row]) -> String {
    let groups: Vec<Group> = rows
        .iter()
        .map(|row| {
            let bar = |label: &str, value: f64, colour| Bar {
                label: label.to_owned(),
                value,
                text: format!("{value:.1} {}", row.unit),
                colour,
            };
            let mut bars = vec![
                bar("runc's shim", row.runc.median, "#9aa5b1"),
                bar("reprise", row.reprise.median, "#2f9e5b"),
            ];
            if let Some(baseline) = &row.baseline {
                bars.push(bar("reprise before", baseline.median, "#7b8794"));
            }
            Group::new(row.name, bars)
        })
        .collect();
    svg("Cold containers: medians", &groups)
}

#[cfg(test)]
mod tests {
    use super::{Better, Row, plot};
    use crate::bench::pairs::Values;

    fn row() -> Row {
        let values = Values {
            reprise: vec![30.0, 10.0, 20.0],
            runc: vec![40.0],
            baseline: Vec::new(),
        };
        Row::new("exec", "ms", Better::Less, &values)
    }

    #[test]
    fn a_report_has_the_agreed_fields() {
        assert_eq!(
            serde_json::to_value(row()).unwrap(),
            serde_json::json!({
                "name": "exec", "unit": "ms", "ratio": 0.5,
                "reprise": { "median": 20.0, "p99": 30.0 },
                "runc": { "median": 40.0, "p99": 40.0 },
            })
        );
    }

    #[test]
    fn a_plot_has_a_bar_for_each_shim() {
        assert_eq!(plot(&[row(), row()]).matches("<rect").count(), 5);
    }
}
