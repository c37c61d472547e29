//! Compares Reprise with runc, case by case; `make gaps` calls it.
//!
//! `gaps [--row N]... [--case WORDS] [--only-cold | --only-restored] [--list]
//! [--at-once N] [--out DIR] [--only-vm]`
//!
//! `gaps --probe` only compiles what containers are looked at with, and
//! `gaps --merge FILE` shows what another machine's report adds to this one's.

#![allow(clippy::print_stdout, reason = "it talks to its user")]

use anyhow::{Context, Result, bail};
use integration::gaps::{self, Choice, Report};
use integration::tools;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: gaps [--row N]... [--case WORDS] [--only-cold | --only-restored] \
                     [--list] [--at-once N] [--out DIR] [--only-vm] | --probe | --merge FILE";

struct Options {
    choice: Choice,
    list: bool,
    probe: bool,
    merge: Option<PathBuf>,
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
    if options.probe {
        println!("{}", gaps::probe()?.display());
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(file) = &options.merge {
        let mut report = Report::read(&options.out.join("report.json"))?;
        report.add(Report::read(file)?);
        println!("{}", report.table());
        report.write_table(&options.out)?;
        return Ok(verdict(&report));
    }
    let begun = Instant::now();
    let mut report = gaps::run(&options.choice, &cases)?;
    report.write(&options.out)?;
    let vm = options.out.join("report-vm.json");
    if vm.exists() {
        report.add(Report::read(&vm)?);
        report.write_table(&options.out)?;
    }
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
    Ok(verdict(&report))
}

fn verdict(report: &Report) -> ExitCode {
    match report.differing().is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn options() -> Result<Options> {
    let mut options = Options {
        choice: Choice::default(),
        list: false,
        probe: false,
        merge: None,
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
            "--only-vm" => options.choice.only_vm = true,
            "--probe" => options.probe = true,
            "--merge" => options.merge = Some(value()?.into()),
            _ => bail!("{word}? {USAGE}"),
        }
    }
    Ok(options)
}
