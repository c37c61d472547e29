//! Where a mount goes: found or made inside the container's root, one step at a
//! time, every step on a descriptor.
//!
//! No step follows a link by itself: links are read, and their text is taken as
//! a path inside the root. So neither a link of the image nor a neighbour who
//! swaps directories of a shared volume leads out of the root, and what is missing
//! behind a dangling link is made where the container will look for it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::sys;

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// The root of every procfs, where `self` is.
const PROC_ROOT_INO: u64 = 1;

type Sys<T> = std::result::Result<T, Errno>;

/// What is made where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Missing {
    Directory,
    File,
}

/// Something in the container's root.
#[derive(Debug)]
pub(in crate::worker) struct Place {
    /// `O_PATH`, what is uppermost there.
    pub(super) fd: OwnedFd,
    /// Inside the root, links resolved.
    pub(super) path: PathBuf,
    /// What was there; `None` when it was made just now.
    pub(super) found: Option<FileStat>,
}

/// Finds `path` in `root`, or makes it.
pub(in crate::worker) fn find_or_make(
    root: BorrowedFd<'_>,
    path: &Path,
    missing: Missing,
) -> Sys<Place> {
    let mut walk = Walk::from(root, path)?;
    let mut found = None;
    while let Some(name) = walk.next_name() {
        found = walk.step(&name, missing)?;
    }
    let path = walk.path();
    let fd = walk.into_here()?;
    Ok(Place { fd, path, found })
}

/// Finds or makes the directory that holds `path`; the name in it. A link there is
/// followed, so that the name is one of no link.
pub(super) fn find_parent(root: BorrowedFd<'_>, path: &Path) -> Sys<(Place, OsString)> {
    let mut walk = Walk::from(root, path)?;
    while let Some(name) = walk.next_name() {
        if !walk.is_last() {
            walk.step(&name, Missing::Directory)?;
            continue;
        }
        if let Ok(there) = open_at(walk.here(), &name)
            && kind(&fstat(there.as_raw_fd())?) == SFlag::S_IFLNK
        {
            walk.follow(&there)?;
            continue;
        }
        let path = walk.path();
        let parent = Place {
            fd: walk.into_here()?,
            path,
            found: None,
        };
        return Ok((parent, name));
    }
    Err(Errno::EINVAL)
}

/// Whether the last step of `path` is a link, the others resolved.
pub(super) fn is_link(root: BorrowedFd<'_>, path: &Path) -> Sys<bool> {
    let Some(name) = path.file_name() else {
        return Ok(false);
    };
    let parent = sys::open_in_root(root, path.parent().unwrap_or(path), OFlag::O_PATH);
    let parent = match parent {
        Err(Errno::ENOENT) => return Ok(false),
        other => other?,
    };
    match open_at(parent.as_fd(), name) {
        Err(Errno::ENOENT) => Ok(false),
        other => Ok(kind(&fstat(other?.as_raw_fd())?) == SFlag::S_IFLNK),
    }
}

/// The type of what a stat tells of.
pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// A walk from the root: the directories on the way to where it stands.
struct Walk<'a> {
    root: BorrowedFd<'a>,
    way: Vec<(OwnedFd, OsString)>,
    left: VecDeque<OsString>,
    links: usize,
}

impl<'a> Walk<'a> {
    fn from(root: BorrowedFd<'a>, path: &Path) -> Sys<Self> {
        if path.as_os_str().as_bytes().contains(&0) {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            root,
            way: Vec::new(),
            left: parts(path).collect(),
            links: 0,
        })
    }

    /// The next step that leads further down.
    fn next_name(&mut self) -> Option<OsString> {
        loop {
            let name = self.left.pop_front()?;
            if name != ".." {
                return Some(name);
            }
            // By what was held, not by `..` of wherever that is by now.
            self.way.pop();
        }
    }

    /// Whether the step that was taken out just now leads to the end.
    fn is_last(&self) -> bool {
        self.left.iter().all(|part| part == "..")
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.way.last().map_or(self.root, |(fd, _)| fd.as_fd())
    }

    fn step(&mut self, name: &OsStr, missing: Missing) -> Sys<Option<FileStat>> {
        let mut made = false;
        let fd = loop {
            match open_at(self.here(), name) {
                // Somebody made it just now, or removes what we make: look again,
                // but not for ever.
                Err(Errno::ENOENT) if !made => {
                    let last = self.is_last();
                    match make(
                        self.here(),
                        name,
                        if last { missing } else { Missing::Directory },
                    ) {
                        Err(Errno::EEXIST) | Ok(()) => made = true,
                        Err(e) => return Err(e),
                    }
                }
                other => break other?,
            }
        };
        let stat = fstat(fd.as_raw_fd())?;
        if kind(&stat) == SFlag::S_IFLNK {
            self.follow(&fd)?;
            return Ok(None);
        }
        self.way.push((fd, name.to_owned()));
        Ok((!made).then_some(stat))
    }

    fn follow(&mut self, link: &OwnedFd) -> Sys<()> {
        self.links += 1;
        // Those of processes lead to where their text does not say, and nobody
        // means to mount there.
        let magic = fstatfs(link)?.filesystem_type() == PROC_SUPER_MAGIC
            && fstat(self.here().as_raw_fd())?.st_ino != PROC_ROOT_INO;
        if magic || self.links > MAX_LINKS {
            return Err(Errno::ELOOP);
        }
        let target = PathBuf::from(readlinkat(Some(link.as_raw_fd()), "")?);
        if target.is_absolute() {
            self.way.clear();
        }
        for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
            self.left.push_front(part);
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        let mut path = PathBuf::from("/");
        path.extend(self.way.iter().map(|(_, name)| name));
        path
    }

    fn into_here(mut self) -> Sys<OwnedFd> {
        match self.way.pop() {
            Some((fd, _)) => Ok(fd),
            None => self
                .root
                .try_clone_to_owned()
                .map_err(|_full| Errno::EMFILE),
        }
    }
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

/// The path without `.` and `..`, by its letters alone.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in parts(path) {
        if part == ".." {
            clean.pop();
        } else {
            clean.push(part);
        }
    }
    clean
}

/// What is uppermost under this name; a link is opened itself.
fn open_at(dir: BorrowedFd<'_>, name: &OsStr) -> Sys<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(Some(dir.as_raw_fd()), name, flags, Mode::empty()).map(sys::own)
}

fn make(dir: BorrowedFd<'_>, name: &OsStr, what: Missing) -> Sys<()> {
    let at = Some(dir.as_raw_fd());
    match what {
        Missing::Directory => mkdirat(at, name, Mode::from_bits_truncate(0o755)),
        Missing::File => {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let file = openat(at, name, flags, Mode::from_bits_truncate(0o644))?;
            drop(sys::own(file));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Root(tempfile::TempDir, std::fs::File);

    impl Root {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let file = std::fs::File::open(dir.path()).unwrap();
            Self(dir, file)
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn make(&self, path: &str, missing: Missing) -> Sys<Place> {
            find_or_make(self.1.as_fd(), Path::new(path), missing)
        }
    }

    #[test]
    fn what_is_missing_is_made() {
        let root = Root::new();
        let place = root.make("/a/b/c", Missing::File).unwrap();
        assert!(place.found.is_none());
        assert_eq!(place.path, Path::new("/a/b/c"));
        assert!(root.at("a/b/c").is_file());
        assert!(
            root.make("/a/b", Missing::Directory)
                .unwrap()
                .found
                .is_some()
        );
        assert_eq!(
            root.make("/a/b/c/d", Missing::File).unwrap_err(),
            Errno::ENOTDIR
        );
    }

    #[test]
    fn links_are_resolved_inside_and_dangling_ones_filled() {
        let root = Root::new();
        std::fs::create_dir(root.at("etc")).unwrap();
        std::fs::create_dir(root.at("var")).unwrap();
        symlink("../run/resolv.conf", root.at("etc/resolv.conf")).unwrap();
        symlink("/run", root.at("var/run")).unwrap();
        symlink("../../../../../../tmp", root.at("out")).unwrap();
        symlink("loop", root.at("loop")).unwrap();
        let place = root.make("/etc/resolv.conf", Missing::File).unwrap();
        assert_eq!(place.path, Path::new("/run/resolv.conf"));
        assert!(root.at("run/resolv.conf").is_file());
        let place = root.make("/var/run/secrets", Missing::Directory).unwrap();
        assert_eq!(place.path, Path::new("/run/secrets"));
        root.make("/out/x-of-reprise", Missing::File).unwrap();
        assert!(root.at("tmp/x-of-reprise").is_file());
        assert!(!Path::new("/tmp/x-of-reprise").exists());
        let looped = root.make("/loop/x", Missing::File).unwrap_err();
        assert_eq!(looped, Errno::ELOOP);
    }

    #[test]
    fn a_link_at_the_end_is_seen() {
        let root = Root::new();
        std::fs::create_dir(root.at("real")).unwrap();
        symlink("real", root.at("proc")).unwrap();
        let is_link = |path: &str| is_link(root.1.as_fd(), Path::new(path)).unwrap();
        assert!(is_link("/proc"));
        assert!(!is_link("/proc/x"));
        assert!(!is_link("/real"));
        assert!(!is_link("/none/at/all"));
    }
}
