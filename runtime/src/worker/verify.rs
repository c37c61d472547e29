//! Compares a restored tree with the spec before it runs.
//!
//! CRIU restores credentials, capabilities, seccomp filters, `no_new_privs`,
//! labels and mounts from the image, and an image may come from anywhere. So what
//! stands there at pre-resume must be something that a cold start from this spec
//! could have become. A tree that is more is killed; the container starts cold.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci_spec::runtime::{Mount, Spec};

use super::identity::{Allowed, Status};
use super::layout::{self, Layout};
use super::record::{Kind, Record};
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::mountinfo::MountInfo;

/// Mount options that the restored tree may not lack when the spec has them.
const STRICT: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];

/// What the restored tree is held against.
pub(super) struct Expected<'a> {
    /// The new container's spec.
    pub(super) spec: &'a Spec,
    /// Its file tree.
    pub(super) layout: &'a Layout,
    /// What the image says of itself.
    pub(super) record: &'a Record,
    /// The new rootfs on the host.
    pub(super) rootfs: &'a Path,
    /// The running CRIU, which stands in the pod's namespaces.
    pub(super) criu: i32,
}

impl Expected<'_> {
    /// Checks `init` and all of `pids` that are in its pid namespace.
    pub(super) fn check(&self, init: i32, pids: &[i32]) -> Result<()> {
        let allowed = Allowed::by(self.spec)?;
        let own = namespace(init, "pid")?;
        if own == namespace(self.criu, "pid")? {
            return Err(violation(init, "it is not in a pid namespace of its own"));
        }
        let mut seen = BTreeSet::new();
        for pid in pids {
            // CRIU and its helpers are in the cgroup too, and outside.
            if *pid == self.criu || namespace(*pid, "pid").ok() == namespace(self.criu, "pid").ok()
            {
                continue;
            }
            let threads = Status::of_threads(*pid)?;
            if threads.iter().all(Status::is_zombie) {
                continue;
            }
            for status in &threads {
                allowed
                    .check(status)
                    .map_err(|what| violation(*pid, &what))?;
            }
            self.check_namespaces(*pid)?;
            self.check_label(*pid)?;
            seen.insert(*pid);
        }
        if !seen.contains(&init) {
            return Err(violation(init, "it is not in the container's cgroup"));
        }
        self.check_mounts(init)
    }

    fn check_namespaces(&self, pid: i32) -> Result<()> {
        for shared in ["net", "ipc", "uts", "user", "cgroup"] {
            if namespace(pid, shared)? != namespace(self.criu, shared)? {
                return Err(violation(
                    pid,
                    &format!("its {shared} namespace is not the pod's"),
                ));
            }
        }
        if namespace(pid, "mnt")? == namespace(self.criu, "mnt")? {
            return Err(violation(pid, "it is in the node's mount namespace"));
        }
        Ok(())
    }

    fn check_label(&self, pid: i32) -> Result<()> {
        let Some(wanted) = label(self.spec) else {
            return Ok(());
        };
        let file = format!("/proc/{pid}/attr/current");
        // Without a security module there is nothing to read, and nothing that a
        // cold start would set.
        let Ok(found) = std::fs::read_to_string(&file) else {
            return Ok(());
        };
        let found = found.trim_matches(['\0', '\n', ' ']);
        let name = found.split_once(" (").map_or(found, |(name, _)| name);
        if name.is_empty() || name == wanted {
            return Ok(());
        }
        Err(violation(
            pid,
            &format!("its security label is {name}, not {wanted}"),
        ))
    }

    fn check_mounts(&self, init: i32) -> Result<()> {
        let root = format!("/proc/{init}/root");
        let root = Path::new(&root);
        if !same(root, self.rootfs)? {
            return Err(violation(init, "its root is not the container's rootfs"));
        }
        let mounts = layout::mounts_of(init)?;
        for mount in &mounts {
            self.check_mount(init, root, mount)?;
        }
        for (to, wanted) in &self.layout.mounts {
            let there = mounts.iter().any(|mount| &mount.at == to);
            // A cgroup mount on v1 may be left out by the engine that made it.
            if !there && !is_cgroup(wanted) {
                return Err(violation(
                    init,
                    &format!("it has no mount at {}", to.display()),
                ));
            }
        }
        for path in self.layout.masked.iter().chain(&self.layout.readonly) {
            let there = mounts.iter().any(|mount| &mount.at == path);
            if !there && layout::on_host(root, path).exists() {
                return Err(violation(
                    init,
                    &format!("{} is not covered", path.display()),
                ));
            }
        }
        Ok(())
    }

    fn check_mount(&self, init: i32, root: &Path, mount: &MountInfo) -> Result<()> {
        let at = &mount.at;
        let wrong = |what: &str| {
            Err(violation(
                init,
                &format!("the mount at {} {what}", at.display()),
            ))
        };
        let has = |option: &str| mount.options.iter().any(|have| have == option);
        if at == Path::new("/") {
            let readonly = self
                .spec
                .root()
                .as_ref()
                .and_then(oci_spec::runtime::Root::readonly);
            return if readonly == Some(true) && !has("ro") {
                wrong("is writable")
            } else {
                Ok(())
            };
        }
        if self.layout.masked.contains(at) {
            let null = mount.fstype == "devtmpfs" || mount.fstype == "tmpfs";
            return if null {
                Ok(())
            } else {
                wrong("does not mask it")
            };
        }
        if self.layout.readonly.contains(at) {
            return if has("ro") {
                Ok(())
            } else {
                wrong("is writable")
            };
        }
        if let Some(wanted) = self.layout.wanted_at(at) {
            // On cgroup v1 it is the hierarchies that are read-only, not the tmpfs
            // that holds them.
            let holder = is_cgroup(wanted) && mount.fstype == "tmpfs";
            let options = wanted.options().iter().flatten().map(String::as_str);
            let strict = options.filter(|word| STRICT.contains(word) && !(holder && *word == "ro"));
            for option in strict {
                if !has(option) {
                    return wrong(&format!("is not {option}"));
                }
            }
        }
        let recorded = self.record.mounts.get(at);
        if recorded == Some(&Kind::Bind) || self.layout.bind_source(at).is_some() {
            return match self.layout.bind_source(at) {
                Some(source) if same(&layout::on_host(root, at), &source)? => Ok(()),
                _ => wrong("is not what the spec mounts there"),
            };
        }
        let known = recorded.is_some()
            || self.layout.mount_at(at).is_some()
            || (self.record.terminal && at == Path::new("/dev/console"));
        if known || self.may_mount() {
            Ok(())
        } else {
            wrong("is not in the spec")
        }
    }

    /// A container that may mount has mounts of its own making.
    fn may_mount(&self) -> bool {
        Allowed::by(self.spec).is_ok_and(|allowed| allowed.has_capability(21 /* SYS_ADMIN */))
    }
}

/// The AppArmor profile or SELinux label that the spec wants, as CRIU takes it.
pub(super) fn lsm_profile(spec: &Spec) -> Option<String> {
    let process = spec.process().as_ref()?;
    let on = |path: &str| Path::new(path).exists();
    if let Some(name) = process
        .apparmor_profile()
        .as_ref()
        .filter(|name| !name.is_empty())
    {
        return on("/sys/kernel/security/apparmor").then(|| format!("apparmor:{name}"));
    }
    let label = process
        .selinux_label()
        .as_ref()
        .filter(|label| !label.is_empty())?;
    on("/sys/fs/selinux").then(|| format!("selinux:{label}"))
}

fn label(spec: &Spec) -> Option<String> {
    let profile = lsm_profile(spec)?;
    profile.split_once(':').map(|(_, name)| name.to_owned())
}

fn is_cgroup(mount: &Mount) -> bool {
    matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"))
}

/// Whether two paths are one file.
fn same(one: &Path, other: &Path) -> Result<bool> {
    let stat =
        |path: &Path| std::fs::metadata(path).doing(format!("Cannot look at {}", path.display()));
    let (one, other) = (stat(one)?, stat(other)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

fn namespace(pid: i32, name: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/ns/{name}");
    let stat = std::fs::metadata(&path).doing(format!("Cannot look at {path}"))?;
    Ok(stat.ino())
}

fn violation(pid: i32, what: &str) -> Error {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Error::new(
        ErrorKind::FailedPrecondition,
        format!(
            "The checkpoint does not suit the container: restored process {pid} ({}): {what}",
            name.trim()
        ),
    )
}
