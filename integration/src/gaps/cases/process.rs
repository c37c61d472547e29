//! How a process begins: what it inherits, what it may, what it holds.

use crate::gaps::case::Case;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(30, "what a process inherits")
            .runs("/probe signals; /probe descriptors; status; /probe attributes; env | sort; pwd")
            .restored(),
        Case::new(30, "what a waiting process holds")
            .node("status", "status $PID")
            .restored(),
        Case::new(11, "exec gets the seccomp profile")
            .spec(|spec| spec.deny(&["getcpu"]))
            .exec("exec", "status | grep Seccomp; /probe calls 309 309")
            .restored(),
        Case::new(29, "missing executable")
            .spec(|spec| spec.args(&["/nope"]))
            .runs_own(),
        Case::new(1, "exec joins the user namespace")
            .in_user_namespace()
            .exec(
                "exec",
                "cat /proc/self/uid_map; namespaces; touch /made; stat -c %u:%g /made",
            )
            .no_checkpoint("user namespace"),
    ]
}
