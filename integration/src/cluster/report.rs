//! `target/cluster/report.json`, to which the suite and the benchmark add what each has
//! found out.

use crate::tools::workspace;
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The directory that it is in.
pub(crate) fn dir() -> PathBuf {
    workspace().join("target/cluster")
}

/// Puts fields into the report of a directory and leaves its others; gives its path. One
/// that cannot be read is as good as none.
///
/// # Errors
/// When it cannot be written; it is as it was then.
pub(crate) fn put(dir: &Path, fields: Map<String, Value>) -> Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let file = dir.join("report.json");
    let before = fs::read(&file).ok();
    let before = before.and_then(|bytes| serde_json::from_slice::<Map<_, _>>(&bytes).ok());
    let mut report = before.unwrap_or_default();
    report.extend(fields);
    report.entry("scale").or_insert_with(|| json!({}));
    let partial = file.with_extension("partial");
    fs::write(&partial, serde_json::to_string_pretty(&report)?)?;
    fs::rename(partial, &file)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_the_report_stays() {
        let dir = tempfile::tempdir().unwrap();
        let fields = |value: Value| value.as_object().unwrap().clone();
        let put = |value| {
            let file = put(dir.path(), fields(value)).unwrap();
            serde_json::from_slice::<Value>(&fs::read(file).unwrap()).unwrap()
        };
        assert_eq!(put(json!({"both": []}))["scale"], json!({}));
        let scale = json!({"java": {"runc_s": 20}});
        assert_eq!(put(json!({"scale": scale}))["both"], json!([]));
        let kept = put(json!({"both": ["a"]}));
        assert_eq!(kept["scale"]["java"]["runc_s"], 20);
        assert_eq!(kept["both"], json!(["a"]));
    }
}
