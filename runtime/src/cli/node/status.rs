//! `reprise node status`: what is installed, whether containerd has it, and whether
//! the node is fit.

use std::path::Path;

use reprise_runtime::Result;
use serde_json::json;

use super::super::show;
use super::fitness::{self, Finding};
use super::host::Host;
use super::record::{Record, place};
use super::{Said, UNFIT, binaries, containerd, settings};

/// What there is to say.
#[derive(Debug)]
pub(super) struct Status {
    installed: Option<String>,
    changed_by_others: Vec<String>,
    handler: Result<bool>,
    restart_pending: bool,
    running: Vec<(String, usize)>,
    findings: Vec<Finding>,
    fit: bool,
}

/// What an installation that failed leaves there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum There {
    /// A version that works.
    Works(String),
    /// Pods, although nothing is as it should be.
    Runs,
    /// Nothing of use.
    Nothing,
}

impl Status {
    /// Looks at the node.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub(super) fn of(host: &Host, main: &Path, accepted: &[String]) -> Result<Self> {
        let record = Record::load(host)?;
        let handler = containerd::dump(host, main).map(|dump| settings::has_handler(&dump));
        let mut status = Self {
            installed: None,
            changed_by_others: Vec::new(),
            handler,
            restart_pending: false,
            running: binaries::running(host).into_iter().collect(),
            findings: Vec::new(),
            fit: false,
        };
        let Some(record) = record else {
            return Ok(status);
        };
        let changed = record.changes.iter().filter(|change| {
            let at = place(host, &change.path, &change.ours);
            !change.ours.is_at(&at)
        });
        status.changed_by_others = changed.map(|c| c.path.display().to_string()).collect();
        status.findings = fitness::findings(host, &record.installed, main)?;
        status.fit = fitness::unfit(&status.findings, &[], accepted)
            .next()
            .is_none();
        status.restart_pending = record.restart_pending;
        status.installed = Some(record.installed);
        Ok(status)
    }

    fn good(&self) -> bool {
        let handler = matches!(self.handler, Ok(true));
        self.installed.is_some() && handler && self.fit && !self.restart_pending
    }

    /// What of it counts for the cluster.
    pub(super) fn there(self) -> There {
        match &self.installed {
            Some(version) if self.good() => There::Works(version.clone()),
            _ if self.running.is_empty() => There::Nothing,
            _ => There::Runs,
        }
    }

    /// For programs or for people.
    pub(super) fn said(&self, as_json: bool) -> Said {
        let mut said = Said {
            code: if self.good() { 0 } else { UNFIT },
            ..Said::default()
        };
        if as_json {
            let running = self.running.iter().cloned();
            let running: serde_json::Map<_, _> = running.map(|(v, n)| (v, json!(n))).collect();
            said.line(format!(
                "{:#}",
                json!({
                    "installed": self.installed,
                    "changed_by_others": self.changed_by_others,
                    "handler": *self.handler.as_ref().unwrap_or(&false),
                    "restart_pending": self.restart_pending,
                    "running": running,
                    "fit": self.fit,
                    "findings": self.findings,
                })
            ));
        } else {
            said.line(show::columns(&self.rows()).trim_end());
        }
        said
    }

    fn rows(&self) -> Vec<[String; 2]> {
        let row = |name: &str, text: String| [name.to_owned(), text];
        let installed = self.installed.clone();
        let mut rows = vec![row(
            "installed",
            installed.unwrap_or_else(|| "no; `reprise node install` does it".to_owned()),
        )];
        rows.push(row(
            "handler",
            match (&self.handler, self.restart_pending) {
                (Err(error), _) => error.message.clone(),
                (Ok(_), true) => "containerd has to be restarted to read its configuration".into(),
                (Ok(true), _) => "known to containerd".to_owned(),
                (Ok(false), _) => "not in containerd's configuration".to_owned(),
            },
        ));
        for path in &self.changed_by_others {
            rows.push(row("changed", format!("{path}, by somebody else")));
        }
        for (version, n) in &self.running {
            rows.push(row("running", format!("{n} from {version}")));
        }
        for finding in self.findings.iter().filter(|f| !f.ok) {
            rows.push(row(
                "not fit",
                format!("{}: {}", finding.check, finding.text),
            ));
        }
        if self.fit {
            rows.push(row("fit", "yes".to_owned()));
        }
        rows
    }
}
