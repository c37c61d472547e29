//! The cold path against runc's shim: the whole table.

use super::options::Options;
use super::pairs::Values;
use super::report::{Better, Row, head, plot};
use super::{calls, crowd, direct, memory, write};
use crate::node::Node;
use anyhow::{Context, Result};

/// Measures everything on one node.
#[allow(clippy::print_stdout, reason = "a benchmark talks to its user")]
pub(super) fn run(options: &Options) -> Result<()> {
    let node = Node::start()?;
    println!("medians of {} runs in turns", options.runs);
    println!("{}", head());
    let rows =
        measure(&node, options).with_context(|| format!("see {}", node.log_file().display()))?;
    write("report.json", &serde_json::to_string_pretty(&rows)?)?;
    write("chart.svg", &plot(&rows))
}

fn measure(node: &Node, options: &Options) -> Result<Vec<Row>> {
    let runs = options.runs;
    let mut rows = Vec::new();
    type Measure = fn(&Node, usize) -> Result<Values>;
    let simple: [(&str, &str, Measure); 5] = [
        ("ctr_run_rm", "ms", calls::ctr_run_rm),
        ("cri_cycle", "ms", calls::cri_cycle),
        ("exec", "ms", calls::exec),
        ("shim_pss", "KiB", |node, runs| {
            memory::shim_pss(node, runs, 1)
        }),
        ("shim_pss_10", "KiB", |node, runs| {
            memory::shim_pss(node, runs, 10)
        }),
    ];
    if options.wants("shim_start") || options.wants("create") {
        let direct = direct::direct(node, runs)?;
        tell(
            &mut rows,
            Row::new("shim_start", "ms", Better::Less, &direct.start),
        );
        tell(
            &mut rows,
            Row::new("create", "ms", Better::Less, &direct.create),
        );
    }
    for (name, unit, measure) in simple {
        if options.wants(name) {
            let values = measure(node, runs).context(name)?;
            tell(&mut rows, Row::new(name, unit, Better::Less, &values));
        }
    }
    if options.wants("pods_per_s") {
        for row in crowd::crowd(node, options.pods, options.rounds)? {
            tell(&mut rows, row);
        }
    }
    Ok(rows)
}

#[allow(clippy::print_stdout, reason = "a benchmark talks to its user")]
fn tell(rows: &mut Vec<Row>, row: Row) {
    println!("{}", row.line());
    rows.push(row);
}
