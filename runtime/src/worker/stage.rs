//! What a restored container gets fresh: `/dev` with its nodes, the tmpfs that
//! holds cgroup mountpoints, systemd's own hierarchy, an empty directory for masked
//! ones.
//!
//! Each is a file system of its own with the options that a cold start gives it, mounted
//! in the container's private directory. CRIU binds them into the container; then
//! they are unmounted from the node. A tmpfs that CRIU made itself would cost a
//! `tar` process.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};

use super::layout::{Layout, is_bind};
use super::record::{Kind, Record};
use super::tree::{self, Devices, Fresh, Missing, find_or_make};
use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, Result};
use crate::namespaces::{self, Namespace};
use crate::sys;

const DEV: &str = "dev";
const CGROUP: &str = "cgroup";
const MASKED: &str = "masked";
const SYSTEMD: &str = "systemd";

/// A mounted stage; dropping it unmounts and removes it.
#[derive(Debug)]
pub(super) struct Stage {
    path: PathBuf,
    /// The container's cgroup in a fresh mount of `name=systemd`, by its mountpoint
    /// in the container.
    systemd: Option<(PathBuf, PathBuf)>,
}

impl Stage {
    /// Builds the stage for `spec` in the directory `private`.
    pub(super) fn build(
        private: &Path,
        spec: &Spec,
        layout: &Layout,
        record: &Record,
        cgroup: &Cgroup,
    ) -> Result<Self> {
        let path = private.join("stage");
        std::fs::create_dir(&path).doing("Cannot make the stage")?;
        let mut stage = Self {
            path,
            systemd: None,
        };
        let wants = |kinds: &[Kind]| record.mounts.values().any(|kind| kinds.contains(kind));
        if wants(&[Kind::Dev, Kind::MaskedFile]) {
            let dev = Fresh::dev(layout.mount_at(Path::new("/dev")));
            let mount = stage.mount(DEV, &dev)?;
            stage.fill_dev(spec, layout, record.terminal)?;
            dev.seal(mount.as_fd())
                .doing("Cannot make /dev read-only")?;
        }
        if wants(&[Kind::CgroupRoot]) {
            stage.mount(CGROUP, &Fresh::cgroups())?;
            stage.fill_cgroup(record, cgroup)?;
        }
        if wants(&[Kind::MaskedDir]) {
            stage.mount(MASKED, &Fresh::mask())?;
        }
        let own = namespaces::of(spec, LinuxNamespaceType::Cgroup) != Namespace::Host;
        if own && wants(&[Kind::Cgroup]) {
            stage.systemd = stage.mount_systemd(cgroup)?;
        }
        Ok(stage)
    }

    /// The source of an external mount that is not the spec's to give.
    pub(super) fn source(&self, kind: Kind) -> Option<PathBuf> {
        match kind {
            Kind::Dev => Some(self.path.join(DEV)),
            Kind::CgroupRoot => Some(self.path.join(CGROUP)),
            Kind::MaskedDir => Some(self.path.join(MASKED)),
            Kind::MaskedFile => Some(self.path.join(DEV).join("null")),
            Kind::Bind | Kind::Cgroup => None,
        }
    }

    /// (mountpoint in the container, source) of each hierarchy of the cgroup.
    pub(super) fn hierarchies(&self, cgroup: &Cgroup) -> Vec<(PathBuf, PathBuf)> {
        let mut all = cgroup.mounts();
        for (at, source) in &mut all {
            if let Some((_, fresh)) = self.systemd.as_ref().filter(|(named, _)| named == at) {
                source.clone_from(fresh);
            }
        }
        all
    }

    fn mount(&self, name: &str, fresh: &Fresh) -> Result<OwnedFd> {
        self.attach(name, || fresh.make())
    }

    fn attach(
        &self,
        name: &str,
        make: impl FnOnce() -> std::result::Result<OwnedFd, Errno>,
    ) -> Result<OwnedFd> {
        let at = self.path.join(name);
        let what = || format!("Cannot mount {}", at.display());
        std::fs::create_dir(&at).doing(what())?;
        let mount = make().doing(what())?;
        sys::move_mount(mount.as_fd(), libc::AT_FDCWD, &at).doing(what())?;
        Ok(mount)
    }

    /// A bind mount shows the word that its source was mounted with. In a cgroup
    /// namespace a cold start mounts the hierarchies itself, `name=systemd` under a
    /// word of its own, which programs that look for it may have read.
    fn mount_systemd(&self, cgroup: &Cgroup) -> Result<Option<(PathBuf, PathBuf)>> {
        let Some((at, dir)) = cgroup.in_systemds_hierarchy() else {
            return Ok(None);
        };
        self.attach(SYSTEMD, tree::systemds_hierarchy)?;
        let dir = dir.strip_prefix("/").unwrap_or(&dir);
        Ok(Some((at, self.path.join(SYSTEMD).join(dir))))
    }

    fn fill_dev(&self, spec: &Spec, layout: &Layout, terminal: bool) -> Result<()> {
        let root = File::open(&self.path).doing("Cannot open the stage")?;
        Devices::of_dev_alone(spec)?
            .make(root.as_fd())
            .map_err(|e| Error::internal(format!("Cannot make /dev: {e}")))?;
        if terminal {
            // The mountpoint of the console, which CRIU binds from the new devpts.
            std::fs::write(self.path.join("dev/console"), "").doing("Cannot make /dev/console")?;
        }
        for (to, mount) in &layout.mounts {
            if to.starts_with("/dev") {
                make_mountpoint(root.as_fd(), to, mount)?;
            }
        }
        Ok(())
    }

    fn fill_cgroup(&self, record: &Record, cgroup: &Cgroup) -> Result<()> {
        let dir = self.path.join(CGROUP);
        for (at, _) in cgroup.mounts() {
            if let Some(name) = at
                .strip_prefix("/sys/fs/cgroup")
                .ok()
                .filter(|n| !n.as_os_str().is_empty())
            {
                let at = dir.join(name);
                std::fs::create_dir_all(&at).doing(format!("Cannot make {}", at.display()))?;
            }
        }
        for (name, target) in &record.cgroup_links {
            if name.contains('/') || name.starts_with('.') {
                continue;
            }
            // A controller that this node mounts by itself needs no link.
            symlink(target, dir.join(name)).ok();
        }
        Ok(())
    }

    /// Unmounts it from the node; what was bound into a container stays there.
    pub(super) fn remove(&self) -> Result<()> {
        for name in [DEV, CGROUP, MASKED, SYSTEMD] {
            let at = self.path.join(name);
            match umount2(&at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
                Err(e) => return Err(Error::because("Cannot unmount the stage", &e)),
            }
            remove_empty(&at)?;
        }
        remove_empty(&self.path)
    }
}

fn remove_empty(dir: &Path) -> Result<()> {
    match std::fs::remove_dir(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::because("Cannot remove the stage", &e))
        }
        _ => Ok(()),
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Removing it twice is fine; that it failed was told, or comes with a
        // failure that matters more.
        self.remove().ok();
    }
}

/// Makes the mountpoints of the spec's mounts in the new rootfs, where they are
/// missing.
pub(super) fn make_mountpoints(rootfs: &Path, layout: &Layout) -> Result<()> {
    let covered = |to: &Path| {
        // Below these a fresh file system will be.
        ["/dev", "/proc", "/sys"]
            .iter()
            .any(|top| to.starts_with(top) && to != Path::new(top))
    };
    let root = File::open(rootfs).doing("Cannot open the rootfs")?;
    for (to, mount) in &layout.mounts {
        if !covered(to) {
            make_mountpoint(root.as_fd(), to, mount)?;
        }
    }
    Ok(())
}

fn make_mountpoint(root: BorrowedFd<'_>, to: &Path, mount: &Mount) -> Result<()> {
    let source = mount.source().as_ref().filter(|_| is_bind(mount));
    let missing = match source {
        Some(source) if !source.is_dir() => Missing::File,
        _ => Missing::Directory,
    };
    find_or_make(root, to, missing)
        .map(drop)
        .doing(format!("Cannot make the mountpoint {}", to.display()))
}
