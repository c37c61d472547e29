//! Compares Reprise with runc, case by case; `make gaps` calls it.
//!
//! `gaps [--row N]... [--case WORDS] [--only-cold | --only-restored] [--list]
//! [--at-once N] [--out DIR]`

#![allow(clippy::print_stdout, reason = "it talks to its user")]

use anyhow::{Context, Result, bail};
use integration::gaps::{self, Choice};
use integration::tools;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: gaps [--row N]... [--case WORDS] [--only-cold | --only-restored] \
                     [--list] [--at-once N] [--out DIR]";

struct Options {
    choice: Choice,
    list: bool,
    out: PathBuf,
}

fn main() -> Result<ExitCode> {
    let options = options()?;
    let cases = gaps::cases();
    if options.list {
        for case in &cases {
            println!("{:>3}  {}", case.row, case.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let begun = Instant::now();
    let report = gaps::run(&options.choice, &cases)?;
    report.write(&options.out)?;
    println!("{}", report.table());
    let mut slow: Vec<_> = report.0.iter().collect();
    slow.sort_by_key(|entry| std::cmp::Reverse(entry.took));
    for entry in slow.iter().take(3) {
        println!("slow: {:.1?} row {}, {}", entry.took, entry.row, entry.case);
    }
    println!(
        "{:.0?}; written: {}",
        begun.elapsed(),
        options.out.join("report.json").display()
    );
    Ok(match report.differing().is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn options() -> Result<Options> {
    let mut options = Options {
        choice: Choice::default(),
        list: false,
        out: tools::workspace().join("target/gaps"),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().context(USAGE);
        match word.as_str() {
            "--row" => options.choice.rows.push(value()?.parse().context(USAGE)?),
            "--case" => options.choice.named = Some(value()?),
            "--only-cold" => options.choice.restored = false,
            "--only-restored" => options.choice.cold = false,
            "--at-once" => options.choice.at_once = value()?.parse().context(USAGE)?,
            "--out" => options.out = value()?.into(),
            "--list" => options.list = true,
            _ => bail!("{word}? {USAGE}"),
        }
    }
    Ok(options)
}
