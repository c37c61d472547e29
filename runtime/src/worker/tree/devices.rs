//! `/dev`: the nodes that every container has, those of the spec, and the links.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, major, makedev, minor, mknodat, umask};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, LinuxNamespaceType, Spec};

use super::open::{is_dev, open_tree};
use super::options::Options;
use super::place;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::namespaces::{self, Namespace};
use crate::sys;
use crate::worker::executor::{Inside, words};

/// The devices that every container has: name and numbers.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("random", 1, 8),
    ("full", 1, 7),
    ("tty", 5, 0),
    ("zero", 1, 5),
    ("urandom", 1, 9),
];
/// The links that every container's `/dev` has.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// A device of the container.
#[derive(Debug)]
struct Device {
    path: PathBuf,
    kind: SFlag,
    number: u64,
    mode: Mode,
    owner: (u32, u32),
    /// The node's own, in a user namespace, which may not make any.
    bound: Option<OwnedFd>,
}

/// What `/dev` is made of; nothing when it is a bind mount.
#[derive(Debug)]
pub(in crate::worker) struct Plan {
    devices: Option<Vec<Device>>,
    /// The kernel has a /proc/kcore.
    kcore: bool,
}

impl Plan {
    pub(super) fn of(spec: &Spec) -> Result<Self> {
        let bound_dev = spec
            .mounts()
            .iter()
            .flatten()
            .any(|mount| is_dev(mount.destination()) && Options::of(mount).is_bind());
        let remapped = namespaces::of(spec, LinuxNamespaceType::User) != Namespace::Host;
        let devices = (!bound_dev).then(|| list(spec, remapped)).transpose()?;
        Ok(Self {
            devices,
            kcore: Path::new("/proc/kcore").exists(),
        })
    }

    /// For a `/dev` that is made apart from the rootfs.
    pub(in crate::worker) fn of_dev_alone(spec: &Spec) -> Result<Self> {
        let mut devices = list(spec, false)?;
        devices.retain(|device| device.path.starts_with("/dev"));
        Ok(Self {
            devices: Some(devices),
            kcore: Path::new("/proc/kcore").exists(),
        })
    }

    /// Whether `/dev` is the container's own.
    pub(super) fn is_own(&self) -> bool {
        self.devices.is_some()
    }

    /// Makes all of it. Says whether `/dev` is the container's own.
    pub(in crate::worker) fn make(&self, root: BorrowedFd<'_>) -> Inside<bool> {
        let Some(devices) = &self.devices else {
            return Ok(false);
        };
        let before = umask(Mode::empty());
        let made = devices.iter().try_for_each(|device| device.make(root));
        umask(before);
        made.map_err(|e| format!("configuring container /dev: error creating device nodes: {e}"))?;
        self.link(root)
            .map_err(|e| format!("configuring container /dev: {}", words(e)))?;
        Ok(true)
    }

    fn link(&self, root: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
        let dev = place::find_or_make(root, Path::new("/dev"), place::Missing::Directory)?;
        let at = Some(dev.fd.as_raw_fd());
        match unlinkat(at, "ptmx", UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
        symlinkat("pts/ptmx", at, "ptmx")?;
        for (name, target) in LINKS
            .iter()
            .filter(|(name, _)| self.kcore || *name != "core")
        {
            match symlinkat(*target, at, *name) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// The usual devices, save those that the spec has itself, and then the spec's.
fn list(spec: &Spec, remapped: bool) -> Result<Vec<Device>> {
    let linux = spec.linux().as_ref();
    let asked = linux
        .and_then(|l| l.devices().as_deref())
        .unwrap_or_default();
    let usual = DEVICES.iter().map(|&(name, major, minor)| Device {
        path: Path::new("/dev").join(name),
        kind: SFlag::S_IFCHR,
        number: makedev(major, minor),
        mode: Mode::from_bits_truncate(0o666),
        owner: (0, 0),
        bound: None,
    });
    let mut all: Vec<_> = usual
        .filter(|one| asked.iter().all(|other| *other.path() != one.path))
        .collect();
    for device in asked {
        let name = device.path().as_os_str();
        // libcontainer's neighbours make /dev/ptmx a link; without a path there is
        // a cgroup rule only.
        if !name.is_empty() && name != "/dev/ptmx" {
            all.push(Device::of(device)?);
        }
    }
    if remapped {
        for device in &mut all {
            let tree = open_tree(&device.path, false)
                .doing(format!("cannot open the device {}", device.path.display()))?;
            device.bound = Some(tree);
        }
    }
    Ok(all)
}

impl Device {
    fn of(device: &LinuxDevice) -> Result<Self> {
        let path = device.path().clone();
        let wrong = |what: &str| {
            let text = format!("device {}: {what}", path.display());
            Error::new(ErrorKind::InvalidArgument, text)
        };
        let kind = match device.typ() {
            LinuxDeviceType::B => SFlag::S_IFBLK,
            LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
            LinuxDeviceType::P => SFlag::S_IFIFO,
            LinuxDeviceType::A => return Err(wrong("a is not a valid device type")),
        };
        let number = |n: i64| {
            u64::try_from(n).map_err(|_wild| wrong("cannot mkdev() device with wildcards"))
        };
        let number = makedev(number(device.major())?, number(device.minor())?);
        Ok(Self {
            kind,
            number,
            mode: Mode::from_bits_truncate(device.file_mode().unwrap_or(0o666) & 0o7777),
            owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
            bound: None,
            path,
        })
    }

    fn make(&self, root: BorrowedFd<'_>) -> Inside<()> {
        let told = |e: Errno| format!("{}: {}", self.path.display(), words(e));
        let (parent, name) = place::find_parent(root, &self.path).map_err(told)?;
        let dir = Some(parent.fd.as_raw_fd());
        if let Some(node) = &self.bound {
            return self.bind(root, node).map_err(told);
        }
        match mknodat(dir, name.as_os_str(), self.kind, self.mode, self.number) {
            // One of the image's or of a volume; or a name that is given twice.
            Err(Errno::EEXIST) => return Ok(()),
            other => other.map_err(told)?,
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made = openat(dir, name.as_os_str(), flags, Mode::empty()).map_err(told)?;
        let made = sys::own(made);
        let stat = fstat(made.as_raw_fd()).map_err(told)?;
        if place::kind(&stat) != self.kind || stat.st_rdev != self.number {
            let numbers = |n| format!("{}:{}", major(n), minor(n));
            return Err(format!(
                "new device inode {} has incorrect major:minor: {} doesn't match expected {}",
                self.path.display(),
                numbers(stat.st_rdev),
                numbers(self.number)
            ));
        }
        if self.owner == (0, 0) {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        let flags = AtFlags::AT_EMPTY_PATH;
        fchownat(Some(made.as_raw_fd()), "", Some(uid), Some(gid), flags).map_err(told)
    }

    fn bind(&self, root: BorrowedFd<'_>, node: &OwnedFd) -> std::result::Result<(), Errno> {
        let at = place::find_or_make(root, &self.path, place::Missing::File)?;
        sys::move_mount(node.as_fd(), at.fd.as_raw_fd(), Path::new(""))
    }
}
