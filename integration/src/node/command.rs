//! Running programs inside a node.

use super::{Node, SOCKET, cgroups};
use crate::wait::patience;
use anyhow::{Result, bail};
use serde::de::DeserializeOwned;
use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a program did.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its name and arguments.
    pub command: String,
    /// Its exit code; 128 + signal when it was killed.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// What tells `timeout` how long a program may take at most, before its name.
pub(crate) fn time_limit() -> [String; 2] {
    time_limit_of(Duration::from_secs(120) * patience())
}

/// What tells `timeout` that a program may take so long at most.
pub(crate) fn time_limit_of(most: Duration) -> [String; 2] {
    ["--kill-after=5".to_owned(), most.as_secs_f64().to_string()]
}

impl Finished {
    /// Runs a command that is shown by these words, without any input.
    ///
    /// # Errors
    /// When it cannot be started; its own failure is in the answer.
    pub fn of(shown: String, command: &mut Command) -> Result<Self> {
        let output = command.stdin(Stdio::null()).output()?;
        Ok(Self {
            command: shown,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Its output, when it ended well.
    ///
    /// # Errors
    /// When its exit code was not 0.
    pub fn ok(self) -> Result<String> {
        if self.code != 0 {
            bail!(
                "`{}` ended with {}: {} {}",
                self.command,
                self.code,
                self.stderr.trim(),
                self.stdout.trim()
            );
        }
        Ok(self.stdout)
    }

    /// Its output as JSON, when it ended well.
    ///
    /// # Errors
    /// When its exit code was not 0 or its output is not such JSON.
    pub fn json<T: DeserializeOwned>(self) -> Result<T> {
        Ok(serde_json::from_str(&self.ok()?)?)
    }
}

impl Node {
    /// A command that runs inside the node, with `ctr`, `crictl`, `criu` and
    /// `reprise` on its PATH and pointed at this node.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        // Whoever started the tests may ignore signals, and runc hands that on to
        // its containers: nodes do not depend on it.
        let mut command = Command::new("env");
        command
            .args(["--default-signal", "nsenter"])
            .args(["--mount", "--net", "--pid", "--cgroup", "--target"])
            .arg(self.init.pid.to_string())
            .arg("--");
        if self.plan.has_own_cgroups() {
            command.args(["sh", "-c", cgroups::JOIN, "join-cgroups"]);
        }
        command
            .arg(program)
            .env_clear()
            .env(
                "PATH",
                format!(
                    "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    self.place.dir.join("bin").display()
                ),
            )
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8")
            .env("TMPDIR", self.place.dir.join("tmp"))
            .env("CONTAINERD_ADDRESS", SOCKET)
            .env("CONTAINERD_NAMESPACE", "k8s.io")
            .env("CONTAINER_RUNTIME_ENDPOINT", format!("unix://{SOCKET}"))
            .env("IMAGE_SERVICE_ENDPOINT", format!("unix://{SOCKET}"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a program inside the node, for two minutes at most (on a fast
    /// machine).
    ///
    /// # Errors
    /// When it cannot be started; its own failure is in the answer.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Finished> {
        let mut command = self.command("timeout");
        command.args(time_limit()).arg(program);
        let mut shown = program.to_owned();
        for arg in args {
            shown.push(' ');
            shown.push_str(&arg.as_ref().to_string_lossy());
            command.arg(arg);
        }
        Finished::of(shown, &mut command)
    }

    /// Runs `crictl` and returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn crictl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        self.run("crictl", args)?.ok()
    }

    /// What tells `ctr run` the cgroup of a container of this node.
    #[must_use]
    pub fn ctr_cgroup(&self, id: &str) -> Vec<String> {
        let mut flags = vec!["--cgroup".to_owned(), self.cgroups_path(id)];
        if self.driver.is_systemd() {
            flags.push("--runc-systemd-cgroup".to_owned());
        }
        flags
    }

    /// Runs `ctr` and returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn ctr<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        self.run("ctr", args)?.ok()
    }

    /// Runs the operators' CLI and returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn reprise<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        self.run("reprise", args)?.ok()
    }
}
