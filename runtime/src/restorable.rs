//! What of a spec a restore cannot bring about: pure. The plan asks first, the
//! worker again, since images may be given to it without a plan.

use oci_spec::runtime::Spec;

/// Whether the spec sets sysctls.
#[must_use]
pub(crate) fn has_sysctls(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let sysctls = linux.and_then(|linux| linux.sysctl().as_ref());
    sysctls.is_some_and(|all| !all.is_empty())
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
