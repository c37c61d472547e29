//! What of a spec a restore cannot bring about: pure. The plan asks first, the
//! worker again, since images may be given to it without a plan.

use oci_spec::runtime::{LinuxNamespaceType, LinuxSeccompAction, Mount, Spec};

use crate::namespaces::{self, Namespace};
use crate::worker::is_bind;

/// Whether the spec sets sysctls.
#[must_use]
pub(crate) fn has_sysctls(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let sysctls = linux.and_then(|linux| linux.sysctl().as_ref());
    sysctls.is_some_and(|all| !all.is_empty())
}

/// What else a container has of the kernel that no checkpoint holds, or that a
/// restored process would have from its checkpoint and not from the spec.
#[must_use]
pub(crate) fn beyond(spec: &Spec) -> Option<&'static str> {
    let process = spec.process().as_ref();
    let linux = spec.linux().as_ref();
    let rules = linux
        .and_then(|linux| linux.seccomp().as_ref())
        .and_then(|seccomp| seccomp.syscalls().as_ref());
    let mut rules = rules.into_iter().flatten();
    if rules.any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify) {
        return Some("a seccomp agent");
    }
    if process.is_some_and(|process| process.scheduler().is_some()) {
        return Some("a scheduler");
    }
    if process.is_some_and(|process| process.io_priority().is_some()) {
        return Some("an I/O priority");
    }
    let mounts = || spec.mounts().iter().flatten();
    if mounts().any(follows_no_links) {
        return Some("a nosymfollow mount");
    }
    if mounts().any(|mount| is_shared_with_the_node(spec, mount)) {
        return Some("a mount that it shares with the node");
    }
    let linux = linux?;
    let has_devices = linux
        .net_devices()
        .as_ref()
        .is_some_and(|all| !all.is_empty());
    if linux.memory_policy().is_some() {
        Some("a memory policy")
    } else if linux.personality().is_some() {
        Some("a personality")
    } else if has_devices {
        Some("network devices of the node")
    } else if namespaces::of(spec, LinuxNamespaceType::Time) != Namespace::Host {
        Some("a time namespace")
    } else {
        None
    }
}

/// CRIU does not know the flag, and would restore the mount without it.
fn follows_no_links(mount: &Mount) -> bool {
    let mut options = mount.options().iter().flatten();
    options.any(|option| option == "nosymfollow" || option == "rnosymfollow")
}

/// A bind that stays a peer of its source, so that either sees what the other
/// mounts. CRIU makes the mounts of a container in a group of their own.
fn is_shared_with_the_node(spec: &Spec, mount: &Mount) -> bool {
    let linux = spec.linux().as_ref();
    let rootfs = linux.and_then(|linux| linux.rootfs_propagation().as_deref());
    let apart = |option: &String| {
        let words = ["private", "slave", "unbindable"];
        words.contains(&option.strip_prefix('r').unwrap_or(option))
    };
    let mut options = mount.options().iter().flatten();
    matches!(rootfs, Some("shared" | "rshared")) && is_bind(mount) && !options.any(apart)
}

/// Whether the spec has hooks of any kind.
#[must_use]
pub(crate) fn has_hooks(spec: &Spec) -> bool {
    let Some(hooks) = spec.hooks() else {
        return false;
    };
    #[allow(deprecated, reason = "prestart hooks are deprecated and in use")]
    let lists = [
        hooks.prestart(),
        hooks.create_runtime(),
        hooks.create_container(),
        hooks.start_container(),
        hooks.poststart(),
        hooks.poststop(),
    ];
    let is_filled = |list: &&Option<Vec<_>>| list.as_ref().is_some_and(|all| !all.is_empty());
    lists.iter().any(is_filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn with(propagation: &str, mount: &Value) -> Option<&'static str> {
        let spec = json!({
            "ociVersion": "1.0.0",
            "mounts": [mount],
            "linux": {"rootfsPropagation": propagation},
        });
        beyond(&serde_json::from_value(spec).unwrap())
    }

    fn bind(options: &[&str]) -> Value {
        json!({"destination": "/mnt", "type": "bind", "source": "/src", "options": options})
    }

    #[test]
    fn mounts_that_see_the_nodes_are_not_restored() {
        let shared = Some("a mount that it shares with the node");
        assert_eq!(with("rshared", &bind(&["rbind", "rshared"])), shared);
        assert_eq!(with("shared", &bind(&["rbind"])), shared);
        assert_eq!(with("rshared", &bind(&["rbind", "rslave"])), None);
        assert_eq!(with("rshared", &bind(&["bind", "private"])), None);
        assert_eq!(with("rslave", &bind(&["rbind", "rshared"])), None);
        let tmpfs = json!({"destination": "/mnt", "type": "tmpfs", "options": ["rshared"]});
        assert_eq!(with("rshared", &tmpfs), None);
    }

    #[test]
    fn a_flag_that_criu_loses_is_not_restored() {
        let lost = Some("a nosymfollow mount");
        assert_eq!(with("", &bind(&["rbind", "nosymfollow"])), lost);
        assert_eq!(with("", &bind(&["rbind", "rnosymfollow"])), lost);
        assert_eq!(with("", &bind(&["rbind", "symfollow"])), None);
    }
}
