//! What is left to read afterwards.

use crate::cluster::report;
use crate::conformance::Report;
use anyhow::Result;
use serde_json::Value;
use std::fmt;
use std::fs;
use std::path::PathBuf;

/// `target/cluster`.
#[derive(Debug)]
pub(super) struct Out(PathBuf);

impl Out {
    /// Makes it, without logs of before.
    pub(super) fn prepare() -> Result<Self> {
        let dir = report::dir();
        fs::remove_dir_all(dir.join("logs")).ok();
        fs::create_dir_all(dir.join("logs"))?;
        Ok(Self(dir))
    }

    /// Keeps what became of a failed case.
    pub(super) fn keep(&self, name: &str, text: &str) {
        fs::write(self.0.join("logs").join(format!("{name}.txt")), text).ok();
    }

    /// Writes `report.json` and `table.txt`; what others have found out about scaling
    /// stays in there.
    pub(super) fn write(&self, report: &Report) -> Result<()> {
        if let Value::Object(fields) = serde_json::to_value(report)? {
            report::put(&self.0, fields)?;
        }
        Ok(fs::write(self.0.join("table.txt"), report.table())?)
    }
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dir = self.0.display();
        write!(
            f,
            "{dir}: report.json and table.txt (of whole runs), logs/ (of failures)"
        )
    }
}
