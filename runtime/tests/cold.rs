//! Cold containers with real processes: what they are, what they see, how they
//! end, and that nothing is left of them. The test binary is its own worker.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::unwrap_used,
    reason = "a test with a harness of its own"
)]

#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "shared"
)]
mod support;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use support::{Case, exit_code, no_mkdir, text};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "worker") {
        return ExitCode::from(reprise_runtime::worker::run_child());
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("these tests make containers and need root");
        return ExitCode::FAILURE;
    }
    // As the shim: orphans, and so containers, become our children.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let filter = args.iter().find(|arg| !arg.starts_with('-'));
    let mut failed = 0;
    for (name, test) in TESTS {
        if filter.is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let begin = Instant::now();
        let ok = catch_unwind(test).is_ok();
        let word = if ok { "ok" } else { "FAILED" };
        println!(
            "test {name} ... {word} ({} ms)",
            begin.elapsed().as_millis()
        );
        failed += i32::from(!ok);
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

const TESTS: &[(&str, fn())] = &[("exit_codes_are_exact", exit_codes_are_exact)];

fn exit_codes_are_exact() {
    let (code, out) = Case::new(&["sh", "-c", "echo hello; exit 42"]).run();
    assert_eq!((code, out.as_str()), (42, "hello\n"));
}
