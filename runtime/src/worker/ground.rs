//! The ground a container stands on, cold or restored: its spec, private
//! directory, cgroup and mounted rootfs. Laid in one go, and cleared whatever
//! was reached.
//!
//! ```text
//!  <state_root>/<id>/     libcontainer's state
//!  <state_root>/.<id>/    ours: the bundle that libcontainer sees, sockets
//! ```

use std::path::{Path, PathBuf};
use std::time::Instant;

use oci_spec::runtime::Spec;

use super::workdir::WorkDir;
use super::{Create, Remove, Timing, abort, mounts, prepare, trace, validate};
use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, ErrorKind, Result};

/// The file in the private directory that has the spec's words for the cgroup.
const UNIT: &str = "unit";
/// The file in the private directory that tells where a relative path begins.
const HOME: &str = "home";

/// Where things of one container are.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    /// libcontainer's state directory.
    pub(super) state: PathBuf,
    /// Our own directory; ids never begin with a dot.
    pub(super) private: PathBuf,
    /// The mounted rootfs.
    pub(super) rootfs: PathBuf,
}

impl Paths {
    pub(super) fn of(state_root: &Path, id: &str, bundle: &Path) -> Result<Self> {
        if id.is_empty() || id.starts_with('.') || id.contains('/') {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{id:?} cannot be a container's id"),
            ));
        }
        Ok(Self {
            state: state_root.join(id),
            private: state_root.join(format!(".{id}")),
            rootfs: bundle.join("rootfs"),
        })
    }
}

/// The cgroup of a container that is there.
pub(super) fn cgroup_of(paths: &Paths, spec: &Spec, id: &str) -> Result<Cgroup> {
    let home = std::fs::read_to_string(paths.private.join(HOME)).ok();
    Cgroup::made_from(spec, id, home)
}

/// Everything a container needs before it has a process.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) paths: Paths,
    /// The spec as containerd wrote it.
    pub(super) spec: Spec,
    pub(super) cgroup: Cgroup,
    pub(super) timings: Vec<Timing>,
}

impl Ground {
    /// Loads the spec, makes the private directory, mounts the rootfs. The cgroup
    /// is the caller's to make: on v1 it waits for the kernel (`cgroup::prewarm`),
    /// and much can be done meanwhile.
    pub(super) fn lay(create: &Create) -> Result<Self> {
        let mut clock = Clock::new();
        let (spec, warnings) = prepare::load_spec(&create.bundle.join("config.json"))?;
        warnings.iter().for_each(|line| trace::note(line));
        validate::check(&spec)
            .map_err(|why| Error::new(ErrorKind::InvalidArgument, why))?
            .iter()
            .for_each(|line| trace::note(line));
        let mut paths = Paths::of(&create.state_root, &create.id, &create.bundle)?;
        if create.rootfs.is_empty() {
            // Nothing to mount: the rootfs is wherever the spec says.
            paths.rootfs = prepare::root_path(&spec, &create.bundle)?;
        }
        let cgroup = Cgroup::of(&spec, &create.id)?;
        if paths.state.exists() {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                "container with given ID already exists",
            ));
        }
        clock.step("load_spec");
        let mut ground = Self {
            paths,
            spec,
            cgroup,
            timings: Vec::new(),
        };
        if let Err(e) = ground.lay_out(create, &mut clock) {
            ground.clear();
            return Err(e);
        }
        ground.timings = clock.steps;
        Ok(ground)
    }

    fn lay_out(&self, create: &Create, clock: &mut Clock) -> Result<()> {
        std::fs::create_dir_all(&self.paths.private)
            .doing(format!("cannot make {}", self.paths.private.display()))?;
        self.keep_cgroup()?;
        let layers = create.restore.as_ref().map_or(&[][..], |r| &r.layers);
        let scratch = self.paths.private.join("layers");
        mounts::mount_rootfs(&self.paths.rootfs, &create.rootfs, layers, &scratch)?;
        clock.step("mount_rootfs");
        if create.rootfs.is_empty() {
            return Ok(());
        }
        prepare::check_root(&self.spec, &create.bundle, &self.paths.rootfs)
    }

    /// Keeps what finds the cgroup again: where a relative path began, since a later
    /// worker may live elsewhere; and what the spec calls it, for the day when the
    /// bundle is gone and that is more than the path that libcontainer is given.
    fn keep_cgroup(&self) -> Result<()> {
        let home = self.cgroup.home();
        if home.is_none() && !self.cgroup.is_systemd() {
            return Ok(());
        }
        let linux = self.spec.linux().as_ref();
        let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
        let path = path.and_then(Path::to_str).unwrap_or_default();
        let keep = |name: &str, text: &str| {
            std::fs::write(self.paths.private.join(name), text).doing("cannot keep the cgroup")
        };
        keep(UNIT, path)?;
        home.map_or(Ok(()), |home| keep(HOME, home))
    }

    /// Kills what lives in the cgroup and removes everything again. Errors are
    /// noted only: the failure that led here is what the user must read.
    pub(super) fn clear(&self) {
        for error in clear(&self.paths, &self.cgroup) {
            trace::note(&error.message);
        }
    }
}

/// Measures steps.
#[derive(Debug)]
pub(super) struct Clock {
    last: Instant,
    pub(super) steps: Vec<Timing>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            last: Instant::now(),
            steps: Vec::new(),
        }
    }

    /// Ends a step.
    pub(super) fn step(&mut self, step: &str) {
        let now = Instant::now();
        let us = now.duration_since(self.last).as_micros();
        self.last = now;
        self.steps.push(Timing {
            step: step.to_owned(),
            us: u64::try_from(us).unwrap_or(u64::MAX),
        });
    }
}

/// Removes all that a container left, however far it came. Done twice it does
/// nothing the second time.
pub(super) fn remove(remove: &Remove) -> Result<()> {
    let paths = Paths::of(&remove.state_root, &remove.id, &remove.bundle)?;
    let mut errors = Vec::new();
    // containerd removes a bundle before it asks us about a dead shim's containers;
    // what libcontainer was given names the cgroup as well.
    let of_bundle = prepare::load_spec(&remove.bundle.join("config.json"));
    match of_bundle.or_else(|e| load_own(&paths).ok_or(e)) {
        Ok((spec, _)) => {
            let existed = paths.private.exists();
            match cgroup_of(&paths, &spec, &remove.id) {
                Ok(cgroup) => errors.extend(clear(&paths, &cgroup)),
                Err(e) => errors.push(e),
            }
            if existed {
                super::container::run_poststop(&spec, &remove.id, &remove.bundle);
            }
        }
        // The bundle is gone or broken: what does not need it is removed.
        Err(e) => {
            // Of a spec that was never understood there is nothing.
            let existed = paths.private.exists() || paths.state.exists();
            errors.extend(clear_files(&paths));
            if existed && remove.bundle.exists() {
                errors.push(e);
            }
        }
    }
    // By now whoever was restoring it is dead.
    for work in WorkDir::left(&remove.criu_work, &remove.namespace, &remove.id, "restore") {
        abort::remove_yards(&work);
    }
    join(errors)
}

fn load_own(paths: &Paths) -> Option<(Spec, Vec<String>)> {
    let (mut spec, warnings) = prepare::load_spec(&paths.private.join("config.json")).ok()?;
    if let Ok(unit) = std::fs::read_to_string(paths.private.join(UNIT)) {
        let mut linux = spec.linux().clone().unwrap_or_default();
        linux.set_cgroups_path(Some(unit.into()));
        spec.set_linux(Some(linux));
    }
    Some((spec, warnings))
}

fn clear(paths: &Paths, cgroup: &Cgroup) -> Vec<Error> {
    let mut errors = Vec::new();
    errors.extend(cgroup.kill_all().err());
    errors.extend(clear_files(paths));
    errors.extend(cgroup.remove().err());
    errors
}

fn clear_files(paths: &Paths) -> Vec<Error> {
    let mut errors = Vec::new();
    match mounts::unmount_below(&paths.rootfs) {
        Ok(()) => remove_abandoned(&paths.rootfs),
        Err(e) => errors.push(e),
    }
    // A restore's stage, if its worker was killed.
    errors.extend(mounts::unmount_below(&paths.private).err());
    for dir in [&paths.state, &paths.private] {
        match std::fs::remove_dir_all(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                errors.push(Error::because(
                    format!("cannot remove {}", dir.display()),
                    &e,
                ));
            }
            _ => {}
        }
    }
    errors
}

/// containerd may have removed a bundle while a worker whose shim had died still
/// mounted things in it; the empty directories are nobody's then.
fn remove_abandoned(rootfs: &Path) {
    let Some(bundle) = rootfs.parent() else {
        return;
    };
    if rootfs.ends_with("rootfs") && !bundle.join("config.json").exists() {
        // Anything in them, and they stay.
        for dir in [rootfs, bundle] {
            std::fs::remove_dir(dir).ok();
        }
    }
}

fn join(mut errors: Vec<Error>) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    let mut first = errors.remove(0);
    first.detail.extend(errors.into_iter().map(|e| e.message));
    Err(first)
}
