//! The rootfs: mounted as containerd asks, with a checkpoint's writable layers
//! beneath the new one when restoring; and unmounted, whatever lies below it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::tree::{attributes, flag, propagation};
use super::userns::Ids;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::mountinfo;
use crate::rootfs::RootfsMount;
use crate::sys;

/// Mounts `mounts` at and below `rootfs`, `layers` (uppermost first) between the
/// overlay's writable layer and the image's. Layers whose ids are mapped are mounted
/// at `scratch` meanwhile. Undone when it fails.
pub(super) fn mount_rootfs(
    rootfs: &Path,
    mounts: &[RootfsMount],
    layers: &[PathBuf],
    scratch: &Path,
) -> Result<()> {
    if !layers.is_empty() && mounts.first().is_none_or(|m| m.typ != "overlay") {
        return Err(Error::new(
            ErrorKind::Unimplemented,
            "a checkpoint's writable layer can be restored on overlayfs only",
        ));
    }
    if mounts.is_empty() {
        return Ok(());
    }
    // Its bundle is containerd's to make; gone, it has given the container up.
    match std::fs::create_dir(rootfs) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(e).doing(format!("cannot make {}", rootfs.display()));
        }
        _ => {}
    }
    for (i, one) in mounts.iter().enumerate() {
        let layers = if i == 0 { layers } else { &[] };
        if let Err(e) = mount_one(rootfs, one, layers, scratch) {
            unmount_below(rootfs).ok();
            return Err(e);
        }
    }
    Ok(())
}

fn mount_one(rootfs: &Path, one: &RootfsMount, layers: &[PathBuf], scratch: &Path) -> Result<()> {
    let options = Options::parse(&one.options)?;
    // Kept open so that the path in /proc stays valid.
    let target = if one.target.is_empty() {
        None
    } else {
        let root = std::fs::File::open(rootfs).doing("cannot open the rootfs")?;
        let inside = Path::new(&one.target);
        Some(
            sys::open_in_root(root.as_fd(), inside, OFlag::O_PATH)
                .doing(format!("cannot find {} in the rootfs", one.target))?,
        )
    };
    let place = target.as_ref().map_or_else(
        || rootfs.to_owned(),
        |fd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
    );
    let what = || {
        format!(
            "cannot mount {} {} at {}",
            one.typ,
            one.source,
            rootfs.join(one.target.trim_start_matches('/')).display()
        )
    };
    if one.typ == "overlay" {
        let mut overlay = Overlay::new(&options, layers);
        let mapped = match &options.ids {
            Some(ids) => Some(MappedLayers::mount(&mut overlay.lower, ids, scratch)?),
            None => None,
        };
        let mounted = overlay.mount(&place, options.flags).doing(what());
        return mapped.map_or(Ok(()), MappedLayers::remove).and(mounted);
    }
    let bind = options.flags.contains(MsFlags::MS_BIND);
    let fstype = (!bind).then_some(one.typ.as_str());
    let data = options.data.join(",");
    let first = if bind {
        MsFlags::MS_BIND | (options.flags & MsFlags::MS_REC)
    } else {
        options.flags
    };
    mount(
        Some(one.source.as_str()),
        &place,
        fstype,
        first,
        (!data.is_empty()).then_some(data.as_str()),
    )
    .doing(what())?;
    let rest = options.flags - MsFlags::MS_REC;
    if bind && rest != MsFlags::MS_BIND {
        // A bind takes its source's flags; others need a second step.
        let again = rest | MsFlags::MS_REMOUNT;
        mount(None::<&str>, &place, None::<&str>, again, None::<&str>).doing(what())?;
    }
    if let Some(ids) = &options.ids {
        let tree = map_ids(&place, ids, 0)?;
        sys::move_mount(tree.as_fd(), libc::AT_FDCWD, &place).doing(what())?;
    }
    if let Some(propagation) = options.propagation {
        mount(
            None::<&str>,
            &place,
            None::<&str>,
            propagation,
            None::<&str>,
        )
        .doing(what())?;
    }
    Ok(())
}

/// fstab's words, sorted out.
#[derive(Debug, PartialEq)]
struct Options {
    flags: MsFlags,
    propagation: Option<MsFlags>,
    data: Vec<String>,
    /// Both mappings, or none: one alone means nothing to containerd.
    ids: Option<Ids>,
}

impl Options {
    fn parse(words: &[String]) -> Result<Self> {
        let mut parsed = Self {
            flags: MsFlags::empty(),
            propagation: None,
            data: Vec::new(),
            ids: None,
        };
        let (mut uids, mut gids) = (None, None);
        for word in words {
            if word.starts_with("X-containerd.") || word == "defaults" {
                // containerd's notes to itself.
                continue;
            }
            if let Some(map) = word.strip_prefix("uidmap=") {
                uids = Some(map);
                continue;
            }
            if let Some(map) = word.strip_prefix("gidmap=") {
                gids = Some(map);
                continue;
            }
            if word == "loop" {
                return Err(Error::new(
                    ErrorKind::Unimplemented,
                    format!("rootfs mount option {word:?} is not supported"),
                ));
            }
            if let Some(flags) = propagation(word) {
                parsed.propagation = Some(flags);
            } else if let Some((set, flag)) = flag(word) {
                parsed.flags.set(flag, set);
            } else {
                parsed.data.push(word.clone());
            }
        }
        if let (Some(uids), Some(gids)) = (uids, gids) {
            parsed.ids = Some(Ids::of_options(uids, gids)?);
        }
        Ok(parsed)
    }
}

/// An overlay's options, the layers apart from the rest.
#[derive(Debug, PartialEq)]
struct Overlay {
    lower: Vec<String>,
    rest: Vec<String>,
}

impl Overlay {
    fn new(options: &Options, layers: &[PathBuf]) -> Self {
        let mut lower: Vec<String> = layers
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        let mut rest = Vec::new();
        for option in &options.data {
            match option.strip_prefix("lowerdir=") {
                Some(dirs) => lower.extend(split_layers(dirs)),
                None => rest.push(option.clone()),
            }
        }
        Self { lower, rest }
    }

    /// With the new mount API, which has no limit on the options' length; with
    /// the old one on kernels that cannot take layers one by one (before 6.5).
    fn mount(&self, place: &Path, flags: MsFlags) -> std::result::Result<(), Errno> {
        match self.mount_stepwise(place, flags) {
            Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM | Errno::EOPNOTSUPP) => {
                self.mount_at_once(place, flags)
            }
            other => other,
        }
    }

    fn mount_stepwise(&self, place: &Path, flags: MsFlags) -> std::result::Result<(), Errno> {
        let fs = sys::fsopen("overlay")?;
        sys::fsconfig_string(fs.as_fd(), "source", "overlay")?;
        for dir in &self.lower {
            sys::fsconfig_string(fs.as_fd(), "lowerdir+", dir)?;
        }
        for option in &self.rest {
            match option.split_once('=') {
                Some((key, value)) => sys::fsconfig_string(fs.as_fd(), key, value)?,
                None => sys::fsconfig_flag(fs.as_fd(), option)?,
            }
        }
        if flags.contains(MsFlags::MS_RDONLY) {
            sys::fsconfig_flag(fs.as_fd(), "ro")?;
        }
        sys::fsconfig_create(fs.as_fd())?;
        let mount = sys::fsmount(fs.as_fd(), attributes(flags))?;
        sys::move_mount(mount.as_fd(), libc::AT_FDCWD, place)
    }

    fn mount_at_once(&self, place: &Path, flags: MsFlags) -> std::result::Result<(), Errno> {
        // The kernel takes one page of options; relative to the directory that
        // all layers share, many more fit.
        let base = common_parent(&self.lower);
        let here = std::env::current_dir().map_err(|_gone| Errno::ENOENT)?;
        let place = here.join(place);
        let lower: Vec<String> = self
            .lower
            .iter()
            .map(|dir| {
                let dir = Path::new(dir).strip_prefix(&base).unwrap_or(Path::new(dir));
                dir.to_string_lossy()
                    .replace('\\', "\\\\")
                    .replace(':', "\\:")
            })
            .collect();
        let mut data = format!("lowerdir={}", lower.join(":"));
        for option in &self.rest {
            data.push(',');
            data.push_str(option);
        }
        nix::unistd::chdir(&base)?;
        let done = mount(
            Some("overlay"),
            &place,
            Some("overlay"),
            flags,
            Some(data.as_str()),
        );
        nix::unistd::chdir(&here)?;
        done
    }
}

/// An image's layers with mapped ids, mounted only as long as the overlay is made.
struct MappedLayers(PathBuf);

impl MappedLayers {
    /// Mounts the directory above all layers at `at` and makes `lower` lead there.
    fn mount(lower: &mut [String], ids: &Ids, at: &Path) -> Result<Self> {
        let base = common_parent(lower);
        let tree = map_ids(&base, ids, sys::MOUNT_ATTR_RDONLY)?;
        let what = || format!("cannot mount {} with mapped ids", base.display());
        std::fs::create_dir_all(at).doing(what())?;
        sys::move_mount(tree.as_fd(), libc::AT_FDCWD, at).doing(what())?;
        for dir in lower {
            let below = Path::new(dir.as_str()).strip_prefix(&base);
            let mapped = at.join(below.doing(what())?);
            *dir = mapped.to_string_lossy().into_owned();
        }
        Ok(Self(at.to_owned()))
    }

    /// The overlay has mounts of its own by now.
    fn remove(self) -> Result<()> {
        unmount_below(&self.0)?;
        std::fs::remove_dir(&self.0).doing(format!("cannot remove {}", self.0.display()))
    }
}

/// A detached copy of what is mounted at `path` and below, private, ids mapped.
fn map_ids(path: &Path, ids: &Ids, set: u64) -> Result<OwnedFd> {
    let namespace = ids.namespace()?;
    let fd = u64::try_from(namespace.as_raw_fd()).unwrap_or_default();
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE.cast_unsigned();
    let attr = sys::MountAttr {
        set: sys::MOUNT_ATTR_IDMAP | set,
        propagation: libc::MS_PRIVATE,
        userns_fd: fd,
        ..sys::MountAttr::default()
    };
    sys::open_tree(libc::AT_FDCWD, path, flags)
        .and_then(|tree| sys::mount_setattr(tree.as_fd(), true, &attr).map(|()| tree))
        .doing(format!("cannot map the ids of {}", path.display()))
}

/// The directory above all of `dirs`, never one of them itself.
fn common_parent(dirs: &[String]) -> PathBuf {
    let mut base = dirs
        .first()
        .and_then(|dir| Path::new(dir).parent())
        .unwrap_or(Path::new("/"))
        .to_owned();
    while !dirs
        .iter()
        .all(|dir| Path::new(dir).starts_with(&base) && Path::new(dir) != base)
    {
        if !base.pop() {
            break;
        }
    }
    base
}

/// Splits at colons that are not escaped.
fn split_layers(dirs: &str) -> Vec<String> {
    let mut layers = vec![String::new()];
    let mut chars = dirs.chars();
    while let Some(c) = chars.next() {
        let mut push = |c| {
            if let Some(last) = layers.last_mut() {
                last.push(c);
            }
        };
        match c {
            '\\' => push(chars.next().unwrap_or('\\')),
            ':' => layers.push(String::new()),
            c => push(c),
        }
    }
    layers
}

/// Unmounts everything at and below `path`, innermost first.
///
/// # Errors
/// A mount that does not even go lazily.
pub(super) fn unmount_below(path: &Path) -> Result<()> {
    let table = std::fs::read("/proc/self/mountinfo").doing("cannot read the mount table")?;
    let path = std::fs::canonicalize(path).unwrap_or_else(|_gone| path.to_owned());
    let mut first_error = Ok(());
    for place in mount_points(&table).iter().rev() {
        if !place.starts_with(&path) {
            continue;
        }
        let done = match umount2(place, MntFlags::UMOUNT_NOFOLLOW) {
            Err(Errno::EBUSY) => umount2(place, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH),
            other => other,
        };
        match done {
            // Not there any more: a mount above it went away with it.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(e) if first_error.is_ok() => {
                first_error = Err(Error::because(
                    format!("cannot unmount {}", place.display()),
                    &e,
                ));
            }
            Err(_) => {}
        }
    }
    first_error
}

/// The mount points of a mountinfo file, in the order in which they were made.
fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    mountinfo::parse(table).map(|mount| mount.at).collect()
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;
