//! `kubectl`, as its users call it.

use crate::node::{Finished, time_limit};
use crate::tools::Tools;
use anyhow::{Context, Result};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `kubectl` as a cluster's administrator, in one namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
    namespace: String,
}

impl Kubectl {
    pub(super) fn new(
        kubernetes: &str,
        dir: &Path,
        write_config: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let kubectl = Self {
            program: Tools::kubernetes(kubernetes, "kubectl"),
            kubeconfig: dir.join("kubeconfig"),
            cache: dir.join("kubectl"),
            namespace: "default".to_owned(),
        };
        write_config(&kubectl.kubeconfig)?;
        Ok(kubectl)
    }

    /// The same in another namespace, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn in_namespace(&self, name: &str) -> Result<Self> {
        self.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"
        ))?;
        Ok(Self {
            namespace: name.to_owned(),
            ..self.clone()
        })
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The file that leads any `kubectl` or Helm of this machine to the cluster.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A command that has the cluster's configuration in its environment.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.with_environment(Command::new(&self.program), args)
    }

    fn with_environment<S: AsRef<OsStr>>(
        &self,
        mut command: Command,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", &self.cache)
            .args(["--namespace", &self.namespace])
            .args(args);
        command
    }

    /// Runs it, for two minutes at most (on a fast machine).
    ///
    /// # Errors
    /// When it cannot be started; its own failure is in the answer.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Finished> {
        self.run_within(time_limit(), args)
    }

    /// Runs it for as long as these arguments of `timeout` say.
    pub(super) fn run_within<S: AsRef<OsStr>>(
        &self,
        limit: [String; 2],
        args: impl IntoIterator<Item = S>,
    ) -> Result<Finished> {
        let args: Vec<S> = args.into_iter().collect();
        let words: Vec<_> = args
            .iter()
            .map(|arg| arg.as_ref().to_string_lossy())
            .collect();
        let shown = format!("kubectl {}", words.join(" "));
        let mut timeout = Command::new("timeout");
        timeout.args(limit).arg(&self.program);
        Finished::of(shown, &mut self.with_environment(timeout, &args))
    }

    /// Runs it and returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn call<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        self.run(args)?.ok()
    }

    /// Applies YAML.
    ///
    /// # Errors
    /// When it is not accepted.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), yaml)?;
        let applied = self.run([OsStr::new("apply"), OsStr::new("-f"), file.path().as_ref()]);
        applied?.ok().with_context(|| format!("applying\n{yaml}"))
    }

    /// `kubectl get ... -o json`, such as `["pod", "a"]` or `["pods", "-A"]`.
    ///
    /// # Errors
    /// When there is no such thing.
    pub fn get<S: AsRef<OsStr>>(&self, what: impl IntoIterator<Item = S>) -> Result<Value> {
        let mut words = vec!["get".into(), "-o".into(), "json".into()];
        words.extend(what.into_iter().map(|word| word.as_ref().to_owned()));
        self.run(words)?.json()
    }

    /// Waits until things such as `pod/a` have a condition, such as `condition=Ready` or
    /// `delete`.
    ///
    /// # Errors
    /// When they do not have it within a minute, or there is no such thing.
    pub fn wait(&self, what: &str, until: &str) -> Result<()> {
        let (until, limit) = (format!("--for={until}"), "--timeout=60s");
        self.call(["wait", &until, limit, what])?;
        Ok(())
    }

    /// Waits until a pod is ready.
    ///
    /// # Errors
    /// When it is not ready within a minute; the message tells what became of it.
    pub fn wait_ready(&self, pod: &str) -> Result<()> {
        let ready = self.wait(&format!("pod/{pod}"), "condition=Ready");
        ready.with_context(|| self.call(["describe", "pod", pod]).unwrap_or_default())
    }

    /// Runs a command in a pod's first container, and returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn exec(&self, pod: &str, command: &[&str]) -> Result<String> {
        self.call([&["exec", pod, "--"], command].concat())
    }

    /// What a pod's first container has written; flags are such as `--previous`.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn logs(&self, pod: &str, flags: &[&str]) -> Result<String> {
        self.call([&["logs", pod], flags].concat())
    }

    /// Deletes things such as `["pod", "a"]` and waits until they are gone.
    ///
    /// # Errors
    /// When there is no such thing.
    pub fn delete(&self, what: &[&str]) -> Result<()> {
        self.call([&["delete"], what].concat())?;
        Ok(())
    }

    /// Asks a kubelet to take a checkpoint of a container; the archive's path on the node.
    ///
    /// # Errors
    /// What the kubelet says.
    pub fn checkpoint(&self, node: &str, pod: &str, container: &str) -> Result<PathBuf> {
        let path = format!(
            "/api/v1/nodes/{node}/proxy/checkpoint/{}/{pod}/{container}",
            self.namespace
        );
        let said: Value = self
            .run(["create", "--raw", &path, "-f", "/dev/null"])?
            .json()?;
        let archive = said["items"][0].as_str();
        Ok(archive
            .with_context(|| format!("no archive: {said}"))?
            .into())
    }
}
