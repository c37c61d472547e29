//! No container differs from runc's: the cases of `make gaps`, all cold ones and a few
//! of the restored ones, which take too long for every run.

use anyhow::Result;
use integration::gaps::{self, Choice, Verdict};
use integration::tools;

#[test]
fn nothing_differs_from_runc() -> Result<()> {
    let choice = Choice {
        restored: false,
        ..Choice::default()
    };
    let report = gaps::run(&choice, &gaps::cases())?;
    report.write(&tools::target().join("gaps-cold"))?;
    let differing: Vec<String> = report
        .differing()
        .iter()
        .map(|entry| format!("{} {}\n{}", entry.row, entry.case, entry.why))
        .collect();
    assert!(
        differing.is_empty(),
        "{}\n{}",
        differing.join("\n"),
        report.summary()
    );
    // What a machine cannot run must not be most of it.
    let ran = report
        .0
        .iter()
        .filter(|entry| entry.verdict != Verdict::NotRun);
    assert!(ran.count() > 300, "{}", report.summary());
    Ok(())
}

#[test]
fn nothing_differs_once_restored() -> Result<()> {
    let choice = Choice {
        rows: vec![3, 10],
        cold: false,
        ..Choice::default()
    };
    let report = gaps::run(&choice, &gaps::cases())?;
    report.write(&tools::target().join("gaps-restored"))?;
    let differing = report.differing();
    assert!(differing.is_empty(), "{differing:#?}");
    assert!(report.0.len() > 5, "{}", report.summary());
    Ok(())
}

#[test]
fn every_row_has_cases() {
    let cases = gaps::cases();
    for row in 1..=35 {
        assert!(cases.iter().any(|case| case.row == row), "row {row}");
    }
}

#[test]
fn names_are_unique_within_a_row() {
    let mut names: Vec<(u8, &str)> = gaps::cases().iter().map(|c| (c.row, c.name)).collect();
    names.sort_unstable();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}
