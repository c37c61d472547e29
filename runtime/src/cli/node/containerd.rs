//! containerd on the node: what it makes of its configuration, and its restart.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use reprise_runtime::{Error, ErrorKind, Result};

use super::files;
use super::host::{self, Host};
use super::settings;

/// What containerd may take until it serves again: it loads every shim first.
const START: Duration = Duration::from_secs(90);

/// How containerd is restarted.
#[derive(Debug, Clone)]
pub(super) enum Restart {
    /// By systemd, as this unit.
    Unit(String),
    /// By a shell command.
    Command(String),
    /// By somebody else, later.
    Later,
}

impl Restart {
    /// Restarts containerd and waits until it serves; false when that is left to
    /// somebody else.
    ///
    /// # Errors
    /// It does not come up.
    pub(super) fn run(&self, host: &Host, socket: &Path) -> Result<bool> {
        let mut command = match self {
            Self::Later => return Ok(false),
            Self::Unit(unit) => {
                let mut command = host.command("systemctl");
                command.args(["restart", unit]);
                command
            }
            Self::Command(text) => {
                let mut command = host.command("sh");
                command.args(["-c", text]);
                command
            }
        };
        host::output(&mut command).map_err(|e| Error {
            message: format!("containerd cannot be restarted: {}", e.message),
            ..e
        })?;
        let begun = Instant::now();
        let socket = host.follow(socket);
        while UnixStream::connect(&socket).is_err() {
            if begun.elapsed() > START {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "containerd was restarted and does not serve {} after {} s; see its log",
                        socket.display(),
                        START.as_secs()
                    ),
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(true)
    }
}

/// The configuration as containerd understands it, all imports in it.
///
/// # Errors
/// containerd refuses it, or cannot be run.
pub(super) fn dump(host: &Host, main: &Path) -> Result<String> {
    let mut command = host.command("containerd");
    command.arg("--config").arg(main).args(["config", "dump"]);
    host::output(&mut command)
}

/// What containerd would make of the configuration with our drop-in, tried on files
/// of other names in the same directory.
///
/// # Errors
/// What would be wrong with it, and what to do.
pub(super) fn try_out(
    host: &Host,
    main: &Path,
    text: Option<&str>,
    drop_in: &str,
    before: &str,
) -> Result<()> {
    let trial = |name: &str| main.with_file_name(name);
    let (trial_main, trial_drop_in) = (
        trial(".config.toml.reprise-trial"),
        trial(".reprise.toml.reprise-trial"),
    );
    let main_text = settings::with_import(text, &trial_drop_in).map_err(|e| broken(main, &e))?;
    let tried = files::write(&host.here(&trial_drop_in), drop_in.as_bytes(), 0o600, None)
        .and_then(|()| files::write(&host.here(&trial_main), main_text.as_bytes(), 0o600, None))
        .and_then(|()| dump(host, &trial_main));
    for file in [&trial_main, &trial_drop_in] {
        files::remove(&host.here(file))?;
    }
    let after = tried.map_err(|e| refused(main, &e.message))?;
    judge(main, before, &after)
}

/// Compares what containerd understands with and without us.
///
/// # Errors
/// It has no handler of ours, or more has changed.
pub(super) fn judge(main: &Path, before: &str, after: &str) -> Result<()> {
    if !settings::has_handler(after) {
        return Err(refused(main, "it does not see the handler"));
    }
    settings::differ_by_the_handler(before, after)
        .map_err(|key| refused(main, &format!("it would change {key} as well")))
}

/// containerd's main file is not one.
pub(super) fn broken(main: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        format!(
            "{} is broken ({why}), so nothing was changed; mend it and install again",
            main.display()
        ),
    )
}

fn refused(main: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        format!(
            "containerd does not take the handler in (from {}): {why}; nothing was changed. \
             `containerd --config {} config dump` shows what it understands",
            main.display(),
            main.display()
        ),
    )
}

/// Where the containerd that serves this socket looks for shims; none when nobody
/// serves it.
pub(super) fn search_path(host: &Host, socket: &Path) -> Option<Vec<PathBuf>> {
    let stream = UnixStream::connect(host.follow(socket)).ok()?;
    let pid = getsockopt(&stream, PeerCredentials).ok()?.pid();
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let path = variables.find_map(|variable| variable.strip_prefix(b"PATH="))?;
    let path = String::from_utf8_lossy(path).into_owned();
    Some(std::env::split_paths(&path).collect())
}
