//! Finding the executable, as Go's `exec.LookPath` does for runc, so that users
//! and their tools read the words they know.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::{Inside, words};
use crate::sys;

/// The path to execute for `name`.
pub(super) fn executable(name: &str, env: &[String]) -> Inside<PathBuf> {
    if name.contains('/') {
        return match check(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(Refusal::Stat(e)) => Err(format!("exec: {name:?}: stat {name}: {}", words(e))),
            Err(Refusal::Access(e)) => Err(format!("exec: {name:?}: {}", words(e))),
        };
    }
    let path = env
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or_default();
    let dirs = path.split(':').filter(|_| !path.is_empty());
    for dir in dirs {
        let candidate = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        if name.is_empty() || check(&candidate).is_err() {
            continue;
        }
        if candidate.is_relative() {
            return Err(format!(
                "exec: {name:?}: cannot run executable found relative to current directory"
            ));
        }
        return Ok(candidate);
    }
    Err(format!(
        "exec: {name:?}: executable file not found in $PATH"
    ))
}

#[derive(Debug, PartialEq)]
enum Refusal {
    Stat(Errno),
    Access(Errno),
}

fn check(path: &Path) -> std::result::Result<(), Refusal> {
    let stat = nix::sys::stat::stat(path).map_err(Refusal::Stat)?;
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Refusal::Access(Errno::EISDIR));
    }
    match sys::may_execute(path) {
        Ok(()) => Ok(()),
        // Old kernels, or a filter around us: judge by the mode.
        Err(Errno::ENOSYS | Errno::EPERM) if stat.st_mode & 0o111 != 0 => Ok(()),
        Err(_) => Err(Refusal::Access(Errno::EACCES)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(path: &str) -> Vec<String> {
        vec![format!("PATH={path}")]
    }

    #[test]
    fn words_are_runcs() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plain");
        std::fs::write(&file, "").unwrap();
        let (dir, file) = (dir.path().to_str().unwrap(), file.to_str().unwrap());
        assert_eq!(
            executable("nope", &env("/bin")).unwrap_err(),
            "exec: \"nope\": executable file not found in $PATH"
        );
        assert_eq!(
            executable("/nope", &[]).unwrap_err(),
            "exec: \"/nope\": stat /nope: no such file or directory"
        );
        assert_eq!(
            executable(file, &[]).unwrap_err(),
            format!("exec: {file:?}: permission denied")
        );
        assert_eq!(
            executable(dir, &[]).unwrap_err(),
            format!("exec: {dir:?}: is a directory")
        );
    }

    #[test]
    fn the_last_path_counts_and_without_one_nothing_is_found() {
        let twice = vec!["PATH=/nowhere".to_owned(), "PATH=/bin".to_owned()];
        assert_eq!(executable("sh", &twice).unwrap(), Path::new("/bin/sh"));
        for env in [vec![], env(""), env("/nowhere")] {
            let words = executable("sh", &env).unwrap_err();
            assert_eq!(words, "exec: \"sh\": executable file not found in $PATH");
        }
    }

    #[test]
    fn what_is_found_beside_us_is_not_run() {
        // The tests run in the crate's directory.
        let words = executable("sh", &env("../../../../../../../../bin")).unwrap_err();
        assert_eq!(
            words,
            "exec: \"sh\": cannot run executable found relative to current directory"
        );
    }
}
