//! Telling the user what is going on.

#![allow(clippy::print_stdout, reason = "the demo talks to its user")]

use anyhow::Result;
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Does a step, showing its name at once, its seconds while it lasts, and the
/// time it took.
pub(super) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let result = ticking(what, work);
    let seconds = begun.elapsed().as_secs_f64();
    match &result {
        Ok(_) => println!(" {seconds:.2} s"),
        Err(_) => println!(" failed after {seconds:.2} s"),
    }
    result
}

/// Does a measured step and shows what it says of itself.
pub(super) fn measured<T>(
    what: &str,
    work: impl FnOnce() -> Result<T>,
    tell: impl FnOnce(&T) -> String,
) -> Result<T> {
    let result = ticking(what, work);
    match &result {
        Ok(value) => println!(" {}", tell(value)),
        Err(_) => println!(" failed"),
    }
    result
}

fn ticking<T>(what: &str, work: impl FnOnce() -> T) -> T {
    print!("  {what} ...");
    std::io::stdout().flush().ok();
    let (done, is_done) = channel::<()>();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let terminal = std::io::stdout().is_terminal();
            while is_done.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                match terminal {
                    true => print!("\r  {what} ... {} s", begun.elapsed().as_secs()),
                    false => print!("."),
                }
                std::io::stdout().flush().ok();
            }
            if terminal {
                print!("\r\x1b[K  {what} ...");
            }
        });
        let result = work();
        drop(done);
        result
    })
}
