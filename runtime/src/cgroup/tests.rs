//! Against the kernel of this machine: needs root and a writable hierarchy, and
//! says so when it has neither. Only `/reprise-unit-<pid>/...` is touched.

#![allow(clippy::print_stderr, reason = "a test that skips says so")]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use oci_spec::runtime::Spec;

use super::hierarchy::Hierarchy;
use super::*;

/// A cgroup of our own that leaves nothing behind.
struct Own(Cgroup, Vec<Child>);

impl Own {
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not root: skipped");
            return None;
        }
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = format!("/reprise-unit-{}/{n}", std::process::id());
        Some(Self::with(Cgroup::at(path, hierarchy::node().unwrap())))
    }

    fn with(cgroup: Cgroup) -> Self {
        cgroup.make_dirs().unwrap();
        Self(cgroup, Vec::new())
    }

    fn run(&mut self, script: &str) -> i32 {
        // It waits until it is in the cgroup: what it forks must not escape.
        let mut child = Command::new("sh")
            .args(["-c", &format!("read -r joined && {{ {script}\n}}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut gate = child.stdin.take().unwrap();
        self.1.push(child);
        self.0.join(pid).unwrap();
        gate.write_all(b"joined\n").unwrap();
        pid
    }

    fn reap(&mut self) {
        for child in &mut self.1 {
            child.wait().unwrap();
        }
    }

    fn read(&self, controller: &str, name: &str) -> String {
        let dir = self.0.v1_dir_opt(controller).unwrap();
        file::read(dir, name).unwrap().trim().to_owned()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.0.kill_all());
        for child in &mut self.1 {
            drop(child.wait());
        }
        drop(self.0.remove());
        // The parent goes with the last of its children.
        for dir in self.0.all_dirs() {
            drop(std::fs::remove_dir(dir.parent().unwrap()));
        }
    }
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

#[test]
fn paths_are_cleaned_and_bad_ones_refused() {
    let clean = |p: &str| named::clean(Some(Path::new(p)), "id");
    assert_eq!(clean("/k8s.io//./abc/").unwrap(), "/k8s.io/abc");
    assert_eq!(clean("k8s.io/abc").unwrap(), "/k8s.io/abc");
    assert_eq!(named::clean(None, "abc").unwrap(), "/abc");
    assert_eq!(clean("/a:b:c").unwrap(), "/a:b:c");
    for bad in ["/a/../..", "..", "/"] {
        assert_eq!(
            clean(bad).unwrap_err().kind,
            ErrorKind::InvalidArgument,
            "{bad}"
        );
    }
}

fn spec_at(path: &str) -> Spec {
    let mut spec = Spec::default();
    let mut linux = oci_spec::runtime::Linux::default();
    linux.set_cgroups_path(Some(path.into()));
    spec.set_linux(Some(linux));
    spec
}

/// `hierarchy:path` of each line of a `/proc/PID/cgroup`.
fn lines_of(pid: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines()
        .map(|line| {
            let (hierarchy, path) = line.split_once(":").unwrap().1.split_once(':').unwrap();
            (hierarchy.to_owned(), path.to_owned())
        })
        .collect()
}

#[test]
fn a_relative_path_begins_where_its_maker_lives() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: skipped");
        return;
    }
    // Below a cgroup that is somebody's, whom nothing may happen to.
    let top = format!("reprise-unit-{}", std::process::id());
    let mut home = Own::with(Cgroup::at(
        format!("/{top}-home/deep"),
        hierarchy::node().unwrap(),
    ));
    let somebody = home.run("sleep 100 & wait").to_string();
    let kept = std::fs::read_to_string(format!("/proc/{somebody}/cgroup")).unwrap();
    let relative = format!("{top}-its/own");
    let spec = spec_at(&relative);
    let mut own = Own::with(Cgroup::made_from(&spec, "id", Some(kept.clone())).unwrap());
    assert_eq!(own.0.home(), Some(kept.as_str()));
    let pid = own.run("sleep 100 & wait").to_string();
    for ((hierarchy, path), (_, its_home)) in lines_of(&pid).iter().zip(lines_of(&somebody)) {
        let from = match (own.0.is_v2(), hierarchy.as_str()) {
            // As under runc: beside its maker.
            (true, _) => its_home.rsplit_once('/').unwrap().0,
            (false, "") => "",
            (false, _) => its_home.as_str(),
        };
        assert_eq!(path, &format!("{from}/{relative}"), "{hierarchy}");
    }
    own.0.freeze().unwrap();
    assert!(own.0.is_frozen().unwrap());
    assert!(own.0.stats().is_ok());
    own.0.kill_all().unwrap();
    own.reap();
    own.0.remove().unwrap();
    assert!(!own.0.exists());
    // Its maker lives on.
    assert!(home.0.pids().unwrap().contains(&somebody.parse().unwrap()));
}

#[test]
fn without_a_path_it_begins_there_too() {
    let home = "9:name=systemd:/s\n4:memory:/a\n0::/u/v\n";
    let of = |spec: &Spec| Cgroup::made_from(spec, "id", Some(home.to_owned()));
    let shared = |cgroup: &Cgroup| cgroup.path().to_owned();
    let absolute = of(&spec_at("/x/y")).unwrap();
    assert_eq!(
        (shared(&absolute).as_str(), absolute.home()),
        ("/x/y", None)
    );
    match (of(&Spec::default()), hierarchy::node().unwrap()) {
        (Ok(cgroup), Hierarchy::V2 { .. }) => assert_eq!(cgroup.path(), "/u/id"),
        // This machine has more hierarchies than that home.
        (Err(e), Hierarchy::V1 { .. }) => {
            assert!(e.message.contains("name an absolute one"), "{e:?}");
        }
        (other, node) => panic!("{other:?} on {node:?}"),
    }
}

#[test]
fn the_form_of_the_path_chooses_the_driver() {
    let of = |path: &str| Cgroup::of(&spec_at(path), "id");
    let pod = of("kubepods-pod1.slice:cri-containerd:abc").unwrap();
    assert!(pod.is_systemd());
    assert_eq!(
        pod.path(),
        "/kubepods.slice/kubepods-pod1.slice/cri-containerd-abc.scope"
    );
    let plain = of("/kubepods-pod1.slice:cri-containerd:abc").unwrap();
    assert!(!plain.is_systemd());
    assert_eq!(plain.path(), "/kubepods-pod1.slice:cri-containerd:abc");
    assert!(!of("a:b:c").unwrap().is_systemd());
    for bad in ["a--b.slice:b:c", "a.slice:b:../../c", "a.slice:b:c d"] {
        let error = of(bad).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{bad}");
    }
}

#[test]
fn a_cgroup_lives_from_create_to_remove() {
    let Some(mut own) = Own::new() else { return };
    prewarm();
    let pid = own.run("sleep 100 & wait");
    assert!(own.0.pids().unwrap().contains(&pid));
    let membership = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(
        membership.lines().all(|l| l.ends_with(own.0.path())),
        "{membership}"
    );
    // A child cgroup, as systemd or docker inside a container makes them.
    let child = own.0.freezer_dir().join("inner");
    std::fs::create_dir(&child).unwrap();
    own.0.kill_all().unwrap();
    own.reap();
    assert!(own.0.pids().unwrap().is_empty());
    own.0.remove().unwrap();
    assert!(!own.0.exists());
    own.0.remove().unwrap();
    own.0.kill_all().unwrap();
}

#[test]
fn frozen_processes_stand_still_and_can_be_killed() {
    let Some(mut own) = Own::new() else { return };
    own.run("while :; do :; done");
    own.0.freeze().unwrap();
    assert!(own.0.is_frozen().unwrap());
    own.0.freeze().unwrap();
    own.0.thaw().unwrap();
    assert!(!own.0.is_frozen().unwrap());
    own.0.freeze().unwrap();
    own.0.kill_all().unwrap();
    assert!(!own.0.is_frozen().unwrap());
}

#[test]
fn processes_that_keep_forking_are_killed() {
    let Some(mut own) = Own::new() else { return };
    own.0
        .update(&resources(r#"{"pids":{"limit":200}}"#))
        .unwrap();
    own.run("f() { while :; do sh -c 'sleep 0.01' & done; }; f & f & f & wait");
    std::thread::sleep(std::time::Duration::from_millis(100));
    own.0.kill_all().unwrap();
    own.reap();
    assert!(own.0.pids().unwrap().is_empty());
}

#[test]
fn limits_are_written_and_can_move_both_ways() {
    let Some(own) = Own::new() else { return };
    if own.0.is_v2() {
        return;
    }
    let set = |json: &str| own.0.update(&resources(json));
    set(
        r#"{"memory":{"limit":104857600,"swap":104857600,"reservation":52428800,"swappiness":10},
            "cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0","mems":"0"},
            "pids":{"limit":0}}"#,
    )
    .unwrap();
    assert_eq!(own.read("memory", "memory.limit_in_bytes"), "104857600");
    assert_eq!(
        own.read("memory", "memory.memsw.limit_in_bytes"),
        "104857600"
    );
    assert_eq!(own.read("cpu", "cpu.shares"), "512");
    assert_eq!(own.read("cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(own.read("cpuset", "cpuset.cpus"), "0");
    assert_eq!(own.read("pids", "pids.max"), "1");
    for limit in [209_715_200_u64, 52_428_800] {
        set(&format!(
            r#"{{"memory":{{"limit":{limit},"swap":{limit}}}}}"#
        ))
        .unwrap();
        assert_eq!(
            own.read("memory", "memory.memsw.limit_in_bytes"),
            limit.to_string()
        );
    }
    set(r#"{"memory":{"limit":-1}}"#).unwrap();
    // A period so small that it goes only with the new quota, and burst with it.
    set(r#"{"cpu":{"quota":5000,"period":10000,"burst":2000},"pids":{"limit":-1}}"#).unwrap();
    assert_eq!(own.read("cpu", "cpu.cfs_burst_us"), "2000");
    assert_eq!(own.read("pids", "pids.max"), "max");
    let error = set(r#"{"cpu":{"shares":1}}"#).unwrap_err();
    assert!(error.message.contains("bound is 2"), "{error}");
    let error = set(r#"{"cpu":{"cpus":"999"}}"#).unwrap_err();
    assert!(
        error.message.contains("cpuset.cpus") && error.message.contains("999"),
        "{error}"
    );
    let error = set(r#"{"unified":{"memory.high":"1"}}"#).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument);
}

#[test]
fn devices_are_denied_unless_listed() {
    let Some(own) = Own::new() else { return };
    if own.0.is_v2() {
        return;
    }
    own.0.apply(None, &[]).unwrap();
    let list = own.read("devices", "devices.list");
    assert!(
        list.contains("c 1:3 rwm") && list.contains("c *:* m"),
        "{list}"
    );
    assert!(!list.contains("a *:*"), "{list}");
    let all = resources(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#);
    own.0.apply(Some(&all), &[]).unwrap();
    assert!(own.read("devices", "devices.list").starts_with("a *:* rwm"));
}

#[test]
fn device_rules_of_v2_are_in_force() {
    let Some(mut own) = Own::new() else { return };
    let unified = match &own.0.dirs {
        Dirs::V1 {
            unified: Some(dir), ..
        } => dir.clone(),
        Dirs::V2 { dir, .. } => dir.clone(),
        Dirs::V1 { .. } => return,
    };
    let list: Vec<_> = serde_json::from_str(
        r#"[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":1,"minor":11,"access":"w"}]"#,
    )
    .unwrap();
    let rules = Rules::of(Some(&list), &[]).unwrap();
    // As systemd would have put one there before.
    if let Err(error) = bpf::attach(&unified, &Rules::of(None, &[]).unwrap()) {
        eprintln!("no device programs on this kernel: skipped ({error})");
        return;
    }
    let before = memlock();
    bpf::attach(&unified, &rules).unwrap();
    assert_eq!(memlock(), before);
    let dir = std::fs::File::open(&unified).unwrap();
    let programs = || crate::sys::bpf_device_programs(&dir).unwrap().len();
    assert_eq!(
        programs(),
        1,
        "the later rules are in the place of the earlier"
    );
    // /dev/kmsg is 1:11: writing was allowed, reading was not.
    own.run("sleep 0.2; exec 3>/dev/null || exit 9; (exec 3</dev/kmsg) && exit 8; exit 7");
    let code = own.1[0].wait().unwrap().code();
    assert_eq!(code, Some(7));
    let all = resources(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#);
    let all = Rules::of(all.devices().as_deref(), &[]).unwrap();
    bpf::attach(&unified, &all).unwrap();
    assert_eq!(programs(), 0);
}

/// The limit that a container would inherit.
fn memlock() -> (u64, u64) {
    nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK).unwrap()
}

#[test]
fn processes_in_frozen_child_cgroups_die_and_all_is_removed() {
    let Some(mut own) = Own::new() else { return };
    // As docker inside a container would: a child in every hierarchy, with a
    // process, and frozen for itself.
    let pid = own.run("while :; do sleep 100; done");
    for dir in own.0.all_dirs().map(Path::to_owned).collect::<Vec<_>>() {
        let child = dir.join("inner");
        std::fs::create_dir_all(child.join("deeper")).unwrap();
        if child.join("cpuset.cpus").exists() {
            for name in ["cpuset.cpus", "cpuset.mems"] {
                std::fs::copy(dir.join(name), child.join(name)).unwrap();
            }
        }
        tree::join(&child, pid).unwrap();
    }
    let inner = own.0.freezer_dir().join("inner");
    if own.0.is_v2() {
        file::write(&inner, "cgroup.freeze", "1").unwrap();
    } else {
        file::write(&inner, "freezer.state", "FROZEN").unwrap();
    }
    assert!(own.0.pids().unwrap().contains(&pid));
    let start = std::time::Instant::now();
    own.0.kill_all().unwrap();
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
    own.reap();
    own.0.remove().unwrap();
    assert!(!own.0.exists());
}

#[test]
fn a_v1_controller_that_is_not_there_is_told() {
    let Some(own) = Own::new() else { return };
    if own.0.is_v2() {
        return;
    }
    for (json, word) in [
        (r#"{"rdma":{"mlx5_0":{"hcaHandles":1}}}"#, "rdma"),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#,
            "hugetlb",
        ),
        (r#"{"network":{"classID":7}}"#, "net_cls"),
    ] {
        if own.0.v1_dir_opt(word).is_none() {
            let error = own.0.update(&resources(json)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::FailedPrecondition);
            assert!(error.message.contains(word), "{error}");
        }
    }
    // As with runc: no file, no limit, no word.
    own.0
        .update(&resources(r#"{"memory":{"kernel":1,"kernelTCP":1}}"#))
        .unwrap();
}

#[test]
fn figures_follow_what_processes_do() {
    let Some(mut own) = Own::new() else { return };
    own.run("x=$(head -c 20000000 /dev/zero | tr '\\0' a); while :; do :; done");
    std::thread::sleep(std::time::Duration::from_millis(300));
    match own.0.stats().unwrap() {
        Stats::V1(s) => {
            assert!(s.cpu_total > 1_000_000, "{s:?}");
            assert!(s.cpu_user > 0 && s.cpu_user <= s.cpu_total);
            assert!(s.memory.usage > 1_000_000 && s.memory.max >= s.memory.usage);
            assert!(s.memory_stat.get("total_rss") > 1_000_000);
            assert_eq!(s.pids_limit, 0);
            assert!(s.pids_current > 0);
        }
        Stats::V2(s) => assert!(s.cpu_stat.get("usage_usec") > 1000, "{s:?}"),
    }
}

#[test]
fn the_oom_killer_is_noticed() {
    let Some(mut own) = Own::new() else { return };
    own.0
        .update(&resources(
            r#"{"memory":{"limit":16777216,"swap":16777216}}"#,
        ))
        .unwrap();
    let watch = own.0.oom_watch().unwrap();
    assert_eq!(own.0.oom_kills().unwrap(), 0);
    own.run("sleep 0.1; x=$(head -c 100000000 /dev/zero | tr '\\0' a)");
    let mut poll = [nix::poll::PollFd::new(
        std::os::fd::AsFd::as_fd(&watch),
        nix::poll::PollFlags::POLLIN,
    )];
    assert_eq!(nix::poll::poll(&mut poll, 60_000_u16).unwrap(), 1);
    own.reap();
    assert!(own.0.oom_kills().unwrap() > 0);
    assert!(watch.as_raw_fd() > 2);
}
