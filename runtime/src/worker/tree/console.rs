//! The console of a container's first process: a terminal of its own devpts.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::{Mode, SFlag, fstat, major, minor};
use nix::sys::statfs::{FsType, fstatfs};

use super::place;
use crate::sys;
use crate::worker::executor::{Inside, words};

const DEVPTS_SUPER_MAGIC: FsType = FsType(0x1cd1);

/// Makes a terminal, sends its master over `socket`, and makes the slave the
/// controlling terminal, standard input and outputs, and `/dev/console`.
pub(super) fn set_up(root: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> Inside<()> {
    let told = |e: Errno| format!("cannot set up the console: {}", words(e));
    let master = open_master(root)?;
    sys::unlock_terminal(master.as_fd()).map_err(told)?;
    let slave = sys::open_terminal_peer(master.as_fd()).map_err(told)?;
    mount_console(root, &slave)?;
    let fds = [master.as_raw_fd()];
    let message = [IoSlice::new(b"/dev/ptmx")];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &message,
        &rights,
        MsgFlags::empty(),
        None,
    )
    .map_err(told)?;
    sys::set_controlling_terminal(slave.as_fd()).map_err(told)?;
    for fd in 0..3 {
        nix::unistd::dup2(slave.as_raw_fd(), fd).map_err(told)?;
    }
    Ok(())
}

/// The real `/dev/pts/ptmx` of a real devpts: an image may have put anything there
/// (CVE-2025-52565).
fn open_master(root: BorrowedFd<'_>) -> Inside<OwnedFd> {
    let path = Path::new("/dev/pts/ptmx");
    let told = |e: Errno| format!("open {}: {}", path.display(), words(e));
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    // O_PATH first: what is opened for good must be known to be the device.
    let found = sys::open_in_root(root, path, OFlag::O_PATH | OFlag::O_NOFOLLOW).map_err(told)?;
    let stat = fstat(found.as_raw_fd()).map_err(told)?;
    let fs = fstatfs(found.as_fd()).map_err(told)?.filesystem_type();
    let real = fs == DEVPTS_SUPER_MAGIC
        && stat.st_ino == 2
        && place::kind(&stat) == SFlag::S_IFCHR
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (5, 2);
    if !real {
        return Err("verify ptmx handle: it is not on a real devpts mount".to_owned());
    }
    let master = sys::open_in_root(root, path, flags - OFlag::O_NONBLOCK).map_err(told)?;
    let again = fstat(master.as_raw_fd()).map_err(told)?;
    if (again.st_dev, again.st_ino) != (stat.st_dev, stat.st_ino) {
        return Err("verify ptmx handle: it was replaced".to_owned());
    }
    Ok(master)
}

fn mount_console(root: BorrowedFd<'_>, slave: &OwnedFd) -> Inside<()> {
    let told = |e: Errno| format!("create /dev/console mount target: {}", words(e));
    let dev = sys::open_in_root(root, Path::new("/dev"), OFlag::O_PATH).map_err(told)?;
    let flags = OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let mode = Mode::from_bits_truncate(0o666);
    let file = openat(Some(dev.as_raw_fd()), "console", flags, mode).map_err(told)?;
    let file = sys::own(file);
    sys::clone_mount(slave.as_fd(), false)
        .and_then(|tree| sys::move_mount(tree.as_fd(), file.as_raw_fd(), Path::new("")))
        .map_err(|e| format!("cannot mount the console on /dev/console: {}", words(e)))
}
