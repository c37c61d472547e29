//! Sysctls: which of them belong to namespaces of the container's, and their files.
//! Written by the executor, to a /proc that no image has touched.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};
use pathrs::flags::OpenFlags;
use pathrs::procfs::{ProcfsBase, ProcfsHandle, ProcfsHandleBuilder};

use super::executor::words;
use crate::namespaces::{self, Namespace};

/// Refuses, in runc's words, what would set something of the node's.
pub(super) fn check(spec: &Spec, linux: &Linux) -> Result<(), String> {
    let has = |typ| namespaces::of(spec, typ) != Namespace::Host;
    for key in linux.sysctl().iter().flat_map(|all| all.keys()) {
        let key = dotted(key);
        if is_ipc(&key) {
            if !has(LinuxNamespaceType::Ipc) {
                return Err(format!(
                    "sysctl {key:?} is not allowed in the hosts ipc namespace"
                ));
            }
        } else if key.starts_with("net.") {
            if is_host_network(spec)? {
                return Err(format!(
                    "sysctl {key:?} not allowed in host network namespace"
                ));
            }
        } else if has(LinuxNamespaceType::Uts) && key == "kernel.hostname" {
            return Err(format!(
                "sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field"
            ));
        } else if has(LinuxNamespaceType::Uts) && key == "kernel.domainname" {
            continue;
        } else if key.starts_with("user.") {
            if !has(LinuxNamespaceType::User) {
                return Err(format!(
                    "setting ucounts without a user namespace not allowed: {key}"
                ));
            }
        } else {
            return Err(format!(
                "sysctl {key:?} is not in a separate kernel namespace"
            ));
        }
    }
    Ok(())
}

/// Sets what the spec sets, in the namespaces of this process.
pub(super) fn write(sysctls: &[(String, String)]) -> Result<(), String> {
    if sysctls.is_empty() {
        return Ok(());
    }
    // The container's own /proc/sys may be read-only by now, or something else.
    let proc = ProcfsHandleBuilder::new().unmasked().build();
    let proc = proc.map_err(|e| format!("cannot open a new /proc: {e}"))?;
    sysctls
        .iter()
        .try_for_each(|(key, value)| write_one(&proc, key, value))
}

fn write_one(proc: &ProcfsHandle, key: &str, value: &str) -> Result<(), String> {
    // As runc does it: no step upwards survives.
    let path = format!("sys/{}", key.replace('.', "/"));
    let mut file = proc
        .open(ProcfsBase::ProcRoot, &path, OpenFlags::O_WRONLY)
        .map_err(|e| format!("open sysctl {key} file: {e}"))?;
    file.write_all(value.as_bytes()).map_err(|e| {
        let errno = e.raw_os_error().map(nix::errno::Errno::from_raw);
        let why = errno.map_or_else(|| e.to_string(), words);
        format!("failed to write sysctl {key} = {value:?}: write /proc/{path}: {why}")
    })
}

fn is_ipc(key: &str) -> bool {
    let names = [
        "msgmax",
        "msgmnb",
        "msgmni",
        "sem",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
    ];
    key.starts_with("fs.mqueue.")
        || key
            .strip_prefix("kernel.")
            .is_some_and(|name| names.contains(&name))
}

fn is_host_network(spec: &Spec) -> Result<bool, String> {
    let path = match namespaces::of(spec, LinuxNamespaceType::Network) {
        Namespace::Own => return Ok(false),
        Namespace::Host => return Ok(true),
        Namespace::Joined(path) => path,
    };
    let stat = |path: &Path| {
        let meta = std::fs::metadata(path);
        let meta = meta.map_err(|e| format!("invalid netns path: stat {}: {e}", path.display()))?;
        Ok::<_, String>((meta.dev(), meta.ino()))
    };
    Ok(stat(path)? == stat(Path::new("/proc/self/ns/net"))?)
}

/// A name may be given as a path (`net/ipv4/conf/eth0.1/rp_filter`), where dots are
/// part of names; the first separator tells.
fn dotted(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => swapped(key),
        _ => key.to_owned(),
    }
}

fn swapped(key: &str) -> String {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    key.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_one() {
        assert_eq!(dotted("net.core.somaxconn"), "net.core.somaxconn");
        assert_eq!(
            dotted("net/ipv4/conf/eno2.100/rp_filter"),
            "net.ipv4.conf.eno2/100.rp_filter"
        );
    }

    #[test]
    fn only_what_is_the_containers() {
        let spec = |namespaces: &[&str], key: &str| -> Spec {
            let namespaces: Vec<_> = namespaces
                .iter()
                .map(|typ| serde_json::json!({"type": typ}))
                .collect();
            serde_json::from_value(serde_json::json!({
                "ociVersion": "1.0.0",
                "linux": {"namespaces": namespaces, "sysctl": {key: "1"}},
            }))
            .unwrap()
        };
        for (namespace, key) in [
            ("ipc", "kernel.shmmax"),
            ("ipc", "fs.mqueue.msg_max"),
            ("network", "net.core.somaxconn"),
            ("network", "net/core/somaxconn"),
            ("uts", "kernel.domainname"),
            ("user", "user.max_user_namespaces"),
        ] {
            let of = |all: &[&str]| {
                let spec = spec(all, key);
                check(&spec, spec.linux().as_ref().unwrap())
            };
            assert_eq!(of(&[namespace]), Ok(()), "{key}");
            assert!(of(&["mount"]).is_err(), "{key}");
        }
        let hostname = spec(&["uts"], "kernel.hostname");
        assert!(check(&hostname, hostname.linux().as_ref().unwrap()).is_err());
    }
}
