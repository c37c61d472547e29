//! `cluster-suite [--list] [--case WORD]... [--runtime runc|reprise]`; see
//! [`integration::cluster::suite`]. Ends with 1 when something passes under `runc`
//! alone, or nowhere without a known cause.

use anyhow::Result;
use integration::cluster::suite::{Options, run};
use std::process::ExitCode;

fn main() -> Result<ExitCode> {
    let options = Options::parse(std::env::args().skip(1))?;
    Ok(if run(&options)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
