//! How a shim starts programs of ours: with nothing of its own but PATH.

use std::path::Path;
use std::process::Command;

/// A command without the shim's environment.
///
/// Callers set no directory and nothing to be done before the exec, so that std takes
/// `posix_spawn`: that copies no page tables, and when the exec fails it does not mind
/// that the shim's reaper has gathered the child. In a static program the way with a
/// directory is a plain fork, after which std panics then.
pub(crate) fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}
