//! The demo's bars.

use super::report::ProgramReport;
use crate::chart::{Bar, Group, scale_alike, svg as draw, terminal};

fn groups(reports: &[ProgramReport]) -> Vec<Group> {
    let bar = |label: &str, value: f64, colour| Bar {
        label: label.to_owned(),
        value,
        text: format!("{value:.0} ms"),
        colour,
    };
    let mut groups: Vec<Group> = reports
        .iter()
        .map(|report| {
            let bars = vec![
                bar("runc cold", report.runc_cold_ms, "#9aa5b1"),
                bar("reprise cold", report.cold_ms, "#7b8794"),
                bar("containerd restore", report.cri_restore_ms, "#4c9be8"),
                bar("reprise restored", report.restored_ms, "#2f9e5b"),
            ];
            Group::new(&report.program, bars)
        })
        .collect();
    scale_alike(&mut groups);
    groups
}

/// Bars for the terminal.
pub(super) fn bars(reports: &[ProgramReport]) -> String {
    terminal(&groups(reports))
}

/// The same as an SVG.
pub(super) fn svg(reports: &[ProgramReport]) -> String {
    let heading = "From CreateContainer to the first HTTP 200 (median)";
    draw(heading, &groups(reports))
}

#[cfg(test)]
mod tests {
    use super::{bars, svg};
    use crate::demo::ProgramReport;

    #[test]
    fn the_slowest_has_the_longest_bar() {
        let report = ProgramReport {
            program: "java".to_owned(),
            runc_cold_ms: 1000.0,
            cold_ms: 500.0,
            cri_restore_ms: 20.0,
            restored_ms: 1.0,
            restored: 1,
            runs: 1,
        };
        let lengths: Vec<usize> = bars(std::slice::from_ref(&report))
            .lines()
            .map(|line| line.matches('█').count())
            .collect();
        assert_eq!(lengths, [50, 25, 1, 1, 0]);
        assert_eq!(svg(&[report]).matches("<rect").count(), 5);
    }
}
