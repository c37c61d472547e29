//! What a shim does when its work is done: it gives memory back. A pod lives for
//! days after the second in which its containers are made.
//!
//! That is what the allocator keeps for later, and the pages of our own binary:
//! most of them were used once. Each page fault brings sixteen of them, and a few
//! dozen faults are all that the next request costs for it.

use std::sync::Arc;
use std::time::Duration;

use reprise_runtime::sys;
use tokio::sync::Notify;

/// How long after something has happened. Longer than idle threads live.
const AFTER: Duration = Duration::from_millis(1500);

/// Where it is said that something happens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rest(Arc<Notify>);

impl Rest {
    /// Begins to listen. However much happens, memory is given back once in a
    /// while: a pod whose figures are polled has to come to rest as well.
    pub(crate) fn begin() -> Self {
        let rest = Self::default();
        let disturbed = Arc::clone(&rest.0);
        tokio::spawn(async move {
            loop {
                disturbed.notified().await;
                tokio::time::sleep(AFTER).await;
                sys::give_memory_back();
                sys::unmap_program_pages();
            }
        });
        rest
    }

    /// Something happens.
    pub(crate) fn disturb(&self) {
        self.0.notify_one();
    }
}
