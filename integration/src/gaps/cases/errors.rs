//! Errors in the user's words, through containerd's API, `ctr` and the CRI. Row 29.

use crate::Runtime;
use crate::gaps::Stand;
use crate::gaps::case::Case;
use crate::gaps::place::Place;
use crate::gaps::words;
use crate::programs::BUSYBOX;
use crate::{ContainerSpec, PodSpec};
use anyhow::Result;
use serde_json::{Value, json};

pub(super) fn cases() -> Vec<Case> {
    let mut all = programs();
    all.extend(specs());
    all.extend(without());
    all.extend(through_ctr());
    all.extend(through_the_cri());
    all
}

/// Programs that cannot be run.
fn programs() -> Vec<Case> {
    let args = |name, args: &'static [&'static str]| {
        Case::new(29, name)
            .spec(move |spec| spec.args(args))
            .runs_own()
    };
    vec![
        args("a missing executable, by path", &["/nope"]),
        args("a missing executable, by name", &["nope"]),
        args(
            "a missing executable, in a missing directory",
            &["/no/such/dir/prog"],
        ),
        args("beneath a file", &["/etc/passwd/x"]),
        args("not executable", &["/etc/passwd"]),
        args("a directory as executable", &["/etc"]),
        args("a long name", &[LONG]),
        Case::new(29, "the errors of an exec")
            .exec_as("missing by path", "", |p| p.set("/args", json!(["/nope"])))
            .exec_as("missing by name", "", |p| p.set("/args", json!(["nope"])))
            .exec_as("not executable", "", |p| {
                p.set("/args", json!(["/etc/passwd"]))
            })
            .exec_as("a directory", "", |p| p.set("/args", json!(["/etc"])))
            .exec_as("missing cwd", "true", |p| p.set("/cwd", "/etc/passwd"))
            .exec_as("bad user", "true", |p| {
                p.set("/user", json!({ "uid": 4_294_967_295_u32, "gid": 0 }))
            })
            .exec_as("bad rlimit", "true", |p| {
                p.set(
                    "/rlimits",
                    json!([{ "type": "RLIMIT_NOTHING", "soft": 1, "hard": 1 }]),
                )
            })
            .restored(),
    ]
}

/// Specs that cannot be.
fn specs() -> Vec<Case> {
    let set = |name, pointer: &'static str, value: Value| {
        Case::new(29, name)
            .spec(move |spec| spec.set(pointer, value.clone()).args(&["/bin/true"]))
            .runs_own()
    };
    vec![
        set(
            "a failing mount: no source",
            "/mounts/0",
            json!({ "destination": "/proc", "type": "bind", "source": "/no/such/source", "options": ["bind"] }),
        ),
        set(
            "a failing mount: options",
            "/mounts/6",
            json!({ "destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["size=nonsense"] }),
        ),
        set(
            "a relative rootfs that is not there",
            "/root/path",
            json!("nowhere"),
        ),
        set(
            "a bad sysctl",
            "/linux/sysctl",
            json!({ "kernel.nonsense": "1" }),
        ),
        set(
            "a sysctl of another namespace",
            "/linux/sysctl",
            json!({ "vm.swappiness": "1" }),
        ),
        set(
            "a sysctl value that is refused",
            "/linux/sysctl",
            json!({ "net.ipv4.ip_forward": "nonsense" }),
        ),
        set(
            "a namespace that is not there",
            "/linux/namespaces/4",
            json!({ "type": "network", "path": "/no/such/ns" }),
        ),
        set(
            "a namespace that is none",
            "/linux/namespaces/4",
            json!({ "type": "network", "path": "/proc/1/status" }),
        ),
        set(
            "the same namespace twice",
            "/linux/namespaces/0",
            json!({ "type": "network" }),
        ),
        set(
            "a namespace of an unknown type",
            "/linux/namespaces/0",
            json!({ "type": "nonsense" }),
        ),
        set(
            "a user id that is too large",
            "/process/user",
            json!({ "uid": 4_294_967_295_u32, "gid": 0 }),
        ),
        set(
            "a group that is too large",
            "/process/user",
            json!({ "uid": 0, "gid": 0, "additionalGids": [4_294_967_295_u32] }),
        ),
        set(
            "a device that is refused",
            "/linux/devices",
            json!([{ "path": "/dev/odd", "type": "c" }]),
        ),
        set(
            "hostname without a uts namespace",
            "/linux/namespaces",
            json!([{ "type": "pid" }, { "type": "mount" }]),
        ),
        set(
            "no mount namespace",
            "/linux/namespaces",
            json!([{ "type": "pid" }]),
        ),
        set(
            "a rootfs propagation that is unknown",
            "/linux/rootfsPropagation",
            json!("nonsense"),
        ),
        set(
            "an OCI version that is unknown",
            "/ociVersion",
            json!("9.9.9"),
        ),
        set(
            "a cgroups path that cannot be",
            "/linux/cgroupsPath",
            json!("/../../.."),
        )
        .stricter(OUT_OF_THE_HIERARCHY, is_refused_as_such),
    ]
}

const OUT_OF_THE_HIERARCHY: &str = "a path out of the hierarchy is refused as such; runc cuts it \
     to the root cgroup, and refuses it because that one is not empty";

fn is_refused_as_such(runc: &Value, ours: &Value) -> bool {
    runc.pointer("/create/code") == ours.pointer("/create/code")
        && cause_has(runc, "container's cgroup is not empty")
        && cause_has(ours, "leaves the hierarchy")
}

/// Whether Create was refused for this.
fn cause_has(seen: &Value, words: &str) -> bool {
    let cause = seen.pointer("/create/cause").and_then(Value::as_str);
    cause.is_some_and(|cause| cause.contains(words))
}

/// Specs that lack what a spec may lack.
fn without() -> Vec<Case> {
    vec![
        Case::new(29, "no process")
            .spec(|spec| spec.remove("/process"))
            .runs_own(),
        Case::new(29, "no root")
            .spec(|spec| spec.remove("/root").args(&["/bin/true"]))
            .runs_own(),
        Case::new(29, "no linux")
            .spec(|spec| spec.remove("/linux").args(&["/bin/true"]))
            .runs_own()
            .stricter(
                "without a mount namespace of its own it would mount in the node's",
                |runc, ours| {
                    runc["exit"] == json!(0)
                        && super::image::refused_with(ours, "a container without a mount namespace of its own")
                },
            ),
        Case::new(29, "no mounts")
            .spec(|spec| spec.remove("/mounts"))
            .node(
                "confined",
                "grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs)' /proc/$PID/status; wc -l < /proc/$PID/mountinfo; ls /proc/$PID/fd | wc -l",
            )
            .stricter(
                super::whole::NO_PROC,
                |runc, ours| {
                    super::whole::wants_proc(runc)
                        && ours["confined"]
                            == json!([
                                "CapPrm:\t00000000a80425fb",
                                "CapEff:\t00000000a80425fb",
                                "CapBnd:\t00000000a80425fb",
                                "NoNewPrivs:\t1",
                                "1",
                                "3"
                            ])
                },
            ),
    ]
}

const LONG: &str = "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// `ctr run`, as a user types it.
fn through_ctr() -> Vec<Case> {
    let run = |name, flags: &'static [&'static str], args: &'static [&'static str]| {
        Case::free(29, name, move |stand, runtime| {
            ctr_run(stand, runtime, flags, args)
        })
    };
    vec![
        run("ctr run: what works", &[], &["echo", "hello"]),
        run("ctr run: an exit code", &[], &["sh", "-c", "exit 7"]),
        run("ctr run: a missing executable", &[], &["nope"]),
        run("ctr run: not executable", &[], &["/etc/passwd"]),
        run(
            "ctr run: a cwd that is a file",
            &["--cwd", "/etc/passwd"],
            &["true"],
        ),
        run(
            "ctr run: a user that is not there",
            &["--user", "nobodyknows"],
            &["true"],
        ),
        run(
            "ctr run: a failing mount",
            &[
                "--mount",
                "type=bind,src=/no/such,dst=/mnt,options=rbind:ro",
            ],
            &["true"],
        ),
        run(
            "ctr run: a device that is not there",
            &["--device", "/dev/nosuch"],
            &["true"],
        ),
        run(
            "ctr run: privileged",
            &["--privileged-without-host-devices", "--privileged"],
            &[
                "sh",
                "-c",
                "grep Cap /proc/self/status; mount | grep -c ro,",
            ],
        ),
        run("ctr run: read-only", &["--read-only"], &["touch", "/made"]),
    ]
}

fn ctr_run(stand: &Stand, runtime: Runtime, flags: &[&str], args: &[&str]) -> Result<Value> {
    let place = Place::new(stand, runtime)?;
    let cgroup = place.cgroup();
    let mut words = vec![
        "run",
        "--rm",
        "--runtime",
        runtime.kind(),
        "--cgroup",
        &cgroup,
    ];
    words.extend(flags);
    words.extend([BUSYBOX, place.id()]);
    words.extend(args);
    let done = stand.node().run("ctr", words)?;
    let mut seen = json!({ "exit": done.code, "stdout": place.lines(&done.stdout) });
    if !done.stderr.is_empty() {
        seen["stderr"] = told(&place, &done.stderr);
    }
    Ok(seen)
}

/// What a pod's owner reads in an event.
fn through_the_cri() -> Vec<Case> {
    let start = |name, spec: fn(ContainerSpec) -> ContainerSpec| {
        Case::free(29, name, move |stand, runtime| {
            cri_start(stand, runtime, spec)
        })
    };
    vec![
        start("CRI: a missing executable", |spec| spec.command(&["nope"])),
        start("CRI: a missing executable, by path", |spec| {
            spec.command(&["/nope"])
        }),
        start("CRI: not executable", |spec| spec.command(&["/etc/passwd"])),
        start("CRI: a cwd that is a file", |mut spec| {
            spec.config.working_dir = "/etc/passwd".to_owned();
            spec.command(&["true"])
        }),
        start("CRI: a mount that fails", |spec| {
            spec.command(&["true"])
                .mount("/proc/1/ns/net", "/proc/sys/x", true)
        }),
        start("CRI: a source that is not there", |spec| {
            spec.command(&["true"])
                .mount("/no/such/file", "/etc/hosts/x", true)
        }),
        start("CRI: too little memory", |spec| {
            spec.command(&["true"]).memory(4096)
        }),
        start("CRI: a capability that is unknown", |spec| {
            spec.command(&["sh", "-c", "grep CapEff /proc/self/status"])
                .capability("NOT_YET")
        }),
        start("CRI: what works", |spec| {
            spec.command(&["sh", "-c", "echo well; exit 3"])
        }),
        start("CRI: killed by a signal", |spec| {
            spec.command(&[
                "sh",
                "-c",
                "sh -c 'kill -9 $$'; echo $?; exec sh -c 'kill -9 1; sleep 1; exit 4'",
            ])
        }),
        Case::free(29, "CRI: exec's errors", |stand, runtime| {
            let pod = stand.node().run_pod(&pod(runtime))?;
            let container = pod.run(&ContainerSpec::shell("sleep 1000"))?;
            let mut seen = json!({});
            for (name, command) in [
                ("missing", ["nope"].as_slice()),
                ("by path", &["/nope"]),
                ("not executable", &["/etc/passwd"]),
                ("code", &["sh", "-c", "echo err >&2; exit 5"]),
            ] {
                seen[name] = match container.exec(command) {
                    Ok(done) => json!([done.code, done.stdout, done.stderr]),
                    Err(error) => cause(stand, &format!("{error:#}"), container.id()),
                };
            }
            Ok(seen)
        }),
    ]
}

fn pod(runtime: Runtime) -> PodSpec {
    PodSpec::new("gaps", &format!("web-{}", runtime.name())).handler(runtime.name())
}

/// Creates and starts a container; where it fails, and how, or how it ends.
fn cri_start(
    stand: &Stand,
    runtime: Runtime,
    spec: fn(ContainerSpec) -> ContainerSpec,
) -> Result<Value> {
    let pod = stand.node().run_pod(&pod(runtime))?;
    let container = match pod.create(&spec(ContainerSpec::new(BUSYBOX))) {
        Ok(container) => container,
        Err(error) => {
            return Ok(json!({ "create": cause(stand, &format!("{error:#}"), "no id yet") }));
        }
    };
    let started = container.start();
    let mut seen = json!({});
    match started {
        Err(error) => seen["start"] = cause(stand, &format!("{error:#}"), container.id()),
        Ok(()) => drop(container.wait()?),
    }
    let status = container.status()?;
    seen["exit"] = json!(status.exit_code);
    seen["reason"] = json!(status.reason);
    seen["message"] = cause(stand, &status.message, container.id());
    // Two streams, and who of them is logged first is up to containerd.
    let log = container.log().unwrap_or_default();
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    seen["log"] = json!(lines);
    Ok(seen)
}

/// Lines of an error output, each as its cause.
fn told(place: &Place<'_>, text: &str) -> Value {
    let plain = place.plain(text);
    let lines = plain.lines().map(|line| without_time(line).to_owned());
    lines
        .map(|line| json!(words::cause(&line, "@ID@")))
        .collect()
}

/// `time="…" level=…` of a log line begins with the time.
fn without_time(line: &str) -> &str {
    let rest = line
        .strip_prefix("time=\"")
        .and_then(|rest| rest.split_once("\" "));
    rest.map_or(line, |(_, rest)| rest)
}

fn cause(stand: &Stand, message: &str, id: &str) -> Value {
    let message = message
        .replace(stand.node().cgroup().trim_start_matches('/'), "@NODE@")
        .replace(&stand.node().dir().display().to_string(), "@DIR@")
        .replace("CRI CreateContainer: ", "")
        .replace("CRI StartContainer: ", "")
        .replace("CRI ExecSync: ", "");
    json!(words::cause(&message.replace(id, "@ID@"), "@ID@"))
}
