//! What is made read-only or hidden once everything is mounted: the root itself,
//! `readonlyPaths`, `maskedPaths`.
//!
//! Links are followed, so that what they lead to is covered and not the link.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, makedev};
use oci_spec::runtime::Spec;

use super::options::Options;
use super::{attach, place, read_only};
use crate::sys;
use crate::worker::executor::{Inside, words};

/// What of the container's tree is covered.
#[derive(Debug)]
pub(super) struct Plan {
    read_only_root: bool,
    read_only: Vec<String>,
    masked: Vec<String>,
    label: Option<String>,
}

impl Plan {
    pub(super) fn of(spec: &Spec, label: Option<String>) -> Self {
        let linux = spec.linux().as_ref();
        let root = spec.root().as_ref();
        Self {
            read_only_root: root
                .and_then(oci_spec::runtime::Root::readonly)
                .unwrap_or(false),
            read_only: linux
                .and_then(|l| l.readonly_paths().clone())
                .unwrap_or_default(),
            masked: linux
                .and_then(|l| l.masked_paths().clone())
                .unwrap_or_default(),
            label,
        }
    }

    /// Covers all of it, inside the container's root, which `root` is.
    pub(super) fn apply(&self, root: &OwnedFd) -> Inside<()> {
        if self.read_only_root {
            sys::mount_setattr(root.as_fd(), false, &read_only())
                .map_err(|e| format!("error setting rootfs as readonly: {}", words(e)))?;
        }
        for path in &self.read_only {
            make_read_only(root.as_fd(), Path::new(path))
                .map_err(|e| format!("can't make {path:?} read-only: {}", words(e)))?;
        }
        if self.masked.is_empty() {
            return Ok(());
        }
        let mut masks = Masks::open(root.as_fd(), self.label.clone())?;
        let mut seen = BTreeSet::new();
        let paths = self.masked.iter();
        for path in paths.filter(|path| seen.insert(place::clean(Path::new(path)))) {
            masks
                .put(root.as_fd(), Path::new(path))
                .map_err(|e| format!("can't mask path {path:?}: {}", words(e)))?;
        }
        Ok(())
    }
}

fn make_read_only(root: BorrowedFd<'_>, path: &Path) -> std::result::Result<(), Errno> {
    let Some(place) = find(root, path)? else {
        return Ok(());
    };
    // What is put on top of the root itself is seen by nobody who is in it.
    if sys::mount_point(place.as_fd())? == sys::mount_point(root)? && is_same(&place, root)? {
        return sys::mount_setattr(root, false, &read_only());
    }
    if is_own_program(&place)? {
        return Ok(());
    }
    let copy = sys::clone_mount(place.as_fd(), true)?;
    sys::mount_setattr(copy.as_fd(), false, &read_only())?;
    sys::move_mount(copy.as_fd(), place.as_raw_fd(), Path::new(""))
}

/// What a path leads to, if to anything. `root` is the root of this process.
fn find(root: BorrowedFd<'_>, path: &Path) -> std::result::Result<Option<OwnedFd>, Errno> {
    let found = match sys::open_in_root(root, path, OFlag::O_PATH) {
        // By a link in a process's directory: that one cannot be followed within a
        // root. Where it leads out of the container's tree, nothing can be attached.
        Err(Errno::EXDEV) => {
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            nix::fcntl::open(path, flags, Mode::empty()).map(sys::own)
        }
        found => found,
    };
    match found {
        Err(Errno::ENOENT) => Ok(None),
        found => found.map(Some),
    }
}

fn is_same(one: &OwnedFd, other: BorrowedFd<'_>) -> std::result::Result<bool, Errno> {
    let (one, other) = (fstat(one.as_raw_fd())?, fstat(other.as_raw_fd())?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Whether this is our program, sealed already: `/proc/self/exe` until execve.
fn is_own_program(place: &OwnedFd) -> std::result::Result<bool, Errno> {
    match nix::fcntl::open(
        "/proc/self/exe",
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    ) {
        Ok(own) => is_same(place, sys::own(own).as_fd()),
        Err(_no_proc) => Ok(false),
    }
}

/// What hides a path: `/dev/null` a file, an empty directory a directory.
struct Masks {
    null: OwnedFd,
    label: Option<String>,
    directory: Option<OwnedFd>,
}

impl Masks {
    fn open(root: BorrowedFd<'_>, label: Option<String>) -> Inside<Self> {
        let null = sys::open_in_root(root, Path::new("/dev/null"), OFlag::O_PATH)
            .and_then(|null| Ok((fstat(null.as_raw_fd())?, null)))
            .map_err(|e| format!("can't mask paths: open /dev/null: {}", words(e)))?;
        // Anything else there would be put in the place of what must not be read
        // or written (CVE-2025-31133).
        if !is_null(&null.0) {
            return Err("can't mask paths: container's /dev/null is invalid".to_owned());
        }
        Ok(Self {
            null: null.1,
            label,
            directory: None,
        })
    }

    fn put(&mut self, root: BorrowedFd<'_>, path: &Path) -> std::result::Result<(), Errno> {
        let Some(place) = find(root, path)? else {
            return Ok(());
        };
        let is_dir = place::kind(&fstat(place.as_raw_fd())?) == SFlag::S_IFDIR;
        let mask = if is_dir {
            self.empty_directory()?
        } else {
            sys::clone_mount(self.null.as_fd(), false)?
        };
        sys::move_mount(mask.as_fd(), place.as_raw_fd(), Path::new(""))
    }

    /// All masked directories are one and the same.
    fn empty_directory(&mut self) -> std::result::Result<OwnedFd, Errno> {
        if let Some(first) = &self.directory {
            return sys::clone_mount(first.as_fd(), false);
        }
        let made = self
            .new_directory("1")
            .or_else(|_old_ubuntu| self.new_directory("2"))?;
        self.directory = Some(made.try_clone().map_err(|_full| Errno::EMFILE)?);
        Ok(made)
    }

    fn new_directory(&self, inodes: &str) -> std::result::Result<OwnedFd, Errno> {
        attach::new("tmpfs", "tmpfs", &mask(inodes), self.label.as_deref())
    }
}

/// How a masked directory's cover is made.
pub(super) fn mask(inodes: &str) -> Options {
    let mut options = Options::only(MsFlags::MS_RDONLY);
    options.data = vec!["nr_blocks=1".to_owned(), format!("nr_inodes={inodes}")];
    options
}

/// Standard input and outputs that are the node's `/dev/null` become the
/// container's. With a `/dev` that is the container's own, that must be one.
pub(super) fn reopen_null(own_dev: bool) -> Inside<()> {
    let told = |e: Errno| format!("error reopening /dev/null inside container: {}", words(e));
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let opened = nix::fcntl::open("/dev/null", flags, Mode::empty())
        .map(sys::own)
        .and_then(|null| Ok((fstat(null.as_raw_fd())?, null)));
    let null = match opened {
        Ok((stat, null)) if is_null(&stat) => null,
        Ok(_) if own_dev => {
            return Err(
                "error reopening /dev/null inside container: container's /dev/null is invalid"
                    .to_owned(),
            );
        }
        Err(e) if own_dev => return Err(told(e)),
        _ => return Ok(()),
    };
    for fd in 0..3 {
        if is_null(&fstat(fd).map_err(told)?) {
            nix::unistd::dup2(null.as_raw_fd(), fd).map_err(told)?;
        }
    }
    Ok(())
}

fn is_null(stat: &FileStat) -> bool {
    place::kind(stat) == SFlag::S_IFCHR && stat.st_rdev == makedev(1, 3)
}
