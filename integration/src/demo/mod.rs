//! The demo: two real services, cold and restored, side by side.

mod burst;
mod chart;
mod options;
mod program;
mod progress;
mod report;
mod travel;

pub use options::Options;
pub use report::{Burst, ProgramReport};
pub use travel::Travel;

use crate::node::{Node, NodeOptions};
use crate::programs::Program;
use anyhow::{Context, Result, bail};
use std::fs;

/// Runs the demo, prints its table and writes its files.
///
/// # Errors
/// When something does not work, and when a pod that should have been restored
/// was not.
#[allow(clippy::print_stdout, reason = "the demo talks to its user")]
pub fn run(options: &Options) -> Result<()> {
    let node = progress::step("starting a private containerd node", || {
        Node::start_with(&NodeOptions::with_containerd(&options.containerd))
    })?;
    let mut programs = Vec::new();
    for program in &options.programs {
        println!("\n{} ({})", program.name(), program.image());
        let measured = program::measure(&node, *program, options.runs);
        programs.push(measured.with_context(|| format!("see {}", node.log_file().display()))?);
    }
    let mut bursts = Vec::new();
    if options.burst > 0 && options.programs.contains(&Program::Java) {
        println!("\nburst: {} java pods at the same time", options.burst);
        bursts.push(burst::measure(&node, Program::Java, options.burst)?);
    }

    let travel = match options.programs.last() {
        Some(program) => {
            println!("\nto another node: {}", program.name());
            let travel = travel::show(&node, *program, &options.containerd);
            Some(travel.with_context(|| format!("see {}", node.log_file().display()))?)
        }
        None => None,
    };

    println!("\n{}", report::table(&programs, &bursts));
    println!("{}", chart::bars(&programs));
    fs::create_dir_all(&options.out)?;
    let write = |name: &str, text: String| fs::write(options.out.join(name), text);
    write("report.json", serde_json::to_string_pretty(&programs)?)?;
    write("burst.json", serde_json::to_string_pretty(&bursts)?)?;
    write("other-node.json", serde_json::to_string_pretty(&travel)?)?;
    write("chart.svg", chart::svg(&programs))?;
    println!(
        "written: {0}/report.json, {0}/burst.json, {0}/other-node.json, {0}/chart.svg",
        options.out.display()
    );
    let missed = report::missed_restores(&programs, &bursts);
    if missed > 0 {
        bail!(
            "{missed} pods should have been restored and were not, see {}",
            node.log_file().display()
        );
    }
    if travel.is_some_and(|travel| !travel.restored) {
        bail!("the other node's first pod should have been restored and was not");
    }
    Ok(())
}
