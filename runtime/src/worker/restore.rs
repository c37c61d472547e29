//! Makes a container from a checkpoint and holds it still.
//!
//! ```text
//!  read the record ─ lay the ground ─┬─ criu starts, in the pod's namespaces
//!                                    └─ stage, mountpoints, shared memory
//!  ─ criu into the cgroup ─ CRIU restores ─ (pre-resume) verify, limits, state
//!  ─ held ─ start: answer pre-resume
//! ```
//!
//! CRIU clones init as its sibling, so init is the worker's child and, once that
//! exits, the shim's. Images are untrusted: binds come from the new spec alone,
//! and nothing runs before `verify` has compared it with that spec.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxNamespaceType, LinuxResources, Spec};
use rust_criu::rust_criu_protobuf::rpc::{Criu_opts, Criu_req_type, Ext_mount_map, Inherit_fd};

use super::child::Held;
use super::criu::{Criu, Event, Notification};
use super::dump::{common_options, open_dir};
use super::executor;
use super::ground::{Clock, Ground};
use super::layout::Layout;
use super::protocol::{Create, Stdio, Timing, open_null};
use super::record::{Kind, Record, SHARED_MEMORY};
use super::stage::{self, Stage};
use super::upper::Upper;
use super::verify;
use super::workdir::WorkDir;
use super::{abort, copy};
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::namespaces::{self, Namespace};
use crate::restorable;
use crate::sys::BeforeExec;

/// A container under restore, and then a restored one that stands still. Dropped
/// before it was started, it is killed and all it made is undone.
#[derive(Debug)]
pub(super) struct Restored {
    create: Create,
    ground: Ground,
    layout: Layout,
    record: Record,
    work: WorkDir,
    clock: Clock,
    criu: Option<Criu>,
    open: Vec<File>,
    stage: Option<Stage>,
    upper: Option<Upper>,
    /// Files that were put into the pod's shared memory.
    shared: Vec<PathBuf>,
    init: Option<i32>,
    console: Option<OwnedFd>,
    /// It was started, or has ended by itself: nothing is to be undone.
    let_go: bool,
}

/// Restores the container that `create` asks for and holds it before its first
/// instruction.
pub(super) fn restore(create: &Create, images: &Path, stdio: &Stdio) -> Result<Box<dyn Held>> {
    let record = Record::read(images)?;
    let ground = Ground::lay(create)?;
    match Restored::on(ground, create, record) {
        Ok(mut restored) => {
            restored.run(images, stdio)?;
            Ok(Box::new(restored))
        }
        Err(failed) => {
            let (e, ground) = *failed;
            ground.clear();
            Err(e)
        }
    }
}

impl Restored {
    fn on(
        ground: Ground,
        create: &Create,
        record: Record,
    ) -> std::result::Result<Self, Box<(Error, Ground)>> {
        let suits = refuse_unsuitable(&ground.spec, &record, create);
        let work = suits
            .and_then(|()| WorkDir::make(&create.criu, &create.namespace, &create.id, "restore"));
        match work {
            Ok(work) => Ok(Self {
                create: create.clone(),
                layout: Layout::of(&ground.spec, &ground.paths.rootfs),
                ground,
                record,
                work,
                clock: Clock::new(),
                criu: None,
                open: Vec::new(),
                stage: None,
                upper: Upper::of(&create.rootfs),
                shared: Vec::new(),
                init: None,
                console: None,
                let_go: false,
            }),
            Err(e) => Err(Box::new((e, ground))),
        }
    }

    fn run(&mut self, images: &Path, stdio: &Stdio) -> Result<()> {
        // CRIU takes each away from its descriptor: one of its own for every stream.
        let nulls = [open_null()?, open_null()?, open_null()?];
        let inherited = self.inherited(stdio, &nulls);
        // A cgroup namespace is born with criu, which has to be in the cgroup then;
        // CRIU makes none itself. Without one the cgroup can wait.
        let namespaced = namespaces::of(&self.ground.spec, LinuxNamespaceType::Cgroup);
        let mut keeper = None;
        if namespaced == Namespace::Own {
            keeper = Some(self.ground.cgroup.create()?);
            self.clock.step("cgroup_create");
        }
        self.spawn(&inherited)?;
        self.clock.step("criu_spawn");
        // While criu loads, what it will need is made.
        let private = &self.ground.paths.private;
        let stage = Stage::build(
            private,
            &self.ground.spec,
            &self.layout,
            &self.record,
            &self.ground.cgroup,
        )?;
        let stage = self.stage.insert(stage);
        stage::make_mountpoints(&self.ground.paths.rootfs, &self.layout)?;
        let mounts = external_mounts(
            &self.record,
            &self.layout,
            stage,
            &stage.hierarchies(&self.ground.cgroup),
        )?;
        self.clock.step("stage");
        self.fill_shared_memory(images)?;
        let (early, _) = split(self.resources());
        if keeper.is_some() {
            self.ground.cgroup.apply(early.as_ref(), self.devices())?;
            self.clock.step("cgroup_apply");
        } else {
            keeper = Some(self.ground.cgroup.create()?);
            self.clock.step("cgroup_create");
            self.ground.cgroup.apply(early.as_ref(), self.devices())?;
            self.clock.step("cgroup_apply");
            let criu = self.criu()?.pid();
            self.ground.cgroup.join(criu)?;
            self.clock.step("cgroup_join");
        }
        drop(keeper);
        let options = self.options(images, &inherited, mounts)?;
        self.criu()?.begin(Criu_req_type::RESTORE, options)?;
        self.follow()?;
        self.settle()
    }

    fn spawn(&mut self, inherited: &[(String, RawFd)]) -> Result<()> {
        let mut before = pod_namespaces(&self.ground.spec)?;
        if before.unshare & libc::CLONE_NEWCGROUP != 0 {
            before.cgroups = self.ground.cgroup.doors()?;
        }
        before.keep = inherited.iter().map(|(_, fd)| *fd).collect();
        // CRIU keeps no keyrings: what it restores has the one that it is started
        // with, which else would be the node's.
        executor::join_keyring(&self.create.id, true, false).map_err(Error::internal)?;
        let doing = format!("restore container {}", self.create.id);
        self.criu = Some(Criu::spawn(
            &self.create.criu,
            self.work.path(),
            doing,
            before,
        )?);
        Ok(())
    }

    /// Answers CRIU until the tasks stand before their first instruction.
    fn follow(&mut self) -> Result<()> {
        loop {
            let event = self.criu()?.next()?;
            match event {
                Event::Notify(Notification::PreResume) => {
                    self.clock.step("criu_restore");
                    return Ok(());
                }
                Event::Notify(
                    Notification::SetupNamespaces(pid) | Notification::PostRestore(pid),
                ) => {
                    self.init = Some(pid);
                }
                Event::Notify(Notification::ConsoleMaster(master)) => self.console = Some(master),
                Event::Notify(_) => {}
                Event::Done => {
                    return Err(Error::internal(
                        "CRIU finished without asking before the start",
                    ));
                }
            }
            self.criu()?.answer(true)?;
        }
    }

    /// The tasks exist and stand: compare, limit, make known.
    fn settle(&mut self) -> Result<()> {
        let init = self
            .init
            .ok_or_else(|| Error::internal("CRIU did not name the restored process"))?;
        if self.record.terminal && self.console.is_none() {
            return Err(Error::internal(
                "CRIU did not hand over the restored console",
            ));
        }
        let criu = self.criu()?.pid();
        verify::Expected {
            spec: &self.ground.spec,
            layout: &self.layout,
            record: &self.record,
            rootfs: &self.ground.paths.rootfs,
            criu,
        }
        .check(init, &self.ground.cgroup.pids()?)?;
        self.clock.step("verify");
        if let (_, Some(late)) = split(self.resources()) {
            self.ground.cgroup.update(&late)?;
        }
        adjust_oom_score(&self.ground.spec, init);
        if let Some(stage) = self.stage.take() {
            stage.remove()?;
        }
        super::container::forge_state(&self.create, &self.ground, init)?;
        self.clock.step("settle");
        Ok(())
    }

    fn options(
        &mut self,
        images: &Path,
        inherited: &[(String, RawFd)],
        mounts: Vec<Ext_mount_map>,
    ) -> Result<Criu_opts> {
        let images = open_dir(images)?;
        let work = open_dir(self.work.path())?;
        let inherit = inherited.iter().map(|(key, fd)| {
            let mut one = Inherit_fd::new();
            one.set_key(key.clone());
            one.set_fd(*fd);
            one
        });
        let options = Criu_opts {
            rst_sibling: Some(true),
            evasive_devices: Some(true),
            tcp_close: Some(true),
            root: Some(self.ground.paths.rootfs.to_string_lossy().into_owned()),
            ext_mnt: mounts,
            inherit_fd: inherit.collect(),
            lsm_profile: verify::lsm_profile(&self.ground.spec),
            ..common_options(&images, &work)
        };
        // CRIU reaches both through our /proc/PID/fd, to the end.
        self.open.extend([images, work]);
        Ok(options)
    }

    /// The new pipes, under the names that the old ones have in the image.
    fn inherited(&self, stdio: &Stdio, nulls: &[File; 3]) -> Vec<(String, RawFd)> {
        let given = [&stdio.stdin, &stdio.stdout, &stdio.stderr];
        let given = given.into_iter().zip(nulls);
        let mut all: Vec<(String, RawFd)> = Vec::new();
        for (key, (fd, null)) in self.record.descriptors.iter().zip(given) {
            if key.starts_with("pipe:[") && !all.iter().any(|(known, _)| known == key) {
                let fd = fd.as_ref().map_or(null.as_raw_fd(), AsRawFd::as_raw_fd);
                all.push((key.clone(), fd));
            }
        }
        all
    }

    fn fill_shared_memory(&mut self, images: &Path) -> Result<()> {
        let (true, Some(to)) = (self.record.shared_memory, self.layout.shared_memory()) else {
            return Ok(());
        };
        let before = copy::names_in(&to)?;
        let unpacked = copy::unpack(&images.join(SHARED_MEMORY), &to);
        self.shared = copy::names_in(&to)?
            .difference(&before)
            .map(|name| to.join(name))
            .collect();
        self.clock.step("shared_memory");
        unpacked
    }

    fn resources(&self) -> Option<&LinuxResources> {
        self.ground
            .spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.resources().as_ref())
    }

    fn devices(&self) -> &[LinuxDevice] {
        let linux = self.ground.spec.linux().as_ref();
        let devices = linux.and_then(|linux| linux.devices().as_deref());
        devices.unwrap_or_default()
    }

    fn criu(&mut self) -> Result<&mut Criu> {
        self.criu
            .as_mut()
            .ok_or_else(|| Error::internal("CRIU is not running"))
    }

    /// Sets the tasks running.
    fn resume(&mut self) -> Result<()> {
        let timeout = self.create.criu.timeout_ms;
        let criu = self.criu()?;
        criu.extend(timeout);
        criu.answer(true)?;
        while let Event::Notify(_) = criu.next()? {
            criu.answer(true)?;
        }
        self.let_go = true;
        Ok(())
    }

    /// Removes what is neither in the container's own places nor in its namespaces.
    fn remove_aside(&self) {
        abort::remove_yards(self.work.path());
        for file in &self.shared {
            abort::remove(file);
        }
    }
}

impl Held for Restored {
    fn pid(&self) -> i32 {
        self.init.unwrap_or(0)
    }

    fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    fn timings(&self) -> Vec<Timing> {
        [&self.ground.timings[..], &self.clock.steps].concat()
    }

    fn start(&mut self) -> Result<()> {
        self.resume()
    }

    fn abort(self: Box<Self>) {
        drop(self);
    }

    fn leave(mut self: Box<Self>) {
        // It traces init, which nobody can reap as long as it lives.
        if let Some(mut criu) = self.criu.take() {
            abort::kill_criu(&mut criu);
        }
        self.remove_aside();
        self.let_go = true;
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if self.let_go {
            if let Some(criu) = self.criu.take() {
                criu.finish();
            }
            return self.work.remove();
        }
        abort::kill(self.init, &self.ground.cgroup, self.criu.as_mut());
        self.stage = None;
        self.remove_aside();
        self.ground.clear();
        if let Some(upper) = &self.upper {
            upper.reset();
        }
    }
}

/// Device rules and limits hold before the image is touched: it may open devices
/// and fill memory. The CPU's share is given at the end, since a restore that is
/// throttled to half a CPU takes twice as long.
fn split(resources: Option<&LinuxResources>) -> (Option<LinuxResources>, Option<LinuxResources>) {
    let Some(all) = resources else {
        return (None, None);
    };
    let mut early = all.clone();
    let late = early.cpu().as_ref().map(|cpu| {
        let mut late = LinuxResources::default();
        late.set_devices(None).set_cpu(Some(cpu.clone()));
        late
    });
    early.set_cpu(None);
    (early.into(), late)
}

/// What the restored tree is told to mount from where. Names come from the image,
/// sources from the new spec.
fn external_mounts(
    record: &Record,
    layout: &Layout,
    stage: &Stage,
    cgroups: &[(PathBuf, PathBuf)],
) -> Result<Vec<Ext_mount_map>> {
    let mut all = Vec::new();
    for (key, kind) in &record.mounts {
        let source = match kind {
            Kind::Bind => layout.bind_source(key),
            Kind::Cgroup => cgroups
                .iter()
                .find(|(at, _)| at == key)
                .map(|(_, dir)| dir.clone()),
            other => stage.source(*other),
        };
        let source = source.ok_or_else(|| {
            let message = format!(
                "The checkpoint has a mount at {} that the new spec has not",
                key.display()
            );
            Error::new(ErrorKind::FailedPrecondition, message)
        })?;
        let mut mount = Ext_mount_map::new();
        mount.set_key(key.to_string_lossy().into_owned());
        mount.set_val(source.to_string_lossy().into_owned());
        all.push(mount);
    }
    Ok(all)
}

/// The namespaces that criu runs in so that what it restores is born in them:
/// the pod's where the spec names them, new ones where it wants new ones.
fn pod_namespaces(spec: &Spec) -> Result<BeforeExec> {
    let mut before = BeforeExec::default();
    // CRIU makes the others, new, from the image.
    for (typ, flag) in [
        (LinuxNamespaceType::Network, libc::CLONE_NEWNET),
        (LinuxNamespaceType::Ipc, libc::CLONE_NEWIPC),
        (LinuxNamespaceType::Uts, libc::CLONE_NEWUTS),
        (LinuxNamespaceType::Cgroup, libc::CLONE_NEWCGROUP),
    ] {
        match namespaces::of(spec, typ) {
            Namespace::Host => {}
            Namespace::Joined(path) => {
                let file = File::open(path)
                    .doing(format!("Cannot open the namespace {}", path.display()))?;
                before.join.push(OwnedFd::from(file));
            }
            Namespace::Own => {
                before.unshare |= flag;
                if typ == LinuxNamespaceType::Uts {
                    before.hostname.clone_from(spec.hostname());
                }
                before.loopback |= typ == LinuxNamespaceType::Network;
            }
        }
    }
    Ok(before)
}

/// What cannot be restored is said in one line before anything is done.
fn refuse_unsuitable(spec: &Spec, record: &Record, create: &Create) -> Result<()> {
    let beyond;
    let why = if namespaces::of(spec, LinuxNamespaceType::Pid) != Namespace::Own {
        "shares its pid namespace, where the pids of the checkpoint may be taken"
    } else if namespaces::of(spec, LinuxNamespaceType::User) != Namespace::Host {
        "has a user namespace"
    } else if restorable::has_sysctls(spec) {
        "sets sysctls"
    } else if restorable::has_hooks(spec) {
        "has hooks"
    } else if let Some(what) = restorable::beyond(spec) {
        beyond = format!("has {what}");
        &beyond
    } else if record.terminal != create.terminal {
        "has a terminal where the checkpoint has none, or the other way round"
    } else {
        return Ok(());
    };
    let message = format!("Container {} cannot be restored: it {why}", create.id);
    Err(Error::new(ErrorKind::FailedPrecondition, message))
}

/// The image has the old pod's. Lowering it may be forbidden, and is no reason to
/// fail, as little as it is for runc in a user namespace.
fn adjust_oom_score(spec: &Spec, init: i32) {
    let score = spec
        .process()
        .as_ref()
        .and_then(oci_spec::runtime::Process::oom_score_adj);
    if let Some(score) = score {
        std::fs::write(format!("/proc/{init}/oom_score_adj"), score.to_string()).ok();
    }
}
