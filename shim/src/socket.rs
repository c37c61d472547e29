//! The socket at which containerd finds the shim of a pod.

use std::os::unix::net::UnixStream;
use std::path::Path;

fn path(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix://").unwrap_or(address))
}

/// Whether a shim listens there.
pub(crate) fn is_served(address: &str) -> bool {
    UnixStream::connect(path(address)).is_ok()
}

/// Takes it away, so that nobody finds a shim there any more.
pub(crate) fn remove(address: &str) {
    if !address.is_empty() {
        // Not there is as good.
        std::fs::remove_file(path(address)).ok();
    }
}
