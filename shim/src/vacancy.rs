//! Ends a shim that containerd has forgotten.
//!
//! A shim is there before the first container of its pod: containerd asks for that a
//! moment later. A containerd that is stopped in between, or whose caller has lost
//! patience, asks for nothing any more; whoever runs next does not know the shim, and it
//! would wait for ever. The same is true after the last container's Delete, when the
//! shim is to be told to go.
//!
//! The bundle tells: containerd makes it before it starts the shim, and takes it away
//! when it has given the pod up. A shim without containers and without a bundle goes,
//! unless somebody has been sent to it since (`socket::claim`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::alarm;

use crate::server::Service;
use crate::socket;

/// How long a shim waits for its first container, or for the next one. Between `start`
/// and Create containerd needs milliseconds, and the bundle is there all the time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whose containers a shim is for, as far as the file system tells.
#[derive(Debug, Clone)]
pub(crate) struct Bundle(Option<PathBuf>);

impl Bundle {
    /// That of the serving shim, which runs in it.
    pub(crate) fn ours() -> Self {
        // Gone already is gone as well.
        Self(std::env::current_dir().ok())
    }

    fn is_gone(&self) -> bool {
        let is_there = |path: &Path| path.try_exists().unwrap_or(true);
        !self.0.as_deref().is_some_and(is_there)
    }
}

/// Ends the process unless it serves soon: its log is a FIFO, and who opens that waits
/// for a containerd to read it.
pub(crate) fn begin() {
    alarm::set(u32::try_from(PATIENCE.as_secs()).unwrap_or(u32::MAX));
}

/// The log is open: containerd was there.
pub(crate) fn has_begun() {
    alarm::cancel();
}

/// Looks after an empty shim for as long as it lives. While there is a container,
/// nothing wakes up for it.
pub(crate) async fn watch(service: Service, bundle: Bundle) {
    loop {
        if !service.is_empty() {
            service.has_changed().await;
            continue;
        }
        let claimed = socket::last_claim(service.address());
        let waited = tokio::time::timeout(PATIENCE, service.has_changed()).await;
        let is_forgotten = waited.is_err() && service.is_empty() && bundle.is_gone();
        if is_forgotten && socket::remove_unclaimed(service.address(), claimed) {
            log::warn!("containerd has forgotten this shim, which has no container: it goes");
            service.leave();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_there_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle(Some(dir.path().to_owned()));
        assert!(!bundle.is_gone());
        drop(dir);
        assert!(bundle.is_gone());
        assert!(Bundle(None).is_gone());
    }
}
