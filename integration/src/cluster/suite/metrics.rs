//! What the kubelet says that pods use. Two like pods, one of them under runc, have to
//! have the same figures; under `runc` this compares runc with itself, which tells how
//! far like pods are apart anyway.

use super::case::{Case, Theme};
use super::ground::{Ground, NODE};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) const THEME: Theme = Theme {
    name: "metrics",
    cases: &[
        Case::new("/stats/summary", summary).within(150),
        Case::new("/metrics/resource", resource).within(150),
        Case::new("/metrics/cadvisor", cadvisor).within(150),
        Case::new("log and file system use", storage).within(150),
    ],
};

/// A figure's name and how far two of it may be apart: a twentieth, or this much for
/// what is small.
type Noise = (&'static str, f64);

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Does a fixed amount of work, so that its use is known; then waits.
const WORK: &str = "\
import time
held = bytearray(b'x') * (64 << 20)
while time.process_time() < 2:
    pass
open('/written', 'wb').write(b'y' * (8 << 20))
print('z' * 1000)
print('done', flush=True)
time.sleep(1000000)
";

/// Two pods that have done their work: the yardstick and the one of this class.
fn two_pods(ground: &Ground<'_>) -> Result<()> {
    let pod = |name: &str, class: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "runtimeClassName": class,
                "containers": [{"python": WORK, "resources": {"limits": {"memory": "256Mi"}}}],
            },
        })
    };
    ground.create(pod("yardstick", "runc"))?;
    ground.create(pod("measured", ground.class()))?;
    for name in ["yardstick", "measured"] {
        ground.until("its work", || {
            let log = ground.run(&["logs", name])?;
            Ok(log.stdout.ends_with("done\n").then_some(()))
        })?;
    }
    Ok(())
}

fn near(what: &str, yardstick: f64, measured: f64, floor: f64) -> Result<()> {
    let apart = (yardstick - measured).abs();
    ensure!(
        apart <= (yardstick * 0.05).max(floor),
        "{what} is {measured} and under runc {yardstick}"
    );
    Ok(())
}

/// Asks until both have figures that do not grow any more and are near to each other.
fn compare(
    ground: &Ground<'_>,
    wanted: &[Noise],
    mut ask: impl FnMut(&str) -> Result<BTreeMap<String, f64>>,
) -> Result<()> {
    let mut last = String::new();
    let compared = ground.until("like figures", || {
        let (yardstick, measured) = (ask("yardstick")?, ask("measured")?);
        for (name, floor) in wanted {
            let (Some(one), Some(other)) = (yardstick.get(*name), measured.get(*name)) else {
                last = format!("{name} is missing: {yardstick:?} {measured:?}");
                return Ok(None);
            };
            if let Err(error) = near(name, *one, *other, *floor) {
                last = error.to_string();
                return Ok(None);
            }
            if *one == 0.0 {
                last = format!("{name} is 0");
                return Ok(None);
            }
        }
        Ok(Some(()))
    });
    compared.with_context(|| last)
}

fn raw(ground: &Ground<'_>, path: &str) -> Result<String> {
    ground.call(&["get", "--raw", &format!("/api/v1/nodes/{NODE}/proxy{path}")])
}

/// A pod in the kubelet's summary.
fn in_summary(ground: &Ground<'_>, pod: &str) -> Result<Value> {
    let summary: Value = serde_json::from_str(&raw(ground, "/stats/summary")?)?;
    let pods = summary["pods"].as_array().cloned().unwrap_or_default();
    let own = |one: &Value| {
        one["podRef"]["name"] == pod && one["podRef"]["namespace"] == ground.namespace()
    };
    Ok(pods.into_iter().find(own).unwrap_or_default())
}

/// Compares figures of the kubelet's summary, by where they are in it.
fn compare_summaries(ground: &Ground<'_>, wanted: &[Noise]) -> Result<()> {
    two_pods(ground)?;
    compare(ground, wanted, |pod| {
        let summary = in_summary(ground, pod)?;
        let read = |(path, _): &Noise| Some(((*path).to_owned(), summary.pointer(path)?.as_f64()?));
        Ok(wanted.iter().filter_map(read).collect())
    })
}

fn summary(ground: &Ground<'_>) -> Result<()> {
    compare_summaries(
        ground,
        &[
            ("/containers/0/cpu/usageCoreNanoSeconds", 0.15e9),
            ("/containers/0/memory/workingSetBytes", MEBIBYTE),
            ("/containers/0/memory/rssBytes", MEBIBYTE),
            ("/containers/0/memory/availableBytes", MEBIBYTE),
            ("/cpu/usageCoreNanoSeconds", 0.2e9),
            ("/memory/workingSetBytes", 2.0 * MEBIBYTE),
            ("/memory/rssBytes", 2.0 * MEBIBYTE),
            ("/process_stats/process_count", 0.0),
        ],
    )
}

fn storage(ground: &Ground<'_>) -> Result<()> {
    compare_summaries(
        ground,
        &[
            ("/containers/0/rootfs/usedBytes", 65536.0),
            ("/containers/0/logs/usedBytes", 8192.0),
            ("/ephemeral-storage/usedBytes", 65536.0),
        ],
    )
}

/// The samples of a pod's container (or of the pod, when it has none), by metric.
fn samples(ground: &Ground<'_>, text: &str, pod: &str) -> BTreeMap<String, f64> {
    let (pod, namespace) = (
        format!("pod=\"{pod}\""),
        format!("namespace=\"{}\"", ground.namespace()),
    );
    let own = text
        .lines()
        .filter(|line| line.contains(&pod) && line.contains(&namespace));
    let mut found = BTreeMap::new();
    for line in own {
        let Some((name, rest)) = line.split_once('{') else {
            continue;
        };
        let Some((labels, value)) = rest.rsplit_once("} ") else {
            continue;
        };
        let whose = match labels {
            _ if labels.contains("container=\"app\"") => "container",
            _ if labels.contains("container=\"") && !labels.contains("container=\"\"") => continue,
            _ => "pod",
        };
        let number = value
            .split(' ')
            .next()
            .and_then(|word| word.parse::<f64>().ok());
        if let Some(number) = number {
            *found.entry(format!("{whose} {name}")).or_insert(0.0) += number;
        }
    }
    found
}

/// Compares samples of one of the kubelet's endpoints for metrics.
fn compare_samples(ground: &Ground<'_>, endpoint: &str, wanted: &[Noise]) -> Result<()> {
    two_pods(ground)?;
    compare(ground, wanted, |pod| {
        Ok(samples(ground, &raw(ground, endpoint)?, pod))
    })
}

fn resource(ground: &Ground<'_>) -> Result<()> {
    compare_samples(
        ground,
        "/metrics/resource",
        &[
            ("container container_cpu_usage_seconds_total", 0.15),
            ("container container_memory_working_set_bytes", MEBIBYTE),
            ("container container_start_time_seconds", 5.0),
            ("pod pod_cpu_usage_seconds_total", 0.2),
            ("pod pod_memory_working_set_bytes", 2.0 * MEBIBYTE),
        ],
    )
}

fn cadvisor(ground: &Ground<'_>) -> Result<()> {
    compare_samples(
        ground,
        "/metrics/cadvisor",
        &[
            ("container container_cpu_usage_seconds_total", 0.15),
            ("container container_memory_working_set_bytes", MEBIBYTE),
            ("container container_memory_rss", MEBIBYTE),
            ("container container_processes", 0.0),
            ("container container_threads", 0.0),
            ("container container_spec_memory_limit_bytes", 0.0),
            ("pod container_memory_working_set_bytes", 2.0 * MEBIBYTE),
        ],
    )
}
