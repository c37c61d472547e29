//! `reprise`: what operators do with checkpoints on a node. Thin over the
//! library.

#[path = "../cli/mod.rs"]
mod cli;
#[path = "../images/mod.rs"]
mod images;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
