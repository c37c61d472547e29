//! One attack, many times: attempt, watch, count, tell.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use reprise_runtime::ErrorKind;
use serde_json::{Value, json};

use crate::host::Host;
use crate::race::Neighbour;
use crate::support::{Case, exit_code, forget_ended, text};

/// Looking at the whole host takes as long as an attempt.
const BATCH: u32 = 25;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// No container, or no process: with the reason.
    Refused(String),
    /// It ran, and this is what it wrote.
    Ran(String),
}

/// One of the trade's escapes.
pub(crate) trait Attack {
    /// Prepares an attempt while the neighbour rests.
    fn lay_out(&mut self, _n: u32) {}
    /// Tries once.
    fn attempt(&mut self, n: u32) -> Outcome;
    /// Makes the change that a success would make, on purpose. What it says of a
    /// container is judged as an attempt's outcome is.
    fn control(&mut self, host: &Host) -> Option<Outcome>;
    /// Who races with the runtime, if anybody does.
    fn neighbour(&self) -> Option<&Neighbour> {
        None
    }
    /// What must have been seen among the outcomes for the attack to have been one.
    fn must_see(&self) -> &'static [&'static str];
}

/// What was counted.
#[derive(Default)]
struct Tally {
    failed_closed: u32,
    ran_confined: u32,
    raced: u32,
    outcomes: BTreeMap<String, u32>,
    findings: Vec<String>,
}

/// Runs an attack and fails the test if the host has changed.
pub(crate) fn run<A: Attack>(name: &str, cve: &str, make: impl FnOnce(&mut Host) -> A) {
    let attempts = attempts();
    let mut host = Host::new();
    let mut attack = make(&mut host);
    // What the attack itself laid out is no change.
    host.repair();
    let said = attack
        .control(&host)
        .and_then(|outcome| breach(&outcome, &host));
    let seen = said.into_iter().chain(host.changes()).count();
    assert_ne!(seen, 0, "{name}: the control is not seen");
    host.repair();
    assert_eq!(host.changes(), [""; 0]);

    let begin = Instant::now();
    let mut tally = Tally::default();
    for n in 0..attempts {
        tally.attempt(&mut attack, n, &host);
        if n % BATCH == BATCH - 1 || n + 1 == attempts {
            let changes = host.lasting_changes();
            if !changes.is_empty() {
                tally.findings.extend(changes);
                host.repair();
            }
        }
    }
    let races = attack.neighbour().is_some();
    let must_see = attack.must_see();
    drop(attack);
    tally.tell(name, cve, attempts, begin.elapsed().as_secs_f64());
    assert!(tally.findings.is_empty(), "{name}: {:#?}", tally.findings);
    if races {
        assert!(
            tally.raced * 10 >= attempts * 9,
            "{name}: only {} of {attempts} attempts were raced with",
            tally.raced
        );
    }
    // A few attempts do not meet everything.
    for word in must_see.iter().filter(|_| attempts >= 50) {
        assert!(
            tally.outcomes.keys().any(|outcome| outcome.contains(word)),
            "{name}: no outcome with {word:?} in {:#?}",
            tally.outcomes
        );
    }
}

fn attempts() -> u32 {
    std::env::var("REPRISE_ESCAPE_ATTEMPTS").map_or(100, |n| n.parse().unwrap())
}

impl Tally {
    fn attempt(&mut self, attack: &mut impl Attack, n: u32, host: &Host) {
        let swaps = |attack: &dyn Attack| attack.neighbour().map_or(0, Neighbour::swaps);
        forget_ended();
        attack.lay_out(n);
        let before = swaps(attack);
        attack.neighbour().inspect(|one| one.rest(false));
        let outcome = attack.attempt(n);
        self.raced += u32::from(swaps(attack) > before);
        attack.neighbour().inspect(|one| one.rest(true));
        let breach = breach(&outcome, host);
        let label = match outcome {
            Outcome::Refused(why) => {
                self.failed_closed += 1;
                format!("refused: {}", gist(&why))
            }
            Outcome::Ran(out) => {
                self.ran_confined += u32::from(breach.is_none());
                format!("ran: {}", gist(&out))
            }
        };
        self.findings
            .extend(breach.map(|what| format!("attempt {n}: {what}")));
        *self.outcomes.entry(label).or_default() += 1;
    }

    fn tell(&self, name: &str, cve: &str, attempts: u32, seconds: f64) {
        let line = json!({
            "case": name,
            "cve": cve,
            "attempts": attempts,
            "failed_closed": self.failed_closed,
            "ran_confined": self.ran_confined,
            "host_changes": self.findings.len(),
            "seconds": (seconds * 10.0).round() / 10.0,
            "raced": self.raced,
            "outcomes": self.outcomes,
        });
        eprintln!("{line:#}");
        if let Some(dir) = std::env::var_os("REPRISE_ESCAPE_REPORT") {
            fs::write(
                Path::new(&dir).join(format!("{name}.json")),
                line.to_string(),
            )
            .unwrap();
        }
    }
}

/// What a container says that got hold of what it must not have.
fn breach(outcome: &Outcome, host: &Host) -> Option<String> {
    match outcome {
        Outcome::Ran(out) if out.contains(&host.secret) || out.contains("BREACH") => {
            Some(format!("the container says {out:?}"))
        }
        _ => None,
    }
}

/// A text that can be counted: one line, numbers alike, not too long.
fn gist(text: &str) -> String {
    let mut gist = String::new();
    for c in text.trim().chars().take(200) {
        match c {
            '0'..='9' if gist.ends_with('#') => {}
            '0'..='9' => gist.push('#'),
            '\n' => gist.push_str("; "),
            c => gist.push(c),
        }
    }
    gist
}

/// Creates, starts, waits for the end, removes.
pub(crate) fn once(case: &mut Case) -> Outcome {
    let (worker, prepared, [out, err]) = case.prepare();
    let outcome = match prepared {
        Err(e) => {
            drop(worker);
            refused(&e)
        }
        Ok(prepared) => match worker.start() {
            Err(e) => {
                exit_code(prepared.pid);
                refused(&e)
            }
            Ok(()) => {
                let said = match prepared.console {
                    Some(console) => text(console),
                    None => text(out) + &text(err),
                };
                exit_code(prepared.pid);
                Outcome::Ran(said)
            }
        },
    };
    reset(case);
    outcome
}

/// Runs a process in a container that runs.
pub(crate) fn exec_once(case: &mut Case, process: Value) -> Outcome {
    let (started, out) = case.try_exec(process);
    let outcome = match started {
        Err(e) => refused(&e),
        Ok(started) => {
            let said = text(out);
            exit_code(started.pid);
            Outcome::Ran(said)
        }
    };
    case.reap_workers();
    outcome
}

/// A worker that died is no refusal, however the container fared.
fn refused(error: &reprise_runtime::Error) -> Outcome {
    assert_ne!(
        error.kind,
        ErrorKind::Unavailable,
        "{error} {:#?}",
        error.detail
    );
    Outcome::Refused(error.message.clone())
}

fn reset(case: &mut Case) {
    case.remove();
    case.assert_clean();
    case.reap_workers();
    for dir in ["upper", "work"] {
        let dir = case.dir.join(dir);
        fs::remove_dir_all(&dir).unwrap();
        fs::create_dir(&dir).unwrap();
    }
}
