//! `conformance [--suite critest|client|cri]... [--focus WORDS]...`; see
//! [`integration::conformance`]. Ends with 1 when runc's shim passes a test
//! that ours does not.

use anyhow::Result;
use integration::conformance::{Options, run};
use std::process::ExitCode;

fn main() -> Result<ExitCode> {
    let options = Options::parse(std::env::args().skip(1))?;
    Ok(if run(&options)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
