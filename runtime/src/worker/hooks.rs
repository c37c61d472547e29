//! Hooks, as runc runs them: in the order of the list, the container's state on
//! standard input, what they print in the error when they fail.
//!
//! ```text
//!  prestart, createRuntime   worker            its cgroup and directory: the node's
//!  createContainer           child of init     the same moment: before the root is changed
//!  poststart                 worker            when all is made, before Start
//!  startContainer            child of init     finished as the process itself
//!  poststop                  worker            when all is removed, or was undone
//! ```
//!
//! Up to createContainer they find the container's mount namespace as under runc: the
//! node's tree, with the container's own on the bundle's rootfs (`tree/void.rs`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use oci_spec::runtime::{Hook, Spec};
use serde::Serialize;

use super::executor::words;

/// The version of the runtime spec that the states speak.
pub(super) const OCI_VERSION: &str = "1.3.0";

/// When hooks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl When {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// The hooks of a spec for this moment.
    pub(super) fn of(self, spec: &Spec) -> &[Hook] {
        let Some(hooks) = spec.hooks() else {
            return &[];
        };
        #[allow(deprecated, reason = "prestart hooks are deprecated and in use")]
        let list = match self {
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }
}

/// What a hook reads: the spec's `State`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct State {
    #[serde(rename = "ociVersion")]
    version: String,
    id: String,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: PathBuf,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl State {
    pub(super) fn new(spec: &Spec, id: &str, bundle: &Path, status: &str) -> Self {
        Self {
            version: OCI_VERSION.to_owned(),
            id: id.to_owned(),
            status: status.to_owned(),
            pid: None,
            bundle: bundle.to_owned(),
            annotations: spec.annotations().clone().into_iter().flatten().collect(),
        }
    }

    pub(super) fn with_pid(mut self, pid: i32) -> Self {
        self.pid = Some(pid);
        self
    }
}

/// Hooks whose standard files are made already: for where a filter may forbid to
/// make any.
#[derive(Debug)]
pub(super) struct Ready {
    when: When,
    hooks: Vec<(Hook, Papers)>,
}

/// A hook's standard input, output and error. Files: a hook that leaves a process
/// behind does not keep us waiting, and no state is too long for a pipe.
#[derive(Debug)]
struct Papers([File; 3]);

impl Papers {
    fn make(state: &State) -> std::result::Result<Self, String> {
        let paper = || {
            memfd_create(c"reprise-hook", MemFdCreateFlag::MFD_CLOEXEC)
                .map(File::from)
                .map_err(|e| format!("cannot make a file for a hook: {}", words(e)))
        };
        let mut input = paper()?;
        let text = serde_json::to_vec(state).map_err(|e| e.to_string())?;
        let filled = input.write_all(&text).and_then(|()| input.rewind());
        filled.map_err(|e| format!("cannot write a hook's state: {e}"))?;
        Ok(Self([input, paper()?, paper()?]))
    }

    fn read(mut file: &File) -> String {
        const MOST: u64 = 8 << 10;
        let mut text = Vec::new();
        // What cannot be read is missing from an error, no more.
        file.rewind().ok();
        file.take(MOST).read_to_end(&mut text).ok();
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Ready {
    /// Gets a list ready.
    pub(super) fn make(
        when: When,
        hooks: &[Hook],
        state: &State,
    ) -> std::result::Result<Self, String> {
        let ready = |hook: &Hook| Ok((hook.clone(), Papers::make(state)?));
        Ok(Self {
            when,
            hooks: hooks
                .iter()
                .map(ready)
                .collect::<std::result::Result<_, String>>()?,
        })
    }

    /// Runs the hooks one after the other, until one fails. Those without an
    /// environment of their own get `env`.
    pub(super) fn run(self, at: &Path, env: &[String]) -> std::result::Result<(), String> {
        for (number, (hook, papers)) in self.hooks.into_iter().enumerate() {
            run_one(&hook, &papers, at, env).map_err(|why| {
                format!("error running {} hook #{number}: {why}", self.when.name())
            })?;
        }
        Ok(())
    }
}

/// Runs a spec's hooks of one moment.
///
/// `at` is the directory they find themselves in.
pub(super) fn run(
    when: When,
    spec: &Spec,
    state: &State,
    at: &Path,
) -> std::result::Result<(), String> {
    run_list(when, when.of(spec), state, at, &inherited())
}

/// Runs those hooks that run on the node while the container is made. `pid` is its
/// first process.
pub(super) fn run_on_node(
    spec: &Spec,
    id: &str,
    bundle: &Path,
    pid: i32,
) -> std::result::Result<(), String> {
    let state = State::new(spec, id, bundle, "creating").with_pid(pid);
    run(When::Prestart, spec, &state, bundle)?;
    run(When::CreateRuntime, spec, &state, bundle)
}

/// Whether some hook runs before the container's root is entered.
pub(super) fn has_early(spec: &Spec) -> bool {
    let early = [When::Prestart, When::CreateRuntime, When::CreateContainer];
    early.iter().any(|when| !when.of(spec).is_empty())
}

/// Runs a list of hooks.
pub(super) fn run_list(
    when: When,
    hooks: &[Hook],
    state: &State,
    at: &Path,
    env: &[String],
) -> std::result::Result<(), String> {
    if hooks.is_empty() {
        return Ok(());
    }
    Ready::make(when, hooks, state)?.run(at, env)
}

/// What of our environment hooks inherit that have none of their own.
fn inherited() -> Vec<String> {
    let path = std::env::var("PATH").ok();
    path.map(|path| format!("PATH={path}"))
        .into_iter()
        .collect()
}

fn run_one(
    hook: &Hook,
    papers: &Papers,
    at: &Path,
    env: &[String],
) -> std::result::Result<(), String> {
    let mut child = spawn(hook, papers, at, env)?;
    let status = match hook.timeout() {
        None => child.wait().map_err(|e| e.to_string())?,
        Some(seconds) => {
            let time = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            wait_within(&mut child, time)?
        }
    };
    if status.success() {
        return Ok(());
    }
    let [_, out, err] = &papers.0;
    Err(format!(
        "{}, stdout: {}, stderr: {}",
        how(status),
        Papers::read(out),
        Papers::read(err)
    ))
}

fn spawn(
    hook: &Hook,
    papers: &Papers,
    at: &Path,
    env: &[String],
) -> std::result::Result<Child, String> {
    let path = hook.path();
    let failed = |e: std::io::Error| {
        let why = e.raw_os_error().map(|n| words(Errno::from_raw(n)));
        let why = why.unwrap_or_else(|| e.to_string());
        format!("fork/exec {}: {why}", path.display())
    };
    // A bare name is a file of the directory, never one on PATH.
    let mut command = Command::new(if path.components().count() == 1 {
        Path::new(".").join(path)
    } else {
        path.clone()
    });
    let args = hook.args().as_deref().unwrap_or_default();
    match args.split_first() {
        Some((name, rest)) => command.arg0(name).args(rest),
        None => command.arg0(path),
    };
    let own = hook.env().as_deref().filter(|own| !own.is_empty());
    let pairs = own.unwrap_or(env).iter().filter_map(|e| e.split_once('='));
    let [stdin, stdout, stderr] = &papers.0;
    command
        .env_clear()
        .envs(pairs)
        .current_dir(at)
        .stdin(stdin.try_clone().map_err(failed)?)
        .stdout(stdout.try_clone().map_err(failed)?)
        .stderr(stderr.try_clone().map_err(failed)?)
        .spawn()
        .map_err(failed)
}

fn wait_within(child: &mut Child, time: Duration) -> std::result::Result<ExitStatus, String> {
    let end = Instant::now() + time;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return Ok(status);
        }
        if Instant::now() >= end {
            // It may have ended just now.
            child.kill().ok();
            child.wait().ok();
            let seconds = time.as_secs_f64();
            return Err(format!("hook ran past specified timeout of {seconds:.1}s"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How a process ended, in the words of Go's `os/exec`.
fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {}", signal_name(signal)),
        (None, None) => status.to_string(),
    }
}

fn signal_name(signal: i32) -> String {
    let known = match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGABRT => "aborted",
        libc::SIGKILL => "killed",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGPIPE => "broken pipe",
        libc::SIGSYS => "bad system call",
        libc::SIGTERM => "terminated",
        other => return format!("signal {other}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(hooks: &serde_json::Value) -> std::result::Result<(), String> {
        let spec: Spec = serde_json::from_value(json!({
            "ociVersion": "1.0.0", "annotations": {"a": "b"},
            "hooks": {"createRuntime": hooks},
        }))
        .unwrap();
        let state = State::new(&spec, "c1", Path::new("/bundle"), "creating").with_pid(7);
        super::run(When::CreateRuntime, &spec, &state, Path::new("/usr"))
    }

    fn sh(script: &str) -> serde_json::Value {
        json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
    }

    #[test]
    fn it_reads_the_state_and_is_where_it_belongs() {
        let script = "test \"$(cat)\" = '{\"ociVersion\":\"1.3.0\",\"id\":\"c1\",\
            \"status\":\"creating\",\"pid\":7,\"bundle\":\"/bundle\",\
            \"annotations\":{\"a\":\"b\"}}' && test $PWD = /usr";
        assert_eq!(run(&json!([sh(script)])), Ok(()));
    }

    #[test]
    fn failures_are_in_runcs_words() {
        let words = |hooks| run(&hooks).unwrap_err();
        assert_eq!(
            words(json!([sh("true"), sh("echo a; echo b >&2; exit 3")])),
            "error running createRuntime hook #1: exit status 3, stdout: a\n, stderr: b\n"
        );
        assert_eq!(
            words(json!([sh("kill -9 $$")])),
            "error running createRuntime hook #0: signal: killed, stdout: , stderr: "
        );
        for name in ["/nope", "true"] {
            assert_eq!(
                words(json!([{"path": name}])),
                format!(
                    "error running createRuntime hook #0: fork/exec {name}: \
                     no such file or directory"
                )
            );
        }
    }

    #[test]
    fn a_slow_one_is_killed_and_what_it_leaves_is_not_waited_for() {
        let slow = json!([{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]);
        assert_eq!(
            run(&slow).unwrap_err(),
            "error running createRuntime hook #0: hook ran past specified timeout of 1.0s"
        );
        let began = Instant::now();
        assert_eq!(run(&json!([sh("sleep 5 &")])), Ok(()));
        assert!(began.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn its_environment_is_its_own() {
        let hook = json!([{"path": "/bin/sh", "args": ["x", "-c", "test $A$0 = 1x"],
            "env": ["A=1"]}]);
        assert_eq!(run(&hook), Ok(()));
    }
}
