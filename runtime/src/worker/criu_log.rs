//! What CRIU's log says about a failure.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::Error;

/// How much of the log's end is read.
const TAIL: u64 = 256 * 1024;
/// How many error lines go into the detail.
const LINES: usize = 12;
/// Errors that come with every failure and explain none. The first is there on
/// every machine without `CAP_SYS_RESOURCE`.
const NOISE: [&str; 6] = [
    "RLIMIT_NOFILE",
    "Restoring FAILED",
    "Dumping FAILED",
    "Unable to kill",
    "RPC client reported script error",
    "exited, status=",
];
/// Where CRIU puts the mounts of a tree that it is restoring.
const YARD: &str = "/tmp/.criu.mntns.";

/// One line for the user, the error lines and the log's path for the log.
pub(super) fn error(doing: &str, said: &str, log: &Path, output: &Path) -> Error {
    let mut lines = error_lines(log);
    if lines.is_empty() {
        lines = tail(output).lines().map(str::to_owned).collect();
    }
    // The first error is the cause, what follows are its consequences.
    let telling = lines
        .iter()
        .find(|line| !NOISE.iter().any(|noise| line.contains(noise)))
        .map(|line| strip(line).to_owned());
    let why = match telling {
        Some(line) => line,
        None if said.is_empty() => "no reason given".to_owned(),
        None => said.to_owned(),
    };
    let mut error = Error::internal(format!(
        "CRIU could not {doing}: {why}; full log: {}",
        log.display()
    ));
    if !said.is_empty() {
        error.detail.push(said.to_owned());
    }
    let skip = lines.len().saturating_sub(LINES);
    error.detail.extend(lines.into_iter().skip(skip));
    error.log = Some(log.to_owned());
    error
}

/// Directories below /tmp that this operation's CRIU made and, being killed, left.
pub(super) fn leftover_yards(log: &Path) -> Vec<String> {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut found: Vec<String> = text
        .match_indices(YARD)
        .filter_map(|(at, _)| {
            let name: String = text
                .get(at + YARD.len()..)?
                .chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect();
            (name.len() == 6).then(|| format!("{YARD}{name}"))
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

fn error_lines(log: &Path) -> Vec<String> {
    tail(log)
        .lines()
        .filter(|line| line.contains("Error ("))
        .map(str::to_owned)
        .collect()
}

/// `(00.012345)   1234: Error (criu/files-reg.c:123): Can't open` without the
/// parts in front of the sentence.
fn strip(line: &str) -> &str {
    line.split_once("Error (")
        .and_then(|(_, rest)| rest.split_once("): "))
        .map_or(line, |(_, text)| text)
        .trim()
}

fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_first_telling_line_and_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("criu.log");
        let text = "(00.000001) Error (criu/util.c:1): Can't setup RLIMIT_NOFILE for self\n\
                    (00.1) 12: Error (criu/files-reg.c:2): Can't open file x\n\
                    (00.2) Error (criu/cr-restore.c:3): Restoring FAILED.\n";
        std::fs::write(&log, text).unwrap();
        let error = error("restore container a", "", &log, &dir.path().join("none"));
        assert!(
            error
                .message
                .starts_with("CRIU could not restore container a: Can't open file x; full log: /")
        );
        assert_eq!(error.detail.len(), 3);
    }

    #[test]
    fn finds_its_own_yards_only() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("criu.log");
        std::fs::write(
            &log,
            "mnt: to /tmp/.criu.mntns.aB3dE9/mnt-1\n/tmp/.criu.mntns.aB3dE9/9-0",
        )
        .unwrap();
        assert_eq!(leftover_yards(&log), ["/tmp/.criu.mntns.aB3dE9"]);
    }
}
