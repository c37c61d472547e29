//! Errors as a user reads them: the cause, without the names of who passed it on.

use tonic::Code;

/// What containerd, its shims and runc put before a cause.
const PASSED_ON: [&str; 12] = [
    "failed to create shim task: ",
    "failed to create containerd task: ",
    "failed to start containerd task: ",
    "failed to exec in container: ",
    "failed to start exec ",
    "error setting cgroup config for procHooks process: ",
    "unable to apply cgroup configuration: ",
    "OCI runtime create failed: ",
    "OCI runtime start failed: ",
    "OCI runtime exec failed: ",
    "unable to start container process: ",
    "error during container init: ",
];

/// The cause in an error's words: what is left when those who passed it on, and
/// the container's name, are taken away.
#[must_use]
pub(super) fn cause(message: &str, id: &str) -> String {
    let mut rest = message.trim().to_owned();
    for name in ["runc", "reprise"] {
        for verb in ["create", "start", "exec"] {
            rest = rest.replace(&format!("{name} {verb} failed: "), "");
        }
    }
    rest = rest.replace("exec failed: unable to start", "unable to start");
    for words in PASSED_ON {
        rest = rest.replace(words, "");
    }
    for counted in [
        "dstFd=/proc/thread-self/fd/",
        "usage: ",
        "ns/net:[",
        "nsexec-0[",
        "nsexec-1[",
    ] {
        rest = without_numbers(&rest, counted);
    }
    for call in [
        "lookup mountpoint target: securejoin.OpenInRoot ",
        "openat2 ",
    ] {
        rest = without_call(&rest, call);
    }
    rest = without_long_ids(&rest);
    // Where the runtime keeps a rootfs is nothing to the user: paths are the container's.
    rest = rest.replace(
        &format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/rootfs"),
        "",
    );
    for named in ["Container", "container"] {
        rest = rest.replace(&format!("{named} {id}: "), "");
    }
    rest = rest.replace(&format!("{id}: "), "");
    rest.trim().trim_end_matches(": unknown").to_owned()
}

/// Whether one error tells everything that another does, in its own words: the
/// reason at its end, and whatever is quoted or a path.
#[must_use]
pub(super) fn tells_all(ours: &str, runcs: &str) -> bool {
    let is_known = |(theirs, words): &(&str, &str)| runcs.contains(theirs) && ours.contains(words);
    if TRANSLATED.iter().any(is_known) {
        return true;
    }
    let ours = without_os_error(ours).to_lowercase();
    let runcs = without_os_error(runcs).to_lowercase();
    let reason = runcs.rsplit(": ").next().unwrap_or_default();
    ours.ends_with(reason)
        && named_in(&runcs)
            .iter()
            .all(|name| ours.contains(name.as_str()))
}

/// Refusals that both give for the same reason, runc's words first. What a number
/// of a descriptor stands for is up to the runtime, so long as it is no directory.
const TRANSLATED: [(&str, &str); 9] = [
    (
        "cannot exec in a stopped container",
        "cannot exec: invalid container state status=Stopped",
    ),
    (
        "context=\"system_u:object_r:container_file_t:s0\": invalid argument",
        "selinux label is specified in config, but selinux is disabled",
    ),
    (
        "cwd (\"/proc/self/fd/7\") set in config.json failed: no such file or directory",
        "cwd (\"/proc/self/fd/7\") set in config.json failed: not a directory",
    ),
    (
        "cannot set hugetlb limit: container could not join or create cgroup",
        "has no hugetlb cgroup",
    ),
    (
        "cannot set net_cls limit: container could not join or create cgroup",
        "has no net_cls cgroup",
    ),
    (
        "cannot set rdma limit: container could not join or create cgroup",
        "has no rdma cgroup",
    ),
    (
        "resulting devices cgroup doesn't precisely match target",
        "access \"x\" is not made of r, w and m",
    ),
    (
        "failed to setns into net namespace: Invalid argument",
        "failed to setns into net namespace: Invalid argument",
    ),
    (
        "cannot punch hole in existing wildcard rule",
        "cannot be taken out of the rule",
    ),
];

/// What an error quotes, and the paths in it that are not the runtime's own.
fn named_in(message: &str) -> Vec<String> {
    let quoted = message.split('"').skip(1).step_by(2);
    let words = message.split([' ', ',', '=', '"', '(', ')']);
    let paths = words
        .map(|word| word.trim_end_matches(':'))
        .filter(|word| word.starts_with('/') && !word.contains("thread-self"));
    let all = quoted.chain(paths);
    all.filter(|name| !name.starts_with("/run/containerd/"))
        .map(str::to_owned)
        .collect()
}

/// Rust's `(os error 13)` says nothing to a user.
fn without_os_error(message: &str) -> String {
    match message.split_once(" (os error ") {
        Some((before, after)) => {
            let rest = after.split_once(')').map_or("", |(_, rest)| rest);
            format!("{before}{rest}")
        }
        None => message.to_owned(),
    }
}

/// How often an error names its container; a path that has its name in it does not.
#[must_use]
pub(super) fn times_named(message: &str, id: &str) -> usize {
    let places = message.match_indices(id);
    places
        .filter(|(at, _)| !message[..*at].ends_with(['/', '.', '-', ':']))
        .count()
}

/// A gRPC code by the name that containerd prints.
#[must_use]
pub(super) fn code(code: Code) -> String {
    format!("{code:?}")
}

/// A text without a call of Go's that failed, and the path that it was given.
fn without_call(text: &str, call: &str) -> String {
    let Some((before, after)) = text.split_once(call) else {
        return text.to_owned();
    };
    match after.split_once(": ") {
        Some((_, reason)) => format!("{before}{reason}"),
        None => text.to_owned(),
    }
}

/// A text without the ids that the CRI makes up: 64 hexadecimal digits.
fn without_long_ids(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_hexdigit();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_hex) {
        let (before, found) = rest.split_at(at);
        let length = found.find(|c| !is_hex(c)).unwrap_or(found.len());
        plain.push_str(before);
        plain.push_str(if length == 64 {
            "@LONG@"
        } else {
            &found[..length]
        });
        rest = &found[length..];
    }
    plain + rest
}

/// A text without the digits that follow these words: `/snapshots/12/fs` is
/// `/snapshots/N/fs`.
#[must_use]
pub(super) fn without_numbers(text: &str, after: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(after) {
        let (before, found) = rest.split_at(at + after.len());
        plain.push_str(before);
        let number = found.trim_start_matches(|c: char| c.is_ascii_digit());
        if number.len() < found.len() {
            plain.push('N');
        }
        rest = number;
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::{cause, tells_all, times_named, without_numbers};

    #[test]
    fn a_cause_is_what_both_say() {
        let runc = "failed to create shim task: OCI runtime create failed: runc create failed: \
                    unable to start container process: error during container init: exec: \"x\": \
                    executable file not found in $PATH";
        let ours = "failed to create shim task: Container gap-1: exec: \"x\": executable file not \
                    found in $PATH";
        assert_eq!(cause(runc, "gap-1"), cause(ours, "gap-1"));
        assert_eq!(
            cause(runc, "gap-1"),
            "exec: \"x\": executable file not found in $PATH"
        );
        assert_eq!(times_named(ours, "gap-1"), 1);
        assert_ne!(cause("no such user", "c"), cause("no such file", "c"));
    }

    #[test]
    fn other_words_may_tell_the_same() {
        let runc = r#"failed to write "0-9": write /sys/fs/cgroup/cpuset.cpus: numerical result out of range"#;
        let ours = |value: &str, why: &str| {
            format!("Cannot write \"{value}\" to /sys/fs/cgroup/cpuset.cpus: {why} (os error 34)")
        };
        assert!(tells_all(
            &ours("0-9", "Numerical result out of range"),
            runc
        ));
        assert!(!tells_all(
            &ours("0-8", "Numerical result out of range"),
            runc
        ));
        assert!(!tells_all(&ours("0-9", "Invalid argument"), runc));
        assert!(!tells_all("Numerical result out of range", runc));
    }

    #[test]
    fn a_container_is_not_named_by_a_path() {
        let message = "container c1: Cannot read /run/c1/config.json of /run/x/.c1";
        assert_eq!(times_named(message, "c1"), 1);
    }

    #[test]
    fn numbers_of_layers_are_taken_out() {
        assert_eq!(
            without_numbers("lower=/snapshots/12/fs:/snapshots/3/fs 77", "/snapshots/"),
            "lower=/snapshots/N/fs:/snapshots/N/fs 77"
        );
    }
}
