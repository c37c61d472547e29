//! libcontainer: create, start, exec, and the state of a restored container.
//!
//! Init is the worker's child (libcontainer's `as_sibling` from a helper process),
//! not the shim's, until the worker ends. So a process that dies before Start
//! stays a zombie that nobody reaps, its pid cannot be used again, and its exit
//! reaches the shim, a subreaper, only when the shim knows its pid. The worker
//! never waits for it.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use libcontainer::config::YoukiConfig;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::container::{Container, ContainerStatus};
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::{Process, Spec};

use super::child::Held;
use super::executor::{self, Agent, Desk, Finish, Who};
use super::ground::{self, Clock, Ground, Paths};
use super::hooks::{self, State, When};
use super::protocol::open_null;
use super::tree::{Tree, Void};
use super::{
    Create, Exec, Started, Stdio, Timing, alive, helper, prepare, trace, userns, validate,
};
use crate::cgroup::{self, Cgroup};
use crate::error::{Doing, Error, ErrorKind, Result};

/// A cold container that waits for Start.
pub(super) struct Cold {
    ground: Ground,
    pid: i32,
    console: Option<OwnedFd>,
    desk: Desk,
}

/// Makes a cold container. What its undoing brings about (poststop hooks) is done as
/// well when that fails.
pub(super) fn create(create: &Create, stdio: Stdio) -> Result<Cold> {
    let mut ground = Ground::lay(create)?;
    let mark = trace::mark();
    let made = build(create, &mut ground, stdio).and_then(|made| {
        run_poststart(create, &ground, made.pid)?;
        Ok(made)
    });
    match made {
        Ok(made) => Ok(Cold {
            ground,
            pid: made.pid,
            console: made.console,
            desk: made.desk,
        }),
        Err(e) => {
            let e = add_detail(e, mark);
            ground.clear();
            run_poststop(&ground.spec, &create.id, &create.bundle);
            Err(e)
        }
    }
}

struct Made {
    pid: i32,
    console: Option<OwnedFd>,
    desk: Desk,
}

fn build(create: &Create, ground: &mut Ground, stdio: Stdio) -> Result<Made> {
    let mut clock = Clock::new();
    let void = Void::of(&ground.paths.private);
    let mut spec = prepare::for_libcontainer(&ground.spec, &void, &ground.cgroup)?;
    if let Some(bare) = spec.process_mut() {
        // The console is one of the container's own devpts: ours to make.
        bare.set_terminal(Some(false));
    }
    void.make()?;
    // Made here, since mounts need it too.
    let userns = userns::of_container(&ground.spec)?;
    if let Some(userns) = &userns {
        prepare::join_user_namespace(&mut spec, userns);
        void.open_the_way()?;
    }
    let is_limited = Cell::new(false);
    let linux = ground.spec.linux().as_ref();
    let resources = linux.and_then(|l| l.resources().as_ref());
    let devices = linux.and_then(|l| l.devices().as_deref());
    let devices = devices.unwrap_or_default();
    prepare::write_bundle(&ground.paths.private, &spec)?;
    clock.step("prepare_spec");
    let keeper = ground.cgroup.create()?;
    clock.step("cgroup_create");
    let agent = Agent::of(&ground.spec, &create.id, &create.bundle, None);
    let (mut desk, line) = executor::open_line(Who::Init, agent)?;
    let (console, console_end) = console_socket(create.terminal)?;
    let tree = Tree::open(
        &ground.spec,
        &create.bundle,
        &ground.paths.rootfs,
        &ground.cgroup,
        userns.as_ref(),
        console_end,
        hooks::has_early(&ground.spec),
    )?;
    clock.step("open_tree");
    let own_dev = tree.has_own_dev();
    let finish = Finish::init(&create.id, &ground.spec, &create.bundle, line, tree);
    let mark = trace::mark();
    // Limits hold when the first hook looks at them, and what it changes stays.
    let mut on_node = |pid: i32| {
        is_limited.set(true);
        let limited = ground.cgroup.apply(resources, devices);
        limited.map_err(|e| e.message)?;
        hooks::run_on_node(&ground.spec, &create.id, &create.bundle, pid)
    };
    let mut served = desk.with_hooks(&mut on_node);
    let built = helper::in_child(&mut served, || {
        ground.cgroup.join(nix::unistd::getpid().as_raw())?;
        let builder = builder(
            &create.id,
            &create.state_root,
            stdio,
            finish,
            &Console(None),
        )?;
        let container = builder
            .as_init(&ground.paths.private)
            .with_systemd(false)
            .as_sibling(true)
            .with_detach(true)
            .with_no_pivot(create.no_pivot_root)
            .build()
            .map_err(|e| failure("cannot create the container", &e, mark))?;
        container
            .pid()
            .map(nix::unistd::Pid::as_raw)
            .ok_or_else(|| Error::internal("libcontainer did not tell the container's pid"))
    });
    drop(keeper);
    let pid = match built {
        Ok(pid) => pid,
        Err(e) => {
            let told = desk.failure();
            let told = told.or_else(|| cause("cannot create the container", mark));
            return Err(told.unwrap_or(e));
        }
    };
    clock.step("libcontainer_create");
    if !is_limited.get() {
        ground.cgroup.apply(resources, devices)?;
    }
    clock.step("cgroup_apply");
    // Init opened it before the rules were in force, while to runc they are by then.
    if own_dev && cgroup::keeps_from_null(resources, devices)? {
        return Err(Error::internal(
            "error reopening /dev/null inside container: open /dev/null: operation not permitted",
        ));
    }
    alive::note(&ground.paths.private, pid)?;
    let console = console
        .map(|socket| super::wire::receive_console(&socket))
        .transpose()?;
    ground.timings.extend(clock.steps);
    Ok(Made { pid, console, desk })
}

/// Runs the poststart hooks where runc runs them: when the container is made. A
/// failing one undoes it.
fn run_poststart(create: &Create, ground: &Ground, pid: i32) -> Result<()> {
    let state = State::new(&ground.spec, &create.id, &create.bundle, "created").with_pid(pid);
    hooks::run(When::Poststart, &ground.spec, &state, &create.bundle).map_err(Error::internal)
}

fn builder(
    id: &str,
    state_root: &Path,
    stdio: Stdio,
    finish: Finish,
    console: &Console,
) -> Result<ContainerBuilder> {
    let mut builder = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(state_root)
        .map_err(|e| Error::because("cannot use the state directory", &e))?
        .with_console_socket(console.path())
        .with_executor(finish);
    if console.path().is_some() {
        return Ok(builder);
    }
    builder = builder
        .with_stdin(or_null(stdio.stdin)?)
        .with_stdout(or_null(stdio.stdout)?)
        .with_stderr(or_null(stdio.stderr)?);
    Ok(builder)
}

fn or_null(fd: Option<OwnedFd>) -> Result<OwnedFd> {
    fd.map_or_else(|| open_null().map(OwnedFd::from), Ok)
}

impl Held for Cold {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    fn timings(&self) -> Vec<Timing> {
        self.ground.timings.clone()
    }

    fn start(&mut self) -> Result<()> {
        let mark = trace::mark();
        let started = Container::load(self.ground.paths.state.clone())
            .and_then(|mut container| container.start())
            .map_err(|e| failure("cannot start the container", &e, mark));
        // A process that was killed before it was executed says nothing: it did
        // start, and its exit tells the rest.
        self.desk.serve_to_the_end();
        match (self.desk.failure(), started) {
            (None, Ok(())) => Ok(()),
            (Some(e), _) | (None, Err(e)) => {
                self.ground.clear();
                Err(e)
            }
        }
    }

    fn abort(self: Box<Self>) {
        self.ground.clear();
    }

    fn leave(self: Box<Self>) {
        drop(self);
    }
}

/// Runs one more process in a container.
pub(super) fn exec(exec: &Exec, stdio: Stdio) -> Result<Started> {
    let paths = Paths::of(&exec.state_root, &exec.id, &exec.bundle)?;
    let (spec, _) = prepare::load_spec(&exec.bundle.join("config.json"))?;
    let cgroup = ground::cgroup_of(&paths, &spec, &exec.id)?;
    let process = executor_process(&exec.process, &spec);
    validate::check_process(&process).map_err(|why| Error::new(ErrorKind::InvalidArgument, why))?;
    let terminal = process.terminal().unwrap_or(false);
    let scratch = Scratch::make(&paths.private, &exec.exec_id)?;
    let bare = prepare::unrestricted(&process)?;
    let process_json = scratch.0.join("process.json");
    let json = serde_json::to_vec(&bare).doing("cannot encode the process")?;
    std::fs::write(&process_json, json).doing("cannot write process.json")?;
    let init = alive::open(&paths)?;
    let userns = userns::of_process(&spec, init.pid)?;
    let agent = Agent::of(&spec, &exec.id, &exec.bundle, Some(init.pid));
    let (mut desk, line) = executor::open_line(Who::Exec, agent)?;
    let first_cpus = process
        .exec_cpu_affinity()
        .as_ref()
        .and_then(|affinity| affinity.initial().clone());
    let container = executor::Running {
        init: init.pidfd,
        userns,
    };
    let finish = Finish::exec(&exec.id, process, &spec, container, line);
    let console = Console::listen(terminal, &scratch.0)?;
    let mark = trace::mark();
    let built = helper::in_child(&mut desk, || {
        if let Some(cpus) = first_cpus {
            executor::bind(&cpus)
                .map_err(|e| Error::internal(format!("error setting initial CPU affinity: {e}")))?;
        }
        let below = join_beside_init(&cgroup, init.pid)?;
        builder(&exec.id, &exec.state_root, stdio, finish, &console)?
            .as_tenant()
            .with_sub_cgroup(below)
            .with_process(Some(process_json))
            .with_detach(true)
            .as_sibling(true)
            .with_ignore_paused(false)
            .build()
            .map(nix::unistd::Pid::as_raw)
            .map_err(|e| failure("cannot run the process", &e, mark))
    });
    let failed = match built {
        Ok(pid) => {
            desk.serve_to_the_end();
            match desk.failure() {
                None => {
                    let console = console.accept()?;
                    return Ok(Started { pid, console });
                }
                Some(e) => e,
            }
        }
        Err(e) => desk.failure().unwrap_or(e),
    };
    Err(add_detail(failed, mark))
}

/// Moves this process into the container's cgroup, or into that of its init.
/// libcontainer does so again; what it has to be told of is a cgroup below the
/// container's own.
fn join_beside_init(cgroup: &Cgroup, init: i32) -> Result<Option<String>> {
    let own = nix::unistd::getpid().as_raw();
    let joined = cgroup.join_beside(own, init)?;
    let below = joined.strip_prefix(cgroup.path());
    Ok(below
        .map(|path| path.trim_matches('/').to_owned())
        .filter(|path| !path.is_empty()))
}

/// What the exec'd process inherits from the container's own, as under runc,
/// where its request is silent.
fn executor_process(asked: &Process, spec: &Spec) -> Process {
    let mut process = asked.clone();
    let Some(init) = spec.process() else {
        return process;
    };
    if process.capabilities().is_none() {
        process.set_capabilities(init.capabilities().clone());
    }
    if process.no_new_privileges().is_none() {
        process.set_no_new_privileges(init.no_new_privileges());
    }
    if process.apparmor_profile().is_none() {
        process.set_apparmor_profile(init.apparmor_profile().clone());
    }
    if process.selinux_label().is_none() {
        process.set_selinux_label(init.selinux_label().clone());
    }
    // Its limits are its own, and its score is init's.
    process.set_oom_score_adj(init.oom_score_adj());
    if process.scheduler().is_none() {
        process.set_scheduler(init.scheduler().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*init.io_priority());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(init.exec_cpu_affinity().clone());
    }
    process
}

/// A directory for one exec, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn make(private: &Path, exec_id: &str) -> Result<Self> {
        let name = format!("exec-{}", exec_id.replace('/', "_"));
        let path = private.join(name);
        std::fs::create_dir_all(&path).doing(format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Remove takes the whole private directory.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// The sockets over which a first process hands its console's master.
fn console_socket(terminal: bool) -> Result<(Option<UnixStream>, Option<OwnedFd>)> {
    if !terminal {
        return Ok((None, None));
    }
    let (ours, theirs) = UnixStream::pair().doing("cannot make the console socket")?;
    Ok((Some(ours), Some(theirs.into())))
}

/// The socket over which libcontainer hands the console's master of an exec.
struct Console(Option<(UnixListener, PathBuf)>);

impl Console {
    fn listen(terminal: bool, dir: &Path) -> Result<Self> {
        if !terminal {
            return Ok(Self(None));
        }
        // A socket's path may have 107 bytes; this one always fits.
        let handle = File::open(dir).doing(format!("cannot open {}", dir.display()))?;
        let name = "console.sock";
        let short = PathBuf::from(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()));
        let listener = UnixListener::bind(short).doing("cannot make the console socket")?;
        Ok(Self(Some((listener, dir.join(name)))))
    }

    fn path(&self) -> Option<&Path> {
        self.0.as_ref().map(|(_, path)| path.as_path())
    }

    /// The master: it was sent while building, so nothing is waited for.
    fn accept(self) -> Result<Option<OwnedFd>> {
        let Some((listener, path)) = self.0 else {
            return Ok(None);
        };
        let (socket, _) = listener.accept().doing("no console came")?;
        let master = super::wire::receive_console(&socket)?;
        std::fs::remove_file(path).ok();
        Ok(Some(master))
    }
}

fn add_detail(mut error: Error, mark: u64) -> Error {
    error.detail.extend(trace::since(mark));
    error
}

/// libcontainer's error in one line, with the cause that it told on the side.
fn failure(what: &str, error: &LibcontainerError, mark: u64) -> Error {
    cause(what, mark).unwrap_or_else(|| Error::because(what, error))
}

/// The innermost cause, which came first. The error itself only adds layers; and
/// it may not arrive at all: libcontainer cleans up by killing what is in the
/// cgroup, our helper among it.
fn cause(what: &str, mark: u64) -> Option<Error> {
    let lines = trace::since(mark);
    let first = lines.first()?;
    Some(Error::internal(format!("{what}: {first}")))
}

/// Writes the state by which libcontainer knows a container that it did not make
/// itself: a restored one, running as `pid`. Removed with the state directory.
pub(super) fn forge_state(create: &Create, ground: &Ground, pid: i32) -> Result<()> {
    let paths = &ground.paths;
    let void = Void::of(&paths.private);
    let bare = prepare::for_libcontainer(&ground.spec, &void, &ground.cgroup)?;
    // An exec looks for the root that it names.
    void.make()?;
    std::fs::create_dir_all(&paths.state)
        .doing(format!("cannot make {}", paths.state.display()))?;
    prepare::write_bundle(&paths.private, &bare)?;
    let forge = || -> std::result::Result<(), LibcontainerError> {
        let status = ContainerStatus::Created;
        let mut container =
            Container::new(&create.id, status, Some(pid), &paths.private, &paths.state)?;
        container
            .set_status(status)
            .set_status(ContainerStatus::Running)
            .set_creator(nix::unistd::geteuid().as_raw())
            .set_systemd(false)
            .set_annotations(bare.annotations().clone());
        container.save()?;
        YoukiConfig::from_spec(&bare, &create.id)?.save(&paths.state)?;
        Ok(())
    };
    alive::note(&paths.private, pid)?;
    forge().map_err(|e| Error::because("cannot write the container's state", &e))
}

/// Runs the poststop hooks. As with runc, a failing one is told and no more.
pub(super) fn run_poststop(spec: &Spec, id: &str, bundle: &Path) {
    let state = State::new(spec, id, bundle, "stopped");
    // containerd may have removed it.
    let at = if bundle.is_dir() {
        bundle
    } else {
        Path::new("/")
    };
    if let Err(e) = hooks::run(When::Poststop, spec, &state, at) {
        trace::note(&e);
    }
}
