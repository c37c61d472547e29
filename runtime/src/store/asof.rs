//! Whether the index is as containerd's content is, without asking containerd.
//!
//! The directory of blobs changes its time whenever a blob comes or goes, and not
//! when containers do. `index/.asof` says at which of its times a refresh last read
//! everything. An image's record may come some time after its last blob, so an index
//! that was made soon after a change is right only for now: [`Freshness::Recent`].

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{Store, make_dir};
use crate::error::{Doing, Error, Result};
use crate::rootfs::RootfsMount;

/// How long after the last blob an image's record may still come: unpacking lies
/// between the two.
const RECORDS_COME_WITHIN_NS: i128 = 60_000_000_000;
/// How long what may have missed something is left alone.
const AGAIN_AFTER_NS: i128 = 1_000_000_000;
/// How long the program that refreshes may take until it has the lock.
const STARTS_WITHIN: Duration = Duration::from_millis(500);
/// How often a waiting shim looks.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// containerd's blobs on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blobs(PathBuf);

impl Blobs {
    /// Below containerd's root directory.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self::of_content(&root.join("io.containerd.content.v1.content"))
    }

    /// In the directory of containerd's content plugin.
    #[must_use]
    pub fn of_content(dir: &Path) -> Self {
        Self(dir.join("blobs/sha256"))
    }

    /// Those of the containerd whose snapshotter has made a container's layers.
    /// `None`: the layers do not lie below its root.
    #[must_use]
    pub fn behind(rootfs: &[RootfsMount]) -> Option<Self> {
        let [mount] = rootfs else { return None };
        let mut options = mount.options.iter();
        let dirs = options.find_map(|o| {
            o.strip_prefix("lowerdir=")
                .or_else(|| o.strip_prefix("upperdir="))
        })?;
        let first = Path::new(dirs.split(':').next()?);
        let is_snapshotter = |dir: &&Path| {
            dir.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with("io.containerd.snapshotter."))
        };
        let root = first.ancestors().find(is_snapshotter)?.parent()?;
        Some(Self::below(root))
    }

    /// When a blob last came or went, in nanoseconds since the epoch. `None`: they
    /// are not there.
    #[must_use]
    pub fn changed_ns(&self) -> Option<i128> {
        let about = fs::metadata(&self.0).ok()?;
        Some(i128::from(about.mtime()) * 1_000_000_000 + i128::from(about.mtime_nsec()))
    }
}

/// What is noted of a refresh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct AsOf {
    /// The blobs' time that it was made at.
    changed_ns: i128,
    /// When that was.
    made_ns: i128,
    /// Why it failed, if it did: nobody waits for the next one then.
    failed: Option<String>,
}

impl AsOf {
    fn may_have_missed(&self) -> bool {
        self.failed.is_some() || self.made_ns - self.changed_ns < RECORDS_COME_WITHIN_NS
    }
}

fn now_ns() -> i128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
        })
}

/// How far an index can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing has come since.
    Current,
    /// Nothing has come since, but something may follow what came just before; or a
    /// refresh has failed.
    Recent,
    /// Something came or went.
    Stale,
}

impl Store {
    /// How far the index can be relied on: one look at the blobs, one at a small file.
    #[must_use]
    pub fn freshness(&self, blobs: &Blobs) -> Freshness {
        let Some(changed_ns) = blobs.changed_ns() else {
            // There is nothing to go by; who put the blobs elsewhere refreshes himself.
            return Freshness::Current;
        };
        match self.read_asof() {
            Some(asof) if asof.changed_ns != changed_ns => Freshness::Stale,
            Some(asof) if asof.may_have_missed() => Freshness::Recent,
            Some(_) => Freshness::Current,
            None => Freshness::Stale,
        }
    }

    /// Whether it is worth while to make the index anew beside other work.
    #[must_use]
    pub fn wants_refresh(&self, blobs: &Blobs) -> bool {
        match self.freshness(blobs) {
            Freshness::Stale => true,
            Freshness::Current => false,
            Freshness::Recent => self
                .read_asof()
                .is_none_or(|asof| now_ns() - asof.made_ns > AGAIN_AFTER_NS),
        }
    }

    fn read_asof(&self) -> Option<AsOf> {
        let text = fs::read(self.asof()).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Notes that the index was made at this time of the blobs, or why it could not be.
    ///
    /// # Errors
    /// I/O.
    pub fn note_refresh(&self, changed_ns: i128, failed: Option<String>) -> Result<()> {
        let asof = AsOf {
            changed_ns,
            made_ns: now_ns(),
            failed,
        };
        make_dir(&self.index())?;
        let path = self.asof();
        let doing = || format!("Cannot write {}", path.display());
        let aside = path.with_extension(std::process::id().to_string());
        let text = serde_json::to_vec(&asof).doing(doing())?;
        fs::File::create(&aside)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&aside, &path))
            .doing(doing())
    }

    /// The right to refresh; waits for one that is at work. It ends with the process.
    ///
    /// # Errors
    /// I/O.
    pub fn begin_refresh(&self) -> Result<Refreshing> {
        let doing = || format!("Cannot lock {}", self.lock_file().display());
        let file = OwnedFd::from(self.open_lock().doing(doing())?);
        Flock::lock(file, FlockArg::LockExclusive)
            .map(Refreshing)
            .map_err(|(_, e)| Error::because(doing(), &e))
    }

    /// Whether a refresh is at work.
    #[must_use]
    pub fn is_refreshing(&self) -> bool {
        let Ok(file) = self.open_lock() else {
            return false;
        };
        matches!(
            Flock::lock(OwnedFd::from(file), FlockArg::LockSharedNonblock),
            Err((_, Errno::EWOULDBLOCK))
        )
    }

    /// Waits until the index knows everything that is there now: what comes or goes
    /// meanwhile, by the refresh itself or when containerd collects garbage, is not
    /// waited for. `start` begins a refresh when none is at work. `false`: it does not
    /// know at the deadline, or no refresh can be started.
    #[must_use]
    pub fn await_refresh(
        &self,
        blobs: &Blobs,
        at_most: Duration,
        mut start: impl FnMut() -> bool,
    ) -> bool {
        let (begun, begun_ns) = (Instant::now(), now_ns());
        let Some(changed_ns) = blobs.changed_ns() else {
            return true;
        };
        // A later time that was noted before is of a clock that was set back.
        let knows = |asof: AsOf| {
            asof.changed_ns == changed_ns
                || (asof.changed_ns > changed_ns && asof.made_ns >= begun_ns)
        };
        let mut started: Option<Instant> = None;
        while !self.read_asof().is_some_and(knows) {
            if begun.elapsed() >= at_most {
                return false;
            }
            if !self.is_refreshing() && started.is_none_or(|at| at.elapsed() > STARTS_WITHIN) {
                if !start() {
                    return false;
                }
                started = Some(Instant::now());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }

    fn open_lock(&self) -> io::Result<fs::File> {
        make_dir(&self.index()).map_err(io::Error::other)?;
        fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.lock_file())
    }

    fn asof(&self) -> PathBuf {
        self.index().join(".asof")
    }

    fn lock_file(&self) -> PathBuf {
        self.index().join(".lock")
    }
}

/// The right to refresh, given back when dropped.
#[derive(Debug)]
pub struct Refreshing(#[expect(dead_code, reason = "held, and never read")] Flock<OwnedFd>);

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(options: &[&str]) -> [RootfsMount; 1] {
        let options = options.iter().map(ToString::to_string).collect();
        [RootfsMount::overlay(options)]
    }

    #[test]
    fn blobs_are_found_by_the_layers() {
        let root = "/var/lib/containerd";
        let snapshots = format!("{root}/io.containerd.snapshotter.v1.overlayfs/snapshots");
        let blobs = Some(Blobs::below(Path::new(root)));
        let lower = format!("lowerdir={snapshots}/3/fs:{snapshots}/1/fs");
        assert_eq!(Blobs::behind(&overlay(&["index=off", &lower])), blobs);
        assert_eq!(Blobs::behind(&overlay(&["lowerdir=/mnt/x/3/fs"])), None);
        assert_eq!(Blobs::behind(&overlay(&[])), None);
        assert_eq!(Blobs::behind(&[]), None);
    }

    #[test]
    fn a_blob_that_comes_makes_the_index_stale() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(&dir.path().join("lib"));
        let blobs = Blobs::below(dir.path());
        // Nothing there, nothing to wait for.
        assert_eq!(store.freshness(&blobs), Freshness::Current);
        fs::create_dir_all(&blobs.0).unwrap();
        assert_eq!(store.freshness(&blobs), Freshness::Stale);
        store
            .note_refresh(blobs.changed_ns().unwrap(), None)
            .unwrap();
        assert_eq!(store.freshness(&blobs), Freshness::Recent);
        let long_ago = fs::FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(9));
        fs::File::open(&blobs.0)
            .unwrap()
            .set_times(long_ago)
            .unwrap();
        assert_eq!(store.freshness(&blobs), Freshness::Stale);
        let soon = Duration::from_millis(20);
        let mut started = 0;
        assert!(!store.await_refresh(&blobs, soon, || {
            started += 1;
            true
        }));
        assert_eq!(started, 1);
        assert!(!store.await_refresh(&blobs, Duration::from_secs(60), || false));
        store.note_refresh(9_000_000_000, None).unwrap();
        assert_eq!(store.freshness(&blobs), Freshness::Current);
        fs::write(blobs.0.join("a"), "blob").unwrap();
        assert_eq!(store.freshness(&blobs), Freshness::Stale);
        let failed = Some("nobody serves it".to_owned());
        store
            .note_refresh(blobs.changed_ns().unwrap(), failed)
            .unwrap();
        assert_eq!(store.freshness(&blobs), Freshness::Recent);
        fs::write(store.asof(), "{").unwrap();
        assert_eq!(store.freshness(&blobs), Freshness::Stale);
    }

    #[test]
    fn what_changes_while_one_waits_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(&dir.path().join("lib"));
        let blobs = Blobs::below(dir.path());
        fs::create_dir_all(&blobs.0).unwrap();
        let known = store.await_refresh(&blobs, Duration::from_secs(60), || {
            // A refresh that has a blob written itself.
            let changed_ns = blobs.changed_ns().unwrap();
            fs::write(blobs.0.join("a"), "blob").unwrap();
            store.note_refresh(changed_ns, None).unwrap();
            true
        });
        assert!(known);
    }

    #[test]
    fn one_refreshes_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        assert!(!store.is_refreshing());
        let refreshing = store.begin_refresh().unwrap();
        assert!(store.is_refreshing());
        drop(refreshing);
        assert!(!store.is_refreshing());
    }
}
