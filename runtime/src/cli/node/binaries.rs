//! Our programs on the node: a directory for each version, and who runs from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use reprise_runtime::error::Doing;
use reprise_runtime::{Error, ErrorKind, Result};

use super::files;
use super::host::Host;

/// Where versions are, on the node.
pub(super) const OPT: &str = "/opt/reprise";
/// What containerd starts.
pub(super) const SHIM: &str = "containerd-shim-reprise-v2";
/// What operators start.
pub(super) const CLI: &str = "reprise";
/// What comes along where there is one.
pub(super) const CRIU: &str = "criu";
/// The libraries of that, beside the directory of programs.
const LIBRARIES: &str = "lib/reprise";

/// A version's programs, on the node.
pub(super) fn bin(version: &str) -> PathBuf {
    Path::new(OPT).join(version).join("bin")
}

/// What is to be in a version's directory: from where, and its place.
fn contents(from: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut all = Vec::new();
    for (name, needed) in [(SHIM, true), (CLI, true), (CRIU, false)] {
        let source = from.join(name);
        if source.exists() {
            all.push((source, Path::new("bin").join(name)));
        } else if needed {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "There is no {}; name the directory of the programs with --from",
                    source.display()
                ),
            ));
        }
    }
    let libraries = from.join("..").join(LIBRARIES);
    for library in fs::read_dir(&libraries).into_iter().flatten().flatten() {
        let place = Path::new(LIBRARIES).join(library.file_name());
        all.push((library.path(), place));
    }
    Ok(all)
}

/// Whether there is a CRIU to be installed.
pub(super) fn brings_criu(from: &Path) -> bool {
    from.join(CRIU).exists()
}

/// Puts the programs of `from` into the version's directory; says whether anything had
/// to be done. A version that is there gets files that differ by rename, so that who
/// runs one keeps it.
///
/// # Errors
/// A program that is missing; I/O.
pub(super) fn stage(host: &Host, from: &Path, version: &str) -> Result<bool> {
    let place = host.follow(&Path::new(OPT).join(version));
    let aside = place.with_file_name(format!(".{version}.partial"));
    let whole = place.exists();
    let target = if whole { &place } else { &aside };
    let mut changed = false;
    for (source, at) in contents(from)? {
        let at = target.join(at);
        let bytes = fs::read(&source).doing(format!("Cannot read {}", source.display()))?;
        if fs::read(&at).is_ok_and(|there| there == bytes) {
            continue;
        }
        if let Some(dir) = at.parent() {
            fs::create_dir_all(dir).doing(format!("Cannot make {}", dir.display()))?;
        }
        files::write(&at, &bytes, 0o755, None)?;
        changed = true;
    }
    if !whole {
        fs::rename(&aside, &place).doing(format!("Cannot make {}", place.display()))?;
    }
    Ok(changed)
}

/// The versions that are on the node; what a crash left half is one, too.
pub(super) fn versions(host: &Host) -> BTreeSet<String> {
    let entries = fs::read_dir(host.follow(Path::new(OPT)));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Removes a version.
///
/// # Errors
/// I/O.
pub(super) fn remove(host: &Host, version: &str) -> Result<()> {
    let place = host.follow(&Path::new(OPT).join(version));
    files::gone(fs::remove_dir_all(&place)).doing(format!("Cannot remove {}", place.display()))
}

/// How many shims and workers run from each version. They are told by the file that
/// they run, not by its name, which is another in each mount namespace.
pub(super) fn running(host: &Host) -> BTreeMap<String, usize> {
    let mut files = BTreeMap::new();
    for version in versions(host) {
        for name in [SHIM, CRIU] {
            let file = host.follow(&bin(&version).join(name));
            if let Ok(about) = fs::metadata(file) {
                files.insert((about.dev(), about.ino()), version.clone());
            }
        }
    }
    let mut running = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(exe) = fs::metadata(process.path().join("exe")) else {
            continue;
        };
        if let Some(version) = files.get(&(exe.dev(), exe.ino())) {
            *running.entry(version.clone()).or_default() += 1;
        }
    }
    running
}
