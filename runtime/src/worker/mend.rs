//! A spec that our parser refuses and runc's does not, or that runc refuses in words
//! which users and their tools know: pure. Looked at only after parsing failed, so
//! an ordinary spec pays nothing.

use serde_json::{Map, Value, json};

/// Puts a `config.json` right. Gives warnings back; an error is runc's words.
pub(super) fn spec(spec: &mut Value) -> Result<Vec<String>, String> {
    drop_nulls(spec);
    let mut warnings = Vec::new();
    if let Some(process) = spec.get_mut("process") {
        warnings.extend(self::process(process)?);
    }
    let Some(linux) = spec.get_mut("linux").and_then(Value::as_object_mut) else {
        return Ok(warnings);
    };
    for namespace in each(linux.get("namespaces")) {
        let (name, path) = (text(namespace, "type"), text(namespace, "path"));
        one_of(name, &NAMESPACES, |name| {
            format!("namespace {{{name:?} {path:?}}} does not exist")
        })?;
    }
    for device in each(linux.get("devices")) {
        one_of(text(device, "type"), &DEVICES, |name| {
            format!("invalid device type {name:?}")
        })?;
    }
    if linux.get("seccomp").is_some_and(is_empty_profile) {
        linux.remove("seccomp");
    }
    if let Some(profile) = linux.get("seccomp") {
        check_profile(profile)?;
    }
    if let Some(policy) = linux.get("memoryPolicy") {
        one_of(text(policy, "mode"), &MEMORY_MODES, |mode| {
            format!("invalid memory policy mode {mode:?}")
        })?;
        for flag in each(policy.get("flags")) {
            one_of(flag.as_str().unwrap_or_default(), &MEMORY_FLAGS, |flag| {
                format!("invalid memory policy flag {flag:?}")
            })?;
        }
    }
    if let Some(personality) = linux.get("personality") {
        one_of(text(personality, "domain"), &["LINUX", "LINUX32"], |name| {
            format!("invalid personality domain {name}")
        })?;
    }
    Ok(warnings)
}

/// Puts a process right, of a spec or to be executed.
pub(super) fn process(process: &mut Value) -> Result<Vec<String>, String> {
    drop_nulls(process);
    let warnings = capabilities(process);
    let Some(process) = process.as_object_mut() else {
        return Ok(warnings);
    };
    process.entry("user").or_insert_with(|| json!({}));
    process.entry("cwd").or_insert_with(|| json!(""));
    for limit in each(process.get("rlimits")) {
        let name = text(limit, "type");
        if serde_json::from_value::<oci_spec::runtime::PosixRlimitType>(json!(name)).is_err() {
            return Err(format!("wrong rlimit value: {name}"));
        }
    }
    if let Some(io) = process.get("ioPriority") {
        one_of(text(io, "class"), &IO_CLASSES, |class| {
            format!("invalid ioPriority.Class: {class:?}")
        })?;
    }
    if let Some(scheduler) = process.get_mut("scheduler") {
        mend_scheduler(scheduler)?;
    }
    if let Some(affinity) = process
        .get_mut("execCPUAffinity")
        .and_then(Value::as_object_mut)
    {
        mend_affinity(affinity)?;
    }
    Ok(warnings)
}

const NAMESPACES: [&str; 8] = [
    "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time",
];
const DEVICES: [&str; 5] = ["a", "b", "c", "u", "p"];
const IO_CLASSES: [&str; 3] = ["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"];
const MEMORY_MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_WEIGHTED_INTERLEAVE",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_LOCAL",
];
const MEMORY_FLAGS: [&str; 3] = [
    "MPOL_F_NUMA_BALANCING",
    "MPOL_F_RELATIVE_NODES",
    "MPOL_F_STATIC_NODES",
];
const POLICIES: [&str; 7] = [
    "SCHED_OTHER",
    "SCHED_FIFO",
    "SCHED_RR",
    "SCHED_BATCH",
    "SCHED_ISO",
    "SCHED_IDLE",
    "SCHED_DEADLINE",
];
/// The runtime spec's names, and what our parser calls them.
const SCHEDULER_FLAGS: [(&str, &str); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_RECLAIM", "SCHED_FLAG_RECLAIM"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
    ("SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_POLICY"),
    ("SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_KEEP_PARAMS"),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MIN"),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", "SCHED_FLAG_UTIL_CLAMP_MAX"),
];
const ACTIONS: [&str; 9] = [
    "SCMP_ACT_KILL",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];
const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];
/// Architectures that runc knows.
pub(super) const ARCHITECTURES: [&str; 18] = [
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_LOONGARCH64",
];

fn is_empty_profile(profile: &Value) -> bool {
    text(profile, "defaultAction").is_empty() && each(profile.get("syscalls")).next().is_none()
}

fn check_profile(profile: &Value) -> Result<(), String> {
    for flag in each(profile.get("flags")) {
        one_of(flag.as_str().unwrap_or_default(), &FLAGS, |flag| {
            format!("seccomp flag {flag} is not known to runc")
        })?;
    }
    for arch in each(profile.get("architectures")) {
        check_architecture(arch.as_str().unwrap_or_default())?;
    }
    let action = |value| {
        one_of(text(value, "action"), &ACTIONS, |name| {
            format!("string {name} is not a valid action for seccomp")
        })
    };
    one_of(text(profile, "defaultAction"), &ACTIONS, |name| {
        format!("string {name} is not a valid action for seccomp")
    })?;
    for rule in each(profile.get("syscalls")) {
        action(rule)?;
        for arg in each(rule.get("args")) {
            one_of(text(arg, "op"), &OPERATORS, |name| {
                format!("string {name} is not a valid operator for seccomp")
            })?;
        }
    }
    Ok(())
}

/// Refuses architectures that runc does not know.
pub(super) fn check_architecture(name: &str) -> Result<(), String> {
    one_of(name, &ARCHITECTURES, |name| {
        format!("string {name} is not a valid arch for seccomp")
    })
}

fn mend_scheduler(scheduler: &mut Value) -> Result<(), String> {
    let policy = text(scheduler, "policy");
    if policy.is_empty() {
        return Err("scheduler policy is required".to_owned());
    }
    one_of(policy, &POLICIES, |policy| {
        inside(&format!("invalid scheduler policy: {policy}"))
    })?;
    let flags = scheduler.get_mut("flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        let name = flag.as_str().unwrap_or_default();
        let known = SCHEDULER_FLAGS.iter().find(|(theirs, _)| *theirs == name);
        let (_, ours) = known.ok_or_else(|| inside(&format!("invalid scheduler flag: {name}")))?;
        *flag = json!(ours);
    }
    Ok(())
}

/// What runc finds out only in the container's process.
fn inside(why: &str) -> String {
    format!("unable to start container process: error during container init: {why}")
}

/// Our parser takes lists without blanks and empty members only.
fn mend_affinity(affinity: &mut Map<String, Value>) -> Result<(), String> {
    for (key, name) in [("initial", "Initial"), ("final", "Final")] {
        let cpus = affinity
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        super::executor::parse_set(&cpus).map_err(|e| format!("bad CPUAffinity.{name}: {e}"))?;
        let members: Vec<_> = cpus
            .split(',')
            .map(str::trim)
            .filter(|m| !m.is_empty())
            .collect();
        if members.is_empty() {
            affinity.remove(key);
        } else {
            affinity.insert(key.to_owned(), json!(members.join(",")));
        }
    }
    Ok(())
}

/// Leaves out of a process the capabilities that runc does not know. Our parser takes
/// them in small letters and without `CAP_` too, and would grant what runc does not.
pub(super) fn capabilities(process: &mut Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let sets = process
        .get_mut("capabilities")
        .and_then(Value::as_object_mut);
    let lists = sets.into_iter().flat_map(Map::values_mut);
    for list in lists.filter_map(Value::as_array_mut) {
        list.retain(|name| {
            let known = is_capability(name);
            if !known {
                warnings.push(format!("unknown capability {name} ignored"));
            }
            known
        });
    }
    warnings
}

fn is_capability(name: &Value) -> bool {
    let parsed = serde_json::from_value::<oci_spec::runtime::Capability>(name.clone());
    parsed.is_ok_and(|cap| name.as_str() == Some(&format!("CAP_{cap}")))
}

/// To Go's parser null is absence.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn one_of(name: &str, known: &[&str], refusal: impl FnOnce(&str) -> String) -> Result<(), String> {
    if known.contains(&name) {
        Ok(())
    } else {
        Err(refusal(name))
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn each(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Spec;

    fn base() -> Value {
        serde_json::to_value(Spec::default()).unwrap()
    }

    /// The refusal of a spec with one value changed.
    fn refusal(pointer: &str, value: Value) -> String {
        let mut changed = base();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[key] = value;
        spec(&mut changed).unwrap_err()
    }

    #[test]
    fn what_runc_refuses_is_refused_in_its_words() {
        assert_eq!(
            refusal("/process/rlimits", json!([{"type": "RLIMIT_FOO"}])),
            "wrong rlimit value: RLIMIT_FOO"
        );
        assert_eq!(
            refusal("/linux/namespaces", json!([{"type": "foo"}])),
            "namespace {\"foo\" \"\"} does not exist"
        );
        assert_eq!(
            refusal("/linux/seccomp", json!({"defaultAction": "FOO"})),
            "string FOO is not a valid action for seccomp"
        );
        let profile = |key: &str, value: Value| {
            let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW"});
            profile[key] = value;
            refusal("/linux/seccomp", profile)
        };
        assert_eq!(
            profile("flags", json!(["X"])),
            "seccomp flag X is not known to runc"
        );
        assert_eq!(
            profile("architectures", json!(["X"])),
            "string X is not a valid arch for seccomp"
        );
        assert_eq!(
            refusal("/linux/memoryPolicy", json!({"mode": "MPOL_FOO"})),
            "invalid memory policy mode \"MPOL_FOO\""
        );
        assert_eq!(
            refusal("/linux/personality", json!({"domain": "FOO"})),
            "invalid personality domain FOO"
        );
        assert_eq!(
            refusal("/process/execCPUAffinity", json!({"initial": "x"})),
            "bad CPUAffinity.Initial: strconv.ParseUint: parsing \"x\": invalid syntax"
        );
        assert!(refusal("/process/scheduler", json!({"policy": "X"})).ends_with("policy: X"));
    }

    #[test]
    fn what_runc_takes_can_be_parsed_afterwards() {
        let mut mended = base();
        mended["process"] = json!({
            "args": ["true"], "env": null,
            "capabilities": {"bounding": ["CAP_KILL", "CAP_TIME_TRAVEL"]},
            "scheduler": {"policy": "SCHED_FIFO",
                "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"]},
            "execCPUAffinity": {"initial": " 0, 1", "final": ""},
        });
        mended["linux"]["seccomp"] = json!({});
        assert!(serde_json::from_value::<Spec>(mended.clone()).is_err());
        let warnings = spec(&mut mended).unwrap();
        assert_eq!(warnings, ["unknown capability \"CAP_TIME_TRAVEL\" ignored"]);
        let spec: Spec = serde_json::from_value(mended).unwrap();
        let process = spec.process().as_ref().unwrap();
        let scheduler = process.scheduler().as_ref().unwrap();
        assert_eq!(scheduler.flags().as_ref().unwrap().len(), 2);
        let affinity = process.exec_cpu_affinity().as_ref().unwrap();
        assert_eq!(affinity.initial().as_deref(), Some("0,1"));
        assert_eq!(*affinity.cpu_affinity_final(), None);
        assert!(spec.linux().as_ref().unwrap().seccomp().is_none());
    }

    #[test]
    fn capabilities_have_runcs_names_only() {
        let mut process = json!({
            "capabilities": {"bounding": ["CAP_KILL", "chown", "CHOWN", "cap_kill", "Cap_Kill"]},
        });
        let warnings = capabilities(&mut process);
        assert_eq!(process["capabilities"]["bounding"], json!(["CAP_KILL"]));
        assert_eq!(warnings.len(), 4);
    }
}
