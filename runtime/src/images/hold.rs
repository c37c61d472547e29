//! A restored container keeps the snapshots that it reads: memory that was not
//! needed yet, and the lower layers of its root file system. Whoever removes the
//! image in the meantime does not take them from under it; they go with the
//! container's record.

use reprise_runtime::Result;
use reprise_runtime::store::Source;

use super::Labels;
use super::client::Client;
use super::names::keeps_snapshot;

/// Has a container's record keep a checkpoint's snapshots.
///
/// # Errors
/// containerd's; there is no such container.
pub(crate) fn hold(client: &Client, container: &str, source: &Source) -> Result<()> {
    let label = |suffix| keeps_snapshot(&source.snapshotter, suffix);
    let labels = Labels::from([
        (label("reprise-data"), source.data.clone()),
        (label("reprise-rootfs"), source.rootfs.clone()),
    ]);
    client.relabel_container(container, &labels)
}
