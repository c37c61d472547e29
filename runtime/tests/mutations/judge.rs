//! Same, stricter with a reason, or a failure.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::sides::{Verdict, Verdicts};
use crate::specs::CODE;

/// A difference that a user would accept.
struct Reason {
    why: &'static str,
    holds: fn(&Value, &Verdicts) -> bool,
}

/// The exit code of a container whose process was still runc's own.
const RUNC_DIED: i32 = 255;

/// Where we differ, and a user would not mind.
const REASONS: &[Reason] = &[
    Reason {
        why: "runc gives no answer at all",
        holds: |_, v| matches!(v.runc, Verdict::Broken(_)) && !matches!(v.ours, Verdict::Broken(_)),
    },
    Reason {
        why: "runc needs the container's /proc for its own work, we do not",
        holds: |_, v| v.runc_says("/proc/sys/kernel/cap_last_cap") && v.ours == Verdict::Ran(CODE),
    },
    Reason {
        why: "runc runs into the limit on open files that is meant for the process",
        holds: |_, v| v.runc_says("too many open files") && matches!(v.ours, Verdict::Ran(_)),
    },
    Reason {
        why: "no time offset at all: runc tells the kernel nothing, which that refuses",
        holds: |spec, v| {
            spec.pointer("/linux/timeOffsets") == Some(&json!({}))
                && v.runc_says("timens_offsets: Invalid argument")
                && matches!(v.ours, Verdict::Ran(_))
        },
    },
    Reason {
        why: "a sysfs in the root's place is refused as any other, where runc mounts it unseen",
        holds: |_, v| matches!(v.runc, Verdict::Ran(_)) && v.ours_say("is on the top of rootfs"),
    },
    Reason {
        why: "a path by a descriptor's number: what a runtime has open there is chance",
        holds: |spec, _| {
            let paths = ["/linux/readonlyPaths", "/linux/maskedPaths"];
            let all = paths.iter().filter_map(|at| spec.pointer(at)?.as_array());
            all.flatten()
                .filter_map(Value::as_str)
                .any(|path| path.starts_with("/proc/self/fd/"))
        },
    },
    Reason {
        why: "a filter that forbids what runc does last; ours is loaded last of all",
        holds: |spec, v| {
            spec.pointer("/linux/seccomp").is_some()
                && v.runc_says("cannot start a")
                && matches!(v.ours, Verdict::Ran(_))
        },
    },
    Reason {
        why: "the same where runc has answered start already: its own process dies of the filter",
        holds: |spec, v| {
            let (runc, ours) = (Verdict::Ran(RUNC_DIED), Verdict::Ran(CODE));
            spec.pointer("/linux/seccomp").is_some() && v.runc == runc && v.ours == ours
        },
    },
    Reason {
        why: "an argument with a zero byte, of which runc's own process dies after start",
        holds: |_, v| v.runc == Verdict::Ran(RUNC_DIED) && v.ours_say("contains a zero byte"),
    },
    Reason {
        why: "a bind mount without a source: runc binds the bundle, its config.json in it",
        holds: |spec, v| {
            matches!(v.runc, Verdict::Ran(_)) && refused(&v.ours) && has_bind_of_nothing(spec)
        },
    },
    Reason {
        why: "a device rule that is none is refused, where runc leaves it out",
        holds: |_, v| matches!(v.runc, Verdict::Ran(_)) && v.ours_say("linux.resources.devices["),
    },
    Reason {
        why: "a hook with no time at all: with runc it is a race, here it has no limit",
        holds: |_, v| {
            let none = |time| v.runc_says(&format!("past specified timeout of {time}s"));
            none("0.0") || none("-1.0")
        },
    },
    Reason {
        why: "a poststart hook runs, and fails, at start",
        holds: |_, v| v.runc_says("poststart hook") && matches!(v.ours, Verdict::RefusedAtStart(_)),
    },
    Reason {
        why: "the agent of a filter is asked when the filter is loaded, at start",
        holds: |_, v| v.runc_says("seccomp agent") && v.ours_say("seccomp agent"),
    },
    Reason {
        why: "a label is refused when it is given to the process, at start",
        holds: |_, v| v.runc_says("apparmor") && v.ours_say("apparmor"),
    },
];

fn refused(verdict: &Verdict) -> bool {
    matches!(
        verdict,
        Verdict::RefusedAtCreate(_) | Verdict::RefusedAtStart(_)
    )
}

fn has_bind_of_nothing(spec: &Value) -> bool {
    let all = spec["mounts"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().any(|one| {
        let options = one["options"].as_array().map_or(&[][..], Vec::as_slice);
        let bind = one["type"] == "bind" || options.iter().any(|o| o == "bind" || o == "rbind");
        bind && one["source"].as_str().unwrap_or_default().is_empty()
    })
}

impl Verdicts {
    fn runc_says(&self, words: &str) -> bool {
        self.runc.says(words)
    }

    fn ours_say(&self, words: &str) -> bool {
        self.ours.says(words)
    }
}

impl Verdict {
    fn says(&self, words: &str) -> bool {
        match self {
            Self::RefusedAtCreate(text) | Self::RefusedAtStart(text) | Self::Broken(text) => {
                text.contains(words)
            }
            Self::Ran(_) | Self::RanOn => false,
        }
    }
}

pub(crate) struct Judge {
    name: &'static str,
    begin: Instant,
    count: u32,
    kinds: BTreeMap<String, u32>,
    failures: Vec<String>,
}

enum Judgement {
    Same,
    Stricter(&'static str),
    Differs,
}

fn judge(spec: &Value, verdicts: &Verdicts) -> Judgement {
    use Verdict::{Broken, Ran, RanOn, RefusedAtCreate, RefusedAtStart};
    let same = match (&verdicts.runc, &verdicts.ours) {
        (Broken(_), _) | (_, Broken(_)) => false,
        (Ran(a), Ran(b)) => a == b,
        (RanOn, RanOn)
        | (RefusedAtCreate(_), RefusedAtCreate(_))
        | (RefusedAtStart(_), RefusedAtStart(_)) => true,
        _ => false,
    };
    if same {
        return Judgement::Same;
    }
    let reason = REASONS.iter().find(|one| (one.holds)(spec, verdicts));
    reason.map_or(Judgement::Differs, |one| Judgement::Stricter(one.why))
}

impl Judge {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            begin: Instant::now(),
            count: 0,
            kinds: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    /// Whether this would be a failure.
    pub(crate) fn fails(&self, spec: &Value, verdicts: &Verdicts) -> bool {
        // What runc leaves when it hangs is not ours.
        let hung = matches!(verdicts.runc, Verdict::Broken(_));
        let left = verdicts
            .left
            .iter()
            .any(|one| !hung || one.starts_with("ours"));
        left || matches!(judge(spec, verdicts), Judgement::Differs)
    }

    pub(crate) fn hear(&mut self, name: &str, spec: &Value, verdicts: Verdicts) {
        self.count += 1;
        let kind = match judge(spec, &verdicts) {
            Judgement::Same => format!("same: {}", short(&verdicts.runc)),
            Judgement::Stricter(why) => format!("stricter: {why}"),
            Judgement::Differs => "differs".to_owned(),
        };
        *self.kinds.entry(kind).or_default() += 1;
        if self.fails(spec, &verdicts) {
            let Verdicts { runc, ours, left } = verdicts;
            let failure =
                format!("{name}\n    runc: {runc:?}\n    ours: {ours:?}\n    left: {left:?}");
            eprintln!("{failure}");
            self.failures.push(failure);
        }
    }

    /// Tells, and fails if anything failed.
    pub(crate) fn close(self) {
        let seconds = self.begin.elapsed().as_secs_f64();
        let report = json!({
            "cases": self.count,
            "failures": self.failures.len(),
            "seconds": (seconds * 10.0).round() / 10.0,
            "verdicts": self.kinds,
        });
        eprintln!("{}: {report:#}", self.name);
        if let Some(dir) = std::env::var_os("REPRISE_SPEC_REPORT") {
            let path = Path::new(&dir).join(format!("{}.json", self.name));
            fs::write(path, report.to_string()).unwrap();
        }
        assert!(
            self.failures.is_empty(),
            "{} of {} differ",
            self.failures.len(),
            self.count
        );
    }
}

fn short(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Ran(code) => format!("ran, {code}"),
        Verdict::RefusedAtCreate(_) => "refused at create".to_owned(),
        Verdict::RefusedAtStart(_) => "refused at start".to_owned(),
        Verdict::RanOn => "ran on".to_owned(),
        Verdict::Broken(_) => "broken".to_owned(),
    }
}
