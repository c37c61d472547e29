//! The socket at which containerd finds the shim of a pod.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often one looks whether a shim is gone.
const LOOK: Duration = Duration::from_millis(5);

fn path(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix://").unwrap_or(address))
}

/// Whether a shim listens there.
pub(crate) fn is_served(address: &str) -> bool {
    UnixStream::connect(path(address)).is_ok()
}

/// Whether no shim listens there any more, or stops doing so in this time. A killed
/// one has closed some of its descriptors before others.
pub(crate) fn goes_within(address: &str, at_most: Duration) -> bool {
    let end = Instant::now() + at_most;
    while is_served(address) {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

/// Takes it away, so that nobody finds a shim there any more.
pub(crate) fn remove(address: &str) {
    if !address.is_empty() {
        // Not there is as good.
        std::fs::remove_file(path(address)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn one_that_is_dying_is_waited_for_and_one_that_lives_is_not_gone() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("s");
        let address = format!("unix://{}", place.display());
        assert!(goes_within(&address, Duration::ZERO));
        let listener = UnixListener::bind(&place).unwrap();
        assert!(!goes_within(&address, Duration::from_millis(20)));
        let dying = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(listener);
        });
        assert!(goes_within(&address, Duration::from_secs(20)));
        dying.join().unwrap();
    }
}
