//! What of the environment keeps a test from passing under either runtime.
//!
//! Each was found by reading the test and what it said. A test that neither
//! passes and that is not here is shown apart: it may hide a difference.

use super::outcome::Results;

/// A reason that has nothing to do with the runtime.
pub(crate) struct Cause {
    /// What the test's name begins with; empty for any test.
    test: &'static str,
    /// What it says under one of the two.
    words: &'static str,
    /// Why.
    why: &'static str,
}

const APPARMOR: &str = "the machine's kernel has no AppArmor";
const SELINUX: &str = "the machine's kernel has no SELinux";
const CGROUP_V1: &str = "the machine has cgroup v1 (`make test-vm` has v2)";
const SWAP: &str = "the machine has no swap";
const MEMORY_NODES: &str = "the machine has a single memory node";
const SWITCHED_OFF: &str = "its authors have switched it off";
const DIGEST: &str =
    "an image's digest is written into it, and the publisher's bytes are out of reach";
const NETWORK: &str = "it fetches old releases from the network, which the node has not";
const DOCKER: &str = "it asks a Docker daemon for an image, and there is none";
/// Without `restrict_oom_score_adj`, which the node's own containerd has.
const OWN_CONTAINERD: &str = "it starts a containerd of its own, with runc for both, whose \
     sandboxes want a lower oom_score_adj than root without CAP_SYS_RESOURCE may set";
const FAIL_POINTS: &str =
    "it is about containerd's fail point shim or runc (runc-fp), whatever runtime is asked for";

/// A test whose name begins with the first cannot pass when it says the second, for
/// the third.
pub(crate) const fn cause(test: &'static str, words: &'static str, why: &'static str) -> Cause {
    Cause { test, words, why }
}

/// Those of the suites of others.
pub(super) const CAUSES: &[Cause] = &[
    cause("", "AppArmor is disabled on this host", APPARMOR),
    cause("", "SELinux is not enabled", SELINUX),
    cause("", "equires cgroup v2", CGROUP_V1),
    cause("", "Swap or swap accounting are not enabled", SWAP),
    cause("", "not enough online memory nodes", MEMORY_NODES),
    cause(
        "",
        "Please re-enable me if we can retry Shutdown API",
        SWITCHED_OFF,
    ),
    cause("", "test-image-digest@sha256:", DIGEST),
    cause("", "ghcr.io/containerd/busybox@sha256:7b3ccabffc97", DIGEST),
    cause(
        "TestCRIImagePullTimeout/HoldingContentOpenWriter",
        "PullImage should not return because the manifest has been locked",
        DIGEST,
    ),
    cause("", "https://github.com/containerd/containerd", NETWORK),
    cause(
        "TestImageLoad",
        "Cannot connect to the Docker daemon",
        DOCKER,
    ),
    cause(
        "",
        "unable to start container process: can't get final child's PID from pipe",
        OWN_CONTAINERD,
    ),
    cause(
        "",
        "no runtime for \\\"runc-fp\\\" is configured",
        FAIL_POINTS,
    ),
    cause("", "no runtime for \"runc-fp\" is configured", FAIL_POINTS),
    cause(
        "TestContainerdRestartSandboxRecover",
        "Should be true",
        FAIL_POINTS,
    ),
    cause(
        "TestSandboxStopWithNilCNIResult",
        "CNI Add should be running",
        FAIL_POINTS,
    ),
    cause(
        "TestIssue10589",
        "log.json: no such file or directory",
        FAIL_POINTS,
    ),
    cause(
        "TestIssue10589",
        "An error is expected but got nil",
        FAIL_POINTS,
    ),
    cause(
        "TestIssue9103/",
        "log.json: no such file or directory",
        FAIL_POINTS,
    ),
    cause("TestIssue9103/", "timeout", FAIL_POINTS),
];

/// Why both lanes do not pass a test, when it is known and the same for both.
pub(super) fn of(causes: &[Cause], name: &str, lanes: [&Results; 2]) -> Option<&'static str> {
    let [runc, reprise] = lanes.map(|results| in_lane(causes, name, results));
    runc.filter(|_| runc == reprise)
}

fn in_lane(causes: &[Cause], name: &str, results: &Results) -> Option<&'static str> {
    let outcome = &results.get(name)?.outcome;
    let said = outcome.to_string();
    if let Some(part) = outcome.failed_part() {
        return in_lane(causes, &format!("{name}/{part}"), results);
    }
    let cause = causes
        .iter()
        .find(|cause| name.starts_with(cause.test) && said.contains(cause.words))?;
    (!outcome.passed()).then_some(cause.why)
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{Outcome, Tried};
    use super::*;

    fn lane(outcomes: &[(&str, Outcome)]) -> Results {
        outcomes
            .iter()
            .map(|(name, outcome)| ((*name).to_owned(), Tried::once(outcome.clone())))
            .collect()
    }

    #[test]
    fn a_cause_holds_for_both_or_is_none() {
        let skipped = Outcome::Skipped("AppArmor is disabled on this host".into());
        let runc = lane(&[("A", skipped.clone())]);
        let same = lane(&[("A", skipped)]);
        let other = lane(&[("A", Outcome::Failed("of something else".into()))]);
        assert_eq!(of(CAUSES, "A", [&runc, &same]), Some(APPARMOR));
        assert_eq!(of(CAUSES, "A", [&runc, &other]), None);
        assert_eq!(of(CAUSES, "A", [&runc, &lane(&[])]), None);
    }

    #[test]
    fn a_test_fails_for_what_its_part_fails_for() {
        let lane = lane(&[
            ("A", Outcome::of_part("sub")),
            (
                "A/sub",
                Outcome::Failed("AppArmor is disabled on this host".into()),
            ),
            ("B", Outcome::of_part("sub")),
            ("B/sub", Outcome::Failed("no idea".into())),
        ]);
        assert_eq!(of(CAUSES, "A", [&lane, &lane]), Some(APPARMOR));
        assert_eq!(of(CAUSES, "B", [&lane, &lane]), None);
    }
}
