//! What was measured, as a table.

use serde::Serialize;
use std::fmt::Write;

/// One program's medians in milliseconds, from CreateContainer to the first 200.
#[derive(Clone, Debug, Serialize)]
pub struct ProgramReport {
    /// Its name.
    pub program: String,
    /// Cold, under runc's shim.
    pub runc_cold_ms: f64,
    /// Cold, under our shim.
    pub cold_ms: f64,
    /// Restored by containerd's CRI, under runc's shim.
    pub cri_restore_ms: f64,
    /// Restored by our shim.
    pub restored_ms: f64,
    /// How many of the runs are proven to have been restored.
    pub restored: usize,
    /// How often each was measured.
    pub runs: usize,
}

/// Many pods at once: milliseconds to the last one's first 200.
#[derive(Clone, Debug, Serialize)]
pub struct Burst {
    /// Which program.
    pub program: String,
    /// How many pods.
    pub pods: usize,
    /// Cold, under runc's shim.
    pub runc_cold_ms: f64,
    /// Restored by containerd's CRI, under runc's shim.
    pub cri_restore_ms: f64,
    /// Restored by our shim.
    pub restored_ms: f64,
    /// How many are proven to have been restored.
    pub restored: usize,
}

/// How many pods should have been restored and were not.
pub(super) fn missed_restores(programs: &[ProgramReport], bursts: &[Burst]) -> usize {
    let of_programs: usize = programs.iter().map(|p| p.runs - p.restored).sum();
    let of_bursts: usize = bursts.iter().map(|b| b.pods - b.restored).sum();
    of_programs + of_bursts
}

/// The table for the terminal.
pub(super) fn table(programs: &[ProgramReport], bursts: &[Burst]) -> String {
    let mut table = String::from(
        "CreateContainer to the first HTTP 200, medians in ms\n\
         program      runc cold  reprise cold  containerd restore  reprise restored   vs runc  vs containerd  restored\n",
    );
    for p in programs {
        row(
            &mut table,
            &Row {
                program: &p.program,
                runc: p.runc_cold_ms,
                cold: Some(p.cold_ms),
                cri: p.cri_restore_ms,
                restored: p.restored_ms,
                proven: format!("{}/{}", p.restored, p.runs),
            },
        );
    }
    for b in bursts {
        row(
            &mut table,
            &Row {
                program: &format!("{} x {}", b.pods, b.program),
                runc: b.runc_cold_ms,
                cold: None,
                cri: b.cri_restore_ms,
                restored: b.restored_ms,
                proven: format!("{}/{}", b.restored, b.pods),
            },
        );
    }
    table
}

struct Row<'a> {
    program: &'a str,
    runc: f64,
    cold: Option<f64>,
    cri: f64,
    restored: f64,
    proven: String,
}

fn row(table: &mut String, row: &Row<'_>) {
    let Row {
        program,
        runc,
        cri,
        restored,
        proven,
        ..
    } = row;
    let cold = row.cold.map_or("-".to_owned(), |cold| format!("{cold:.0}"));
    let (by_runc, by_cri) = (runc / restored, cri / restored);
    writeln!(
        table,
        "{program:<12} {runc:>9.0}  {cold:>12}  {cri:>18.0}  {restored:>16.0}  {by_runc:>7.1}x  {by_cri:>12.1}x  {proven:>8}"
    )
    .ok();
}

#[cfg(test)]
mod tests {
    use super::{ProgramReport, missed_restores, table};

    fn report() -> ProgramReport {
        ProgramReport {
            program: "java".to_owned(),
            runc_cold_ms: 2000.0,
            cold_ms: 1990.0,
            cri_restore_ms: 400.0,
            restored_ms: 100.0,
            restored: 4,
            runs: 5,
        }
    }

    #[test]
    fn a_row_shows_times_and_ratios() {
        let table = table(&[report()], &[]);
        for shown in ["2000", "1990", "400", "100", "20.0x", "4.0x", "4/5"] {
            assert!(table.contains(shown), "{shown} in {table}");
        }
    }

    #[test]
    fn a_pod_that_was_not_restored_is_counted() {
        assert_eq!(missed_restores(&[report()], &[]), 1);
    }
}
