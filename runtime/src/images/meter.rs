//! How far long work has come, for whoever shows it meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes done, and how many there are. Any thread may look.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    done: AtomicU64,
    /// 0 as long as nobody knows.
    total: AtomicU64,
}

impl Meter {
    /// So many are done, of so many; 0 if that is not known.
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// So many more are done.
    pub(crate) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Done, and how many there are, if that is known.
    pub(crate) fn read(&self) -> (u64, Option<u64>) {
        let total = self.total.load(Ordering::Relaxed);
        (
            self.done.load(Ordering::Relaxed),
            (total > 0).then_some(total),
        )
    }
}
