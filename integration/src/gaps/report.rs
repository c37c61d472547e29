//! The report: a file for programs, a table for people.

use super::judge::Verdict;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// One case, judged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The row of libcontainer-gaps.md.
    pub row: u8,
    /// The case; `(restored)` when its container came from a checkpoint.
    pub case: String,
    /// What was seen under runc.
    pub runc: Value,
    /// What was seen under ours.
    pub reprise: Value,
    /// How they compare.
    pub verdict: Verdict,
    /// Why it is stricter, where it differs, or why it was not run.
    pub why: String,
    /// How long both took.
    #[serde(skip)]
    pub took: Duration,
}

/// Aside, and then renamed.
fn write_whole(dir: &Path, name: &str, text: String) -> Result<()> {
    let aside = dir.join(format!(".{name}"));
    fs::write(&aside, text + "\n")?;
    fs::rename(&aside, dir.join(name))?;
    Ok(())
}

/// All cases.
#[derive(Clone, Debug, Default)]
pub struct Report(pub Vec<Entry>);

impl Report {
    /// The cases that differ.
    #[must_use]
    pub fn differing(&self) -> Vec<&Entry> {
        self.with(Verdict::Differs)
    }

    /// Writes `report.json` and `table.txt`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        write_whole(dir, "report.json", serde_json::to_string_pretty(&self.0)?)?;
        self.write_table(dir)
    }

    /// Writes `table.txt` only.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_table(&self, dir: &Path) -> Result<()> {
        write_whole(dir, "table.txt", self.table())
    }

    /// Reads a report that was written.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let entries = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        Ok(Self(entries))
    }

    /// What was not run here, as it was seen on another machine.
    pub fn add(&mut self, elsewhere: Self) {
        for other in elsewhere.0 {
            let here = self.0.iter_mut().find(|entry| {
                (entry.row, &entry.case, entry.verdict) == (other.row, &other.case, Verdict::NotRun)
            });
            if let Some(entry) = here.filter(|_| other.verdict != Verdict::NotRun) {
                *entry = other;
            }
        }
    }

    /// A line for each case, and below it where it differs.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self.0.iter().map(|entry| entry.case.len()).max();
        let width = width.unwrap_or_default();
        let mut table = String::new();
        for entry in &self.0 {
            let verdict = match entry.verdict {
                Verdict::Same => "same",
                Verdict::Stricter => "stricter",
                Verdict::Differs => "DIFFERS",
                Verdict::NotRun => "not run",
            };
            writeln!(table, "{:>3}  {:width$}  {verdict}", entry.row, entry.case).ok();
            for line in entry.why.lines() {
                let shown: String = line.chars().take(300).collect();
                writeln!(table, "     {shown}").ok();
            }
        }
        table + &self.summary()
    }

    /// How many cases are what.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |verdict| self.with(verdict).len();
        format!(
            "{} cases: {} same, {} stricter, {} differ, {} not run on this machine",
            self.0.len(),
            count(Verdict::Same),
            count(Verdict::Stricter),
            count(Verdict::Differs),
            count(Verdict::NotRun),
        )
    }

    fn with(&self, verdict: Verdict) -> Vec<&Entry> {
        let wanted = |entry: &&Entry| entry.verdict == verdict;
        self.0.iter().filter(wanted).collect()
    }
}
