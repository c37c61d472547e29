//! Copies that belong to a checkpoint: a writable layer, the pod's shared memory.
//!
//! GNU cp and tar do it: both keep owners, modes, times, hard links, holes,
//! device nodes (whiteouts are 0:0 character devices) and extended attributes
//! (`trusted.overlay.opaque`), and cp shares blocks where the file system can.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::error::{Doing, Error, Result};

/// Copies directory `from` to `to`, which must not exist.
pub(super) fn directory(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    copy.args([
        "--archive",
        "--sparse=auto",
        "--reflink=auto",
        "--no-target-directory",
        "--",
    ]);
    let copied = run(copy.arg(from).arg(to), "copy the writable layer");
    if copied.is_err() {
        // What was copied so far is of no use, and a failure to remove it is
        // less telling than the one that is returned.
        std::fs::remove_dir_all(to).ok();
    }
    copied
}

/// Packs what is in `from` into the tar `to`. Says whether there was anything.
pub(super) fn pack(from: &Path, to: &Path) -> Result<bool> {
    // By name and not as a whole: the directory itself belongs to the pod.
    let names: Vec<OsString> = names_in(from)?.iter().map(prefixed).collect();
    if names.is_empty() {
        return Ok(false);
    }
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sparse", "--numeric-owner", "--file"])
        .arg(to);
    tar.arg("--directory").arg(from).args(names);
    run(&mut tar, "save /dev/shm")?;
    Ok(true)
}

/// All of `dir` as a compressed tar, as CRIU saves a tmpfs.
pub(super) fn pack_all(dir: &Path) -> Result<Vec<u8>> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--no-unquote", "--numeric-owner"]);
    tar.arg("--directory").arg(dir).arg(".");
    output(&mut tar, "pack a file system")
}

/// Unpacks `from` below `to`. A file that is there already belongs to another
/// container of the pod, and is an error.
pub(super) fn unpack(from: &Path, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args([
        "--extract",
        "--sparse",
        "--numeric-owner",
        "--preserve-permissions",
    ]);
    tar.args(["--keep-old-files", "--file"]).arg(from);
    run(tar.arg("--directory").arg(to), "put /dev/shm back")
}

/// A name that tar cannot take for an option.
fn prefixed(name: &OsString) -> OsString {
    let mut path = OsString::from("./");
    path.push(name);
    path
}

/// The names in a directory.
pub(super) fn names_in(dir: &Path) -> Result<BTreeSet<OsString>> {
    let entries = std::fs::read_dir(dir).doing(format!("Cannot list {}", dir.display()))?;
    Ok(entries.flatten().map(|entry| entry.file_name()).collect())
}

fn run(command: &mut Command, doing: &str) -> Result<()> {
    output(command, doing).map(drop)
}

/// What a command that succeeds prints.
fn output(command: &mut Command, doing: &str) -> Result<Vec<u8>> {
    let output = command
        .stdin(std::process::Stdio::null())
        .output()
        .doing(format!(
            "Cannot {doing}: cannot run {}",
            command.get_program().display()
        ))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let mut error = Error::internal(format!(
        "Cannot {doing}: {}",
        said.lines().next().unwrap_or("no reason given")
    ));
    error.detail = said.lines().map(str::to_owned).collect();
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    use std::os::unix::fs::{FileExt, MetadataExt};

    fn attribute(arguments: &[&str], file: &Path) -> String {
        let script = "import os,sys; a=sys.argv\nif len(a)>2: os.setxattr(a[1],a[2],b'y')\nelse: print(os.listxattr(a[1]))";
        let output = Command::new("python3")
            .args(["-c", script])
            .arg(file)
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_writable_layer_is_copied_as_it_is() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let from = dir.path().join("from");
        std::fs::create_dir_all(from.join("opaque")).unwrap();
        attribute(&["trusted.overlay.opaque"], &from.join("opaque"));
        mknod(
            &from.join("gone"),
            SFlag::S_IFCHR,
            Mode::empty(),
            makedev(0, 0),
        )
        .unwrap();
        let sparse = std::fs::File::create(from.join("sparse")).unwrap();
        sparse.write_at(b"end", 64 << 20).unwrap();
        std::fs::hard_link(from.join("sparse"), from.join("again")).unwrap();
        std::os::unix::fs::symlink("/nowhere", from.join("link")).unwrap();
        let to = dir.path().join("to");
        directory(&from, &to).unwrap();
        let stat = |name: &str| std::fs::symlink_metadata(to.join(name)).unwrap();
        assert_eq!(
            (stat("gone").rdev(), stat("gone").mode() & 0o170_000),
            (0, 0o020_000)
        );
        assert!(stat("sparse").blocks() * 512 < 1 << 20);
        assert_eq!(stat("sparse").ino(), stat("again").ino());
        assert!(stat("link").is_symlink());
        if attribute(&[], &from.join("opaque")).contains("trusted.overlay.opaque") {
            assert!(attribute(&[], &to.join("opaque")).contains("trusted.overlay.opaque"));
        }
        directory(&from.join("missing"), &dir.path().join("other")).unwrap_err();
        assert!(!dir.path().join("other").exists());
    }

    #[test]
    fn shared_memory_is_packed_and_unpacked_but_never_over_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to, tar) = (
            dir.path().join("a"),
            dir.path().join("b"),
            dir.path().join("t"),
        );
        std::fs::create_dir(&from).unwrap();
        std::fs::create_dir(&to).unwrap();
        assert!(!pack(&from, &tar).unwrap());
        std::fs::write(from.join("sem.x"), "1").unwrap();
        assert!(pack(&from, &tar).unwrap());
        unpack(&tar, &to).unwrap();
        assert_eq!(std::fs::read(to.join("sem.x")).unwrap(), b"1");
        assert!(unpack(&tar, &to).is_err());
    }
}
