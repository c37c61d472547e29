//! The neighbour that shares a volume: it swaps two names all the time, with
//! pauses of a random length so that no rhythm protects anybody.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::fcntl::{RenameFlags, renameat2};

/// Swaps names from when it is made until it is dropped.
pub(crate) struct Neighbour {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Held while it swaps, so that whoever changes this knows that it does not.
    does: Mutex<Does>,
    changed: Condvar,
    swaps: AtomicU64,
}

#[derive(Clone, Copy, PartialEq)]
enum Does {
    Swap,
    Rest,
    Stop,
}

impl Neighbour {
    /// Exchanges `one` and `other`, over and over, when it is let go.
    pub(crate) fn swapping(one: &Path, other: &Path) -> Self {
        let shared = Arc::new(Shared {
            does: Mutex::new(Does::Rest),
            changed: Condvar::new(),
            swaps: AtomicU64::new(0),
        });
        let (one, other) = (one.to_owned(), other.to_owned());
        let with = Arc::clone(&shared);
        let thread = std::thread::spawn(move || swap(&one, &other, &with));
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// How often it has swapped so far.
    pub(crate) fn swaps(&self) -> u64 {
        self.shared.swaps.load(Ordering::Relaxed)
    }

    /// Lets it rest, or go on. While it rests the names stay as they are.
    pub(crate) fn rest(&self, rest: bool) {
        self.tell(if rest { Does::Rest } else { Does::Swap });
    }

    fn tell(&self, what: Does) {
        *self.shared.does.lock().unwrap() = what;
        self.shared.changed.notify_all();
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.tell(Does::Stop);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn swap(one: &PathBuf, other: &PathBuf, shared: &Shared) {
    let mut random = 0x9e37_79b9_u32;
    loop {
        let does = shared.does.lock().unwrap();
        let does = shared
            .changed
            .wait_while(does, |does| *does == Does::Rest)
            .unwrap();
        if *does == Does::Stop {
            return;
        }
        // Refused for the moment in which a mount is on one of them.
        if renameat2(None, one, None, other, RenameFlags::RENAME_EXCHANGE).is_ok() {
            shared.swaps.fetch_add(1, Ordering::Relaxed);
        }
        drop(does);
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        if random.is_multiple_of(4) {
            // The runtime is to come forward too, on a machine with few processors.
            std::thread::sleep(Duration::from_micros(u64::from(random % 128)));
        } else {
            (0..random % 1024).for_each(|_| std::hint::spin_loop());
        }
    }
}
