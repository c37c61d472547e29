//! Hooks with real processes, beside runc: when, where, with which state, and what
//! comes of one that fails.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test with a harness of its own"
)]

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::Case;
use support::yardstick::Outcome;

support::tests![
    each_at_its_moment_and_place,
    a_failing_one_undoes_the_container,
    slow_and_missing_ones,
    a_state_of_any_length,
    those_of_the_node_may_change_the_limits,
];

const NODE: [&str; 5] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "poststart",
    "poststop",
];

/// Tells what it finds. In the container busybox must do.
fn telling(name: &str, log: &Path) -> Value {
    let script = format!(
        "{{ echo {name}; pwd; cat; echo; head -n 1 /proc/self/cgroup; \
         for ns in mnt net pid uts; do readlink /proc/self/ns/$ns; done; \
         grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; }} >> {} 2>&1",
        log.display()
    );
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
}

fn hooks_of(case: &mut Case) -> std::path::PathBuf {
    let log = case.dir.join("hooks.log");
    let mut hooks = json!({});
    for name in NODE {
        hooks[name] = json!([telling(name, &log)]);
    }
    hooks["startContainer"] = json!([telling("startContainer", Path::new("/log"))]);
    case.set("/hooks", hooks);
    case.set("/annotations", json!({"a": "b"}));
    log
}

/// Numbers differ from run to run; whether two are the same does not.
fn normal(case: &Case, text: &str) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut lines = Vec::new();
    for line in text
        .replace(case.dir.to_str().unwrap(), "DIR")
        .replace(&case.id, "ID")
        .lines()
    {
        let namespace = line
            .split_once(":[")
            .filter(|(_, rest)| rest.ends_with(']'));
        if let Some((kind, _)) = namespace {
            let at = names.iter().position(|n| n == line).unwrap_or_else(|| {
                names.push(line.to_owned());
                names.len() - 1
            });
            lines.push(format!("{kind} {at}"));
        } else if let Ok(mut state) = serde_json::from_str::<Value>(line) {
            if state["pid"].as_i64().is_some_and(|pid| pid > 1) {
                state["pid"] = json!("of the node");
            }
            lines.push(state.to_string());
        } else {
            lines.push(line.to_owned());
        }
    }
    lines.join("\n")
}

fn each_at_its_moment_and_place() {
    let run = |under_runc: bool| {
        let mut case = Case::new(&["sh", "-c", "cat /log; rm /log 2>/dev/null; echo ran"]);
        case.set("/linux/seccomp", support::no_mkdir());
        let log = hooks_of(&mut case);
        let outcome = if under_runc {
            case.outcome_under_runc()
        } else {
            let outcome = case.outcome();
            case.remove();
            outcome
        };
        let Outcome::Ended(0, said) = outcome else {
            panic!("{outcome:?}")
        };
        let told = fs::read_to_string(log).unwrap();
        (normal(&case, &told), normal(&case, &said))
    };
    let (theirs, ours) = (run(true), run(false));
    assert_eq!(ours.0, theirs.0);
    assert_eq!(ours.1, theirs.1);
    for name in NODE {
        assert!(ours.0.contains(name), "{name} ran");
    }
}

fn a_failing_one_undoes_the_container() {
    for name in [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "startContainer",
    ] {
        let mut case = Case::new(&["echo", "ran"]);
        let stopped = case.dir.join("stopped");
        let fine = json!({"path": "/bin/true"});
        let fails = json!({"path": "/bin/sh",
            "args": ["sh", "-c", "echo out; echo err >&2; exit 3"]});
        let poststop = json!({"path": "/bin/sh",
            "args": ["sh", "-c", format!("cat > {}", stopped.display())]});
        case.set(
            "/hooks",
            json!({name: [fine, fails], "poststop": [poststop]}),
        );
        let theirs = case.outcome_under_runc();
        assert!(stopped.exists(), "runc runs poststop after {name}");
        fs::remove_file(&stopped).unwrap();
        let ours = case.outcome();
        assert_eq!(ours, theirs, "{name}");
        let words = "hook #1: exit status 3, stdout: out\n, stderr: err\n";
        match ours {
            Outcome::Refused(why) => assert!(why.ends_with(words), "{why}"),
            Outcome::Ended(code, said) => {
                assert_eq!((code, said.contains(words)), (255, true), "{said}");
                assert!(!said.contains("ran"));
                case.remove();
            }
        }
        assert!(stopped.exists(), "poststop runs after {name}");
        case.assert_clean();
    }
}

fn slow_and_missing_ones() {
    let rows = [
        json!({"createRuntime": [{"path": "/nope"}]}),
        json!({"createRuntime": [{"path": "true"}]}),
        json!({"createContainer": [{"path": "/nope"}]}),
        json!({"startContainer": [{"path": "/nope"}]}),
        json!({"poststart": [{"path": "/nope"}]}),
        json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "9"], "timeout": 1}]}),
        json!({"createContainer": [{"path": "/bin/sleep", "args": ["sleep", "9"], "timeout": 1}]}),
        json!({"poststop": [{"path": "/nope"}]}),
        json!({"createRuntime": []}),
    ];
    for hooks in rows {
        let mut case = Case::new(&["echo", "ran"]);
        case.set("/hooks", hooks.clone());
        let theirs = case.outcome_under_runc();
        assert_eq!(case.outcome(), theirs, "{hooks}");
    }
}

fn a_state_of_any_length() {
    let mut case = Case::new(&["true"]);
    case.set("/annotations", json!({"long": "x".repeat(300_000)}));
    let log = case.dir.join("length");
    let count = |name: &str| {
        json!({"path": "/bin/sh",
            "args": ["sh", "-c", format!("echo {name} $(wc -c) >> {}", log.display())]})
    };
    // One that does not read its input is no failure either.
    case.set(
        "/hooks",
        json!({
            "createRuntime": [count("runtime"), {"path": "/bin/true"}],
            "createContainer": [count("container"), {"path": "/bin/true"}],
        }),
    );
    assert_eq!(case.outcome(), Outcome::Ended(0, String::new()));
    let told = fs::read_to_string(log).unwrap();
    for line in told.lines() {
        let length: usize = line.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(length > 300_000, "{line}");
    }
    assert_eq!(told.lines().count(), 2, "{told}");
}

/// Limits are in force when the first hook looks at them, and what it sets stays.
fn those_of_the_node_may_change_the_limits() {
    let file = "memory.limit_in_bytes";
    let mut case = Case::new(&["cat", &format!("/sys/fs/cgroup/memory/{file}")]);
    let group = format!("/sys/fs/cgroup/memory/reprise-unit-{}/{file}", case.id);
    let script = format!("test $(cat {group}) = 268435456 && echo 134217728 > {group}");
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    case.set("/hooks", json!({"createRuntime": [hook]}));
    assert_eq!(case.outcome(), Outcome::Ended(0, "134217728\n".to_owned()));
}
