//! Which program is run, and where. Rows 15, 16, and those of 29, 31.

use crate::gaps::case::Case;
use serde_json::json;

pub(super) fn cases() -> Vec<Case> {
    let mut all = modes();
    all.extend(directories());
    all.extend(lookups());
    all
}

/// Who may run what.
fn modes() -> Vec<Case> {
    const IMAGE: &str = "mkdir -p x closed; for mode in 700 750 711 111 600 4755; do cp $ROOT/../../*/fs/probe x/$mode 2>/dev/null || true; done
        for mode in 700 750 711 111 600 4755; do printf '#!/bin/sh\\nid -u; id -g\\n' > x/$mode; chown 1000:1000 x/$mode; chmod $mode x/$mode; done
        cp x/711 closed/prog; chmod 755 closed/prog; chown 1000:1000 closed; chmod 700 closed";
    let runs = |name, path: &'static str, uid: u32, gid: u32| {
        Case::new(15, name)
            .image(IMAGE)
            .spec(move |spec| {
                spec.args(&[path])
                    .user(uid, gid)
                    .set("/process/capabilities", json!({}))
            })
            .runs_own()
    };
    let execs = |name, path: &'static str, uid: u32, gid: u32| {
        Case::new(15, name)
            .image(IMAGE)
            .exec_as("exec", "", move |process| {
                process
                    .set("/args", json!([path]))
                    .set("/user", json!({ "uid": uid, "gid": gid }))
                    .set("/capabilities", json!({}))
            })
            .restored()
    };
    vec![
        runs("mode 0700, its owner", "/x/700", 1000, 1000),
        runs("mode 0750, its group", "/x/750", 7, 1000),
        runs("mode 0700, somebody else", "/x/700", 7, 7),
        runs("mode 0700, root without capabilities", "/x/700", 0, 0),
        runs("mode 0600, its owner", "/x/600", 1000, 1000),
        runs("mode 0111, somebody else", "/x/111", 7, 7),
        runs("in a directory that only its owner may enter", "/closed/prog", 1000, 1000),
        runs("in a directory that somebody else may not enter", "/closed/prog", 7, 7),
        execs("exec: mode 0700, its owner", "/x/700", 1000, 1000),
        execs("exec: mode 0700, somebody else", "/x/700", 7, 7),
        execs("exec: mode 0750, its group", "/x/750", 7, 1000),
        execs("exec: in a directory that only its owner may enter", "/closed/prog", 1000, 1000),
        Case::new(15, "a file capability and setuid, with and without no_new_privs")
            .image("cp /bin/true x; printf '#include <stdio.h>\\n#include <unistd.h>\\nint main(){printf(\"%%d\\\\n\",geteuid());}' > e.c; cc -static -o e e.c; rm e.c x; chown 0:0 e; chmod 4755 e")
            .exec_as("nnp", "/e", |p| p.set("/user", json!({ "uid": 1000, "gid": 1000 })))
            .exec_as("without", "/e", |p| {
                p.set("/user", json!({ "uid": 1000, "gid": 1000 })).set("/noNewPrivileges", false)
            })
            .restored(),
    ]
}

/// The working directory.
fn directories() -> Vec<Case> {
    const IMAGE: &str = "mkdir -p closed/in theirs/in opt; chmod 700 closed; chown -R 1000:1000 theirs; chmod 700 theirs; echo text > afile; ln -s opt lnk; ln -s /proc/self/fd fds";
    const LOOK: &str = "pwd; stat -c '%A %u:%g %n' $(pwd)";
    let at = |name, cwd: &'static str, uid: u32| {
        Case::new(16, name)
            .image(IMAGE)
            .spec(move |spec| spec.set("/process/cwd", cwd).user(uid, uid))
            .runs(LOOK)
    };
    vec![
        at("a cwd that is missing is made", "/new/deep/cwd", 0).restored(),
        at(
            "a cwd that is missing is made, for a user",
            "/new/deep/cwd",
            1000,
        ),
        at("a cwd that only its owner may enter", "/theirs/in", 1000),
        at(
            "a cwd that only root may enter, for a user",
            "/closed/in",
            1000,
        ),
        at("a cwd that is a file", "/afile", 0),
        at("a cwd beneath a file", "/afile/x", 0),
        at("a cwd that is a link", "/lnk", 0),
        at("a missing cwd beneath a link", "/lnk/new", 0),
        at("a relative cwd", "opt", 0),
        at("an empty cwd", "", 0),
        at("a cwd among the open files", "/proc/self/fd", 0),
        at(
            "a cwd in an open file of the runtime's",
            "/proc/self/fd/7",
            0,
        ),
        at("a cwd in an open file, through a link", "/fds/8/../..", 0),
        at("a missing cwd on a read-only rootfs", "/new/deep", 0)
            .spec(|spec| spec.set("/root/readonly", true)),
        Case::new(16, "cwd of an exec")
            .image(IMAGE)
            .exec_as("missing", LOOK, |p| p.set("/cwd", "/newer/cwd"))
            .exec_as("theirs", LOOK, |p| {
                p.set("/cwd", "/theirs/in")
                    .set("/user", json!({ "uid": 1000, "gid": 1000 }))
            })
            .exec_as("closed", LOOK, |p| {
                p.set("/cwd", "/closed/in")
                    .set("/user", json!({ "uid": 1000, "gid": 1000 }))
            })
            .exec_as("a file", LOOK, |p| p.set("/cwd", "/afile"))
            .exec_as("open files", LOOK, |p| p.set("/cwd", "/proc/self/fd/7"))
            .exec_as("relative", LOOK, |p| p.set("/cwd", "opt"))
            .restored(),
    ]
}

/// How a program is found.
fn lookups() -> Vec<Case> {
    const IMAGE: &str = "mkdir -p a b tool; printf '#!/bin/sh\\necho a $0\\n' > a/tool; chmod 644 a/tool; printf '#!/bin/sh\\necho b $0\\n' > b/tool; chmod 755 b/tool
        printf 'echo no interpreter line\\n' > plain; chmod 755 plain; printf '#!/nope\\n' > nointerp; chmod 755 nointerp
        printf '\\177ELF garbage' > elf; chmod 755 elf; : > empty; chmod 755 empty";
    let runs = |row, name, args: &'static [&'static str], env: &'static [&'static str]| {
        Case::new(row, name)
            .image(IMAGE)
            .spec(move |spec| spec.args(args).set("/process/env", env))
            .runs_own()
    };
    const USUAL: &[&str] = &["PATH=/usr/bin:/bin"];
    let mut all = vec![
        runs(
            29,
            "a script without an interpreter line",
            &["/plain"],
            USUAL,
        ),
        runs(
            29,
            "an interpreter that is not there",
            &["/nointerp"],
            USUAL,
        ),
        runs(29, "a broken executable", &["/elf"], USUAL),
        runs(29, "an empty executable", &["/empty"], USUAL),
        runs(29, "no arguments", &[], USUAL),
        runs(29, "an empty argument", &[""], USUAL),
        runs(29, "a directory", &["/tool"], USUAL),
        runs(
            29,
            "a name that is a directory in PATH's place",
            &["tool"],
            &["PATH=/"],
        ),
        runs(
            29,
            "a variable without a name",
            &["/bin/env"],
            &["PATH=/bin", "=x"],
        ),
        runs(
            29,
            "a variable without a value",
            &["/bin/env"],
            &["PATH=/bin", "ALONE"],
        ),
        runs(
            29,
            "the same variable twice",
            &["/bin/env"],
            &["PATH=/bin", "A=1", "A=2"],
        ),
        runs(
            31,
            "a name, and PATH skips what cannot be run",
            &["tool"],
            &["PATH=/a:/b"],
        ),
        runs(31, "a relative path", &["./b/tool"], USUAL),
        runs(31, "a path without ./", &["b/tool"], USUAL),
        runs(31, "PATH with an empty part", &["plain"], &["PATH=:/b"]),
        runs(31, "PATH with a relative part", &["tool"], &["PATH=b"]),
        runs(31, "PATH missing", &["env"], &["A=1"]),
        runs(31, "no environment at all", &["env"], &[]),
        runs(31, "PATH empty", &["env"], &["PATH="]),
    ];
    all.push(
        Case::new(31, "exec without PATH, and without an environment")
            .image(IMAGE)
            .exec_as("missing", "", |p| {
                p.set("/args", json!(["env"])).set("/env", json!(["A=1"]))
            })
            .exec_as("none", "", |p| {
                p.set("/args", json!(["env"])).set("/env", json!([]))
            })
            .exec_as("null", "", |p| {
                p.set("/args", json!(["env"])).remove("/env")
            })
            .exec_as("relative", "", |p| {
                p.set("/args", json!(["tool"]))
                    .set("/env", json!(["PATH=b"]))
            })
            .exec_as("plain", "", |p| p.set("/args", json!(["/plain"])))
            .exec_as("no name", "", |p| {
                p.set("/args", json!(["/bin/env"]))
                    .set("/env", json!(["=x"]))
            })
            .exec_as("no arguments", "", |p| p.set("/args", json!([])))
            .exec_as("not there", "", |p| p.set("/args", json!(["nope"])))
            .restored(),
    );
    all
}
