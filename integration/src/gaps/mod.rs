//! Where libcontainer is not runc: the same cases under runc and under Reprise,
//! on one node, compared.
//!
//! ```text
//! cases/*    what is run and looked at, declared      (case.rs, spec.rs)
//! run.rs     one container, and what is seen of it    (place.rs, words.rs)
//! restored.rs  the same after a checkpoint
//! judge.rs   same, stricter or different              (report.rs)
//! ```

mod case;
mod cases;
mod judge;
mod place;
mod report;
mod restored;
mod run;
mod spec;
mod stand;
mod words;

pub use case::Case;
pub use judge::Verdict;
pub use report::{Entry, Report};
pub use stand::{Stand, probe};

use crate::Runtime;
use anyhow::Result;
use case::{Body, Need, Restored};
use place::Place;
use run::Run;
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Which cases are run.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Only these rows; all when empty.
    pub rows: Vec<u8>,
    /// Only cases whose names have these words.
    pub named: Option<String>,
    /// Cold containers.
    pub cold: bool,
    /// Restored ones.
    pub restored: bool,
    /// Only cases that need cgroup v2, systemd or a security module.
    pub only_vm: bool,
    /// How many at a time.
    pub at_once: usize,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            named: None,
            cold: true,
            restored: true,
            only_vm: false,
            at_once: 4,
        }
    }
}

impl Choice {
    fn takes(&self, case: &Case) -> bool {
        let of_vm = |need: &Need| {
            matches!(
                need,
                Need::CgroupV2 | Need::Systemd | Need::SecurityModule(_)
            )
        };
        (!self.only_vm || case.needs.iter().any(of_vm))
            && (self.rows.is_empty() || self.rows.contains(&case.row))
            && self.named.as_ref().is_none_or(|w| case.name.contains(w))
    }

    fn job<'c>(&self, case: &'c Case) -> Option<Job<'c>> {
        let restorable = match &case.body {
            Body::Bundle(bundle) => bundle.restored != Restored::Not,
            Body::Free(_) => false,
        };
        let mut variants = Vec::new();
        if self.cold {
            variants.push(Variant::Cold);
        }
        if self.restored && restorable {
            variants.push(Variant::Restored);
        }
        (self.takes(case) && !variants.is_empty()).then_some(Job { case, variants })
    }
}

/// All cases, in the order of their rows.
#[must_use]
pub fn cases() -> Vec<Case> {
    cases::all()
}

/// One case, cold, restored, or one after the other.
struct Job<'c> {
    case: &'c Case,
    variants: Vec<Variant>,
}

/// How a case's container comes to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Cold,
    Restored,
}

/// Runs cases and judges them.
///
/// # Errors
/// When the node does not start. What fails in a case is a difference.
pub fn run(choice: &Choice, cases: &[Case]) -> Result<Report> {
    let jobs: Vec<Job<'_>> = cases.iter().filter_map(|case| choice.job(case)).collect();
    let stand = Stand::new()?;
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..choice.at_once.max(1) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let entries = job.judged(&stand);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.extend(entries);
                }
            });
        }
    });
    let mut entries = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    entries.sort_by(|a, b| (a.row, &a.case).cmp(&(b.row, &b.case)));
    Ok(Report(entries))
}

impl Job<'_> {
    fn judged(&self, stand: &Stand) -> Vec<Entry> {
        let variants = self.variants.iter();
        variants
            .map(|variant| self.entry(stand, *variant))
            .collect()
    }

    fn entry(&self, stand: &Stand, variant: Variant) -> Entry {
        let begun = Instant::now();
        let case = match variant {
            Variant::Cold => self.case.name.to_owned(),
            Variant::Restored => format!("{} (restored)", self.case.name),
        };
        let mut entry = Entry {
            row: self.case.row,
            case,
            runc: Value::Null,
            reprise: Value::Null,
            verdict: Verdict::NotRun,
            why: String::new(),
            took: begun.elapsed(),
        };
        let missing = self.case.needs.iter().find_map(|need| need.missing());
        if let Some(missing) = missing {
            missing.clone_into(&mut entry.why);
            return entry;
        }
        match self.seen(stand, variant) {
            Ok((mut runc, mut reprise, by_design)) => {
                for seen in [&mut runc, &mut reprise] {
                    self.case
                        .ignored
                        .iter()
                        .for_each(|key| drop(seen[*key].take()));
                }
                let declared = self.case.stricter.as_ref();
                (entry.verdict, entry.why) = judge::judge(&runc, &reprise, declared);
                (entry.runc, entry.reprise) = (runc, reprise);
                if let Some(why) = by_design {
                    entry.by_design(&why);
                }
            }
            Err(error) => {
                entry.verdict = Verdict::Differs;
                entry.why = format!("the case failed: {error:#}");
            }
        }
        entry.took = begun.elapsed();
        entry
    }

    /// What is seen under both, and why ours was not restored, if by design.
    fn seen(&self, stand: &Stand, variant: Variant) -> Result<(Value, Value, Option<String>)> {
        let bundle = match &self.case.body {
            Body::Free(free) => {
                let runc = free(stand, Runtime::Runc)?;
                return Ok((runc, free(stand, Runtime::Reprise)?, None));
            }
            Body::Bundle(bundle) => bundle,
        };
        if variant == Variant::Restored {
            let tag = format!("{}-{}", self.case.row, self.case.name);
            let compared = restored::compare(stand, bundle, &tag)?;
            return Ok((compared.runc, compared.reprise, compared.why));
        }
        let cold = |runtime| {
            let place = Place::new(stand, runtime)?;
            let run = Run::new(&place, bundle, false)?;
            match bundle.program {
                case::Program::Waits => run.looked_at(bundle, &[]),
                case::Program::Script(_) | case::Program::Own => run.until_its_end(bundle),
            }
        };
        Ok((cold(Runtime::Runc)?, cold(Runtime::Reprise)?, None))
    }
}

impl Entry {
    /// It was not restored, and that is by design: what matters is whether what
    /// was started instead differs. A refused checkpoint leaves nothing to compare.
    fn by_design(&mut self, why: &str) {
        if self.reprise["checkpoint"] == "refused" {
            self.verdict = Verdict::Stricter;
            self.why = format!("there is no checkpoint to restore: {why}");
        } else if self.verdict != Verdict::Differs {
            self.why = format!(
                "{}{}{why}",
                self.why,
                if self.why.is_empty() { "" } else { "; " }
            );
        }
    }
}

impl Need {
    /// Why this machine cannot give it, if it cannot.
    fn missing(self) -> Option<&'static str> {
        let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        match self {
            Self::CgroupV1 if v2 => Some("needs cgroup v1, and this machine has v2"),
            Self::CgroupV2 if !v2 => {
                Some("needs cgroup v2, which this machine has not: `make gaps-vm` runs it")
            }
            Self::Systemd if !Path::new("/run/systemd/system").exists() => {
                Some("needs systemd, which does not run here: `make gaps-vm` runs it")
            }
            Self::Controller(name) if !has_controller(name) => {
                Some("needs a cgroup controller that this kernel has not")
            }
            Self::SecurityModule(name) if !has_module(name) => {
                Some("needs a security module that this kernel has not")
            }
            _ => None,
        }
    }
}

fn has_controller(name: &str) -> bool {
    let root = Path::new("/sys/fs/cgroup");
    let listed = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    root.join(name).exists() || listed.split_whitespace().any(|one| one == name)
}

fn has_module(name: &str) -> bool {
    let loaded = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    loaded.trim().split(',').any(|one| one == name)
}
