//! Whether the node is fit: the findings of `reprise check`, made on the node by the
//! programs that are to run there, which shows that they do.

use std::path::Path;

use reprise_runtime::Result;
use reprise_runtime::error::Doing;
use serde::{Deserialize, Serialize};

use super::binaries;
use super::host::{Host, output};

/// What only an installation brings about.
pub(super) const BY_INSTALL: [&str; 3] = ["handler", "annotations", "snapshotter"];

/// A line of `reprise check --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Finding {
    pub(super) check: String,
    pub(super) ok: bool,
    pub(super) text: String,
}

/// Asks a version's `reprise check` on the node.
///
/// # Errors
/// It does not run there.
pub(super) fn findings(host: &Host, version: &str, main: &Path) -> Result<Vec<Finding>> {
    let program = binaries::bin(version).join(binaries::CLI);
    let mut command = host.command(&program.display().to_string());
    command
        .args(["check", "--json", "--containerd-config"])
        .arg(main);
    // It fails when a finding is bad, and prints all of them in any case.
    let done = command
        .output()
        .doing(format!("Cannot run {} on the node", program.display()))?;
    match serde_json::from_slice(&done.stdout) {
        Ok(findings) => Ok(findings),
        Err(_) => output(&mut command)
            .and_then(|text| serde_json::from_str(&text).doing("Cannot understand the check")),
    }
}

/// Those that keep Reprise from a node, but for the accepted.
pub(super) fn unfit<'f>(
    findings: &'f [Finding],
    besides: &'f [&str],
    accepted: &'f [String],
) -> impl Iterator<Item = &'f Finding> {
    findings.iter().filter(move |finding| {
        !finding.ok
            && !besides.contains(&finding.check.as_str())
            && !accepted.contains(&finding.check)
    })
}
