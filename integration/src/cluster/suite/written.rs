//! What is left to read afterwards.

use crate::conformance::Report;
use crate::tools::workspace;
use anyhow::Result;
use serde_json::{Value, json};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// `target/cluster`.
#[derive(Debug)]
pub(super) struct Out(PathBuf);

impl Out {
    /// Makes it, without logs of before.
    pub(super) fn prepare() -> Result<Self> {
        let dir = workspace().join("target/cluster");
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
        let file = self.0.join("report.json");
        let value = with_scale(serde_json::to_value(report)?, &file);
        fs::write(&file, serde_json::to_string_pretty(&value)?)?;
        Ok(fs::write(self.0.join("table.txt"), report.table())?)
    }
}

fn with_scale(mut report: Value, file: &Path) -> Value {
    let before = fs::read(file).ok();
    let before = before.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let scale = before.and_then(|before| before.get("scale").cloned());
    report["scale"] = scale.unwrap_or_else(|| json!({}));
    report
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_about_scaling_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("report.json");
        let report = json!({"both": ["a"]});
        assert_eq!(with_scale(report.clone(), &file)["scale"], json!({}));
        fs::write(&file, r#"{"both": [], "scale": {"java": {"runc_s": 20}}}"#).unwrap();
        let kept = with_scale(report, &file);
        assert_eq!(kept["scale"]["java"]["runc_s"], 20);
        assert_eq!(kept["both"], json!(["a"]));
    }
}
