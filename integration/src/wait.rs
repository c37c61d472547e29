//! Waiting for a state instead of sleeping.

use anyhow::{Result, bail};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How many times longer than elsewhere everything may take here:
/// `REPRISE_TEST_PATIENCE`, for machines in software emulation.
#[must_use]
pub fn patience() -> u32 {
    static FACTOR: LazyLock<u32> = LazyLock::new(|| {
        let asked = std::env::var("REPRISE_TEST_PATIENCE").ok();
        asked.and_then(|words| words.parse().ok()).unwrap_or(1)
    });
    (*FACTOR).max(1)
}

/// A time limit on this machine.
#[must_use]
pub fn patiently(limit: Duration) -> Duration {
    limit * patience()
}

/// Asks every few milliseconds until there is an answer, for as long as the
/// limit is on this machine.
///
/// # Errors
/// When the time is over; the message names what was waited for.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let limit = patiently(limit);
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if begun.elapsed() > limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Waits up to 20 seconds until something is true.
///
/// # Errors
/// When it did not become true.
pub fn eventually(what: &str, mut ask: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, Duration::from_secs(20), || Ok(ask().then_some(())))
}
