//! `tmpcopyup`: a tmpfs that starts with what the image has in its place.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstat, fstatat, mkdirat,
    mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use super::place::kind;
use crate::sys;
use crate::worker::executor::words;

/// Copies what is in the directory `from` to the directory `to`. `from` may be a
/// file, then there is nothing to copy.
pub(super) fn fill(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), String> {
    let failed = |e: Errno| words(e);
    if kind(&fstat(from.as_raw_fd()).map_err(failed)?) != SFlag::S_IFDIR {
        return Ok(());
    }
    let readable = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let from = open(from, OsStr::new("."), readable).map_err(failed)?;
    let to = open(to, OsStr::new("."), readable).map_err(failed)?;
    copy_all(&from, &to)
}

fn copy_all(from: &OwnedFd, to: &OwnedFd) -> Result<(), String> {
    let list = from.try_clone().map_err(|e| e.to_string())?;
    let mut list = Dir::from(list).map_err(words)?;
    for entry in list.iter() {
        let entry = entry.map_err(words)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            copy_one(from, to, name).map_err(|e| format!("{}: {e}", name.display()))?;
        }
    }
    Ok(())
}

fn copy_one(from: &OwnedFd, to: &OwnedFd, name: &OsStr) -> Result<(), String> {
    let (here, there) = (Some(from.as_raw_fd()), Some(to.as_raw_fd()));
    let stat = fstatat(here, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(words)?;
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
    match kind(&stat) {
        SFlag::S_IFDIR => {
            mkdirat(there, name, Mode::S_IRWXU).map_err(words)?;
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            let inner = open(from.as_fd(), name, flags).map_err(words)?;
            let made = open(to.as_fd(), name, flags).map_err(words)?;
            copy_all(&inner, &made)?;
        }
        SFlag::S_IFREG => copy_file(from, to, name)?,
        SFlag::S_IFLNK => {
            let target = readlinkat(here, name).map_err(words)?;
            symlinkat(target.as_os_str(), there, name).map_err(words)?;
        }
        special => mknodat(there, name, special, mode, stat.st_rdev).map_err(words)?,
    }
    keep(to, name, &stat, mode).map_err(words)
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &OsStr) -> Result<(), String> {
    let inner = open(from.as_fd(), name, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map_err(words)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let made = open(to.as_fd(), name, flags).map_err(words)?;
    std::io::copy(&mut File::from(inner), &mut File::from(made))
        .map(drop)
        .map_err(|e| e.to_string())
}

/// Owner, mode and times.
fn keep(dir: &OwnedFd, name: &OsStr, stat: &FileStat, mode: Mode) -> Result<(), Errno> {
    let at = Some(dir.as_raw_fd());
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(at, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if kind(stat) != SFlag::S_IFLNK {
        fchmodat(at, name, mode, FchmodatFlags::FollowSymlink)?;
    }
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(
        at,
        name,
        &accessed,
        &modified,
        UtimensatFlags::NoFollowSymlink,
    )
}

fn open(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlag) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(
        Some(dir.as_raw_fd()),
        name,
        flags,
        Mode::S_IRUSR | Mode::S_IWUSR,
    )
    .map(sys::own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn everything_comes_along() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |path: &str| from.path().join(path);
        std::fs::create_dir(at("dir")).unwrap();
        std::fs::write(at("dir/file"), "content").unwrap();
        let mode = std::fs::Permissions::from_mode(0o4755);
        std::fs::set_permissions(at("dir/file"), mode).unwrap();
        symlink("/nowhere", at("link")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        let open = |dir: &tempfile::TempDir| File::open(dir.path()).unwrap();
        fill(open(&from).as_fd(), open(&to).as_fd()).unwrap();
        let made = |path: &str| std::fs::symlink_metadata(to.path().join(path)).unwrap();
        assert_eq!(made("dir/file").mode() & 0o7777, 0o4755);
        assert_eq!(
            made("dir/file").mtime(),
            at("dir/file").metadata().unwrap().mtime()
        );
        assert_eq!(
            std::fs::read(to.path().join("dir/file")).unwrap(),
            b"content"
        );
        assert_eq!(
            std::fs::read_link(to.path().join("link"))
                .unwrap()
                .as_os_str(),
            "/nowhere"
        );
        assert_eq!(made("fifo").mode() & libc::S_IFMT, libc::S_IFIFO);
    }
}
