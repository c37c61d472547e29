//! What a restored container gets fresh: `/dev` with its nodes, the tmpfs that
//! holds cgroup mountpoints, an empty directory for masked ones.
//!
//! All of it lies in one tmpfs of the container's own, mounted in its private
//! directory. CRIU binds parts of it into the container; then it is unmounted
//! from the node. A tmpfs that CRIU made itself would cost a `tar` process.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid, chown};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};

use super::layout::{Layout, is_bind};
use super::record::{Kind, Record};
use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, ErrorKind, Result};

/// The devices that every container has: name and numbers.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// The links that every container's `/dev` has.
const LINKS: [(&str, &str); 6] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

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
        let dev = self.path.join("dev");
        for (name, major, minor) in DEVICES {
            make_node(&dev.join(name), SFlag::S_IFCHR, (major, minor), 0o666)?;
        }
        for (name, target) in LINKS {
            symlink(target, dev.join(name)).doing(format!("Cannot make /dev/{name}"))?;
        }
        if terminal {
            // The mountpoint of the console, which CRIU binds from the new devpts.
            std::fs::write(dev.join("console"), "").doing("Cannot make /dev/console")?;
        }
        let linux = spec.linux().as_ref();
        for device in linux
            .and_then(|l| l.devices().as_ref())
            .into_iter()
            .flatten()
        {
            let Ok(name) = device.path().strip_prefix("/dev") else {
                // In the rootfs; it came with the writable layer.
                continue;
            };
            make_device(&inside(&dev, name)?, device)?;
        }
        for (to, mount) in &layout.mounts {
            if let Ok(name) = to.strip_prefix("/dev")
                && !name.as_os_str().is_empty()
            {
                make_mountpoint(&inside(&dev, name)?, mount)?;
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
    for (to, mount) in &layout.mounts {
        if !covered(to) {
            make_mountpoint(&super::layout::on_host(rootfs, to), mount)?;
        }
    }
    Ok(())
}

fn make_mountpoint(at: &Path, mount: &oci_spec::runtime::Mount) -> Result<()> {
    if std::fs::symlink_metadata(at).is_ok() {
        return Ok(());
    }
    let file = is_bind(mount)
        && mount
            .source()
            .as_ref()
            .is_some_and(|source| !source.is_dir());
    let doing = || format!("Cannot make the mountpoint {}", at.display());
    if !file {
        return std::fs::create_dir_all(at).doing(doing());
    }
    if let Some(parent) = at.parent() {
        std::fs::create_dir_all(parent).doing(doing())?;
    }
    std::fs::File::create_new(at).map(|_| ()).doing(doing())
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

fn make_device(at: &Path, device: &LinuxDevice) -> Result<()> {
    let kind = match device.typ() {
        LinuxDeviceType::B => SFlag::S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
        LinuxDeviceType::P => SFlag::S_IFIFO,
        LinuxDeviceType::A => return Ok(()),
    };
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    let numbers = (number(device.major()), number(device.minor()));
    if let Some(parent) = at.parent() {
        std::fs::create_dir_all(parent).doing(format!("Cannot make {}", parent.display()))?;
    }
    if at.exists() {
        std::fs::remove_file(at).doing(format!("Cannot replace {}", at.display()))?;
    }
    make_node(at, kind, numbers, device.file_mode().unwrap_or(0o666))?;
    chown(
        at,
        device.uid().map(Uid::from_raw),
        device.gid().map(Gid::from_raw),
    )
    .doing(format!("Cannot set the owner of {}", at.display()))
}

fn make_node(at: &Path, kind: SFlag, (major, minor): (u64, u64), mode: u32) -> Result<()> {
    mknod(at, kind, Mode::empty(), makedev(major, minor))
        .doing(format!("Cannot make the device {}", at.display()))?;
    set_mode(at, mode)
}

fn set_mode(at: &Path, mode: u32) -> Result<()> {
    let mode = std::fs::Permissions::from_mode(mode & 0o7777);
    std::fs::set_permissions(at, mode).doing(format!("Cannot set the mode of {}", at.display()))
}

/// `dev/name`, as long as `name` does not climb out.
fn inside(dev: &Path, name: &Path) -> Result<PathBuf> {
    let climbs = name
        .components()
        .any(|part| !matches!(part, std::path::Component::Normal(_)));
    if climbs {
        let message = format!("/dev/{} is not a path for a device", name.display());
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(dev.join(name))
}
