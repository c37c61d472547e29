//! The comparison: who passed what, and why not.

use super::causes::{self, Cause};
use super::outcome::{Results, Tried};
use anyhow::Result;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

/// What became of the tests of all suites; `report.json`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Passed by both.
    pub both: Vec<String>,
    /// Passed by neither.
    pub neither: Vec<String>,
    /// Passed by runc's shim and not by ours: bugs of ours.
    pub only_runc: Vec<String>,
    /// Passed by ours alone.
    pub only_reprise: Vec<String>,
    #[serde(skip)]
    reasons: BTreeMap<String, Reasons>,
    #[serde(skip)]
    counts: Vec<(&'static str, [usize; 4])>,
}

/// Why a test did not pass, in its own words; `reasons.json`.
#[derive(Clone, Debug, Serialize)]
struct Reasons {
    runc: String,
    reprise: String,
    /// Outcomes of other tries, where they were not the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_tries: Vec<String>,
    /// What of the environment keeps both from passing it, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
}

/// What became of the tests of one suite.
pub(crate) struct Compared {
    suite: &'static str,
    report: Report,
}

/// Puts the results of both runtimes beside each other.
pub(crate) fn compare(
    suite: &'static str,
    runc: &Results,
    reprise: &Results,
    known: &[Cause],
) -> Compared {
    let mut report = Report::default();
    let lanes = [runc, reprise];
    let names: BTreeSet<&String> = runc.keys().chain(reprise.keys()).collect();
    for name in names {
        let full = format!("{suite}: {name}");
        let (runc, reprise) = (runc.get(name), reprise.get(name));
        let passed = |tried: Option<&Tried>| tried.is_some_and(|tried| tried.outcome.passed());
        let list = match (passed(runc), passed(reprise)) {
            (true, true) => &mut report.both,
            (false, false) => &mut report.neither,
            (true, false) => &mut report.only_runc,
            (false, true) => &mut report.only_reprise,
        };
        list.push(full.clone());
        let of = |who: &'static str, tried: Option<&Tried>| {
            let others = tried.map_or(&[][..], |tried| &tried.others).iter();
            others
                .map(|outcome| format!("{who} {outcome}"))
                .collect::<Vec<_>>()
        };
        let reasons = Reasons {
            runc: said(runc),
            reprise: said(reprise),
            other_tries: [of("runc", runc), of("reprise", reprise)].concat(),
            cause: causes::of(known, name, lanes),
        };
        if !(passed(runc) && passed(reprise) && reasons.other_tries.is_empty()) {
            report.reasons.insert(full, reasons);
        }
    }
    Compared { suite, report }
}

fn said(tried: Option<&Tried>) -> String {
    tried.map_or_else(
        || "not reached".to_owned(),
        |tried| tried.outcome.to_string(),
    )
}

impl Compared {
    /// The tests that only runc's shim has passed.
    pub(crate) fn only_runc(&self) -> impl Iterator<Item = &str> {
        let prefix = format!("{}: ", self.suite);
        let names = self.report.only_runc.iter();
        names.map(move |name| name.strip_prefix(&prefix).unwrap_or(name))
    }

    /// One line for the screen.
    pub(super) fn summary(&self, took: Duration) -> String {
        let [both, neither, runc, reprise] = self.report.sizes();
        format!(
            "{}: {both} both, {neither} neither, {runc} only runc, {reprise} only reprise, in {} s",
            self.suite,
            took.as_secs()
        )
    }
}

impl Report {
    /// Takes in a suite.
    pub(crate) fn add(&mut self, found: Compared) {
        let report = found.report;
        self.counts.push((found.suite, report.sizes()));
        self.both.extend(report.both);
        self.neither.extend(report.neither);
        self.only_runc.extend(report.only_runc);
        self.only_reprise.extend(report.only_reprise);
        self.reasons.extend(report.reasons);
    }

    /// Whether our shim passes all that runc's passes, and anything was run.
    #[must_use]
    pub fn is_conformant(&self) -> bool {
        self.only_runc.is_empty() && !self.both.is_empty()
    }

    /// The tests that neither passes, and nobody knows why.
    pub(crate) fn unexplained(&self) -> impl Iterator<Item = &String> {
        self.neither.iter().filter(|name| {
            let reasons = self.reasons.get(*name);
            reasons.is_none_or(|reasons| reasons.cause.is_none())
        })
    }

    pub(super) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    pub(super) fn reasons_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(&self.reasons)?)
    }

    fn sizes(&self) -> [usize; 4] {
        [
            &self.both,
            &self.neither,
            &self.only_runc,
            &self.only_reprise,
        ]
        .map(Vec::len)
    }

    /// The table for people: counts, and each test that not both passed with
    /// its reasons.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:10}{:>8}{:>10}{:>12}{:>15}\n",
            "suite", "both", "neither", "only runc", "only reprise"
        );
        let all = ("all", self.sizes());
        for (name, [both, neither, runc, reprise]) in self.counts.iter().chain([&all]) {
            writeln!(
                text,
                "{name:10}{both:>8}{neither:>10}{runc:>12}{reprise:>15}"
            )
            .ok();
        }
        let unknown: Vec<&String> = self.unexplained().collect();
        let known = self.neither.iter().filter(|name| !unknown.contains(name));
        self.section(&mut text, "Only runc", self.only_runc.iter());
        self.section(&mut text, "Only reprise", self.only_reprise.iter());
        self.section(
            &mut text,
            "Neither, and nobody has said why",
            unknown.iter().copied(),
        );
        self.section(&mut text, "Neither, for the environment", known);
        let retried = self
            .both
            .iter()
            .filter(|name| self.reasons.contains_key(*name));
        self.section(&mut text, "Both, though not each time", retried);
        text
    }

    fn section<'t>(&self, text: &mut String, title: &str, tests: impl Iterator<Item = &'t String>) {
        for (number, name) in tests.enumerate() {
            if number == 0 {
                writeln!(text, "\n{title}:").ok();
            }
            writeln!(text, "  {name}").ok();
            let Some(reasons) = self.reasons.get(name) else {
                continue;
            };
            if let Some(cause) = reasons.cause {
                writeln!(text, "      cause: {cause}").ok();
            }
            if reasons.runc == reasons.reprise {
                writeln!(text, "      {}", reasons.runc).ok();
            } else {
                writeln!(text, "      runc     {}", reasons.runc).ok();
                writeln!(text, "      reprise  {}", reasons.reprise).ok();
            }
            for other in &reasons.other_tries {
                writeln!(text, "      another try: {other}").ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Outcome;
    use super::*;

    fn results(outcomes: &[(&str, Outcome)]) -> Results {
        let tried = |outcome: &Outcome| Tried::once(outcome.clone());
        outcomes
            .iter()
            .map(|(name, outcome)| ((*name).to_owned(), tried(outcome)))
            .collect()
    }

    #[test]
    fn a_skip_of_ours_alone_is_a_loss() {
        let skipped = || Outcome::Skipped("not announced".into());
        let runc = results(&[
            ("A", Outcome::Passed),
            ("B", Outcome::Passed),
            ("C", skipped()),
        ]);
        let reprise = results(&[("A", Outcome::Passed), ("B", skipped()), ("C", skipped())]);
        let report = compare("client", &runc, &reprise, &[]).report;
        assert_eq!(report.both, ["client: A"]);
        assert_eq!(report.only_runc, ["client: B"]);
        assert_eq!(report.neither, ["client: C"]);
        assert!(!report.is_conformant());
    }

    #[test]
    fn a_test_that_ours_never_reached_is_a_loss() {
        let runc = results(&[("A", Outcome::Passed), ("A/sub", Outcome::Passed)]);
        let reprise = results(&[("A", Outcome::Failed("x".into()))]);
        let report = compare("cri", &runc, &reprise, &[]).report;
        assert_eq!(report.only_runc, ["cri: A", "cri: A/sub"]);
    }

    #[test]
    fn a_lost_test_is_run_again_as_a_whole_and_a_pass_counts() {
        let late = || Outcome::TimedOut("busy".into());
        let runc = results(&[("A", Outcome::Passed), ("A/sub", Outcome::Passed)]);
        let reprise = results(&[("A", late()), ("A/sub", late())]);
        let compared = compare("cri", &runc, &reprise, &[]);
        assert!(compared.only_runc().eq(["A", "A/sub"]));

        let again: Results = reprise
            .into_iter()
            .map(|(name, tried)| (name, tried.then(Outcome::Passed)))
            .collect();
        let report = compare("cri", &runc, &again, &[]).report;
        assert_eq!(report.both, ["cri: A", "cri: A/sub"]);
        assert!(
            report
                .table()
                .contains("another try: reprise timed out: busy")
        );
    }

    #[test]
    fn a_failure_does_not_take_back_what_runc_has_passed() {
        let failed = || Outcome::Failed("x".into());
        let runc = Tried::once(Outcome::Passed).then(failed());
        let runc = Results::from([("A".to_owned(), runc)]);
        let report = compare("client", &runc, &results(&[("A", failed())]), &[]).report;
        assert_eq!(report.only_runc, ["client: A"]);
    }

    #[test]
    fn nothing_run_is_not_conformant() {
        assert!(!Report::default().is_conformant());
    }
}
