//! How a process begins: what it inherits, what it may, what it holds.
//! Rows 10, 23, 28, 30, 31, 35, and the labels of 9.

use crate::gaps::case::{Case, Need};
use serde_json::{Value, json};

const CAPS: &str = "status | grep -E 'Cap|Uid|NoNew'";
const SET: &str = "/probe attributes; cat /proc/self/limits /proc/self/oom_score_adj; status | grep -E 'Cpus_allowed:|Mems'";
const ALL: &str = "/probe signals; /probe descriptors; status; /probe attributes; cat /proc/self/limits; cat /proc/self/oom_score_adj /proc/self/coredump_filter /proc/self/personality";

pub(super) fn cases() -> Vec<Case> {
    let mut all = inherited();
    all.extend(capabilities());
    all.extend(streams());
    all.extend(labels());
    all.extend(settings());
    all.extend(capabilities_of_execs());
    all.extend(what_an_exec_sets());
    all
}

fn inherited() -> Vec<Case> {
    vec![
        Case::new(10, "a session keyring of its own")
            .runs("/probe keyring; /probe key add mine; /probe key find mine; /probe key find theirs")
            .exec("exec", "/probe keyring; /probe key find mine"),
        Case::new(10, "exec's keyring is the container's")
            .exec("first", "/probe keyring; /probe key add mine")
            .exec("second", "/probe keyring; /probe key find mine")
            .exec_as("of a user", "/probe keyring; /probe key find mine", |p| {
                p.set("/user", json!({ "uid": 1000, "gid": 1000 }))
            }),
        Case::new(10, "the keyring of a restored container")
            .exec("exec", "/probe keyring; /probe key add mine; /probe key find mine")
            .restored(),
        Case::new(30, "what a process inherits").runs(ALL).restored(),
        Case::new(30, "what a process of a user inherits")
            .spec(|spec| spec.user(1000, 1000))
            .runs(ALL)
            .restored(),
        Case::new(30, "what a waiting process holds")
            .node("status", "status $PID")
            .node("files", "files $PID")
            .node("limits", "cat /proc/$PID/limits /proc/$PID/oom_score_adj /proc/$PID/coredump_filter /proc/$PID/timerslack_ns")
            .node("environment", "tr '\\0' '\\n' < /proc/$PID/environ; readlink /proc/$PID/cwd /proc/$PID/root | sed 's/^$/none/'")
            .node("session", "cut -d' ' -f 2-3,5-8,18-20 /proc/$PID/stat | sed -E \"s/ $PID / PID /g; s/ $PID / PID /g\" | cut -d' ' -f1-6")
            .restored(),
        Case::new(30, "what an exec inherits")
            .exec("exec", ALL)
            .exec_as("of a user", ALL, |p| p.set("/user", json!({ "uid": 1000, "gid": 1000 })))
            .exec_as("with a terminal", ALL, |p| p.set("/terminal", true))
            .restored(),
        Case::new(30, "a umask of its own, and groups")
            .spec(|spec| {
                spec.set("/process/user", json!({ "uid": 1000, "gid": 1000, "umask": 7, "additionalGids": [5, 2000, 5, 1000] }))
            })
            .runs("status | grep -E 'Umask|Groups|Uid|Gid'; id; touch /tmp/a && stat -c %a /tmp/a")
            .exec("exec", "status | grep -E 'Umask|Groups'")
            .restored(),
        Case::new(30, "an exec's umask and groups")
            .exec_as("exec", "status | grep -E 'Umask|Groups'; id -G", |p| {
                p.set("/user", json!({ "uid": 0, "gid": 7, "umask": 63, "additionalGids": [3, 4] }))
            })
            .exec_as("without groups", "status | grep -E 'Umask|Groups'; id -G", |p| {
                p.set("/user", json!({ "uid": 7, "gid": 7 }))
            })
            .restored(),
        Case::new(30, "LISTEN_FDS in the environment")
            .spec(|spec| spec.env("LISTEN_FDS=2").env("LISTEN_PID=1"))
            .runs("/probe descriptors; env | sort"),
    ]
}

fn capabilities() -> Vec<Case> {
    let with = |row, name, capabilities: Value, uid: u32| {
        Case::new(row, name)
            .spec(move |spec| {
                spec.set("/process/capabilities", capabilities.clone())
                    .user(uid, uid)
            })
            .runs(CAPS)
            .exec("exec", CAPS)
            .restored()
    };
    let sets = |of: &[&str], names: Value| {
        let mut sets = json!({});
        for set in of {
            sets[*set] = names.clone();
        }
        sets
    };
    const EACH: [&str; 3] = ["bounding", "effective", "permitted"];
    let known = json!(["CAP_CHOWN", "CAP_KILL"]);
    vec![
        with(
            23,
            "an unknown capability",
            sets(&EACH, json!(["CAP_CHOWN", "CAP_NOT_YET"])),
            0,
        ),
        with(
            23,
            "a capability without CAP_, and in small letters",
            sets(&EACH, json!(["chown", "CHOWN", "cap_kill"])),
            0,
        ),
        with(
            23,
            "the newest capabilities",
            sets(
                &EACH,
                json!(["CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"]),
            ),
            0,
        ),
        with(
            31,
            "effective beyond permitted",
            json!({ "bounding": known, "effective": ["CAP_CHOWN", "CAP_NET_RAW"], "permitted": ["CAP_CHOWN"] }),
            0,
        ),
        with(
            31,
            "ambient, for a user",
            sets(
                &[
                    "bounding",
                    "effective",
                    "permitted",
                    "inheritable",
                    "ambient",
                ],
                known.clone(),
            ),
            1000,
        ),
        with(
            31,
            "ambient without inheritable",
            sets(
                &["bounding", "effective", "permitted", "ambient"],
                known.clone(),
            ),
            1000,
        ),
        with(
            31,
            "capabilities of a user",
            sets(&EACH, known.clone()),
            1000,
        ),
        with(31, "empty sets", json!({}), 0),
        with(
            31,
            "empty bounding set",
            json!({ "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"] }),
            0,
        ),
    ]
}

fn capabilities_of_execs() -> Vec<Case> {
    vec![
        Case::new(31, "no capabilities in the spec")
            .spec(|spec| spec.remove("/process/capabilities"))
            .runs(CAPS)
            .exec("exec", CAPS)
            .restored(),
        Case::new(31, "exec with and without capabilities of its own")
            .exec_as("none", CAPS, |p| p.remove("/capabilities"))
            .exec_as("empty", CAPS, |p| p.set("/capabilities", json!({})))
            .exec_as("more than the container", CAPS, |p| {
                p.push("/capabilities/bounding", "CAP_SYS_ADMIN")
                    .push("/capabilities/effective", "CAP_SYS_ADMIN")
                    .push("/capabilities/permitted", "CAP_SYS_ADMIN")
            })
            .exec_as("of a user", CAPS, |p| {
                p.set("/user", json!({ "uid": 1000, "gid": 1000 }))
            })
            .exec_as("none, of a user", CAPS, |p| {
                p.remove("/capabilities")
                    .set("/user", json!({ "uid": 1000, "gid": 1000 }))
            })
            .exec_as("unknown", CAPS, |p| {
                p.push("/capabilities/bounding", "CAP_NOT_YET")
            })
            .restored(),
    ]
}

fn streams() -> Vec<Case> {
    const STREAMS: &str = "/probe streams; tty; echo out > /dev/stdout; echo err > /dev/stderr; ls -l /dev/fd /dev/std* | sed 's/.* .dev/dev/'";
    vec![
        Case::new(28, "streams of root").runs(STREAMS),
        Case::new(28, "streams of a user")
            .spec(|spec| spec.user(1000, 1000))
            .runs(STREAMS),
        Case::new(28, "streams of a user of a user namespace")
            .in_user_namespace()
            .spec(|spec| spec.user(1000, 1000))
            .runs(STREAMS),
        Case::new(28, "a terminal")
            .spec(|spec| spec.set("/process/terminal", true))
            .runs("/probe streams; tty; stat -c '%A %u:%g %n' $(tty); stat -c '%A %u:%g %t %n' /dev/console; mounts | grep console; /probe attributes | grep -E 'leads|terminal'"),
        Case::new(28, "a terminal of a user, and its size")
            .spec(|spec| {
                spec.user(1000, 1000).set("/process/terminal", true)
                    .set("/process/consoleSize", json!({ "height": 33, "width": 77 }))
            })
            .runs("/probe streams; stty size; stat -c '%A %u:%g %n' $(tty) /dev/console; echo again > /dev/stdout"),
        Case::new(28, "streams of an exec")
            .exec("root", STREAMS)
            .exec_as("a user", STREAMS, |p| p.set("/user", json!({ "uid": 1000, "gid": 1000 })))
            .exec_as("a user's terminal", "/probe streams; stty size; stat -c '%A %u:%g %n' $(tty)", |p| {
                p.set("/user", json!({ "uid": 1000, "gid": 1000 })).set("/terminal", true)
                    .set("/consoleSize", json!({ "height": 12, "width": 34 }))
            })
            .restored(),
    ]
}

/// Security modules: this kernel may have none, and says so.
fn labels() -> Vec<Case> {
    vec![
        Case::new(9, "a SELinux label on a kernel without SELinux")
            .spec(|spec| {
                spec.set(
                    "/process/selinuxLabel",
                    "system_u:system_r:container_t:s0:c1,c2",
                )
            })
            .runs("cat /proc/self/attr/current"),
        Case::new(9, "a SELinux label of an exec on a kernel without SELinux").exec_as(
            "exec",
            "echo in",
            |p| p.set("/selinuxLabel", "system_u:system_r:container_t:s0"),
        ),
        Case::new(9, "a SELinux mount label on a kernel without SELinux")
            .spec(|spec| spec.set("/linux/mountLabel", "system_u:object_r:container_file_t:s0"))
            .runs("mounts | grep -c context"),
        Case::new(9, "an AppArmor profile on a kernel without AppArmor")
            .spec(|spec| spec.set("/process/apparmorProfile", "no-such-profile"))
            .runs("cat /proc/self/attr/current; echo in"),
        Case::new(
            9,
            "an AppArmor profile of an exec on a kernel without AppArmor",
        )
        .exec_as("exec", "echo in", |p| {
            p.set("/apparmorProfile", "no-such-profile")
        }),
        Case::new(9, "a SELinux label that is taken")
            .needs(Need::SecurityModule("selinux"))
            .spec(|spec| {
                spec.set(
                    "/process/selinuxLabel",
                    "system_u:system_r:container_t:s0:c1,c2",
                )
            })
            .runs("cat /proc/self/attr/current")
            .exec("exec", "cat /proc/self/attr/current"),
        Case::new(9, "an AppArmor profile that is taken")
            .needs(Need::SecurityModule("apparmor"))
            .spec(|spec| spec.set("/process/apparmorProfile", "unconfined"))
            .runs("cat /proc/self/attr/current")
            .exec("exec", "cat /proc/self/attr/current"),
    ]
}

/// What else a spec sets on its processes.
fn settings() -> Vec<Case> {
    let one = |name, pointer: &'static str, value: Value| {
        Case::new(35, name)
            .spec(move |spec| spec.set(pointer, value.clone()))
            .runs(SET)
            .exec("exec", SET)
    };
    let set = |name, pointer, value| one(name, pointer, value).restored();
    vec![
        one(
            "personality LINUX",
            "/linux/personality",
            json!({ "domain": "LINUX" }),
        )
        .cold_because("a personality"),
        one(
            "personality LINUX32",
            "/linux/personality",
            json!({ "domain": "LINUX32" }),
        )
        .cold_because("a personality"),
        one(
            "personality with flags",
            "/linux/personality",
            json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] }),
        )
        .cold_because("a personality"),
        set(
            "an unknown personality",
            "/linux/personality",
            json!({ "domain": "PLAN9" }),
        ),
        set(
            "rlimits",
            "/process/rlimits",
            json!([
                limit("RLIMIT_NOFILE", 512, 1024),
                limit("RLIMIT_CORE", 0, 0),
                limit("RLIMIT_STACK", 4_194_304, 8_388_608),
                limit("RLIMIT_MEMLOCK", 65536, 65536),
                limit("RLIMIT_NPROC", 1000, 2000)
            ]),
        ),
        set(
            "an unknown rlimit",
            "/process/rlimits",
            json!([limit("RLIMIT_NOTHING", 1, 1)]),
        ),
        set(
            "a soft limit above the hard one",
            "/process/rlimits",
            json!([limit("RLIMIT_NOFILE", 2048, 1024)]),
        ),
        set(
            "the same rlimit twice",
            "/process/rlimits",
            json!([
                limit("RLIMIT_NOFILE", 100, 200),
                limit("RLIMIT_NOFILE", 300, 400)
            ]),
        ),
        set("oom_score_adj", "/process/oomScoreAdj", json!(500)),
        set("oom_score_adj 0", "/process/oomScoreAdj", json!(0)),
        one(
            "io priority",
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }),
        )
        .cold_because("an I/O priority"),
        one(
            "scheduler",
            "/process/scheduler",
            json!({ "policy": "SCHED_BATCH", "nice": 5 }),
        )
        .cold_because("a scheduler"),
        set(
            "an unknown scheduler",
            "/process/scheduler",
            json!({ "policy": "SCHED_NONE" }),
        ),
        set(
            "affinity of an exec",
            "/process/execCPUAffinity",
            json!({ "initial": "0", "final": "1" }),
        ),
    ]
}

fn what_an_exec_sets() -> Vec<Case> {
    vec![
        Case::new(35, "an exec's own rlimits and oom_score_adj")
            .spec(|spec| {
                spec.set(
                    "/process/rlimits",
                    json!([limit("RLIMIT_NOFILE", 512, 1024)]),
                )
            })
            .exec_as("exec", SET, move |p| {
                p.set(
                    "/rlimits",
                    json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]),
                )
                .set("/oomScoreAdj", 700)
            })
            .exec_as("without", SET, |p| {
                p.remove("/rlimits").remove("/oomScoreAdj")
            })
            .restored(),
        Case::free(
            35,
            "a signal to what has ended",
            super::whole::signals_after_the_end,
        ),
    ]
}

fn limit(kind: &str, soft: u64, hard: u64) -> Value {
    json!({ "type": kind, "soft": soft, "hard": hard })
}
