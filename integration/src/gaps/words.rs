//! Errors as a user reads them: the cause, without the names of who passed it on.

use tonic::Code;

/// What containerd, its shims and runc put before a cause.
const PASSED_ON: [&str; 10] = [
    "failed to create shim task: ",
    "failed to create containerd task: ",
    "failed to start containerd task: ",
    "failed to exec in container: ",
    "failed to start exec ",
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
    for words in PASSED_ON {
        rest = rest.replace(words, "");
    }
    for named in [
        format!("Container {id}: "),
        format!("container {id}: "),
        format!("\"{id}\": "),
        format!("{id}: "),
    ] {
        rest = rest.replace(&named, "");
    }
    rest.trim().trim_end_matches(": unknown").to_owned()
}

/// How often an error names its container.
#[must_use]
pub(super) fn times_named(message: &str, id: &str) -> usize {
    message.matches(id).count()
}

/// A gRPC code by the name that containerd prints.
#[must_use]
pub(super) fn code(code: Code) -> String {
    format!("{code:?}")
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
    use super::{cause, times_named, without_numbers};

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
    fn numbers_of_layers_are_taken_out() {
        assert_eq!(
            without_numbers("lower=/snapshots/12/fs:/snapshots/3/fs 77", "/snapshots/"),
            "lower=/snapshots/N/fs:/snapshots/N/fs 77"
        );
    }
}
