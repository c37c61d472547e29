//! What of a spec a restore cannot bring about: pure. The plan asks first, the
//! worker again, since images may be given to it without a plan.

use oci_spec::runtime::{LinuxNamespaceType, LinuxSeccompAction, Spec};

use crate::namespaces::{self, Namespace};

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
