//! How every process is finished: init, exec, before and after Start.
//!
//! libcontainer is given a process without restrictions, so both of its openings
//! run as full root inside the container's namespaces and root:
//!
//! ```text
//!  validate()  before Start   the file tree, cwd, stdio, look-up, filter compiled
//!  exec()      after Start    limits, labels, user, capabilities, filter, execve
//! ```
//!
//! Errors go to the worker through a pipe that a successful execve closes: one
//! channel, with runc's words, whenever it happens.

mod identity;
mod inside;
mod lookup;
mod seccomp;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::container::{ContainerStatus, State};
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::errno::Errno;
use oci_spec::runtime::{Hooks, LinuxNamespaceType, LinuxSeccomp, Process, Spec};

use super::tree::Tree;
use super::userns::Joined;
use crate::namespaces::{self, Namespace};
use crate::sys;

/// An error inside the container: one line, in runc's words where it has some.
pub(super) type Inside<T> = std::result::Result<T, String>;

/// Finishes one process.
#[derive(Debug, Clone)]
pub(super) struct Finish {
    id: String,
    process: Process,
    seccomp: Option<LinuxSeccomp>,
    /// The container's user namespace, which libcontainer has an exec not join.
    userns: Option<Rc<Joined>>,
    hooks: Option<Hooks>,
    bundle: PathBuf,
    /// The file tree; an exec'd process finds it made.
    tree: Rc<RefCell<Option<Tree>>>,
    /// A new network namespace has its `lo` down; runc brings it up.
    owns_network: bool,
    is_init: bool,
    io_owner: Option<(u32, u32)>,
    verdict: Rc<OwnedFd>,
    /// What validate() found out and exec() needs.
    ready: Rc<RefCell<Option<Ready>>>,
}

#[derive(Debug)]
struct Ready {
    path: PathBuf,
    env: Vec<CString>,
    args: Vec<CString>,
    cwd_as_user: bool,
    filter: Option<seccomp::Filter>,
}

impl Finish {
    /// For a container's first process.
    pub(super) fn init(
        id: &str,
        process: Process,
        (spec, bundle): (&Spec, &Path),
        verdict: OwnedFd,
        io_owner: Option<(u32, u32)>,
        tree: Option<Tree>,
    ) -> Self {
        Self {
            id: id.to_owned(),
            process,
            seccomp: seccomp_of(spec),
            userns: None,
            hooks: spec.hooks().clone(),
            bundle: bundle.to_owned(),
            tree: Rc::new(RefCell::new(tree)),
            owns_network: namespaces::of(spec, LinuxNamespaceType::Network) == Namespace::Own,
            is_init: true,
            io_owner,
            verdict: Rc::new(verdict),
            ready: Rc::default(),
        }
    }

    /// For one more process; it gets the container's filter as well.
    pub(super) fn exec(
        id: &str,
        process: Process,
        spec: &Spec,
        verdict: OwnedFd,
        io_owner: Option<(u32, u32)>,
        userns: Option<Joined>,
    ) -> Self {
        Self {
            userns: userns.map(Rc::new),
            owns_network: false,
            is_init: false,
            ..Self::init(id, process, (spec, Path::new("")), verdict, io_owner, None)
        }
    }

    /// createContainer hooks: everything is mounted, the node still in sight.
    fn run_hooks(&self) -> Inside<()> {
        let Some(hooks) = &self.hooks else {
            return Ok(());
        };
        let pid = nix::unistd::getpid();
        let state = State::new(
            &self.id,
            ContainerStatus::Creating,
            Some(pid.as_raw()),
            self.bundle.clone(),
        );
        libcontainer::hooks::run_hooks(
            hooks.create_container().as_ref(),
            Some(&state),
            None,
            None,
            None,
        )
        .map_err(|e| e.to_string())
    }

    fn prepare(&self) -> Inside<Ready> {
        // Taken, so that its descriptors are closed by their owner.
        let tree = self.tree.borrow_mut().take();
        if let Some(tree) = tree {
            tree.build(|| self.run_hooks())
                .map_err(|e| format!("error during container init: {e}"))?;
        }
        if let Some(userns) = &self.userns {
            inside::enter_user_namespace(userns, self.process.user())?;
        }
        if self.owns_network {
            sys::loopback_up().map_err(|e| format!("cannot bring up the interface lo: {e}"))?;
        }
        inside::close_strays(self.verdict.as_raw_fd());
        inside::join_keyring(&self.id, self.is_init)?;
        inside::reset_affinity(&self.process);
        inside::window_size(&self.process);
        let user = self.process.user();
        inside::own_stdio(self.io_owner.map_or(user.uid(), |(uid, _)| uid))?;
        let cwd_as_user = inside::enter_cwd(self.process.cwd())?;
        let env = inside::environment(&self.process)?;
        let args = self.process.args().clone().unwrap_or_default();
        let name = args.first().ok_or("process args cannot be empty")?;
        let path = identity::as_user(&self.process, || lookup::executable(name, &env))??;
        let filter = self.seccomp.as_ref().map(seccomp::Filter::compile);
        Ok(Ready {
            path,
            env: c_strings(&env)?,
            args: c_strings(&args)?,
            cwd_as_user,
            filter: filter.transpose()?,
        })
    }

    /// Comes back only with an error.
    fn finish(&self) -> String {
        let Some(ready) = self.ready.borrow_mut().take() else {
            return "the process was not prepared".to_owned();
        };
        match self.restrict(&ready) {
            Ok(()) => {}
            Err(e) => return e,
        }
        let shown = ready.path.display();
        let Ok(path) = CString::new(ready.path.as_os_str().as_encoded_bytes()) else {
            return format!("exec {shown}: invalid argument");
        };
        let errno = sys::execve(&path, &ready.args, &ready.env);
        format!("exec {shown}: {}", words(errno))
    }

    /// The order is runc's, save that the filter comes last even without
    /// no_new_privs: a profile need not allow what happens before it.
    fn restrict(&self, ready: &Ready) -> Inside<()> {
        let process = &self.process;
        let nnp = process.no_new_privileges().unwrap_or(false);
        identity::set_labels(process)?;
        identity::set_limits(process)?;
        sys::close_on_exec_from(3);
        sys::reset_signals();
        let caps = identity::Sets::of(process);
        caps.drop_bounding()?;
        identity::become_user(process.user())?;
        if ready.cwd_as_user {
            inside::enter_cwd_as_user(process.cwd())?;
        }
        inside::verify_cwd()?;
        if nnp {
            nix::sys::prctl::set_no_new_privs()
                .map_err(|e| format!("unable to set no_new_privs: {}", words(e)))?;
        }
        caps.raise_for_filter(ready.filter.is_some() && !nnp)?;
        if !nnp {
            // Without no_new_privs only CAP_SYS_ADMIN may load a filter.
            load(ready.filter.as_ref())?;
        }
        caps.apply()?;
        if nnp {
            load(ready.filter.as_ref())?;
        }
        Ok(())
    }

    fn tell(&self, error: &str) {
        // The worker waits for this or for the end of the pipe.
        nix::unistd::write(self.verdict.as_ref(), error.as_bytes()).ok();
    }
}

fn load(filter: Option<&seccomp::Filter>) -> Inside<()> {
    filter.map_or(Ok(()), seccomp::Filter::load)
}

fn seccomp_of(spec: &Spec) -> Option<LinuxSeccomp> {
    spec.linux().as_ref().and_then(|l| l.seccomp().clone())
}

fn c_strings(strings: &[String]) -> Inside<Vec<CString>> {
    strings
        .iter()
        .map(|s| CString::new(s.as_str()).map_err(|_nul| format!("{s:?} contains a zero byte")))
        .collect()
}

/// An error number in the words of Go's `syscall` package, which are the C
/// library's with a small first letter.
pub(super) fn words(errno: Errno) -> String {
    let text = errno.desc();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if !text.starts_with("RFS") => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

impl Executor for Finish {
    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        match self.prepare() {
            Ok(ready) => {
                self.ready.replace(Some(ready));
                Ok(())
            }
            Err(e) => {
                self.tell(&e);
                Err(ExecutorValidationError::ArgValidationError(e))
            }
        }
    }

    /// execve gets the environment explicitly.
    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        let error = self.finish();
        self.tell(&error);
        // libcontainer has closed its channel by now: nobody else would listen.
        sys::exit_now(1)
    }
}
