//! What publishers that died have left: leases, and what only those hold.

use reprise_runtime::Result;
use reprise_runtime::maker::Maker;

use super::client::Client;
use super::names::PUBLISHER;

/// Gives up the leases of dead publishers; containerd then collects what nothing
/// else keeps. Says how many there were.
///
/// # Errors
/// containerd's.
pub(crate) fn dead_publishers(client: &Client) -> Result<usize> {
    let leases = client.list_leases(&[format!("labels.\"{PUBLISHER}\"")])?;
    let mut swept = 0;
    for lease in leases {
        let maker = lease
            .labels
            .get(PUBLISHER)
            .and_then(|text| Maker::parse(text));
        // What cannot be read is left to its label `containerd.io/gc.expire`.
        if maker.is_some_and(|maker| maker.is_gone()) {
            client.remove_lease(&lease.id, true)?;
            swept += 1;
        }
    }
    Ok(swept)
}
