//! Limits that change while a container runs, and what it is said to use: the
//! same as of a like container under runc's shim, on the same node.

use anyhow::{Context, Result};
use integration::cri::proto::LinuxContainerResources;
use integration::pod::Executed;
use integration::{Container, ContainerSpec, Node, Pod, PodSpec, wait_for};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

/// Where limits are: the controller on cgroup v1, and the file there or on v2.
const FILES: [(&str, &str); 9] = [
    ("cpu", "cpu.cfs_quota_us"),
    ("cpu", "cpu.cfs_period_us"),
    ("cpu", "cpu.shares"),
    ("cpu", "cpu.max"),
    ("cpu", "cpu.weight"),
    ("cpuset", "cpuset.cpus"),
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.max"),
    ("pids", "pids.max"),
];

/// What the files of a container's cgroup say.
fn limits(container: &Container<'_>) -> BTreeMap<&'static str, String> {
    let read = |(controller, file): (&str, &'static str)| {
        let text = fs::read_to_string(container.cgroup(controller).join(file)).ok()?;
        Some((file, text.trim().to_owned()))
    };
    FILES.into_iter().filter_map(read).collect()
}

/// Updates a running container, through the CRI and, for what that does not
/// know, through containerd. Its limits then, and what forking comes to.
fn updated(node: &Node, handler: &str) -> Result<(BTreeMap<&'static str, String>, Executed)> {
    let pod = node.run_pod(&PodSpec::new("limits", handler).handler(handler))?;
    // It forks no more itself: it could not when others have used up its limit.
    let container = pod.run(&ContainerSpec::shell("exec sleep 1000").memory(64 << 20))?;
    container.limit(LinuxContainerResources {
        cpu_period: 50_000,
        cpu_quota: 20_000,
        cpu_shares: 300,
        memory_limit_in_bytes: 96 << 20,
        cpuset_cpus: "0".to_owned(),
    })?;
    let pids = json!({ "pids": { "limit": 24 } });
    node.containerd()?.update(container.id(), &pids)?;
    let found = limits(&container);
    let forks = "for n in $(seq 40); do sleep 3 >/dev/null 2>&1 & done";
    let forking = container.exec(&["/bin/sh", "-c", forks])?;
    assert!(container.is_running()?, "{handler}");
    Ok((found, forking))
}

#[test]
fn limits_that_change_are_in_its_cgroup_and_hold() -> Result<()> {
    let node = Node::start()?;
    let (limits, forking) = updated(&node, "reprise")?;
    let expected = [
        ("cpu.cfs_quota_us", "20000"),
        ("cpu.cfs_period_us", "50000"),
        ("cpu.shares", "300"),
        ("cpu.max", "20000 50000"),
        ("cpuset.cpus", "0"),
        ("memory.limit_in_bytes", "100663296"),
        ("memory.max", "100663296"),
        ("pids.max", "24"),
    ];
    for (file, value) in expected {
        let found = limits.get(file).map_or(value, String::as_str);
        assert_eq!(found, value, "{file}");
    }
    // Six files on cgroup v1, five on v2.
    assert!(limits.len() >= 5, "{limits:?}");
    assert!(forking.stderr.contains("can't fork"), "{forking:?}");
    assert_eq!(updated(&node, "runc")?, (limits, forking));
    Ok(())
}

/// Uses CPU time and memory, and rests then.
const BUSY: &str = "x=$(head -c 12000000 /dev/zero | tr '\\0' x)
    n=0; while [ $n -lt 100000 ]; do n=$((n+1)); done
    echo done; sleep 1000 & wait";

/// A container and its pod that have done their work.
fn busy<'n>(node: &'n Node, handler: &str) -> Result<(Pod<'n>, Container<'n>)> {
    let pod = node.run_pod(&PodSpec::new("stats", handler).handler(handler))?;
    let container = pod.run(&ContainerSpec::shell(BUSY).name(handler).memory(256 << 20))?;
    container.wait_for_log("done\n")?;
    Ok((pod, container))
}

/// The paths to all numbers of a report, those of lists put together.
fn numbers(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| numbers(value, &format!("{path}/{key}"), found)),
        Value::Array(list) => list.iter().for_each(|value| numbers(value, path, found)),
        // The CRI's 64-bit numbers are strings in JSON.
        Value::String(text) if text.parse::<u64>().is_ok() => {
            found.insert(path.to_owned());
        }
        Value::Number(_) => {
            found.insert(path.to_owned());
        }
        Value::String(_) | Value::Bool(_) | Value::Null => {}
    }
}

/// What crictl reports on one pod or container.
fn reported(node: &Node, command: &str, id: &str) -> Result<Value> {
    let report = node.crictl([command, "--output", "json", "--id", id])?;
    let report: Value = serde_json::from_str(&report)?;
    Ok(report["stats"][0].clone())
}

/// A number of a report, 0 where it is not.
fn number(report: &Value, pointer: &str) -> u64 {
    let value = report.pointer(pointer);
    let text = value.and_then(|value| value["value"].as_str().or(value.as_str()));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Waits until crictl reports the same kinds of numbers on both, and returns
/// the reports, runc's first. containerd measures now and then only.
fn same_kinds(node: &Node, command: &str, ids: [&str; 2]) -> Result<[Value; 2]> {
    let kinds = |report: &Value| {
        let mut found = BTreeSet::new();
        numbers(report, "", &mut found);
        found
    };
    let mut last = String::new();
    wait_for("the same kinds of stats", Duration::from_secs(40), || {
        let reports = [
            reported(node, command, ids[0])?,
            reported(node, command, ids[1])?,
        ];
        let (runc, ours) = (kinds(&reports[0]), kinds(&reports[1]));
        last = format!("{:?}", runc.symmetric_difference(&ours));
        Ok((runc == ours && runc.len() > 5).then_some(reports))
    })
    .with_context(|| format!("{command}: only one has {last}"))
}

/// That a number is about the same in both reports, and not nothing.
fn alike([runc, ours]: &[Value; 2], pointer: &str, least: u64) {
    let (runc, ours) = (number(runc, pointer), number(ours, pointer));
    assert!(ours >= least, "{pointer}: {ours}");
    assert!(
        ours <= runc.saturating_mul(3) && runc <= ours.saturating_mul(3),
        "{pointer}: {ours}, under runc {runc}"
    );
}

#[test]
fn crictl_shows_the_stats_that_it_shows_under_runc() -> Result<()> {
    let node = Node::start()?;
    let (runc_pod, runc) = busy(&node, "runc")?;
    let (our_pod, ours) = busy(&node, "reprise")?;

    let stats = same_kinds(&node, "stats", [runc.id(), ours.id()])?;
    alike(&stats, "/cpu/usageCoreNanoSeconds", 20_000_000);
    alike(&stats, "/memory/workingSetBytes", 12_000_000);
    alike(&stats, "/memory/rssBytes", 12_000_000);

    let stats = same_kinds(&node, "statsp", [runc_pod.id(), our_pod.id()])?;
    alike(&stats, "/linux/cpu/usageCoreNanoSeconds", 20_000_000);
    alike(&stats, "/linux/memory/workingSetBytes", 12_000_000);
    // How much came depends on how long a pod has been there, not on its runtime.
    let received = "/linux/network/defaultInterface/rxBytes";
    assert!(stats.iter().all(|stats| number(stats, received) > 0));
    let processes = stats.map(|stats| number(&stats, "/linux/process/processCount"));
    assert!(
        processes[1] > 0 && processes[0] == processes[1],
        "{processes:?}"
    );
    Ok(())
}
