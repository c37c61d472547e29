//! Hooks: when, where, with what, and what becomes of their failures. Row 33.

use crate::gaps::case::Case;
use crate::gaps::spec::Spec;
use serde_json::{Value, json};

/// Writes down how it was called.
const TELLS: &str = r##"cat > hook <<'END'
#!/bin/sh
exec 2>&1
{
    state=$(cat)
    echo "$1 cwd $(pwd) args $# env $(env | grep -v -E '^(PWD|SHLVL|OLDPWD|_)=' | sort | tr '\n' ' ')"
    echo "$1 state $(echo "$state" | sed -E 's/"pid": ?[1-9][0-9]*/"pid":N/; s/"ociVersion": ?"[^"]*"/"ociVersion":"V"/')"
    pid=$(echo "$state" | sed -n -E 's/.*"pid": ?([0-9]+).*/\1/p')
    for ns in mnt pid net uts; do
        [ "$(readlink /proc/self/ns/$ns)" = "$(readlink /proc/${pid:-none}/ns/$ns)" ] && echo "$1 $ns the container's"
    done
    echo "$1 umask $(umask) user $(id -u)"
} >> DIR/told
END
sed -i "s,DIR,$P," hook; chmod 755 hook; : > told; chmod 666 told"##;
const TOLD: &str = "cat told";
/// Fails, with words.
const FAILS: &str = "printf '#!/bin/sh\\necho to stdout; echo to stderr >&2; exit 7\\n' > hook; chmod 755 hook; printf '#!/bin/sh\\ncat > %s/after-state; echo poststop >> %s/told\\n' $P $P > stop; chmod 755 stop; : > told";

pub(super) fn cases() -> Vec<Case> {
    let told = |name, kind: &'static str| {
        Case::new(33, name)
            .before(TELLS)
            .spec(move |spec| {
                hook(
                    spec,
                    kind,
                    json!({ "path": "@P@/hook", "args": ["hook", kind], "env": ["A=b"] }),
                )
            })
            .after("told", TOLD)
    };
    let fails = |name, kind: &'static str| {
        Case::new(33, name)
            .before(FAILS)
            .spec(move |spec| {
                hook(spec, "poststop", json!({ "path": "@P@/stop" }));
                hook(spec, kind, json!({ "path": "@P@/hook" }))
            })
            .exec("exec", "echo runs")
            .after("told", TOLD)
    };
    vec![
        told("prestart", "prestart").cold_because("hooks"),
        told("createRuntime", "createRuntime"),
        told("createContainer", "createContainer"),
        told("poststart", "poststart"),
        told("poststop", "poststop"),
        Case::new(33, "startContainer")
            .image("printf '#!/bin/sh\\n{ cat; pwd; env | sort; id; } > /told 2>&1\\n' > hook; chmod 755 hook")
            .spec(|spec| hook(spec, "startContainer", json!({ "path": "/hook", "args": ["hook", "it"], "env": ["A=b"] })))
            .exec("told", "cat /told | sed -E 's/\"pid\": ?[0-9]+/\"pid\":N/; s/\"ociVersion\": ?\"[^\"]*\"/V/'"),
        Case::new(33, "all hooks, in order")
            .before("printf '#!/bin/sh\\ncat > /dev/null; echo $1 >> %s/told\\n' $P > hook; chmod 755 hook; : > told")
            .spec(|spec| {
                for kind in ["poststop", "poststart", "createContainer", "createRuntime", "prestart"] {
                    for nth in ["1", "2"] {
                        let called = format!("{kind} {nth}");
                        hook(spec, kind, json!({ "path": "@P@/hook", "args": ["hook", called] }));
                    }
                }
                spec
            })
            .after("told", TOLD),
        Case::new(33, "what createContainer hooks see of the mounts")
            .before("printf '#!/bin/sh\\nroot=$(sed -n \"s/.*bundle\\\": *\\\"\\\\([^\\\"]*\\\\).*/\\\\1/p\"); ls $root/rootfs/mnt > %s/told 2>&1\\n' $P > hook; chmod 755 hook; mkdir src; echo text > src/file")
            .spec(|spec| {
                spec.bind("@P@/src", "/mnt", &["rbind"]);
                hook(spec, "createContainer", json!({ "path": "@P@/hook" }))
            })
            .after("told", TOLD),
        fails("a prestart hook that fails", "prestart"),
        fails("a createRuntime hook that fails", "createRuntime"),
        fails("a createContainer hook that fails", "createContainer"),
        fails("a poststart hook that fails", "poststart"),
        survives(fails("a poststop hook that fails", "poststop")),
        Case::new(33, "a startContainer hook that fails")
            .image("printf '#!/bin/sh\\necho to stdout; echo to stderr >&2; exit 7\\n' > hook; chmod 755 hook")
            .spec(|spec| hook(spec, "startContainer", json!({ "path": "/hook" })))
            // An exec may come before or after it has failed.
            .runs("echo runs"),
        Case::new(33, "a hook that is not there")
            .spec(|spec| hook(spec, "createRuntime", json!({ "path": "/nope/hook" }))),
        Case::new(33, "a hook with a relative path")
            .spec(|spec| hook(spec, "createRuntime", json!({ "path": "hook" }))),
        Case::new(33, "a hook that is too slow")
            .before("printf '#!/bin/sh\\nexec sleep 20\\n' > hook; chmod 755 hook")
            .spec(|spec| hook(spec, "createRuntime", json!({ "path": "@P@/hook", "timeout": 1 }))),
        Case::new(33, "a hook that is killed")
            .before("printf '#!/bin/sh\\nkill -9 $$\\n' > hook; chmod 755 hook")
            .spec(|spec| hook(spec, "createRuntime", json!({ "path": "@P@/hook" }))),
        survives(Case::new(20, "delete with a poststop hook that fails")
            .before(FAILS)
            .spec(|spec| hook(spec, "poststop", json!({ "path": "@P@/hook" })))),
    ]
}

/// A poststop hook's failure does not stand in the way of a delete.
fn survives(case: Case) -> Case {
    case.stricter(
        "the OCI spec has a poststop hook's failure logged and the delete go on, as ours does; \
         runc's shim fails a delete that has removed everything",
        |runc, ours| {
            let runcs = runc["delete"]["cause"].as_str().unwrap_or_default();
            runcs.contains("error running poststop hook")
                && ours.get("delete").or(ours.get("left")).is_none()
                && runc["told"] == ours["told"]
        },
    )
}

fn hook<'s>(spec: &'s mut Spec, kind: &str, hook: Value) -> &'s mut Spec {
    spec.push(&format!("/hooks/{kind}"), hook)
}
