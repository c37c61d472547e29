//! Reading what `go test -v` says.

use super::outcome::Outcome;
use std::collections::BTreeMap;

/// Precedes every line of the framework's own with `-test.v=test2json`.
const MARK: char = '\u{16}';

/// How long a reason may get in the table.
const REASON_CHARS: usize = 400;

/// The outcome of every test and subtest in the output of one test program.
/// What was running at its end got no verdict: it is judged by `unfinished`.
pub(super) fn outcomes(
    output: &str,
    unfinished: impl Fn(&str) -> Outcome,
) -> BTreeMap<String, Outcome> {
    let mut said: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
    let mut verdicts: Vec<(&str, &str)> = Vec::new();
    let mut current = String::new();
    for line in output.lines() {
        match framework(line) {
            Some(Framework::Now(name)) => {
                name.clone_into(&mut current);
                said.entry(current.clone()).or_default();
            }
            Some(Framework::Verdict(verdict, name)) => {
                verdicts.push((verdict, name));
                name.clone_into(&mut current);
            }
            None => said.entry(current.clone()).or_default().push(line),
        }
    }
    // Subtests first: a test is told of before them.
    verdicts.sort_by_key(|(_, name)| std::cmp::Reverse(name.matches('/').count()));
    for (verdict, name) in verdicts {
        let lines = said.get(name).map_or(&[][..], Vec::as_slice);
        let outcome = match verdict {
            "PASS" => Outcome::Passed,
            "SKIP" => Outcome::Skipped(reason(lines)),
            _ => match failed_part(name, &outcomes) {
                Some(part) => Outcome::of_part(part),
                None => Outcome::Failed(reason(lines)),
            },
        };
        outcomes.insert(name.to_owned(), outcome);
    }
    for (name, lines) in said {
        if !name.is_empty() && !outcomes.contains_key(&name) {
            outcomes.insert(name, unfinished(&reason(&lines)));
        }
    }
    outcomes
}

/// The first subtest that did not pass: the reason of a test that has such.
fn failed_part<'o>(name: &str, outcomes: &'o BTreeMap<String, Outcome>) -> Option<&'o str> {
    let part = |(other, outcome): (&'o String, &Outcome)| {
        let rest = other.strip_prefix(name)?.strip_prefix('/')?;
        matches!(outcome, Outcome::Failed(_) | Outcome::TimedOut(_)).then_some(rest)
    };
    outcomes.iter().find_map(part)
}

enum Framework<'a> {
    Now(&'a str),
    Verdict(&'a str, &'a str),
}

/// What a line says if it is the framework's.
fn framework(line: &str) -> Option<Framework<'_>> {
    let (_, rest) = line.split_once(MARK)?;
    let mut words = rest.split_whitespace();
    match (words.next()?, words.next()?) {
        ("===", "RUN" | "NAME" | "CONT" | "PAUSE") => {
            Some(Framework::Now(words.next().unwrap_or("")))
        }
        ("---", verdict) => Some(Framework::Verdict(
            verdict.trim_end_matches(':'),
            words.next()?,
        )),
        _ => None,
    }
}

/// The message of a failing or skipping test: its first failure that testify
/// tells of, in parts, of which the trace is left out; or else what it logged
/// last, since that is what it ended with.
fn reason(lines: &[&str]) -> String {
    let is_message = |line: &str| {
        let mut parts = line.trim_start().splitn(3, ':');
        matches!(
            (parts.next(), parts.next()),
            (Some(file), Some(number))
                // This one passes on what containerd's client logs for debugging.
                if file.ends_with(".go") && file != "log_hook.go" && number.parse::<u32>().is_ok()
        )
    };
    let starts = |line: &&str| line.trim_start().starts_with("Error Trace:");
    let failure = lines.iter().position(starts).unwrap_or(lines.len());
    let Some(last) = lines[..failure].iter().rposition(|line| is_message(line)) else {
        // Debug messages of containerd's client are no reasons.
        let is_word = |line: &str| !line.trim().is_empty() && !line.contains("level=debug");
        let said = lines.iter().rev().find(|line| is_word(line));
        return short(said.map_or("it said nothing itself", |line| line.trim()));
    };
    let first = lines[last]
        .trim_start()
        .splitn(3, ':')
        .nth(2)
        .unwrap_or("")
        .trim();
    let more = lines[last + 1..]
        .iter()
        .take_while(|line| line.starts_with("        "));
    let mut text = first.to_owned();
    let mut in_trace = false;
    for part in more.map(|line| line.trim()) {
        in_trace = part.starts_with("Error Trace:") || (in_trace && part.contains(".go:"));
        if !in_trace && !part.starts_with("Test:") {
            text = format!("{text} {}", part.trim_start_matches("Error:").trim());
        }
    }
    short(text.trim())
}

/// One line of bounded length.
pub(super) fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= REASON_CHARS {
        return line;
    }
    let mut cut: String = line.chars().take(REASON_CHARS).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str) -> BTreeMap<String, Outcome> {
        outcomes(output, |said| Outcome::TimedOut(said.to_owned()))
    }

    #[test]
    fn passes_skips_and_failures_carry_the_tests_own_words() {
        let found = read(
            "\u{16}=== RUN   TestA\n\u{16}--- PASS: TestA (0.01s)\n\
             \u{16}=== RUN   TestB\n    b_test.go:10: no user namespaces here\n\u{16}--- SKIP: TestB (0.00s)\n\
             \u{16}=== RUN   TestC\n    c_test.go:3: first\n    c_test.go:9: last words\n\u{16}--- FAIL: TestC (0.00s)\nFAIL\n",
        );
        assert_eq!(found["TestA"], Outcome::Passed);
        assert_eq!(
            found["TestB"],
            Outcome::Skipped("no user namespaces here".into())
        );
        assert_eq!(found["TestC"], Outcome::Failed("last words".into()));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn subtests_and_what_was_running_at_the_end_are_told_apart() {
        let found = read(
            "\u{16}=== RUN   TestA\n\u{16}=== RUN   TestA/one\n    \u{16}--- PASS: TestA/one (0.00s)\n\
             \u{16}=== RUN   TestA/two\n    a_test.go:5: waiting\npanic: test timed out after 1s\n",
        );
        assert_eq!(found["TestA/one"], Outcome::Passed);
        assert_eq!(found["TestA/two"], Outcome::TimedOut("waiting".into()));
        assert!(!found["TestA"].passed());
    }

    #[test]
    fn a_message_of_testify_loses_its_trace() {
        let found = read(
            "\u{16}=== RUN   TestA\n    a_test.go:5: \n        \tError Trace:\t/x/a_test.go:5\n        \t            \t/x/b.go:7\n        \tError:      \tReceived unexpected error:\n        \t            \tno such image\n        \tTest:       \tTestA\n\u{16}--- FAIL: TestA (0.00s)\n",
        );
        assert_eq!(
            found["TestA"],
            Outcome::Failed("Received unexpected error: no such image".into())
        );
    }
}
