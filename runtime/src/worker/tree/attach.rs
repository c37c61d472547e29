//! Mounts of the spec, attached inside the container's root.
//!
//! A new file system is made detached, its flags set, and then moved to its place,
//! like a bind mount: there is no moment at which somebody could swap what is
//! mounted, or see it with other flags than it shall have.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::stat::{SFlag, fstat};

use super::open::{Planned, What, is_dev};
use super::options::{Options, attributes, superblock_words};
use super::place::{self, Missing, Place};
use super::{cgroups, copy_up, proc, set_propagation};
use crate::sys;
use crate::worker::executor::{Inside, words};

/// The longest path that the kernel takes, in bytes, with the NUL at its end.
const PATH_MAX: usize = 4096;

/// A mount that is in its place.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) mount: OwnedFd,
    pub(super) at: PathBuf,
    /// Still writable, because it is filled first.
    pub(super) read_only_later: bool,
}

/// Makes one mount of the spec.
pub(super) fn attach(root: BorrowedFd<'_>, planned: Planned) -> Inside<Option<Attached>> {
    let (source, to) = (planned.source.clone(), planned.to.clone());
    mount(root, planned).map_err(|e| failed(&source, &to, &e))
}

/// How it is told that a mount of the spec cannot be made.
pub(super) fn refusal(planned: &Planned, why: Errno) -> String {
    let told = planned.told("mount", words(why));
    failed(&planned.source, &planned.to, &told)
}

fn failed(source: &str, to: &Path, why: &str) -> String {
    let to = to.display().to_string();
    format!("error mounting {source:?} to rootfs at {to:?}: {why}")
}

fn mount(root: BorrowedFd<'_>, planned: Planned) -> Inside<Option<Attached>> {
    let place = find_place(root, &planned)?;
    let propagation = planned.options.propagation.clone();
    let told = planned.teller();
    let (mount, read_only_later) = match planned.what {
        What::Bind(bind) => {
            let later = planned.options.is_read_only() && is_dev(&planned.to);
            (bind.tree, later)
        }
        What::New(ref typ) => new_at(&planned, typ, &place)?,
        What::Cgroups(ref cgroups) => {
            cgroups::attach(root, &planned, cgroups, &place)?;
            return Ok(None);
        }
    };
    move_to(&mount, &place).map_err(|e| told("mount", words(e)))?;
    propagate(&mount, &propagation)?;
    Ok(Some(Attached {
        mount,
        at: place.path,
        read_only_later,
    }))
}

fn find_place(root: BorrowedFd<'_>, planned: &Planned) -> Inside<Place> {
    let to = planned.to.display();
    let strict = matches!(&planned.what, What::New(typ) if typ == "proc" || typ == "sysfs");
    let ordinary = |typ: &str| format!("filesystem {typ:?} must be mounted on ordinary directory");
    let cannot = |e: Errno| format!("create mountpoint for {to} mount: {}", words(e));
    // In steps it could be made, but nobody could name it, runc neither.
    let whole = planned.rootfs.as_os_str().len() + place::clean(&planned.to).as_os_str().len();
    if whole >= PATH_MAX {
        return Err(cannot(Errno::ENAMETOOLONG));
    }
    if let What::New(typ) = &planned.what
        && strict
        && place::is_link(root, &planned.to).map_err(cannot)?
    {
        return Err(ordinary(typ));
    }
    let missing = match &planned.what {
        What::Bind(bind) if !bind.is_dir => Missing::File,
        _ => Missing::Directory,
    };
    let place = place::find_or_make(root, &planned.to, missing).map_err(|e| match e {
        Errno::ENOTDIR if strict => ordinary(planned.typ()),
        e => cannot(e),
    })?;
    let is_dir = place
        .found
        .is_none_or(|stat| place::kind(&stat) == SFlag::S_IFDIR);
    if strict && !is_dir {
        return Err(ordinary(planned.typ()));
    }
    let rootfs = &planned.rootfs;
    if place.path == Path::new("/") {
        return Err(format!(
            "create mountpoint for {to} mount: mountpoint {rootfs:?} is on the top of rootfs \
             {rootfs:?}"
        ));
    }
    proc::check(&place.path, &planned.what, rootfs).map_err(|e| {
        format!("create mountpoint for {to} mount: check proc-safety of {to} mount: {e}")
    })?;
    Ok(place)
}

/// A new file system of the spec, not attached yet; and whether it is to become
/// read-only later.
fn new_at(planned: &Planned, typ: &str, place: &Place) -> Inside<(OwnedFd, bool)> {
    let mut options = planned.options.clone();
    let mut label = planned.label.as_deref();
    let mut later = false;
    if typ == "tmpfs" || is_dev(&planned.to) {
        later = options.is_read_only();
        options.flags -= MsFlags::MS_RDONLY;
    }
    match typ {
        "proc" | "sysfs" | "mqueue" => label = None,
        "tmpfs" => {
            if let Some(stat) = &place.found {
                // First, so that a mode of the spec's own wins.
                let mode = format!("mode={:04o}", stat.st_mode & 0o7777);
                options.data.insert(0, mode);
            }
        }
        _ => {}
    }
    let mount = new(typ, &planned.source, &options, label)
        .and_then(|mount| refuse_twice(&mount, place).map(|()| mount))
        .map_err(|e| planned.told("mount", words(e)))?;
    if typ == "tmpfs" && planned.options.copy_up {
        copy_up::fill(place.fd.as_fd(), mount.as_fd())
            .map_err(|e| format!("tmpcopyup: failed to copy {}: {e}", planned.to.display()))?;
    }
    Ok((mount, later))
}

/// A new file system, not attached.
pub(super) fn new(
    typ: &str,
    source: &str,
    options: &Options,
    label: Option<&str>,
) -> std::result::Result<OwnedFd, Errno> {
    let fs = sys::fsopen(typ)?;
    let fs = fs.as_fd();
    if !source.is_empty() {
        sys::fsconfig_string(fs, "source", source)?;
    }
    for word in options
        .data
        .iter()
        .flat_map(|data| data.split(','))
        .filter(|w| !w.is_empty())
    {
        match word.split_once('=') {
            Some((key, value)) => sys::fsconfig_string(fs, key, value)?,
            None => sys::fsconfig_flag(fs, word)?,
        }
    }
    if let Some(label) = label {
        sys::fsconfig_string(fs, "context", label)?;
    }
    for word in superblock_words(options.flags) {
        sys::fsconfig_flag(fs, word)?;
    }
    sys::fsconfig_create(fs)?;
    sys::fsmount(fs, attributes(options.flags))
}

/// mount(2) mounts no file system upon itself, which a moved mount may be.
fn refuse_twice(mount: &OwnedFd, place: &Place) -> std::result::Result<(), Errno> {
    let device = |fd: &OwnedFd| fstat(fd.as_raw_fd()).map(|stat| stat.st_dev);
    if device(mount)? == device(&place.fd)? && sys::mount_point(place.fd.as_fd())?.is_root {
        return Err(Errno::EBUSY);
    }
    Ok(())
}

/// Puts a detached mount into its place.
pub(super) fn move_to(mount: &OwnedFd, place: &Place) -> std::result::Result<(), Errno> {
    sys::move_mount(mount.as_fd(), place.fd.as_raw_fd(), Path::new("")).map_err(|e| {
        let is_dir = |fd: &OwnedFd| {
            fstat(fd.as_raw_fd()).is_ok_and(|stat| place::kind(&stat) == SFlag::S_IFDIR)
        };
        // As mount(2) tells it, and users know it.
        if e == Errno::EINVAL && is_dir(mount) != is_dir(&place.fd) {
            Errno::ENOTDIR
        } else {
            e
        }
    })
}

/// Sets the propagation that the spec wants, in its order.
pub(super) fn propagate(mount: &OwnedFd, kinds: &[MsFlags]) -> Inside<()> {
    for flags in kinds {
        set_propagation(mount, *flags)
            .map_err(|e| format!("change mount propagation: {}", words(e)))?;
    }
    Ok(())
}

impl Planned {
    fn typ(&self) -> &str {
        match &self.what {
            What::New(typ) => typ,
            What::Bind(_) => "bind",
            What::Cgroups(_) => "cgroup",
        }
    }

    /// Tells a mount call's failure, with what it was called with.
    pub(super) fn teller(&self) -> impl Fn(&str, String) -> String + use<> {
        let mut with = format!("src={}, dst={}", self.source, self.to.display());
        if !self.options.flags.is_empty() {
            let names = self.options.flags.iter_names().map(|(name, _)| name);
            with += &format!(", flags={}", names.collect::<Vec<_>>().join("|"));
        }
        if !self.options.data.is_empty() {
            with += &format!(", data={}", self.options.data.join(","));
        }
        move |call, error| format!("{call} {with}: {error}")
    }

    pub(super) fn told(&self, call: &str, error: String) -> String {
        self.teller()(call, error)
    }
}
