//! How every process is finished: init, exec, before and after Start.
//!
//! libcontainer is given a process without restrictions, so both of its openings
//! run as full root inside the container's namespaces and root:
//!
//! ```text
//!  validate()  before Start   the file tree with its hooks, sysctls, labels, cwd, stdio,
//!                             scheduling, look-up, filter compiled: what can fail fails here
//!  exec()      after Start    limits, user, capabilities, filter, startContainer hooks, execve
//! ```
//!
//! Errors go to the worker over a line (`line.rs`) that a successful execve closes:
//! one channel, with runc's words. What fails once all restrictions hold (execve
//! itself, a startContainer hook) is said on the container's standard error, and
//! the exit code is 255, as under runc: by then it has started.

mod agent;
mod enosys;
mod identity;
pub(super) mod inside;
mod labels;
mod limits;
mod line;
mod lookup;
mod scheduling;
mod seccomp;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::{Hook, LinuxNamespaceType, LinuxSeccomp, Process, Spec};

use super::hooks::{self, State, When};
use super::sysctl;
use super::tree::Tree;
use super::userns::Joined;
use crate::namespaces::{self, Namespace};
use crate::sys;

pub(super) use agent::Agent;
pub(super) use inside::join_keyring;
pub(super) use line::{Desk, Line, Who, open as open_line};
pub(super) use scheduling::{bind, parse_set};

/// An error inside the container: one line, in runc's words where it has some.
pub(super) type Inside<T> = std::result::Result<T, String>;

/// Finishes one process.
#[derive(Debug, Clone)]
pub(super) struct Finish {
    id: String,
    process: Process,
    seccomp: Option<LinuxSeccomp>,
    treatment: scheduling::Treatment,
    umask: Option<u32>,
    in_user_namespace: bool,
    role: Role,
    line: Rc<Line>,
    /// What validate() found out and exec() needs.
    ready: Rc<RefCell<Option<Ready>>>,
}

/// What is only init's, and only an exec's.
#[derive(Debug, Clone)]
enum Role {
    Init {
        /// Gone once it is built.
        tree: Rc<RefCell<Option<Tree>>>,
        hooks: Rc<InitHooks>,
        /// A new network namespace has its `lo` down; runc brings it up.
        owns_network: bool,
        sysctls: Vec<(String, String)>,
    },
    Exec(Rc<Running>),
}

/// The container that one more process runs in.
#[derive(Debug)]
pub(super) struct Running {
    /// Its first process. If that is gone, its pid may be anybody's.
    pub(super) init: OwnedFd,
    /// Its user namespace, which libcontainer has an exec not join.
    pub(super) userns: Option<Joined>,
}

/// The hooks that init runs, or has run.
#[derive(Debug)]
struct InitHooks {
    on_node: bool,
    create: Vec<Hook>,
    start: Vec<Hook>,
    /// Before Start, and until its tree is entered.
    creating: State,
    created: State,
}

impl InitHooks {
    fn of(spec: &Spec, id: &str, bundle: &Path) -> Self {
        let has = |when: When| !when.of(spec).is_empty();
        Self {
            on_node: has(When::Prestart) || has(When::CreateRuntime),
            create: When::CreateContainer.of(spec).to_vec(),
            start: When::StartContainer.of(spec).to_vec(),
            creating: State::new(spec, id, bundle, "creating"),
            created: State::new(spec, id, bundle, "created"),
        }
    }

    /// Between the mounts and the change of the root, in the rootfs.
    fn run(&self, line: &Line) -> Inside<()> {
        if self.on_node {
            line.run_hooks()?;
        }
        let state = self.creating.clone().with_pid(own_pid());
        hooks::run_list(
            When::CreateContainer,
            &self.create,
            &state,
            Path::new("."),
            &[],
        )
    }

    fn get_start_ready(&self) -> Inside<Option<hooks::Ready>> {
        if self.start.is_empty() {
            return Ok(None);
        }
        let state = self.created.clone().with_pid(own_pid());
        hooks::Ready::make(When::StartContainer, &self.start, &state).map(Some)
    }
}

fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

#[derive(Debug)]
struct Ready {
    path: PathBuf,
    env: Vec<String>,
    args: Vec<CString>,
    cwd_as_user: bool,
    filter: Option<seccomp::Filter>,
    hooks: Option<hooks::Ready>,
}

impl Finish {
    /// For a container's first process.
    pub(super) fn init(id: &str, spec: &Spec, bundle: &Path, line: Line, tree: Tree) -> Self {
        let process = spec.process().clone().unwrap_or_default();
        let role = Role::Init {
            tree: Rc::new(RefCell::new(Some(tree))),
            hooks: Rc::new(InitHooks::of(spec, id, bundle)),
            owns_network: namespaces::of(spec, LinuxNamespaceType::Network) == Namespace::Own,
            sysctls: sysctls(spec),
        };
        Self::new(id, process, spec, line, role)
    }

    /// For one more process; it gets the container's filter as well.
    pub(super) fn exec(
        id: &str,
        process: Process,
        spec: &Spec,
        container: Running,
        line: Line,
    ) -> Self {
        let container = Rc::new(container);
        Self::new(id, process, spec, line, Role::Exec(container))
    }

    fn new(id: &str, process: Process, spec: &Spec, line: Line, role: Role) -> Self {
        let linux = spec.linux().as_ref();
        Self {
            id: id.to_owned(),
            process,
            seccomp: linux.and_then(|l| l.seccomp().clone()),
            treatment: scheduling::Treatment::of(linux),
            umask: spec.process().as_ref().and_then(|p| p.user().umask()),
            in_user_namespace: namespaces::of(spec, LinuxNamespaceType::User) != Namespace::Host,
            role,
            line: Rc::new(line),
            ready: Rc::default(),
        }
    }

    fn prepare(&self) -> Inside<Ready> {
        let process = &self.process;
        if let Role::Init {
            tree,
            hooks,
            owns_network,
            sysctls,
        } = &self.role
        {
            // Taken, so that its descriptors are closed by their owner.
            if let Some(tree) = tree.borrow_mut().take() {
                tree.build(|| hooks.run(&self.line))?;
            }
            if *owns_network {
                sys::loopback_up().map_err(|e| format!("cannot bring up the interface lo: {e}"))?;
            }
            sysctl::write(sysctls)?;
        }
        self.check_init()?;
        if let Role::Exec(container) = &self.role
            && let Some(userns) = &container.userns
        {
            inside::enter_user_namespace(userns, process.user())?;
        }
        self.close_strays();
        labels::set(process)?;
        let is_init = matches!(self.role, Role::Init { .. });
        inside::join_keyring(&self.id, is_init, self.in_user_namespace)?;
        inside::window_size(process);
        let affinity = process.exec_cpu_affinity().as_ref().filter(|_| !is_init);
        let last = affinity.and_then(|a| a.cpu_affinity_final().as_deref());
        if last.is_some() || affinity.is_none_or(|a| a.initial().is_none()) {
            scheduling::set_affinity(last)?;
        }
        self.treatment.apply(process)?;
        limits::prepare(process, &self.line)?;
        let user = process.user();
        inside::own_stdio(user.uid())?;
        let cwd_as_user = inside::enter_cwd(process.cwd())?;
        let env = inside::environment(process)?;
        identity::Sets::of(process)?.check()?;
        let args = process.args().clone().unwrap_or_default();
        let name = args.first().ok_or("args must not be empty")?;
        let path = identity::as_user(process, || {
            if cwd_as_user {
                inside::enter_cwd_as_user(process.cwd())?;
            }
            lookup::executable(name, &env)
        })??;
        let filter = self.seccomp.as_ref().map(seccomp::Filter::compile);
        Ok(Ready {
            path,
            args: c_strings(&args)?,
            env,
            cwd_as_user,
            filter: filter.transpose()?,
            hooks: self.start_hooks()?,
        })
    }

    fn close_strays(&self) {
        let mut keep = vec![self.line.as_raw_fd()];
        if let Role::Exec(container) = &self.role {
            // It leads to no file.
            keep.push(container.init.as_raw_fd());
        }
        inside::close_strays(&keep);
    }

    /// Namespaces were entered by the number of init's pid. If init lives still, it
    /// was init's all the time.
    fn check_init(&self) -> Inside<()> {
        let Role::Exec(container) = &self.role else {
            return Ok(());
        };
        let mut fds = [PollFd::new(container.init.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(0) => Ok(()),
            _ => Err("cannot exec in a stopped container".to_owned()),
        }
    }

    fn start_hooks(&self) -> Inside<Option<hooks::Ready>> {
        match &self.role {
            Role::Init { hooks, .. } => hooks.get_start_ready(),
            Role::Exec(_) => Ok(None),
        }
    }

    /// Comes back only with the exit code.
    fn finish(&self) -> i32 {
        const NOT_STARTED: i32 = 1;
        const NOT_EXECUTED: i32 = 255;
        let ready = self.ready.borrow_mut().take();
        let Some(mut ready) = ready else {
            self.line.fail("the process was not prepared");
            return NOT_STARTED;
        };
        if let Err(e) = self.restrict(&ready) {
            self.line.fail(&e);
            return NOT_STARTED;
        }
        if let Some(hooks) = ready.hooks.take()
            && let Err(e) = hooks.run(Path::new("/"), &ready.env)
        {
            say(&e);
            return NOT_EXECUTED;
        }
        let shown = ready.path.display();
        let errno = match (
            CString::new(ready.path.as_os_str().as_encoded_bytes()),
            c_strings(&ready.env),
        ) {
            (Ok(path), Ok(env)) => sys::execve(&path, &ready.args, &env),
            _ => Errno::EINVAL,
        };
        say(&format!("exec {shown}: {}", words(errno)));
        NOT_EXECUTED
    }

    /// The order is runc's, save that the filter comes last even without
    /// no_new_privs: a profile need not allow what happens before it.
    fn restrict(&self, ready: &Ready) -> Inside<()> {
        let process = &self.process;
        let nnp = process.no_new_privileges().unwrap_or(false);
        sys::close_on_exec_from(3);
        sys::reset_signals();
        limits::apply(process)?;
        identity::set_umask(self.umask);
        let caps = identity::Sets::of(process)?;
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
            self.load(ready.filter.as_ref())?;
        }
        caps.apply()?;
        if nnp {
            self.load(ready.filter.as_ref())?;
        }
        Ok(())
    }

    fn load(&self, filter: Option<&seccomp::Filter>) -> Inside<()> {
        let Some(filter) = filter else {
            return Ok(());
        };
        match filter.load()? {
            Some(listener) => self.line.hand_over(&listener),
            None => Ok(()),
        }
    }
}

/// Says something to who reads the container's output.
fn say(text: &str) {
    // If nobody does, nobody hears it.
    nix::unistd::write(sys::borrow(2), format!("{text}\n").as_bytes()).ok();
}

fn sysctls(spec: &Spec) -> Vec<(String, String)> {
    let all = spec.linux().as_ref().and_then(|l| l.sysctl().clone());
    all.unwrap_or_default().into_iter().collect()
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
    let text = match errno {
        // Newer C libraries say it otherwise than Go, and than users know it.
        Errno::ELOOP => "too many levels of symbolic links",
        other => other.desc(),
    };
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
                self.line.fail(&e);
                Err(ExecutorValidationError::ArgValidationError(e))
            }
        }
    }

    /// execve gets the environment explicitly.
    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        let code = self.finish();
        // libcontainer has closed its channel by now: nobody else would listen.
        sys::exit_now(code)
    }
}
