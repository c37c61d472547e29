//! Waiting until a container has nothing to do.
//!
//! What a program is at when its checkpoint is taken, each container restored from it goes
//! on with: ten replicas of a JVM whose compiler has not come to the end of its queue
//! compile all the rest, ten times.

use std::thread;
use std::time::{Duration, Instant};

use reprise_runtime::proc_stat::ProcStat;
use reprise_runtime::{Error, ErrorKind, Result};

use super::shim::Shim;

/// For how long a container must have had little to do.
const OVER: Duration = Duration::from_secs(1);

/// How much of one CPU is little. A JVM, Node or Python that only waits for requests needs
/// one to two hundredths for its own timers, and the kernel counts in hundredths.
const LITTLE: f64 = 0.05;

/// Waits until the container uses less than [`LITTLE`] of a CPU.
///
/// # Errors
/// [`ErrorKind::Unavailable`] when it still uses more at the end of `limit`, and what the
/// shim answers about its processes.
pub(super) fn wait(shim: &Shim, limit: Duration) -> Result<()> {
    let begun = Instant::now();
    let mut before = (Instant::now(), used(shim)?);
    loop {
        thread::sleep(OVER);
        let now = (Instant::now(), used(shim)?);
        // What a process used goes with it when nobody in the container waited for it.
        let used = now.1.saturating_sub(before.1);
        let cpus = used.as_secs_f64() / (now.0 - before.0).as_secs_f64();
        if cpus < LITTLE {
            return Ok(());
        }
        if begun.elapsed() >= limit {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "Container {} is not idle after {} s: it uses {cpus:.2} CPUs; give it longer \
                     with --when-idle=SECONDS, or checkpoint it as it is, without --when-idle",
                    shim.id(),
                    limit.as_secs(),
                ),
            ));
        }
        before = now;
    }
}

/// The CPU time that the container's processes, and the children they waited for, have used.
fn used(shim: &Shim) -> Result<Duration> {
    let ticks: u64 = shim.pids()?.into_iter().map(ticks_of).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second()))
}

/// Of one process, in the kernel's ticks; none of one that has ended meanwhile.
fn ticks_of(pid: u32) -> u64 {
    ProcStat::of(pid.cast_signed())
        .and_then(|stat| ticks_in(&stat))
        .unwrap_or_default()
}

/// `utime`, `stime`, `cutime` and `cstime`.
fn ticks_in(stat: &ProcStat) -> Option<u64> {
    (14..=17).map(|field| stat.number(field)).sum()
}

/// How many ticks a second has; 100 on every Linux that we know.
fn per_second() -> f64 {
    let known = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    known.ok().flatten().unwrap_or(100) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_be_called_anything() {
        let ticks = |line: &str| ticks_in(&ProcStat::from(line.to_owned()));
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 120 0 0 0 11 22 33 44 20 0 1 0 5000 0";
        assert_eq!(ticks(stat), Some(110));
        assert_eq!(ticks("7 (a) S 1 7"), None);
    }

    #[test]
    fn work_is_seen() {
        let own = std::process::id();
        let before = ticks_of(own);
        let until = Instant::now() + Duration::from_secs(10);
        while ticks_of(own) < before + 3 {
            assert!(Instant::now() < until, "no tick in ten seconds of work");
        }
    }
}
