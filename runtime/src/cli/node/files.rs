//! Files that change as a whole or not at all, and what was there before.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use reprise_runtime::Result;
use reprise_runtime::error::Doing;
use serde::{Deserialize, Serialize};

/// What was at a path before Reprise came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Before {
    /// Nothing.
    Absent,
    /// A symbolic link.
    Link {
        /// Where it led.
        target: PathBuf,
    },
    /// A file, of which a copy is kept.
    File {
        /// Its permissions.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// The copy's name in the directory of the record.
        kept: String,
    },
}

impl Before {
    /// Looks at `path`; a file is copied into `keep` as `name`.
    ///
    /// # Errors
    /// I/O, or something that is neither file nor link.
    pub(super) fn look(path: &Path, keep: &Path, name: &str) -> Result<Self> {
        let doing = || format!("Cannot keep what is at {}", path.display());
        let about = match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::Absent),
            about => about.doing(doing())?,
        };
        if about.is_symlink() {
            let target = fs::read_link(path).doing(doing())?;
            return Ok(Self::Link { target });
        }
        let bytes = fs::read(path).doing(doing())?;
        write(&keep.join(name), &bytes, 0o600, None)?;
        Ok(Self::File {
            mode: about.mode() & 0o7777,
            uid: about.uid(),
            gid: about.gid(),
            kept: name.to_owned(),
        })
    }

    /// Whether it is so.
    pub(super) fn is_at(&self, path: &Path, keep: &Path) -> bool {
        match self {
            Self::Absent => fs::symlink_metadata(path).is_err(),
            Self::Link { target } => fs::read_link(path).is_ok_and(|there| there == *target),
            Self::File { kept, .. } => match (fs::read(path), fs::read(keep.join(kept))) {
                (Ok(there), Ok(kept)) => there == kept,
                _ => false,
            },
        }
    }

    /// Makes it so again.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn put_back(&self, path: &Path, keep: &Path) -> Result<()> {
        match self {
            Self::Absent => remove(path),
            Self::Link { target } => link(path, target),
            Self::File {
                mode,
                uid,
                gid,
                kept,
            } => {
                let bytes = fs::read(keep.join(kept));
                let bytes = bytes.doing(format!("Cannot put {} back", path.display()))?;
                write(path, &bytes, *mode, Some((*uid, *gid)))
            }
        }
    }
}

/// Writes a file aside and renames it; safe when the power goes.
///
/// # Errors
/// I/O.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    let aside = aside(path);
    let written = (|| {
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        if let Some((uid, gid)) = owner {
            chown(&aside, Some(uid), Some(gid))?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        sync_parent(path)
    })();
    written.doing(format!("Cannot write {}", path.display()))
}

/// Makes a symbolic link, in place of whatever file is there.
///
/// # Errors
/// I/O.
pub(super) fn link(path: &Path, target: &Path) -> Result<()> {
    let aside = aside(path);
    let made = (|| {
        gone(fs::remove_file(&aside))?;
        symlink(target, &aside)?;
        fs::rename(&aside, path)?;
        sync_parent(path)
    })();
    made.doing(format!("Cannot link {}", path.display()))
}

/// Removes a file that may be gone already.
///
/// # Errors
/// I/O.
pub(super) fn remove(path: &Path) -> Result<()> {
    gone(fs::remove_file(path)).doing(format!("Cannot remove {}", path.display()))
}

/// Text of a file, if there is one.
///
/// # Errors
/// I/O, or no text.
pub(super) fn text(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read
            .map(Some)
            .doing(format!("Cannot read {}", path.display())),
    }
}

/// Permissions and owner of a file that is there.
pub(super) fn mode_of(path: &Path) -> Option<(u32, (u32, u32))> {
    let about = fs::metadata(path).ok()?;
    Some((about.mode() & 0o7777, (about.uid(), about.gid())))
}

/// Those of a directory and its parents that have to be made, outermost first.
pub(super) fn missing_dirs(dir: &Path, here: impl Fn(&Path) -> PathBuf) -> Vec<PathBuf> {
    let missing = dir.ancestors().take_while(|dir| !here(dir).exists());
    let mut missing: Vec<PathBuf> = missing.map(Path::to_path_buf).collect();
    missing.reverse();
    missing
}

/// What is fine when it has been done already.
pub(super) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Beside the file, on its file system, and no `*.toml` that somebody imports.
fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.reprise-new"))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let keep = dir.path().join("keep");
        fs::create_dir(&keep).unwrap();
        let place = dir.path().join("place");
        let there_and_back = |name: &str| {
            let before = Before::look(&place, &keep, name).unwrap();
            link(&place, Path::new("/ours")).unwrap();
            assert_eq!(fs::read_link(&place).unwrap(), Path::new("/ours"));
            before.put_back(&place, &keep).unwrap();
            before
        };
        assert_eq!(there_and_back("0"), Before::Absent);
        assert!(fs::symlink_metadata(&place).is_err());

        symlink("theirs", &place).unwrap();
        there_and_back("1");
        assert_eq!(fs::read_link(&place).unwrap(), Path::new("theirs"));

        fs::remove_file(&place).unwrap();
        fs::write(&place, "text\r\n").unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o640)).unwrap();
        there_and_back("2");
        assert_eq!(fs::read(&place).unwrap(), b"text\r\n");
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn only_what_is_missing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        let all = missing_dirs(&deep, Path::to_path_buf);
        assert_eq!(all, [dir.path().join("a"), deep]);
    }
}
