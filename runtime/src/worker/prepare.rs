//! The spec as libcontainer gets it. What libcontainer does differently from
//! runc is taken out here and done by our executor, or by the worker; the bundle
//! itself is never written to.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceType, LinuxNamespaceType, Mount, Process, Spec, User,
};

use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::namespaces::{self, Namespace};
use crate::sys;

/// Loads a `config.json`. Capabilities that we do not know are dropped, as runc
/// does, with a warning for each.
///
/// # Errors
/// The file cannot be read, or is no spec.
pub fn load_spec(path: &Path) -> Result<(Spec, Vec<String>)> {
    let what = || format!("cannot read {}", path.display());
    let text = std::fs::read(path).doing(what())?;
    match serde_json::from_slice(&text) {
        Ok(spec) => Ok((spec, Vec::new())),
        Err(first) => {
            let mut value: serde_json::Value = serde_json::from_slice(&text).doing(what())?;
            let mut warnings = Vec::new();
            if let Some(sets) = value.pointer_mut("/process/capabilities") {
                drop_unknown_capabilities(sets, &mut warnings);
            }
            match serde_json::from_value(value) {
                Ok(spec) if !warnings.is_empty() => Ok((spec, warnings)),
                _ => Err(Error::because(what(), &first).with_kind(ErrorKind::InvalidArgument)),
            }
        }
    }
}

fn drop_unknown_capabilities(sets: &mut serde_json::Value, warnings: &mut Vec<String>) {
    let Some(sets) = sets.as_object_mut() else {
        return;
    };
    for list in sets.values_mut().filter_map(|v| v.as_array_mut()) {
        list.retain(|name| {
            let known =
                serde_json::from_value::<oci_spec::runtime::Capability>(name.clone()).is_ok();
            if !known {
                warnings.push(format!("unknown capability {name} ignored"));
            }
            known
        });
    }
}

/// The rootfs that a spec names, absolute.
pub(super) fn root_path(spec: &Spec, bundle: &Path) -> Result<PathBuf> {
    let root = spec.root().as_ref().ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidArgument,
            "the spec has no root filesystem",
        )
    })?;
    let path = bundle.join(root.path());
    std::fs::canonicalize(&path).map_err(|e| {
        Error::because(format!("cannot find the rootfs {}", path.display()), &e)
            .with_kind(ErrorKind::InvalidArgument)
    })
}

/// The spec for libcontainer: its process is root without restrictions, which the
/// executor takes away again; cgroups and propagation are ours.
pub(super) fn for_libcontainer(spec: &Spec, rootfs: &Path, cgroup: &Cgroup) -> Result<Spec> {
    let mut spec = spec.clone();
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "the spec has no process"))?;
    let process = unrestricted(process)?;
    spec.set_process(Some(process));
    if let Some(root) = spec.root_mut() {
        root.set_path(rootfs.to_owned());
    }
    let mut linux = spec.linux().clone().unwrap_or_default();
    // Filters and limits come later; LSM labels of mounts stay.
    linux
        .set_seccomp(None)
        .set_resources(None)
        .set_cgroups_path(Some(PathBuf::from(cgroup.path())));
    normalise_propagation(&mut linux)?;
    keep_devices_that_libcontainer_can_make(&mut linux);
    if matches!(
        namespaces::of(&spec, LinuxNamespaceType::Pid),
        Namespace::Joined(_)
    ) {
        let mounts = spec.mounts().iter().flatten();
        let mounts = mounts
            .flat_map(|one| spell_out_cgroups(one, cgroup))
            .collect();
        spec.set_mounts(Some(mounts));
    }
    spec.set_linux(Some(linux));
    Ok(spec)
}

/// A v1 cgroup mount as a tmpfs and one bind for each controller; others as they
/// are. In a pid namespace that it joined, libcontainer looks itself up in the
/// node's /proc under the pid that it has in there, and fails. The executor makes
/// all of it read-only where that is asked for.
fn spell_out_cgroups(one: &Mount, cgroup: &Cgroup) -> Vec<Mount> {
    if one.typ().as_deref() != Some("cgroup") || cgroup.is_v2() {
        return vec![one.clone()];
    }
    let safe = ["nosuid", "nodev", "noexec"].map(str::to_owned);
    let mut tmpfs = Mount::default();
    tmpfs
        .set_destination(one.destination().clone())
        .set_typ(Some("tmpfs".to_owned()))
        .set_source(Some(PathBuf::from("tmpfs")))
        .set_options(Some([&safe[..], &["mode=755".to_owned()]].concat()));
    let mut all = vec![tmpfs];
    for (at, dir) in cgroup.mounts() {
        let Ok(name) = at.strip_prefix("/sys/fs/cgroup") else {
            continue;
        };
        let mut bind = Mount::default();
        bind.set_destination(one.destination().join(name))
            .set_typ(Some("bind".to_owned()))
            .set_source(Some(dir))
            .set_options(Some([&safe[..], &["bind".to_owned()]].concat()));
        all.push(bind);
    }
    all
}

/// A process as libcontainer may see it.
pub(super) fn unrestricted(process: &Process) -> Result<Process> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "process args cannot be empty",
        ));
    }
    let mut bare = process.clone();
    // HOME is there so that libcontainer does not ask NSS, which would load
    // libraries of the image; the payload's own is found by the executor.
    let mut env: Vec<String> = process
        .env()
        .iter()
        .flatten()
        .filter(|entry| {
            entry
                .split_once('=')
                .is_some_and(|(key, _)| !key.is_empty())
        })
        .filter(|entry| !entry.starts_with("HOME=") && !entry.starts_with("LISTEN_"))
        .cloned()
        .collect();
    env.push("HOME=/".to_owned());
    bare.set_user(User::default())
        .set_env(Some(env))
        .set_cwd(PathBuf::from("/"))
        .set_capabilities(None)
        .set_rlimits(None)
        .set_no_new_privileges(None)
        .set_apparmor_profile(None)
        .set_selinux_label(None)
        .set_console_size(None);
    Ok(bare)
}

/// libcontainer takes the recursive sort only, under the plain names.
fn normalise_propagation(linux: &mut Linux) -> Result<()> {
    let Some(word) = linux.rootfs_propagation().clone() else {
        return Ok(());
    };
    let plain = match word.as_str() {
        "" => None,
        "shared" | "rshared" => Some("shared"),
        "slave" | "rslave" => Some("slave"),
        "private" | "rprivate" => Some("private"),
        "unbindable" | "runbindable" => Some("unbindable"),
        _ => {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("rootfsPropagation {word:?} is unknown"),
            ));
        }
    };
    linux.set_rootfs_propagation(plain.map(str::to_owned));
    Ok(())
}

/// libcontainer refuses devices outside /dev, and a path given twice; the first
/// are made by `fit_rootfs`, of the second the last counts.
fn keep_devices_that_libcontainer_can_make(linux: &mut Linux) {
    let Some(devices) = linux.devices().clone() else {
        return;
    };
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<LinuxDevice> = devices
        .into_iter()
        .rev()
        .filter(|device| is_below_dev(device.path()) && seen.insert(device.path().clone()))
        .collect();
    kept.reverse();
    linux.set_devices(Some(kept));
}

fn is_below_dev(path: &Path) -> bool {
    path.starts_with("/dev") && path != Path::new("/dev")
}

/// Makes a device node in the rootfs, links resolved inside it.
fn make_device(root: BorrowedFd<'_>, device: &LinuxDevice) -> std::result::Result<(), Errno> {
    use nix::sys::stat::{SFlag, fchmodat, makedev, mknodat};
    let kind = match device.typ() {
        LinuxDeviceType::B => SFlag::S_IFBLK,
        LinuxDeviceType::P => SFlag::S_IFIFO,
        _ => SFlag::S_IFCHR,
    };
    let (Some(parent), Some(name)) = (device.path().parent(), device.path().file_name()) else {
        return Err(Errno::EINVAL);
    };
    make_dirs_in_root(root, parent)?;
    let dir = sys::open_in_root(root, parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let number = |n: i64| u64::try_from(n).map_err(|_negative| Errno::EINVAL);
    let number = makedev(number(device.major())?, number(device.minor())?);
    let mode = Mode::from_bits_truncate(device.file_mode().unwrap_or(0o666) & 0o7777);
    let at = Some(dir.as_raw_fd());
    match mknodat(at, name, kind, mode, number) {
        // A node of an earlier start, or a file of the image: replaced by neither.
        Err(Errno::EEXIST) => return Ok(()),
        other => other?,
    }
    // The umask took bits away.
    fchmodat(at, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
    let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
    nix::unistd::fchownat(
        at,
        name,
        Some(nix::unistd::Uid::from_raw(uid)),
        Some(nix::unistd::Gid::from_raw(gid)),
        nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
    )
}

/// Makes the rootfs fit: `/dev` must be a real directory, since libcontainer
/// follows a link there out of the rootfs; the working directory must exist.
pub(super) fn fit_rootfs(rootfs: &Path, spec: &Spec) -> Result<()> {
    let root = std::fs::File::open(rootfs).doing("cannot open the rootfs")?;
    let dev = rootfs.join("dev");
    if std::fs::symlink_metadata(&dev).is_ok_and(|meta| !meta.is_dir()) {
        std::fs::remove_file(&dev).doing("cannot replace /dev, which is no directory")?;
    }
    let devices = spec.linux().as_ref().and_then(|l| l.devices().as_ref());
    for device in devices.into_iter().flatten() {
        if !is_below_dev(device.path()) {
            make_device(root.as_fd(), device)
                .doing(format!("cannot make device {}", device.path().display()))?;
        }
    }
    if let Some(process) = spec.process() {
        // A read-only rootfs, or one that a volume will cover there: the executor
        // tries again inside, and has the last word.
        make_dirs_in_root(root.as_fd(), process.cwd()).ok();
    }
    Ok(())
}

/// `mkdir -p` below `root`, every step resolved inside it.
pub(super) fn make_dirs_in_root(
    root: BorrowedFd<'_>,
    path: &Path,
) -> std::result::Result<(), Errno> {
    let mut dir = root.try_clone_to_owned().map_err(|_full| Errno::EMFILE)?;
    let mut so_far = PathBuf::from("/");
    for part in path.components() {
        let Component::Normal(name) = part else {
            if part == Component::ParentDir {
                so_far.pop();
            }
            continue;
        };
        so_far.push(name);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        dir = match sys::open_in_root(root, &so_far, flags) {
            Err(Errno::ENOENT) => {
                let mode = Mode::from_bits_truncate(0o755);
                nix::sys::stat::mkdirat(Some(dir.as_raw_fd()), name, mode)?;
                sys::open_in_root(root, &so_far, flags)?
            }
            other => other?,
        };
    }
    Ok(())
}

/// Writes the bundle that libcontainer loads.
pub(super) fn write_bundle(private: &Path, spec: &Spec) -> Result<()> {
    let json = serde_json::to_vec(spec).doing("cannot encode the spec")?;
    let path = private.join("config.json");
    std::fs::write(&path, json).doing(format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_capabilities_are_dropped_with_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let mut value = serde_json::to_value(Spec::default()).unwrap();
        value["process"]["capabilities"]["bounding"] =
            serde_json::json!(["CAP_KILL", "CAP_TIME_TRAVEL"]);
        std::fs::write(&path, value.to_string()).unwrap();
        let (spec, warnings) = load_spec(&path).unwrap();
        assert_eq!(warnings, ["unknown capability \"CAP_TIME_TRAVEL\" ignored"]);
        let caps = spec.process().as_ref().unwrap().capabilities().clone();
        assert_eq!(caps.unwrap().bounding().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn a_process_without_args_is_refused() {
        let mut process = Process::default();
        process.set_args(Some(vec![]));
        assert!(unrestricted(&process).is_err());
    }

    #[test]
    fn directories_are_made_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("/real", dir.path().join("link")).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        make_dirs_in_root(root.as_fd(), Path::new("/link/../link/a/b")).unwrap();
        assert!(dir.path().join("real/a/b").is_dir());
    }
}
