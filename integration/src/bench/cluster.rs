//! How long a Deployment needs from one pod to ten, under a real kubelet: a service on the
//! JVM, restored and cold, and `sleep`, which shows what Kubernetes itself takes.

use crate::checkpoints::Decision;
use crate::cluster::{Cluster, ClusterOptions, Deployment, Template, report};
use crate::measure::{median, millis};
use crate::programs::{BUSYBOX, Program};
use crate::runtime::Runtime;
use crate::wait::wait_for;
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// To how many pods from one.
const PODS: usize = 10;

/// The machine is quiet when its processors are idle for so much of a second. Kubernetes
/// itself takes a twentieth.
const QUIET_PERCENT: u64 = 85;

/// Within how long it is to become quiet.
const SETTLES: Duration = Duration::from_secs(120);

/// What is deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Sleep,
    Java,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::Sleep => "sleep",
            Self::Java => "java",
        }
    }

    fn template(self, runtime: Runtime) -> Template {
        let class = runtime.name();
        let name = format!("{}-{class}", self.name());
        match self {
            Self::Sleep => Template {
                container: ", command: [sleep, infinity]".to_owned(),
                ..Template::new(&name, class, BUSYBOX)
            },
            Self::Java => Template {
                container: ", readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}"
                    .to_owned(),
                ..Template::new(&name, class, &Program::Java.image())
            },
        }
    }
}

/// Seconds of each run, for one load under one runtime.
#[derive(Debug)]
struct Row {
    load: Load,
    runtime: Runtime,
    seconds: Vec<f64>,
}

impl Row {
    fn median(&self) -> f64 {
        median(&self.seconds)
    }
}

/// Measures all four in turn, so often, and writes `scale` into
/// `target/cluster/report.json`.
///
/// # Errors
/// When something does not work, or a pod was not started as it was to be.
#[allow(clippy::print_stdout, reason = "a benchmark talks to its user")]
pub(super) fn run(runs: usize) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::asked_for())?;
    let mut rows: Vec<Row> = [Load::Sleep, Load::Java]
        .into_iter()
        .flat_map(|load| {
            Runtime::BOTH.map(|runtime| Row {
                load,
                runtime,
                seconds: Vec::new(),
            })
        })
        .collect();
    checkpoint(&cluster)?;
    for run in 1..=runs {
        for row in &mut rows {
            let took = scale(&cluster, row.load, row.runtime)?;
            println!(
                "run {run}: {:<5} under {:<7} {took:6.2} s",
                row.load.name(),
                row.runtime.name()
            );
            row.seconds.push(took);
        }
    }
    tell(&rows)?;
    write(&rows, &report::dir())
}

/// The checkpoint that all restored pods come from. A JVM that has just become ready goes on
/// compiling for many seconds, and ten restored ones would do so at once.
fn checkpoint(cluster: &Cluster) -> Result<()> {
    let template = Load::Java.template(Runtime::Reprise);
    let deployment = Deployment::apply(cluster, cluster.kubectl(), &template, 1)?;
    let pods = deployment.ready(1)?;
    deployment.checkpoint_idle(&pods[0])?;
    deployment.delete()
}

/// Waits until the machine has little to do: a JVM that has just become ready compiles for a
/// while, and what was measured before is still being cleaned up.
fn settle() -> Result<()> {
    wait_for("the machine to have little to do", SETTLES, || {
        let before = Ticks::now()?;
        std::thread::sleep(Duration::from_secs(1));
        let (idle, all) = Ticks::now()?.since(before);
        Ok((idle * 100 > all * QUIET_PERCENT).then_some(()))
    })
}

/// What the kernel has counted of all processors' time.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Ticks {
    fn now() -> Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let counted: Vec<u64> = stat
            .lines()
            .next()
            .context("the line of all processors")?
            .split_whitespace()
            .skip(1)
            .take(8)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        // user nice system idle iowait irq softirq steal: proc_stat(5).
        Ok(Self {
            idle: counted.get(3..5).context("idle and iowait")?.iter().sum(),
            all: counted.iter().sum(),
        })
    }

    fn since(self, before: Self) -> (u64, u64) {
        (self.idle - before.idle, self.all - before.all)
    }
}

/// Seconds from the wish to the API server's word that all pods are ready.
fn scale(cluster: &Cluster, load: Load, runtime: Runtime) -> Result<f64> {
    let kubectl = cluster.kubectl();
    let template = load.template(runtime);
    let deployment = Deployment::apply(cluster, kubectl, &template, 1)?;
    deployment.ready(1)?;
    settle()?;
    let begun = Instant::now();
    deployment.scale(PODS)?;
    // One process that watches: asking again and again would cost the pods' CPU.
    kubectl.call([
        "wait",
        "--timeout=600s",
        &format!("--for=jsonpath={{.status.readyReplicas}}={PODS}"),
        &format!("deployment/{}", template.name),
    ])?;
    let took = millis(begun.elapsed()) / 1000.0;
    let pods = deployment.ready(PODS)?;
    if runtime == Runtime::Reprise {
        for pod in &pods {
            let restored = matches!(deployment.decision(pod)?, Decision::Restore { .. });
            ensure!(restored == (load == Load::Java), "{pod:?}");
        }
    }
    deployment.delete()?;
    Ok(took)
}

#[allow(clippy::print_stdout, reason = "a benchmark talks to its user")]
fn tell(rows: &[Row]) -> Result<()> {
    println!("\nDeployment 1 -> {PODS} until all are ready, seconds");
    println!("{:<6} {:<8} {:>7}  runs", "load", "runtime", "median");
    for row in rows {
        let runs: Vec<String> = row.seconds.iter().map(|s| format!("{s:.2}")).collect();
        println!(
            "{:<6} {:<8} {:>7.2}  {}",
            row.load.name(),
            row.runtime.name(),
            row.median(),
            runs.join(" ")
        );
    }
    let of = |load, runtime| median_of(rows, load, runtime);
    let java = of(Load::Java, Runtime::Reprise)?;
    let sleep = of(Load::Sleep, Runtime::Runc)?;
    for (what, ratio, most) in [
        (
            "java, restored : cold under runc",
            java / of(Load::Java, Runtime::Runc)?,
            1.0 / 6.0,
        ),
        ("java, restored : sleep under runc", java / sleep, 1.6),
        (
            "sleep : the same under runc",
            of(Load::Sleep, Runtime::Reprise)? / sleep,
            0.9,
        ),
    ] {
        let met = if ratio <= most { "met" } else { "missed" };
        println!("{what:<36} {ratio:.3} (at most {most:.3}: {met})");
    }
    Ok(())
}

fn median_of(rows: &[Row], load: Load, runtime: Runtime) -> Result<f64> {
    let row = rows
        .iter()
        .find(|row| row.load == load && row.runtime == runtime);
    Ok(row.context("a row")?.median())
}

/// Writes `scale` into the report and leaves the rest of it.
#[allow(clippy::print_stdout, reason = "a benchmark talks to its user")]
fn write(rows: &[Row], dir: &Path) -> Result<()> {
    let mut scale = Map::new();
    for load in [Load::Java, Load::Sleep] {
        let runc = median_of(rows, load, Runtime::Runc)?;
        let reprise = median_of(rows, load, Runtime::Reprise)?;
        scale.insert(
            load.name().to_owned(),
            json!({"runc_s": runc, "reprise_s": reprise}),
        );
    }
    let fields = Map::from_iter([("scale".to_owned(), Value::Object(scale))]);
    let file = report::put(dir, fields)?;
    println!("written: {}", file.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Load, Row, Runtime, write};
    use serde_json::Value;

    #[test]
    fn the_rest_of_the_report_stays() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("report.json");
        std::fs::write(&file, r#"{"both": ["a"], "scale": {"java": 1}}"#)?;
        let mut rows = Vec::new();
        for (load, seconds) in [(Load::Sleep, 1.0), (Load::Java, 20.0)] {
            for (runtime, factor) in [(Runtime::Runc, 1.0), (Runtime::Reprise, 0.5)] {
                let seconds = vec![seconds * factor];
                rows.push(Row {
                    load,
                    runtime,
                    seconds,
                });
            }
        }
        write(&rows, dir.path())?;
        let report: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
        assert_eq!(report["both"][0], "a");
        assert_eq!(report["scale"]["java"]["runc_s"], 20.0);
        assert_eq!(report["scale"]["sleep"]["reprise_s"], 0.5);
        Ok(())
    }
}
