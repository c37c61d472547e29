//! Taking files in without copying their data, and bringing them to the disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use reprise_runtime::sys;

/// Links (or copies) every regular file of a directory into another one.
pub(super) fn link_files(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            link_or_copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Links a file, or copies it where links do not reach. The copy shares blocks
/// where the file system can, since std uses `copy_file_range`.
fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::EXDEV | libc::EPERM | libc::EMLINK)
            ) =>
        {
            fs::copy(from, to).map(drop)
        }
        done => done,
    }
}

/// Links everything in a directory into another one, which is there, as [`link_tree`]
/// does.
pub(super) fn link_content(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link_tree(&entry.path(), &target)?;
        } else {
            fs::hard_link(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Makes a tree of the same directories (owner, mode, attributes, times), whose
/// files are links to the same files. Both must be on one file system, as they
/// are within a store: a layer's owners, devices and holes are kept that way.
pub(super) fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    link_content(from, to)?;
    let (source, made) = (File::open(from)?, File::open(to)?);
    let meta = source.metadata()?;
    chown(to, Some(meta.uid()), Some(meta.gid()))?;
    made.set_permissions(fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    sys::copy_xattrs(&source, &made)?;
    made.set_times(
        fs::FileTimes::new()
            .set_accessed(meta.accessed()?)
            .set_modified(meta.modified()?),
    )
}

/// Brings a file or directory to the disk.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?
        .sync_all()
}

/// Brings a tree to the disk: its regular files, then the directories. Devices,
/// pipes and links live in their directories.
pub(super) fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            sync(&entry.path())?;
        }
    }
    sync(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn inode(path: &Path) -> u64 {
        fs::symlink_metadata(path).unwrap().ino()
    }

    #[test]
    fn images_and_layers_are_taken_in_as_links() {
        let dir = tempfile::tempdir().unwrap();
        let (from, images) = (dir.path().join("dump"), dir.path().join("images"));
        fs::create_dir_all(from.join("no-image")).unwrap();
        fs::create_dir(&images).unwrap();
        fs::write(from.join("core-1.img"), "core").unwrap();
        link_files(&from, &images).unwrap();
        assert!(!images.join("no-image").exists());
        let name = "core-1.img";
        assert_eq!(inode(&from.join(name)), inode(&images.join(name)));

        let (layer, taken) = (dir.path().join("layer"), dir.path().join("taken"));
        fs::create_dir_all(layer.join("etc")).unwrap();
        fs::write(layer.join("etc/a"), "a").unwrap();
        symlink("/nowhere", layer.join("etc/link")).unwrap();
        fs::set_permissions(layer.join("etc"), fs::Permissions::from_mode(0o1751)).unwrap();
        link_tree(&layer, &taken).unwrap();
        assert_eq!(inode(&layer.join("etc/a")), inode(&taken.join("etc/a")));
        assert!(fs::read_link(taken.join("etc/link")).is_ok());
        let mode = fs::metadata(taken.join("etc"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o1751);
        sync_tree(&taken).unwrap();
    }
}
