//! What of a spec is refused before anything is made, in runc's words and order:
//! pure, but for what the node has.

use std::collections::HashSet;
use std::path::Path;

use nix::sys::statfs::{NSFS_MAGIC, statfs};
use oci_spec::runtime::{
    Linux, LinuxNamespaceType, LinuxSchedulerPolicy, MemoryPolicyModeType, Process, Scheduler, Spec,
};

use super::{executor, mend, sysctl};
use crate::namespaces::{self, Namespace};

type Checked = std::result::Result<(), String>;

/// Looks at a spec. Gives warnings back.
pub(super) fn check(spec: &Spec) -> std::result::Result<Vec<String>, String> {
    let process = spec.process().as_ref();
    let process = process.ok_or("process property must not be empty")?;
    check_process(process)?;
    if spec.root().is_none() {
        return Err("root must be specified".to_owned());
    }
    let mut warnings = Vec::new();
    if let Some(linux) = spec.linux() {
        warnings.extend(check_linux(linux)?);
    }
    check_affinity(process)?;
    check_network(spec)?;
    check_namespaces(spec)?;
    if let Some(linux) = spec.linux() {
        sysctl::check(spec, linux)?;
        check_intel_rdt(linux)?;
    }
    if let Some(scheduler) = process.scheduler() {
        check_scheduler(scheduler)?;
    }
    if let Some(io) = process.io_priority() {
        let priority = io.priority();
        if !(0..=7).contains(&priority) {
            return Err(format!("invalid ioPriority.Priority: {priority}"));
        }
    }
    if let Some(linux) = spec.linux() {
        check_memory_policy(linux)?;
        check_joined(linux)?;
    }
    Ok(warnings)
}

/// Namespaces that are joined are there, and are some. Only looked at: opening what
/// a path leads to may block.
fn check_joined(linux: &Linux) -> Checked {
    for namespace in linux.namespaces().iter().flatten() {
        let Some(path) = namespace.path().as_ref() else {
            continue;
        };
        if path.as_os_str().is_empty() {
            continue;
        }
        if let Err(e) = nix::sys::stat::lstat(path) {
            let (path, why) = (path.display(), executor::words(e));
            return Err(format!(
                "unable to create new parent process: namespace path: lstat {path}: {why}"
            ));
        }
        if statfs(path).is_ok_and(|fs| fs.filesystem_type() != NSFS_MAGIC) {
            let name = namespace.typ();
            return Err(format!(
                "failed to setns into {name} namespace: Invalid argument"
            ));
        }
    }
    Ok(())
}

const NO_SELINUX: &str =
    "selinux label is specified in config, but selinux is disabled or not supported";

/// Looks at a process, of a spec or to be executed.
pub(super) fn check_process(process: &Process) -> Checked {
    let cwd = process.cwd();
    let refusal = if cwd.as_os_str().is_empty() {
        "Cwd property must not be empty"
    } else if !cwd.is_absolute() {
        "Cwd must be an absolute path"
    } else if process.args().as_ref().is_none_or(Vec::is_empty) {
        "args must not be empty"
    } else if is_given(process.selinux_label()) && !has_selinux() {
        NO_SELINUX
    } else {
        return Ok(());
    };
    Err(refusal.to_owned())
}

fn check_affinity(process: &Process) -> Checked {
    let Some(affinity) = process.exec_cpu_affinity() else {
        return Ok(());
    };
    for (name, cpus) in [
        ("Initial", affinity.initial()),
        ("Final", affinity.cpu_affinity_final()),
    ] {
        executor::parse_set(cpus.as_deref().unwrap_or_default())
            .map_err(|e| format!("bad CPUAffinity.{name}: {e}"))?;
    }
    Ok(())
}

fn is_given(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

fn check_linux(linux: &Linux) -> std::result::Result<Vec<String>, String> {
    let mut seen = HashSet::new();
    for namespace in linux.namespaces().iter().flatten() {
        if !seen.insert(namespace.typ()) {
            let path = namespace.path().clone().unwrap_or_default();
            // Its name in a spec is not the one that our parser prints.
            let name = serde_json::to_value(namespace.typ()).map_err(|e| e.to_string())?;
            return Err(format!(
                "malformed spec file: duplicated ns {{{name} {path:?}}}"
            ));
        }
    }
    // runc is refused by the kernel then, at the first tmpfs.
    if is_given(linux.mount_label()) && !has_selinux() {
        return Err(NO_SELINUX.to_owned());
    }
    let seccomp = linux.seccomp().as_ref();
    for arch in seccomp
        .and_then(|s| s.architectures().as_ref())
        .into_iter()
        .flatten()
    {
        // Our parser knows more of them than runc.
        let name = serde_json::to_value(arch).map_err(|e| e.to_string())?;
        mend::check_architecture(name.as_str().unwrap_or_default())?;
    }
    let flags = linux
        .personality()
        .as_ref()
        .and_then(|p| p.flags().as_ref());
    let ignored = flags.filter(|flags| !flags.is_empty());
    Ok(ignored
        .map(|flags| format!("unsupported personality flags {flags:?} ignored"))
        .into_iter()
        .collect())
}

/// Mounts that a container shares are the node's or a neighbour's: to build its tree
/// and to change its root would be done to them.
const NO_MOUNT_NAMESPACE: &str = "a container without a mount namespace of its own is not supported: its mounts would be made \
     in the namespace that it shares";

fn check_network(spec: &Spec) -> Checked {
    let devices = spec.linux().as_ref().and_then(|l| l.net_devices().as_ref());
    let Some(devices) = devices.filter(|devices| !devices.is_empty()) else {
        return Ok(());
    };
    if namespaces::of(spec, LinuxNamespaceType::Network) == Namespace::Host {
        return Err("unable to move network devices without a NET namespace".to_owned());
    }
    let renamed = devices.values().filter_map(|device| device.name().as_ref());
    let names = devices
        .keys()
        .chain(renamed.filter(|name| !name.is_empty()));
    for name in names {
        let fits = !name.is_empty() && name.len() <= 16 && name != "." && name != "..";
        if !fits || name.contains(['/', ':', ' ']) {
            return Err(format!("invalid network device name {name:?}"));
        }
    }
    Ok(())
}

fn check_namespaces(spec: &Spec) -> Checked {
    let has = |typ| namespaces::of(spec, typ) != Namespace::Host;
    if !has(LinuxNamespaceType::Uts) {
        for (name, value) in [
            ("hostname", spec.hostname()),
            ("domainname", spec.domainname()),
        ] {
            if is_given(value) {
                return Err(format!(
                    "unable to set {name} without a private UTS namespace"
                ));
            }
        }
    }
    let Some(linux) = spec.linux() else {
        return Err(NO_MOUNT_NAMESPACE.to_owned());
    };
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let hides = some(linux.masked_paths()) || some(linux.readonly_paths());
    let refusal = if hides && !has(LinuxNamespaceType::Mount) {
        "unable to restrict sys entries without a private MNT namespace"
    } else if namespaces::of(spec, LinuxNamespaceType::Mount) != Namespace::Own {
        NO_MOUNT_NAMESPACE
    } else if has_no_mapping(spec, linux) {
        "user namespaces enabled, but no uid mappings found"
    } else if let Some(refusal) = check_time_namespace(spec, linux) {
        refusal
    } else {
        return Ok(());
    };
    Err(refusal.to_owned())
}

fn has_no_mapping(spec: &Spec, linux: &Linux) -> bool {
    let is_empty = linux.uid_mappings().as_ref().is_none_or(Vec::is_empty);
    is_empty && namespaces::of(spec, LinuxNamespaceType::User) == Namespace::Own
}

fn check_time_namespace(spec: &Spec, linux: &Linux) -> Option<&'static str> {
    linux.time_offsets().as_ref()?;
    match namespaces::of(spec, LinuxNamespaceType::Time) {
        Namespace::Joined(_) => Some(
            "time namespace enabled, but both namespace path and time offsets specified -- you \
             may only provide one",
        ),
        Namespace::Host => {
            Some("time namespace offsets specified, but time namespace isn't enabled in the config")
        }
        Namespace::Own => None,
    }
}

/// Where the node has no resctrl, runc's words; where it has, ours: we do not.
fn check_intel_rdt(linux: &Linux) -> Checked {
    if linux.intel_rdt().is_none() {
        return Ok(());
    }
    let refusal = if Path::new("/sys/fs/resctrl/schemata").exists() {
        "intelRdt is specified in config, but is not supported"
    } else {
        "intelRdt is specified in config, but Intel RDT is not enabled"
    };
    Err(refusal.to_owned())
}

fn check_scheduler(scheduler: &Scheduler) -> Checked {
    use LinuxSchedulerPolicy as P;
    let policy = scheduler.policy();
    let nice = scheduler.nice().unwrap_or_default();
    if matches!(policy, P::SchedOther | P::SchedBatch) && !(-20..=19).contains(&nice) {
        return Err(format!(
            "invalid scheduler.nice: {nice} when scheduler.policy is {policy}"
        ));
    }
    let is_real_time = matches!(policy, P::SchedFifo | P::SchedRr);
    if scheduler.priority().unwrap_or_default() != 0 && !is_real_time {
        return Err(
            "scheduler.priority can only be specified for SchedFIFO or SchedRR policy".to_owned(),
        );
    }
    let times = [
        scheduler.runtime(),
        scheduler.deadline(),
        scheduler.period(),
    ];
    let has_times = times.iter().any(|time| time.unwrap_or_default() != 0);
    if has_times && *policy != P::SchedDeadline {
        return Err(
            "scheduler runtime/deadline/period can only be specified for SchedDeadline policy"
                .to_owned(),
        );
    }
    Ok(())
}

fn check_memory_policy(linux: &Linux) -> Checked {
    use MemoryPolicyModeType as M;
    let Some(policy) = linux.memory_policy() else {
        return Ok(());
    };
    let text = policy.nodes().as_deref().unwrap_or_default();
    let nodes = executor::parse_set(text)
        .map_err(|e| format!("invalid memory policy nodes {text:?}: {e}"))?;
    let count = nodes.map_or(0, |nodes| nodes.len());
    match policy.mode() {
        M::MpolDefault | M::MpolLocal if count != 0 => Err(format!(
            "memory policy mode requires 0 nodes but got {count}"
        )),
        M::MpolBind | M::MpolInterleave | M::MpolPreferredMany | M::MpolWeightedInterleave
            if count == 0 =>
        {
            Err("memory policy mode requires at least one node but got 0".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn base() -> Value {
        json!({
            "ociVersion": "1.0.0",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"},
            "root": {"path": "rootfs"},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
        })
    }

    fn refusal(pointer: &str, value: Value) -> String {
        let mut spec = base();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[key] = value;
        check(&serde_json::from_value(spec).unwrap()).unwrap_err()
    }

    #[test]
    fn labels_want_selinux() {
        let mut spec = Spec::default();
        let mut linux = spec.linux().clone().unwrap();
        linux.set_mount_label(Some("system_u:object_r:x_t:s0".to_owned()));
        spec.set_linux(Some(linux));
        let refused = check(&spec).is_err_and(|why| why == NO_SELINUX);
        assert_eq!(refused, !has_selinux());
    }

    #[test]
    fn an_ordinary_spec_passes() {
        let spec = serde_json::from_value(base()).unwrap();
        assert_eq!(check(&spec), Ok(Vec::new()));
    }

    #[test]
    fn words_are_runcs() {
        for (pointer, value, words) in [
            ("/process/cwd", json!("etc"), "Cwd must be an absolute path"),
            ("/process/cwd", json!(""), "Cwd property must not be empty"),
            ("/process/args", json!([]), "args must not be empty"),
            (
                "/hostname",
                json!("x"),
                "unable to set hostname without a private UTS namespace",
            ),
            (
                "/linux/namespaces",
                json!([{"type": "pid"}, {"type": "pid"}]),
                "malformed spec file: duplicated ns {\"pid\" \"\"}",
            ),
            (
                "/linux/timeOffsets",
                json!({"monotonic": {"secs": 1}}),
                "time namespace offsets specified, but time namespace isn't enabled in the config",
            ),
            (
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "user"}]),
                "user namespaces enabled, but no uid mappings found",
            ),
            (
                "/linux/sysctl",
                json!({"kernel.foo": "1"}),
                "sysctl \"kernel.foo\" is not in a separate kernel namespace",
            ),
            (
                "/process/execCPUAffinity",
                json!({"initial": "3-1"}),
                "bad CPUAffinity.Initial: invalid range: 3-1",
            ),
            (
                "/linux/netDevices",
                json!({"eth0": {}}),
                "unable to move network devices without a NET namespace",
            ),
            (
                "/linux/memoryPolicy",
                json!({"mode": "MPOL_BIND"}),
                "memory policy mode requires at least one node but got 0",
            ),
            (
                "/process/scheduler",
                json!({"policy": "SCHED_OTHER", "nice": 30}),
                "invalid scheduler.nice: 30 when scheduler.policy is SCHED_OTHER",
            ),
            (
                "/process/ioPriority",
                json!({"class": "IOPRIO_CLASS_BE", "priority": 9}),
                "invalid ioPriority.Priority: 9",
            ),
            (
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NATIVE"]}),
                "string SCMP_ARCH_NATIVE is not a valid arch for seccomp",
            ),
        ] {
            assert_eq!(refusal(pointer, value), words);
        }
    }

    #[test]
    fn mounts_are_the_containers_own() {
        for namespaces in [
            json!([{"type": "pid"}]),
            json!([]),
            json!([{"type": "mount", "path": "/proc/1/ns/mnt"}]),
        ] {
            let words = refusal("/linux/namespaces", namespaces);
            assert_eq!(words, NO_MOUNT_NAMESPACE);
        }
        let mut spec = base();
        spec.as_object_mut().unwrap().remove("linux");
        let refused = check(&serde_json::from_value(spec).unwrap());
        assert_eq!(refused.unwrap_err(), NO_MOUNT_NAMESPACE);
    }

    #[test]
    fn personality_flags_are_ignored_with_a_warning() {
        let mut spec = base();
        spec["linux"]["personality"] = json!({"domain": "LINUX", "flags": ["X"]});
        let warnings = check(&serde_json::from_value(spec).unwrap()).unwrap();
        assert_eq!(warnings, ["unsupported personality flags [\"X\"] ignored"]);
    }
}
