//! Compares what was seen under both runtimes.

use super::case::Stricter;
use super::words;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How ours compares with runc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing differs.
    Same,
    /// It differs exactly as declared, for a reason.
    Stricter,
    /// It differs.
    Differs,
    /// This machine cannot run it.
    #[serde(rename = "not run")]
    NotRun,
}

/// Judges two observations; the reason that a report gives.
#[must_use]
pub(super) fn judge(
    runc: &Value,
    reprise: &Value,
    stricter: Option<&Stricter>,
) -> (Verdict, String) {
    let mut other_words = Vec::new();
    let reprise = &mut reprise.clone();
    translate(runc, reprise, &mut other_words);
    match stricter {
        Some(declared) if (declared.holds)(runc, reprise) => {
            (Verdict::Stricter, declared.why.to_owned())
        }
        Some(_) if runc == &*reprise => (Verdict::Same, "not stricter after all".to_owned()),
        _ if runc == &*reprise => (Verdict::Same, other_words.join("\n")),
        _ => (Verdict::Differs, differences(runc, reprise).join("\n")),
    }
}

/// Puts runc's words in the place of ours where ours tell the same.
fn translate(runc: &Value, reprise: &mut Value, other_words: &mut Vec<String>) {
    match (runc, reprise) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, ours) in b.iter_mut() {
                let Some(runcs) = a.get(key) else { continue };
                if let ("cause" | "message" | "start", Value::String(said), Value::String(says)) =
                    (key.as_str(), runcs, &mut *ours)
                {
                    if said != says && words::tells_all(says, said) {
                        other_words.push(format!("in other words: `{says}` for `{said}`"));
                        *says = said.clone();
                    }
                } else {
                    translate(runcs, ours, other_words);
                }
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for (runcs, ours) in a.iter().zip(b) {
                translate(runcs, ours, other_words);
            }
        }
        _ => {}
    }
}

/// Where two observations differ, one line for each place.
#[must_use]
pub(super) fn differences(runc: &Value, reprise: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk("", runc, reprise, &mut found);
    found
}

fn walk(at: &str, runc: &Value, reprise: &Value, found: &mut Vec<String>) {
    match (runc, reprise) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let of = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or_default()
                };
                walk(&format!("{at}/{key}"), &of(a), &of(b), found);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            let only = |these: &[Value], those: &[Value]| -> Vec<String> {
                let these = these.iter().filter(|line| !those.contains(line));
                these.map(shown).collect()
            };
            let (ours, theirs) = (only(b, a), only(a, b));
            found.extend(theirs.iter().map(|line| format!("{at}: only runc: {line}")));
            found.extend(
                ours.iter()
                    .map(|line| format!("{at}: only reprise: {line}")),
            );
            if ours.is_empty() && theirs.is_empty() && a != b {
                let places = a.iter().zip(b).position(|(one, other)| one != other);
                let place = places.unwrap_or(a.len().min(b.len()));
                let of = |list: &[Value]| list.get(place).map_or("nothing".to_owned(), shown);
                found.push(format!(
                    "{at}: another order or number of lines: line {place} is {} under runc, {} under reprise",
                    of(a),
                    of(b)
                ));
            }
        }
        (a, b) if a != b => {
            found.push(format!("{at}: runc {} reprise {}", shown(a), shown(b)));
        }
        _ => {}
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => format!("`{text}`"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Verdict, differences, judge};
    use crate::gaps::case::Stricter;
    use serde_json::json;

    #[test]
    fn what_differs_is_named() {
        let runc = json!({ "exit": 0, "said": { "stdout": ["a", "b"] } });
        let ours = json!({ "exit": 1, "said": { "stdout": ["a", "c"] } });
        assert_eq!(
            differences(&runc, &ours),
            [
                "/exit: runc 0 reprise 1",
                "/said/stdout: only runc: `b`",
                "/said/stdout: only reprise: `c`",
            ]
        );
        assert_eq!(judge(&runc, &ours, None).0, Verdict::Differs);
        assert_eq!(judge(&runc, &runc, None).0, Verdict::Same);
    }

    #[test]
    fn another_order_differs() {
        let (one, other) = (json!(["a", "b"]), json!(["b", "a"]));
        assert_eq!(judge(&one, &other, None).0, Verdict::Differs);
        assert_eq!(differences(&one, &other).len(), 1);
    }

    #[test]
    fn stricter_is_what_was_declared_only() {
        let stricter = Stricter {
            why: "a reason",
            holds: Box::new(|runc, ours| runc["exit"] == 0 && ours["exit"] == 1),
        };
        let exit = |code: i32| json!({ "exit": code });
        let judged = |ours| judge(&exit(0), &exit(ours), Some(&stricter)).0;
        assert_eq!(judged(1), Verdict::Stricter);
        assert_eq!(judged(2), Verdict::Differs);
        assert_eq!(judged(0), Verdict::Same);
    }
}
