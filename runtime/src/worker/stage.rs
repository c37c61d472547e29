//! What a restored container gets fresh: `/dev` with its nodes, the tmpfs that
//! holds cgroup mountpoints, an empty directory for masked ones.
//!
//! All of it lies in one tmpfs of the container's own, mounted in its private
//! directory. CRIU binds parts of it into the container; then it is unmounted
//! from the node. A tmpfs that CRIU made itself would cost a `tar` process.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use oci_spec::runtime::{Mount, Spec};

use super::layout::{Layout, is_bind};
use super::record::{Kind, Record};
use super::tree::{Devices, Missing, find_or_make};
use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, Result};

/// A mounted stage; dropping it unmounts and removes it.
#[derive(Debug)]
pub(super) struct Stage {
    path: PathBuf,
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
        let stage = Self { path };
        let options = dev_options(layout);
        mount(
            Some("tmpfs"),
            &stage.path,
            Some("tmpfs"),
            MsFlags::MS_NOSUID,
            Some(options.as_str()),
        )
        .doing("Cannot mount the stage")?;
        for dir in ["dev", "cgroup", "masked"] {
            let dir = stage.path.join(dir);
            std::fs::create_dir(&dir).doing(format!("Cannot make {}", dir.display()))?;
        }
        set_mode(&stage.path.join("masked"), 0o555)?;
        stage.fill_dev(spec, layout, record.terminal)?;
        stage.fill_cgroup(record, cgroup)?;
        Ok(stage)
    }

    /// The source of an external mount that is not the spec's to give.
    pub(super) fn source(&self, kind: Kind) -> Option<PathBuf> {
        match kind {
            Kind::Dev => Some(self.path.join("dev")),
            Kind::CgroupRoot => Some(self.path.join("cgroup")),
            Kind::MaskedDir => Some(self.path.join("masked")),
            Kind::MaskedFile => Some(self.path.join("dev/null")),
            Kind::Bind | Kind::Cgroup => None,
        }
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
        let dir = self.path.join("cgroup");
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
        match umount2(&self.path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(e) => return Err(Error::because("Cannot unmount the stage", &e)),
        }
        match std::fs::remove_dir(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::because("Cannot remove the stage", &e))
            }
            _ => Ok(()),
        }
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

/// Options of the tmpfs: those of the spec's `/dev` that are not mount flags.
fn dev_options(layout: &Layout) -> String {
    let data = |option: &&String| option.starts_with("size=") || option.starts_with("nr_inodes=");
    let dev = layout.mount_at(Path::new("/dev"));
    let options = dev.and_then(|m| m.options().as_ref()).into_iter().flatten();
    let mut all = vec!["mode=755".to_owned()];
    all.extend(options.filter(data).cloned());
    all.join(",")
}

fn set_mode(at: &Path, mode: u32) -> Result<()> {
    let mode = std::fs::Permissions::from_mode(mode & 0o7777);
    std::fs::set_permissions(at, mode).doing(format!("Cannot set the mode of {}", at.display()))
}
