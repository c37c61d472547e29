//! The node that is worked on: this machine, or, in a container, what has the node's
//! root below a directory. Paths are the node's own everywhere but in here.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use reprise_runtime::error::Doing;
use reprise_runtime::{Error, ErrorKind, Result};

/// Where programs are looked for on a node that is not ours to ask.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The last word before the program's own.
const HOME: &str = "HOME=/root";
/// As many links as the kernel follows.
const LINKS_MAX: u32 = 40;

/// A node.
#[derive(Debug)]
pub(super) struct Host {
    root: PathBuf,
    path: OsString,
}

impl Host {
    /// The node whose root is at `root`; the directory of `containerd`, if it is
    /// named by its path, is where its programs are looked for first.
    ///
    /// # Errors
    /// A root whose processes cannot be reached.
    pub(super) fn at(root: &Path, containerd: Option<&Path>) -> Result<Self> {
        let root = root.to_owned();
        let ours = root == Path::new("/");
        if !ours {
            let id = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
            let theirs = id(&root).doing(format!("Cannot look at {}", root.display()))?;
            // A container without the node's processes would run everything in itself.
            if id(Path::new("/proc/1/root")).ok() != Some(theirs) {
                return Err(Error::new(
                    ErrorKind::FailedPrecondition,
                    format!(
                        "Process 1 has another root than {}; give this container the node's \
                         processes (hostPID: true, privileged) and mount the node's / there",
                        root.display()
                    ),
                ));
            }
        }
        let mut path = OsString::new();
        if let Some(dir) = containerd.and_then(Path::parent) {
            path.push(dir);
            path.push(":");
        }
        match std::env::var_os("PATH") {
            Some(here) if ours => path.push(here),
            _ => path.push(PATH),
        }
        Ok(Self { root, path })
    }

    /// Where a path of the node is from here. Links on the way are followed as the
    /// node sees them; the last component is not.
    pub(super) fn here(&self, path: &Path) -> PathBuf {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => self.follow(parent).join(name),
            _ => self.follow(path),
        }
    }

    /// The same, and the last component is followed, too.
    pub(super) fn follow(&self, path: &Path) -> PathBuf {
        let mut left: Vec<OsString> = parts(path).rev().collect();
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            match std::fs::read_link(self.below(&next)) {
                Ok(target) if links < LINKS_MAX => {
                    links += 1;
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    left.extend(parts(&target).rev());
                }
                _ => at = next,
            }
        }
        self.below(&at)
    }

    fn below(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A program that runs on the node, with the node's files.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = if self.root == Path::new("/") {
            Command::new(program)
        } else {
            let mut command = Command::new("nsenter");
            command.args(["--target", "1", "--mount", "--uts", "--ipc", "--net", "--"]);
            // env(1) looks programs up on its own PATH, nsenter on ours.
            command.args(["env", "-i"]);
            let mut path = OsString::from("PATH=");
            path.push(&self.path);
            command.arg(path).arg(HOME).arg(program);
            command
        };
        command.env("PATH", &self.path).stdin(Stdio::null());
        command
    }

    /// The same, with a directory in which programs are looked for before all others.
    pub(super) fn with_path(&self, dir: &Path) -> Self {
        let mut path = dir.as_os_str().to_owned();
        path.push(":");
        path.push(&self.path);
        Self {
            root: self.root.clone(),
            path,
        }
    }
}

/// What such a command printed. How it failed is its last line.
///
/// # Errors
/// It cannot be run, or failed.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let done = command.output().doing(format!("`{shown}` cannot be run"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let last = said.trim().lines().next_back().unwrap_or("it said nothing");
    Err(Error::new(
        ErrorKind::FailedPrecondition,
        format!("`{shown}` failed: {last}"),
    ))
}

/// The command as the node sees it, without what leads there.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let own = words.iter().position(|word| word == HOME);
    words[own.map_or(0, |at| at + 1)..].join(" ")
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_of_the_node_stay_within_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("mnt/etc")).unwrap();
        symlink("/mnt/etc", root.join("etc")).unwrap();
        symlink("../../../mnt/real.toml", root.join("mnt/etc/main.toml")).unwrap();
        let host = Host {
            root: root.to_owned(),
            path: OsString::new(),
        };
        let main = Path::new("/etc/main.toml");
        assert_eq!(host.here(main), root.join("mnt/etc/main.toml"));
        assert_eq!(host.follow(main), root.join("mnt/real.toml"));
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(host.follow(Path::new("/loop")), root.join("loop"));
    }

    #[test]
    fn a_root_without_its_processes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = Host::at(dir.path(), None).unwrap_err();
        assert!(error.message.contains("hostPID: true"), "{error}");
    }
}
