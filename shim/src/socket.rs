//! The socket at which containerd finds the shim of a pod.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

/// How often one looks whether a shim is gone.
const LOOK: Duration = Duration::from_millis(5);

fn path(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix://").unwrap_or(address))
}

/// Whether a shim listens there.
pub(crate) fn is_served(address: &str) -> bool {
    UnixStream::connect(path(address)).is_ok()
}

/// Whether a shim listens there, which then stays until who was sent to it has come: its
/// socket's time says so.
pub(crate) fn claim(address: &str) -> bool {
    if !is_served(address) {
        return false;
    }
    let _lock = lock(address);
    let now = TimeSpec::UTIME_NOW;
    // It fails when the socket has just gone.
    utimensat(
        None,
        path(address),
        &now,
        &now,
        UtimensatFlags::NoFollowSymlink,
    )
    .ok();
    is_served(address)
}

/// When somebody was sent there last; nothing when there is no socket.
pub(crate) fn last_claim(address: &str) -> Option<SystemTime> {
    std::fs::symlink_metadata(path(address))
        .and_then(|about| about.modified())
        .ok()
}

/// Takes it away unless somebody was sent there since the `last` time. Whether it is
/// gone.
pub(crate) fn remove_unclaimed(address: &str, last: Option<SystemTime>) -> bool {
    let _lock = lock(address);
    let unclaimed = last_claim(address) == last;
    if unclaimed {
        remove(address);
    }
    unclaimed
}

/// Held while a socket is claimed or taken away; both take microseconds.
fn lock(address: &str) -> Option<Flock<File>> {
    let dir = File::open(path(address).parent()?).ok()?;
    Flock::lock(dir, FlockArg::LockExclusive).ok()
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

    #[test]
    fn one_that_was_claimed_is_not_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("s");
        let address = format!("unix://{}", place.display());
        assert!(!claim(&address));
        let listener = UnixListener::bind(&place).unwrap();
        let before = last_claim(&address);
        // The file system's clock has a tick of some milliseconds.
        std::thread::sleep(Duration::from_millis(50));
        assert!(claim(&address));
        assert!(!remove_unclaimed(&address, before));
        assert!(is_served(&address));

        assert!(remove_unclaimed(&address, last_claim(&address)));
        assert!(!is_served(&address) && !claim(&address));
        drop(listener);
        // Nobody can be sent to one that is not there.
        assert!(remove_unclaimed(&address, None));
    }
}
