//! Long work shows how far it is: one line on standard error, when that is a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::show;
use crate::images::meter::Meter;

/// Work that is done sooner shows nothing.
const AT_FIRST: Duration = Duration::from_millis(500);
const EVERY: Duration = Duration::from_millis(200);
/// Characters of a bar.
const WIDTH: u64 = 24;

/// Does work that says on a meter how far it is.
pub(super) fn shown<T>(what: &str, work: impl FnOnce(&Meter) -> T) -> T {
    let meter = Meter::default();
    if !std::io::stderr().is_terminal() {
        return work(&meter);
    }
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        let meter = &meter;
        scope.spawn(move || {
            let begun = Instant::now();
            let mut wait = AT_FIRST;
            // The sender says nothing, and is dropped at the end.
            while is_done.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                draw(&line(what, meter.read(), begun.elapsed()));
                wait = EVERY;
            }
            if wait == EVERY {
                draw("");
            }
        });
        let result = work(meter);
        drop(done);
        result
    })
}

/// A terminal that does not take it is no failure of the work.
fn draw(line: &str) {
    let mut terminal = std::io::stderr().lock();
    write!(terminal, "\r\x1b[K{line}")
        .and_then(|()| terminal.flush())
        .ok();
}

fn line(what: &str, (done, total): (u64, Option<u64>), elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match total {
        Some(total) => {
            let done = done.min(total);
            let filled = usize::try_from(done * WIDTH / total).unwrap_or_default();
            let bar = format!("{:<24}", "#".repeat(filled));
            let (done, total) = (show::size(done), show::size(total));
            format!("{what} [{bar}] {done} of {total}, {seconds} s")
        }
        None if done > 0 => format!("{what} {}, {seconds} s", show::size(done)),
        None => format!("{what} {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let after = Duration::from_secs(3);
        assert_eq!(line("pushing", (0, None), after), "pushing 3 s");
        let half = line("pushing", (50 << 20, Some(100 << 20)), after);
        assert!(half.contains("[############            ]"), "{half}");
        assert!(half.ends_with(", 3 s"), "{half}");
        let over = line("pushing", (9, Some(3)), after);
        assert!(over.contains("[########################]"), "{over}");
    }

    #[test]
    fn the_work_is_done_without_a_terminal() {
        assert_eq!(shown("x", |meter| meter.read()), (0, None));
    }
}
