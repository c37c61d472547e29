//! Bars, in the terminal and as an SVG.

use super::report::ProgramReport;
use std::fmt::Write;

const TERMINAL_WIDTH: f64 = 50.0;
const SVG_WIDTH: f64 = 520.0;

/// What the bars show: a label, its value and its colour.
fn kinds(report: &ProgramReport) -> [(&'static str, f64, &'static str); 4] {
    [
        ("runc cold", report.runc_cold_ms, "#9aa5b1"),
        ("reprise cold", report.cold_ms, "#7b8794"),
        ("containerd restore", report.cri_restore_ms, "#4c9be8"),
        ("reprise restored", report.restored_ms, "#2f9e5b"),
    ]
}

fn longest(reports: &[ProgramReport]) -> f64 {
    let all = reports.iter().flat_map(kinds).map(|(_, value, _)| value);
    all.fold(1.0, f64::max)
}

/// Bars for the terminal.
pub(super) fn bars(reports: &[ProgramReport]) -> String {
    let longest = longest(reports);
    let mut text = String::new();
    for report in reports {
        for (label, value, _) in kinds(report) {
            let filled = (value / longest * TERMINAL_WIDTH).max(1.0);
            let bar: String = (0..50u8)
                .filter(|&cell| f64::from(cell) < filled)
                .map(|_| '█')
                .collect();
            writeln!(
                text,
                "{:<8} {label:<19} {bar} {value:.0} ms",
                report.program
            )
            .ok();
        }
        text.push('\n');
    }
    text
}

/// The same as an SVG.
pub(super) fn svg(reports: &[ProgramReport]) -> String {
    let longest = longest(reports);
    let mut body = String::new();
    let mut y = 50.0;
    for report in reports {
        let (program, middle) = (&report.program, y + 40.0);
        writeln!(
            body,
            r#"<text x="16" y="{middle}" font-weight="bold">{program}</text>"#
        )
        .ok();
        for (label, value, colour) in kinds(report) {
            let width = (value / longest * SVG_WIDTH).max(1.0);
            let (text_y, end) = (y + 13.0, 220.0 + width + 6.0);
            writeln!(
                body,
                r#"<text x="210" y="{text_y}" text-anchor="end">{label}</text>
<rect x="220" y="{y}" width="{width:.1}" height="16" fill="{colour}"/>
<text x="{end:.1}" y="{text_y}">{value:.0} ms</text>"#
            )
            .ok();
            y += 20.0;
        }
        y += 16.0;
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="840" height="{y}" font-family="sans-serif" font-size="13" fill="#1f2933">
<rect width="840" height="{y}" fill="#ffffff"/>
<text x="16" y="28" font-size="16">From CreateContainer to the first HTTP 200 (median)</text>
{body}</svg>
"##
    )
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
