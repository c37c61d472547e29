//! Cgroups of real containers, with every driver that the node has: cgroupfs, and
//! systemd where that runs (`make test-vm`). What systemd has been told is asked
//! with `systemctl`.

#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "these are tests: a case that is left out says so"
)]
#![allow(missing_docs, reason = "nobody calls a test")]

mod support;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};
use reprise_runtime::cgroup::Cgroup;
use reprise_runtime::worker::{Dump, Restore, Stdio, load_resources};
use serde_json::{Value, json};
use support::{Case, eventually, exit_code};

support::tests![
    limits_and_rules_hold,
    execs_find_a_way_into_child_cgroups,
    nothing_is_left_of_child_cgroups,
    limits_change_and_are_kept,
    it_freezes,
    a_restored_one_has_the_same,
    a_name_can_be_used_again,
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Driver {
    Cgroupfs,
    Systemd,
}

fn drivers() -> Vec<Driver> {
    let mut all = vec![Driver::Cgroupfs];
    if Path::new("/run/systemd/system").exists() {
        all.push(Driver::Systemd);
    } else {
        eprint!("(no systemd here) ");
    }
    all
}

fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn case(driver: Driver, args: &[&str]) -> Case {
    let mut case = Case::new(args);
    if driver == Driver::Systemd {
        let path = format!("reprise-unit.slice:unit:{}", case.id);
        case.set("/linux/cgroupsPath", json!(path));
    }
    if is_v2() {
        let all = case.spec["linux"]["namespaces"].as_array_mut().unwrap();
        all.push(json!({"type": "cgroup"}));
    }
    case
}

fn cgroup(case: &Case) -> Cgroup {
    Cgroup::of(
        &serde_json::from_value(case.spec.clone()).unwrap(),
        &case.id,
    )
    .unwrap()
}

/// A file of the cgroup, by its names on v1 and v2.
fn file(case: &Case, controller: &str, v1: &str, v2: &str) -> String {
    let path = cgroup(case).path().trim_start_matches('/').to_owned();
    let file = if is_v2() {
        Path::new("/sys/fs/cgroup").join(path).join(v2)
    } else {
        Path::new("/sys/fs/cgroup")
            .join(controller)
            .join(path)
            .join(v1)
    };
    let text = fs::read_to_string(&file);
    text.unwrap_or_else(|e| panic!("{}: {e}", file.display()))
        .trim()
        .to_owned()
}

fn unit(case: &Case) -> String {
    format!("unit-{}.scope", case.id)
}

/// What systemd thinks of the unit.
fn shown(case: &Case, property: &str) -> String {
    let shown = Command::new("systemctl")
        .args(["show", "--value", "-p", property, &unit(case)])
        .output()
        .unwrap();
    String::from_utf8(shown.stdout).unwrap().trim().to_owned()
}

fn end(case: &mut Case, driver: Driver, pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    exit_code(pid);
    case.remove();
    assert!(!cgroup(case).exists());
    if driver == Driver::Systemd {
        assert_eq!(shown(case, "LoadState"), "not-found");
    }
}

const LIMITS: &str = r#"{"memory": {"limit": 268435456, "swap": 268435456, "reservation": 67108864},
    "cpu": {"shares": 512, "quota": 33333, "period": 100000, "cpus": "0"},
    "pids": {"limit": 77},
    "devices": [{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"}]}"#;

fn limits_and_rules_hold() {
    for driver in drivers() {
        let script = "echo $(ulimit -l); busybox mknod /kmsg c 1 11; \
            (exec 3>/kmsg) && echo writable; (exec 3</kmsg) 2>/dev/null || echo unreadable; \
            busybox mknod /null c 1 3; (exec 3</null) && echo null; \
            cat /proc/self/cgroup; echo ready; exec sleep 1000";
        let mut case = case(driver, &["sh", "-c", script]);
        case.set("/linux/resources", serde_json::from_str(LIMITS).unwrap());
        let_it_make_nodes(&mut case);
        let (soft, _) =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK).unwrap();
        let output = case.start();
        let seen = until_ready(output.stdout);
        let mut lines = seen.lines();
        let memlock = lines.next().unwrap();
        let expected = if soft == u64::MAX {
            "unlimited".to_owned()
        } else {
            (soft / 1024).to_string()
        };
        assert_eq!(memlock, expected, "{driver:?}");
        let rest: Vec<&str> = lines.collect();
        assert_eq!(
            rest[..3],
            ["writable", "unreadable", "null"],
            "{driver:?}: {seen}"
        );
        if is_v2() {
            assert_eq!(rest[3], "0::/", "{driver:?}: {seen}");
        }
        let outside = fs::read_to_string(format!("/proc/{}/cgroup", output.pid)).unwrap();
        assert!(
            outside
                .lines()
                .all(|line| line.ends_with(cgroup(&case).path())),
            "{outside}"
        );
        let is = |case: &Case, controller: &str, v1: &str, v2: &str, on_v1: &str, on_v2: &str| {
            let expected = if is_v2() { on_v2 } else { on_v1 };
            assert_eq!(
                file(case, controller, v1, v2),
                expected,
                "{driver:?} {v1} {v2}"
            );
        };
        let quota = if driver == Driver::Systemd {
            "34000"
        } else {
            "33333"
        };
        is(
            &case,
            "memory",
            "memory.limit_in_bytes",
            "memory.max",
            "268435456",
            "268435456",
        );
        is(
            &case,
            "memory",
            "memory.soft_limit_in_bytes",
            "memory.low",
            "67108864",
            "67108864",
        );
        is(&case, "cpu", "cpu.shares", "cpu.weight", "512", "59");
        is(
            &case,
            "cpu",
            "cpu.cfs_quota_us",
            "cpu.max",
            quota,
            &format!("{quota} 100000"),
        );
        is(&case, "pids", "pids.max", "pids.max", "77", "77");
        is(&case, "cpuset", "cpuset.cpus", "cpuset.cpus", "0", "0");
        if driver == Driver::Systemd {
            systemd_knows_them(&mut case);
            // Told all again, systemd undoes nothing.
            is(
                &case,
                "memory",
                "memory.limit_in_bytes",
                "memory.max",
                "268435456",
                "268435456",
            );
            is(
                &case,
                "cpu",
                "cpu.cfs_quota_us",
                "cpu.max",
                quota,
                &format!("{quota} 100000"),
            );
            is(&case, "pids", "pids.max", "pids.max", "77", "77");
        }
        end(&mut case, driver, output.pid);
    }
}

/// Systemd has been told the limits, and a reload leaves the rules in force.
fn systemd_knows_them(case: &mut Case) {
    assert_eq!(shown(case, "ActiveState"), "active");
    assert_eq!(shown(case, "Slice"), "reprise-unit.slice");
    assert_eq!(shown(case, "Delegate"), "yes");
    assert_eq!(shown(case, "MemoryMax"), "268435456");
    assert_eq!(shown(case, "MemorySwapMax"), "0");
    assert_eq!(shown(case, "CPUQuotaPerSecUSec"), "340ms");
    assert_eq!(shown(case, "TasksMax"), "77");
    assert_eq!(shown(case, "AllowedCPUs"), "0");
    assert_eq!(shown(case, "DevicePolicy"), "strict");
    assert!(shown(case, "DeviceAllow").contains("/dev/char/1:11 w"));
    let reload = Command::new("systemctl").arg("daemon-reload").status();
    assert!(reload.unwrap().success());
    let process = case.process(&["sh", "-c", "(exec 3</kmsg) 2>/dev/null || echo no"]);
    assert_eq!(case.exec(process), (0, "no\n".to_owned()));
}

fn let_it_make_nodes(case: &mut Case) {
    for set in ["bounding", "effective", "permitted"] {
        let caps = json!(["CAP_MKNOD", "CAP_KILL"]);
        case.set(&format!("/process/capabilities/{set}"), caps);
    }
}

/// Reads up to a line that says `ready`.
fn until_ready(stdout: OwnedFd) -> String {
    use std::io::{BufRead, BufReader};
    let mut seen = String::new();
    for line in BufReader::new(fs::File::from(stdout)).lines() {
        let line = line.unwrap();
        if line == "ready" {
            return seen;
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    panic!("it ended: {seen}");
}

/// What systemd or docker inside a container do: processes and controllers in
/// cgroups of its own.
const NESTS: &str = "cd /sys/fs/cgroup; \
    if [ -e cgroup.controllers ]; then mkdir inner inner/deep; echo 1 > inner/cgroup.procs; \
        echo +memory > cgroup.subtree_control; \
    else for c in memory pids freezer; do mkdir $c/inner; echo $$ > $c/inner/cgroup.procs; done; \
    fi; echo ready; while :; do sleep 1; done";

fn nesting(driver: Driver) -> Case {
    let mut case = case(driver, &["sh", "-c", NESTS]);
    let mounts = case.spec["mounts"].as_array_mut().unwrap();
    let at = |mount: &&mut Value| mount["destination"] == "/sys/fs/cgroup";
    let mount = mounts.iter_mut().find(at).unwrap();
    mount["options"] = json!(["nosuid", "noexec", "nodev", "relatime", "rw"]);
    case
}

fn execs_find_a_way_into_child_cgroups() {
    for driver in drivers() {
        let mut case = nesting(driver);
        let output = case.start();
        until_ready(output.stdout);
        for _ in 0..2 {
            let process = case.process(&["cat", "/proc/self/cgroup"]);
            let (code, seen) = case.exec(process);
            assert_eq!(code, 0, "{driver:?}: {seen}");
            if is_v2() {
                assert_eq!(seen, "0::/inner\n", "{driver:?}");
            }
        }
        end(&mut case, driver, output.pid);
    }
}

fn nothing_is_left_of_child_cgroups() {
    for driver in drivers() {
        let mut case = nesting(driver);
        let output = case.start();
        until_ready(output.stdout);
        let group = cgroup(&case);
        assert!(group.pids().unwrap().contains(&output.pid));
        // With all its processes alive.
        case.remove();
        assert!(!group.exists());
        assert_eq!(exit_code(output.pid), 137);
        end_again(&mut case, driver);
    }
}

fn end_again(case: &mut Case, driver: Driver) {
    case.remove();
    if driver == Driver::Systemd {
        assert_eq!(shown(case, "LoadState"), "not-found");
    }
}

fn limits_change_and_are_kept() {
    for driver in drivers() {
        let mut case = case(driver, &["sleep", "1000"]);
        let output = case.start();
        let group = cgroup(&case);
        let update = |json: &str| group.update(&load_resources(json.as_bytes()).unwrap());
        update(r#"{"memory":{"limit":134217728,"swap":134217728},"cpu":{"quota":20000},"pids":{"limit":55}}"#).unwrap();
        update(r#"{"cpu":{"period":50000}}"#).unwrap();
        let memory = file(&case, "memory", "memory.limit_in_bytes", "memory.max");
        assert_eq!(memory, "134217728", "{driver:?}");
        let quota = file(&case, "cpu", "cpu.cfs_quota_us", "cpu.max");
        let expected = if is_v2() { "20000 50000" } else { "20000" };
        assert_eq!(quota, expected, "{driver:?}");
        assert_eq!(file(&case, "pids", "pids.max", "pids.max"), "55");
        if driver == Driver::Systemd {
            assert_eq!(shown(&case, "MemoryMax"), "134217728");
            assert_eq!(shown(&case, "CPUQuotaPerSecUSec"), "400ms");
            assert_eq!(shown(&case, "TasksMax"), "55");
        }
        let refused = update(r#"{"cpu":{"cpus":"4000"}}"#).unwrap_err();
        assert!(!refused.message.is_empty());
        end(&mut case, driver, output.pid);
    }
}

fn it_freezes() {
    for driver in drivers() {
        let mut case = case(driver, &["sh", "-c", "while :; do :; done"]);
        let output = case.start();
        let group = cgroup(&case);
        group.freeze().unwrap();
        assert!(group.is_frozen().unwrap());
        let time = || fs::read_to_string(format!("/proc/{}/schedstat", output.pid)).unwrap();
        let before = time();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(time(), before, "{driver:?}");
        group.thaw().unwrap();
        eventually(|| time() != before);
        // A frozen one can be removed.
        group.freeze().unwrap();
        case.remove();
        assert_eq!(exit_code(output.pid), 137);
        end_again(&mut case, driver);
    }
}

fn a_restored_one_has_the_same() {
    for driver in drivers() {
        let script = "exec </dev/null; while :; do busybox usleep 20000; done";
        let make = || {
            let mut made = case(driver, &["sh", "-c", script]);
            made.set("/linux/resources", serde_json::from_str(LIMITS).unwrap());
            let_it_make_nodes(&mut made);
            made
        };
        let mut first = make();
        let output = first.start();
        let images = PathBuf::from(format!("/run/reprise-unit/{}-images", first.id));
        fs::create_dir_all(&images).unwrap();
        let patience = 60_000;
        let mut config = first.create_request().criu;
        config.timeout_ms = patience;
        let dump = Dump {
            namespace: "unit".to_owned(),
            id: first.id.clone(),
            bundle: first.dir.join("bundle"),
            images: images.clone(),
            pid: output.pid,
            criu: config.clone(),
            state_root: first.dir.join("states"),
            work_path: None,
            exit: false,
            open_tcp: false,
            external_unix_sockets: true,
            file_locks: true,
            copies: Vec::new(),
        };
        first
            .worker()
            .dump(dump)
            .unwrap_or_else(|e| panic!("{e}\n{:#?}", e.detail));
        end(&mut first, driver, output.pid);

        let mut second = make();
        let mut request = second.create_request();
        config.work_root.clone_from(&second.dir);
        request.criu = config;
        request.restore = Some(Restore {
            images: images.clone(),
            layers: Vec::new(),
        });
        let (_out, theirs) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let stdio = Stdio {
            stdin: None,
            stderr: Some(theirs.try_clone().unwrap()),
            stdout: Some(theirs),
        };
        let mut worker = second.worker();
        let prepared = worker.prepare(request, stdio);
        let pid = prepared
            .unwrap_or_else(|e| panic!("{driver:?}: {e}\n{:#?}", e.detail))
            .pid;
        worker.start().unwrap();
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/cgroup")).unwrap();
        assert_eq!(namespace(&pid.to_string()) != namespace("self"), is_v2());
        let script = "cat /proc/1/cgroup; busybox mknod /kmsg c 1 11; (exec 3>/kmsg) && \
            echo writable; (exec 3</kmsg) 2>/dev/null || echo unreadable";
        let process = second.process(&["sh", "-c", script]);
        let (code, seen) = second.exec(process);
        assert_eq!(code, 0, "{seen}");
        assert!(seen.ends_with("writable\nunreadable\n"), "{seen}");
        if is_v2() {
            assert!(seen.starts_with("0::/\n"), "{seen}");
        }
        let memory = file(&second, "memory", "memory.limit_in_bytes", "memory.max");
        assert_eq!(memory, "268435456", "{driver:?}");
        let quota = file(&second, "cpu", "cpu.cfs_quota_us", "cpu.max");
        assert_ne!(quota.split(' ').next(), Some("max"), "{driver:?}");
        if driver == Driver::Systemd {
            assert_eq!(shown(&second, "ActiveState"), "active");
            assert_eq!(shown(&second, "MemoryMax"), "268435456");
            assert_eq!(shown(&second, "CPUQuotaPerSecUSec"), "340ms");
        }
        end(&mut second, driver, pid);
        fs::remove_dir_all(&images).unwrap();
    }
}

fn a_name_can_be_used_again() {
    for driver in drivers() {
        let mut case = case(driver, &["false"]);
        for _ in 0..3 {
            let output = case.start();
            assert_eq!(exit_code(output.pid), 1, "{driver:?}");
            case.remove();
        }
        // A create that fails leaves neither cgroup nor unit.
        case.set("/process/cwd", json!("/etc/passwd/x"));
        let (_worker, prepared, _) = case.prepare();
        prepared.unwrap_err();
        assert!(!cgroup(&case).exists(), "{driver:?}");
        end_again(&mut case, driver);
    }
}
