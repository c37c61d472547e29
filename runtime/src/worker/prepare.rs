//! The spec as libcontainer gets it. What libcontainer does differently from
//! runc is taken out here and done by our executor, or by the worker; the bundle
//! itself is never written to.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Hooks, HooksBuilder, LinuxNamespace, LinuxNamespaceType, LinuxResources, Process, Spec, User,
};
use serde::Deserialize;

use super::hooks::When;
use super::tree::Void;
use super::{executor, mend, spec_json};
use crate::cgroup::{Cgroup, given};
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::namespaces::{self, Namespace};

/// Loads a `config.json`. What runc understands and our parser does not is put right
/// first, with a warning where something is ignored.
///
/// # Errors
/// The file cannot be read, or is no spec.
pub fn load_spec(path: &Path) -> Result<(Spec, Vec<String>)> {
    let what = format!("cannot read {}", path.display());
    parse_spec(&std::fs::read(path).doing(&what)?, &what)
}

/// Reads a spec from its text; `what` opens the line that says why it is none.
pub(super) fn parse_spec(text: &[u8], what: &str) -> Result<(Spec, Vec<String>)> {
    let invalid =
        |e: &dyn std::fmt::Display| Error::new(ErrorKind::InvalidArgument, format!("{what}: {e}"));
    // Go reads what is no UTF-8 as a sign for it.
    let text = String::from_utf8_lossy(text);
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| invalid(&e))?;
    let mut value = spec_json::as_go_reads(value).map_err(|e| invalid(&e))?;
    if let Some(resources) = value.pointer_mut("/linux/resources") {
        given::fit(resources);
    }
    let mut warnings = value
        .get_mut("process")
        .map(mend::capabilities)
        .unwrap_or_default();
    if let Ok(spec) = Spec::deserialize(&value) {
        return Ok((spec, warnings));
    }
    let mended = mend::spec(&mut value);
    warnings.extend(mended.map_err(|why| Error::new(ErrorKind::InvalidArgument, why))?);
    let spec = serde_json::from_value(value).map_err(|e| invalid(&e))?;
    Ok((spec, warnings))
}

/// Reads a process to execute, as [`load_spec`] reads a spec.
///
/// # Errors
/// It is none.
pub fn load_process(text: &[u8]) -> Result<Process> {
    let invalid = |e: &serde_json::Error| {
        Error::because("cannot read the process to execute", e)
            .with_kind(ErrorKind::InvalidArgument)
    };
    let mut value: serde_json::Value = serde_json::from_slice(text).map_err(|e| invalid(&e))?;
    mend::capabilities(&mut value);
    if let Ok(process) = Process::deserialize(&value) {
        return Ok(process);
    }
    mend::process(&mut value).map_err(|why| Error::new(ErrorKind::InvalidArgument, why))?;
    serde_json::from_value(value).map_err(|e| invalid(&e))
}

/// Reads new limits for a container, as [`load_spec`] reads those of a spec.
///
/// # Errors
/// They are none.
pub fn load_resources(text: &[u8]) -> Result<LinuxResources> {
    let invalid = |e: &dyn std::fmt::Display| {
        let message = format!("Cannot read the new limits: {e}");
        Error::new(ErrorKind::InvalidArgument, message)
    };
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|e| invalid(&e))?;
    let mut value = spec_json::resources_as_go_reads(value).map_err(|e| invalid(&e))?;
    given::fit(&mut value);
    serde_json::from_value(value).map_err(|e| invalid(&e))
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
        let why = executor::words(nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(0)));
        let message = format!("invalid rootfs: stat {}: {why}", path.display());
        Error::new(ErrorKind::InvalidArgument, message)
    })
}

/// A rootfs that was mounted for a container must be the one that its spec names.
pub(super) fn check_root(spec: &Spec, bundle: &Path, mounted: &Path) -> Result<()> {
    let named = root_path(spec, bundle)?;
    if std::fs::canonicalize(mounted).is_ok_and(|mounted| mounted == named) {
        return Ok(());
    }
    let message = format!("invalid rootfs: {} is not mounted", named.display());
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

/// The spec for libcontainer: its process is root without restrictions, which the
/// executor takes away again; cgroups and the file tree are ours.
pub(super) fn for_libcontainer(of_spec: &Spec, void: &Void, cgroup: &Cgroup) -> Result<Spec> {
    let mut spec = of_spec.clone();
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "the spec has no process"))?;
    let process = unrestricted(process)?;
    spec.set_process(Some(process));
    let mut linux = spec.linux().clone().unwrap_or_default();
    // Filters and limits come later.
    linux
        .set_seccomp(None)
        .set_personality(None)
        .set_memory_policy(None)
        .set_sysctl(None)
        .set_resources(None)
        .set_cgroups_path(Some(PathBuf::from(cgroup.path())));
    if namespaces::of(&spec, LinuxNamespaceType::User) == Namespace::Host {
        // runc pays no heed to them then.
        linux.set_uid_mappings(None).set_gid_mappings(None);
    }
    spec.set_linux(Some(linux))
        // Ours to run. These are kept for when the bundle is gone before we are asked
        // to remove the container.
        .set_hooks(poststop_only(of_spec)?)
        // Ours to judge; libcontainer refuses what is above 1.
        .set_version("1.2.0".to_owned());
    void.put_into(&mut spec);
    Ok(spec)
}

/// Has libcontainer join a user namespace that we hold, by its descriptor, which
/// the processes that it makes inherit.
pub(super) fn join_user_namespace(spec: &mut Spec, namespace: &OwnedFd) {
    let path = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut all = linux.namespaces().clone().unwrap_or_default();
    // From inside it nobody joins the node's namespaces again, even those that it
    // has: a pod on the node's network names the node's UTS namespace by a path.
    all.retain(|one| !is_ours(one));
    for one in &mut all {
        if one.typ() == LinuxNamespaceType::User {
            one.set_path(Some(PathBuf::from(&path)));
        }
    }
    linux.set_namespaces(Some(all));
    spec.set_linux(Some(linux));
}

/// Whether a namespace to be joined is the one that the worker is in.
fn is_ours(namespace: &LinuxNamespace) -> bool {
    let name = match namespace.typ() {
        LinuxNamespaceType::Network => "net",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Pid
        | LinuxNamespaceType::Mount
        | LinuxNamespaceType::User
        | LinuxNamespaceType::Time => return false,
    };
    let inode = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let ours = inode(Path::new(&format!("/proc/self/ns/{name}")));
    let theirs = namespace.path().as_deref().map(inode);
    matches!((ours, theirs), (Ok(ours), Some(Ok(theirs))) if ours == theirs)
}

fn poststop_only(spec: &Spec) -> Result<Option<Hooks>> {
    let poststop = When::Poststop.of(spec);
    if poststop.is_empty() {
        return Ok(None);
    }
    let hooks = HooksBuilder::default().poststop(poststop.to_vec()).build();
    hooks.map(Some).doing("cannot encode the hooks")
}

/// A process as libcontainer may see it.
pub(super) fn unrestricted(process: &Process) -> Result<Process> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "args must not be empty",
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
        .set_scheduler(None)
        .set_io_priority(None)
        .set_exec_cpu_affinity(None)
        .set_console_size(None);
    Ok(bare)
}

/// Writes the bundle that libcontainer loads.
pub(super) fn write_bundle(private: &Path, spec: &Spec) -> Result<()> {
    let json = serde_json::to_vec(spec).doing("cannot encode the spec")?;
    let path = private.join("config.json");
    // The directory can be searched by others: root of a user namespace is one.
    let file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path);
    file.and_then(|mut file| file.write_all(&json))
        .doing(format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_not_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let mut value = serde_json::to_value(Spec::default()).unwrap();
        let pids = |value: &serde_json::Value| {
            std::fs::write(&path, value.to_string()).unwrap();
            let (spec, _) = load_spec(&path).unwrap();
            let resources = spec.linux().as_ref().unwrap().resources().clone();
            resources.unwrap().pids().map(|pids| pids.limit())
        };
        value["linux"]["resources"] = serde_json::json!({"pids": {}});
        assert_eq!(pids(&value), None);
        value["linux"]["resources"] = serde_json::json!({"pids": {"limit": 0}});
        assert_eq!(pids(&value), Some(0));
    }

    #[test]
    fn new_limits_are_read_as_those_of_a_spec() {
        let read = |json: &str| load_resources(json.as_bytes());
        let limits =
            read(r#"{"Memory": {"LIMIT": 4096}, "cpu": null, "pids": {}, "new": 1}"#).unwrap();
        assert_eq!(limits.memory().as_ref().unwrap().limit(), Some(4096));
        assert_eq!((limits.cpu(), limits.pids()), (&None, &None));
        assert_eq!(read("null").unwrap().memory(), &None);
        for none in ["", "7 8", "[]", "7", r#"{"memory": {"limit": "much"}}"#] {
            let error = read(none).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument, "{none:?}");
        }
    }

    #[test]
    fn a_process_without_args_is_refused() {
        let mut process = Process::default();
        process.set_args(Some(vec![]));
        assert!(unrestricted(&process).is_err());
    }
}
