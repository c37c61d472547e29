//! What is put right inside the container before its process may start.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Gid, Uid, chdir, fchown};
use oci_spec::runtime::{Process, User};

use super::{Inside, words};
use crate::sys;
use crate::worker::userns::Joined;

/// Closes directories and files that libcontainer or we left open: they lead out
/// of the container (CVE-2024-21626), and a path like `/proc/self/fd/7` is
/// resolved before execve closes anything. Sockets and pipes are still needed, and
/// memfds, which have no name, lead nowhere.
pub(super) fn close_strays(keep: &[i32]) {
    const FAR_ENOUGH: i32 = 256;
    for fd in (3..FAR_ENOUGH).filter(|fd| !keep.contains(fd)) {
        let Ok(stat) = fstat(fd) else { continue };
        let channel = matches!(stat.st_mode & libc::S_IFMT, libc::S_IFSOCK | libc::S_IFIFO);
        if !channel && stat.st_nlink > 0 {
            nix::unistd::close(fd).ok();
        }
    }
}

/// A session keyring of the container's own, named as runc names it.
pub(in crate::worker) fn join_keyring(
    id: &str,
    is_init: bool,
    in_user_namespace: bool,
) -> Inside<()> {
    match sys::join_session_keyring(&format!("_ses.{id}")) {
        Ok(ring) if is_init => sys::allow_keyring_search(ring, in_user_namespace)
            .map_err(|e| format!("unable to mod keyring permissions: {}", words(e))),
        // No keyrings in this kernel, or a filter around us that forbids them.
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(e) => Err(format!("unable to join session keyring: {}", words(e))),
    }
}

/// The console's first size.
pub(super) fn window_size(process: &Process) {
    if let (Some(true), Some(size)) = (process.terminal(), process.console_size()) {
        let cells = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        sys::set_window_size(sys::borrow(0), cells(size.height()), cells(size.width())).ok();
    }
}

/// Enters the container's user namespace as its root. Stdio changes hands before:
/// inside, nobody owns what belongs to root of the node.
pub(super) fn enter_user_namespace(userns: &Joined, user: &User) -> Inside<()> {
    if let Some(uid) = userns.outside(user.uid()) {
        own_stdio(uid)?;
    }
    userns
        .enter()
        .map_err(|e| format!("unable to enter the user namespace: {}", words(e)))
}

/// Gives stdio to the user, so that it can open `/dev/stdout` again.
pub(super) fn own_stdio(uid: u32) -> Inside<()> {
    let null = std::fs::metadata("/dev/null").map_or(0, |meta| meta.rdev());
    for fd in 0..3 {
        let stat = fstat(fd).map_err(|e| format!("cannot stat descriptor {fd}: {}", words(e)))?;
        if stat.st_uid == uid || stat.st_rdev == null {
            continue;
        }
        match fchown(
            fd,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(stat.st_gid)),
        ) {
            // A user that has no number here, or a file of somebody else's.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => {}
            Err(e) => return Err(format!("cannot chown descriptor {fd}: {}", words(e))),
        }
    }
    Ok(())
}

/// Makes the working directory, if it is missing.
pub(in crate::worker) fn make_cwd(cwd: &Path) -> Inside<()> {
    if std::fs::metadata(cwd).is_ok_and(|meta| meta.is_dir()) {
        return Ok(());
    }
    let mut so_far = PathBuf::from("/");
    for part in cwd.components() {
        match part {
            Component::Normal(name) => so_far.push(name),
            Component::ParentDir => drop(so_far.pop()),
            _ => continue,
        }
        match nix::unistd::mkdir(&so_far, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {}
            Err(_) if std::fs::metadata(&so_far).is_ok_and(|meta| meta.is_dir()) => {}
            Err(e) => {
                // What is there is no directory.
                let e = if e == Errno::EEXIST {
                    Errno::ENOTDIR
                } else {
                    e
                };
                return Err(format!("mkdir {}: {}", so_far.display(), words(e)));
            }
        }
    }
    Ok(())
}

/// Enters the working directory. True when only the user may enter it.
pub(super) fn enter_cwd(cwd: &Path) -> Inside<bool> {
    match chdir(cwd) {
        Ok(()) => Ok(false),
        Err(Errno::EACCES | Errno::EPERM) => Ok(true),
        Err(e) => Err(cannot_enter(cwd, e)),
    }
}

/// Enters the working directory with the user's rights.
pub(super) fn enter_cwd_as_user(cwd: &Path) -> Inside<()> {
    chdir(cwd).map_err(|e| cannot_enter(cwd, e))
}

fn cannot_enter(cwd: &Path, e: Errno) -> String {
    let words = words(e);
    format!("chdir to cwd ({cwd:?}) set in config.json failed: {words}")
}

/// The working directory must be inside the container.
pub(super) fn verify_cwd() -> Inside<()> {
    match nix::unistd::getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        Err(Errno::EACCES) => Ok(()),
        _ => Err(
            "current working directory is outside of container mount namespace root -- \
                  possible container breakout detected"
                .to_owned(),
        ),
    }
}

/// The environment: of a name given twice the last one, and HOME when missing.
pub(super) fn environment(process: &Process) -> Inside<Vec<String>> {
    let mut seen = std::collections::HashSet::new();
    let mut env = Vec::new();
    for entry in process.env().iter().flatten().rev() {
        let Some((key, _)) = entry.split_once('=') else {
            return Err("invalid environment variable: missing '='".to_owned());
        };
        if key.is_empty() {
            return Err("invalid environment variable: name cannot be empty".to_owned());
        }
        if entry.contains('\0') {
            return Err(format!(
                "invalid environment variable {key:?}: contains nul byte (\\x00)"
            ));
        }
        if seen.insert(key) {
            env.push(entry.clone());
        }
    }
    env.reverse();
    if !env.iter().any(|e| e.starts_with("HOME=") && e.len() > 5) {
        env.retain(|e| !e.starts_with("HOME="));
        env.push(format!("HOME={}", home(process.user().uid())));
    }
    Ok(env)
}

/// The home directory in the image's own user table, read as a plain file.
fn home(uid: u32) -> String {
    const MOST: u64 = 4 << 20;
    let mut table = String::new();
    let file = std::fs::File::options()
        .read(true)
        // A fifo there must not stop us.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open("/etc/passwd");
    if let Ok(file) = file {
        let regular =
            fstat(file.as_raw_fd()).is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFREG);
        if regular && file.take(MOST).read_to_string(&mut table).is_err() {
            table.clear();
        }
    }
    home_in(&table, uid).unwrap_or_else(|| "/".to_owned())
}

fn home_in(table: &str, uid: u32) -> Option<String> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let found = fields.get(2)?.parse() == Ok(uid);
        let home = fields.get(5).filter(|home| !home.is_empty())?;
        found.then(|| (*home).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(env: &[&str]) -> Process {
        let mut process = Process::default();
        process.set_env(Some(env.iter().map(|e| (*e).to_owned()).collect()));
        process
    }

    #[test]
    fn the_last_value_of_a_name_counts() {
        let env = environment(&process(&["A=1", "HOME=/x", "A=2=3"])).unwrap();
        assert_eq!(env, ["HOME=/x", "A=2=3"]);
    }

    #[test]
    fn broken_entries_are_refused_not_panicked_at() {
        assert!(environment(&process(&["=x"])).is_err());
        assert!(environment(&process(&["x"])).is_err());
    }

    #[test]
    fn home_comes_from_the_table() {
        let table = "root:x:0:0:root:/root:/bin/sh\nbroken\nuser:x:1000:1000::/home/u:/bin/sh\n";
        assert_eq!(home_in(table, 1000).as_deref(), Some("/home/u"));
        assert_eq!(home_in(table, 0).as_deref(), Some("/root"));
        assert_eq!(home_in(table, 5), None);
    }
}
