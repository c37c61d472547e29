//! What makes two containers interchangeable: pure, versioned.
//!
//! A [`Subject`] is everything that must be equal for one container to stand in
//! for another, as named fields; its [`Fingerprint`] is a hash over them. Format
//! `v1`: `v1-` and the SHA-256 in hex of the canonical JSON (keys sorted, no
//! blanks) of `{"fields":{...},"version":1}`. A change to what a field holds, or
//! to which fields there are, is a new version.
//!
//! | field | holds |
//! |---|---|
//! | `namespace` | containerd's namespace |
//! | `pod_namespace`, `container_name` | from the CRI annotations |
//! | `image` | overlay lower directories of the rootfs: snapshots are unique on the node |
//! | `args`, `cwd`, `terminal` | as in the spec |
//! | `env` | sorted by name, without the per-pod names below |
//! | `user` | uid, gid, umask, supplementary groups as a set |
//! | `capabilities` | five sets |
//! | `no_new_privileges`, `seccomp`, `apparmor`, `selinux`, `mount_label` | security |
//! | `rlimits`, `scheduling`, `personality`, `memory_policy`, `time_offsets` | process settings that CRIU brings back from the image |
//! | `mounts` | destination, type, options as a set; not the source |
//! | `masked_paths`, `readonly_paths` | as sets |
//! | `devices`, `device_rules` | nodes as a set, rules in order |
//! | `namespaces` | types, and whether each is the container's own or joined; id mappings |
//! | `rootfs_readonly`, `rootfs_propagation`, `sysctl`, `hooks` | as in the spec |
//!
//! What may differ: host and domain name, cgroup path and limits, mount sources,
//! paths of joined namespaces, `oom_score_adj`, other annotations, ids.
//!
//! Per-pod environment: `HOSTNAME`, and the variables of a Kubernetes service
//! `X` (`X_SERVICE_HOST`, `X_SERVICE_PORT`, `X_SERVICE_PORT_*`, `X_PORT`,
//! `X_PORT_<n>_{TCP,UDP,SCTP}` and its `_PROTO`, `_PORT`, `_ADDR`), left out
//! only when they come as the kubelet sets them: with an address in
//! `X_SERVICE_HOST` and a URL in `X_PORT`. A user's own `HTTP_PORT=80` counts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cri::annotation;
use crate::rootfs::RootfsMount;

/// The version of the format that this build makes.
pub const FINGERPRINT_VERSION: u32 = 1;

/// A fingerprint: version and hash, `v1-<64 hex digits>`. Safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of a subject.
    #[must_use]
    pub fn of(subject: &Subject) -> Self {
        let whole = json!({ "version": FINGERPRINT_VERSION, "fields": subject.0 });
        Self(format!("v{FINGERPRINT_VERSION}-{}", hash(&whole)))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.0
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let well_formed = text
            .strip_prefix('v')
            .and_then(|rest| rest.split_once('-'))
            .is_some_and(|(version, hash)| {
                version.parse::<u32>().is_ok()
                    && hash.len() == 64
                    && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            });
        if well_formed {
            Ok(Self(text))
        } else {
            Err(format!(
                "{text:?} is not a fingerprint (v1-<64 hex digits>)"
            ))
        }
    }
}

/// What must be equal for one container to stand in for another. Holds values of
/// the environment: not for logs, and never stored; [`Subject::hashes`] is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subject(BTreeMap<String, Value>);

impl Subject {
    /// Whether containers with this rootfs have one.
    #[must_use]
    pub fn exists_for(rootfs: &[RootfsMount]) -> bool {
        lower_directories(rootfs).is_some()
    }

    /// Takes it from what Create knows. `None`: the rootfs has no layers that
    /// other containers share (it is not one overlay mount), so nothing says
    /// which image it is.
    #[must_use]
    pub fn of(spec: &Spec, namespace: &str, rootfs: &[RootfsMount]) -> Option<Self> {
        let root = spec.root().as_ref();
        let mut fields = BTreeMap::new();
        let mut put = |name: &str, value: Value| {
            fields.insert(name.to_owned(), value);
        };
        put("namespace", json!(namespace));
        put(
            "pod_namespace",
            json!(annotation(spec, "sandbox-namespace")),
        );
        put("container_name", json!(annotation(spec, "container-name")));
        put("image", json!(lower_directories(rootfs)?));
        put(
            "rootfs_readonly",
            json!(root.is_some_and(|r| r.readonly() == Some(true))),
        );
        put("mounts", mounts(spec));
        put("hooks", value(spec.hooks()));
        if let Some(process) = spec.process() {
            process_fields(process, &mut put);
        }
        linux_fields(spec, &mut put);
        Some(Self(fields))
    }

    /// A hash for each field: what may be stored, so that one can say later which
    /// fields of two containers differ.
    #[must_use]
    pub fn hashes(&self) -> BTreeMap<String, String> {
        self.0
            .iter()
            .map(|(name, value)| (name.clone(), hash(&json!([name, value]))))
            .collect()
    }

    /// Names of the fields that differ, sorted.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        differences(&self.hashes(), &other.hashes())
    }
}

/// Names of the fields whose hashes differ, sorted.
#[must_use]
pub fn differences(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    names
        .into_iter()
        .filter(|name| a.get(*name) != b.get(*name))
        .cloned()
        .collect()
}

fn process_fields(process: &Process, put: &mut impl FnMut(&str, Value)) {
    let user = process.user();
    put("args", json!(process.args()));
    put("cwd", json!(process.cwd()));
    put("terminal", json!(process.terminal() == Some(true)));
    put(
        "env",
        json!(environment(process.env().as_deref().unwrap_or_default())),
    );
    let groups: BTreeSet<u32> = user.additional_gids().iter().flatten().copied().collect();
    put(
        "user",
        json!([user.uid(), user.gid(), user.umask(), groups]),
    );
    let capabilities = process.capabilities().as_ref().map(|c| {
        [
            c.bounding(),
            c.effective(),
            c.inheritable(),
            c.permitted(),
            c.ambient(),
        ]
        .map(|set| sorted(set.iter().flatten()))
    });
    put("capabilities", json!(capabilities));
    put(
        "no_new_privileges",
        json!(process.no_new_privileges() == Some(true)),
    );
    put("apparmor", filled(process.apparmor_profile().as_deref()));
    put("selinux", filled(process.selinux_label().as_deref()));
    put("rlimits", json!(sorted(process.rlimits().iter().flatten())));
    put(
        "scheduling",
        json!([process.io_priority(), process.scheduler()]),
    );
}

fn linux_fields(spec: &Spec, put: &mut impl FnMut(&str, Value)) {
    let Some(linux) = spec.linux() else { return };
    put(
        "seccomp",
        linux.seccomp().as_ref().map_or(Value::Null, seccomp),
    );
    put("mount_label", filled(linux.mount_label().as_deref()));
    put(
        "masked_paths",
        json!(sorted(linux.masked_paths().iter().flatten())),
    );
    put(
        "readonly_paths",
        json!(sorted(linux.readonly_paths().iter().flatten())),
    );
    put("devices", json!(sorted(linux.devices().iter().flatten())));
    let rules = linux
        .resources()
        .as_ref()
        .and_then(|r| r.devices().as_ref());
    put("device_rules", json!(rules.map_or(&[][..], Vec::as_slice)));
    put("namespaces", namespaces(spec));
    put(
        "rootfs_propagation",
        filled(linux.rootfs_propagation().as_deref()),
    );
    let sysctl: BTreeMap<_, _> = linux.sysctl().iter().flatten().collect();
    put("sysctl", json!(sysctl));
    put("personality", value(linux.personality()));
    put("memory_policy", value(linux.memory_policy()));
    put("time_offsets", value(linux.time_offsets()));
}

/// The lower directories of a rootfs that is one overlay mount.
fn lower_directories(rootfs: &[RootfsMount]) -> Option<Vec<&str>> {
    let [mount] = rootfs else { return None };
    if mount.typ != "overlay" || !matches!(mount.target.as_str(), "" | "/") {
        return None;
    }
    let lower: Vec<&str> = mount
        .options
        .iter()
        .filter_map(|o| {
            o.strip_prefix("lowerdir=")
                .or_else(|| o.strip_prefix("lowerdir+="))
        })
        .flat_map(|dirs| dirs.split(':'))
        .filter(|dir| !dir.is_empty())
        .collect();
    (!lower.is_empty()).then_some(lower)
}

fn mounts(spec: &Spec) -> Value {
    let mut mounts: Vec<(String, String, BTreeSet<String>, Value)> = spec
        .mounts()
        .iter()
        .flatten()
        .map(|m| {
            (
                m.destination().to_string_lossy().into_owned(),
                m.typ().clone().unwrap_or_default(),
                m.options().iter().flatten().cloned().collect(),
                json!([m.uid_mappings(), m.gid_mappings()]),
            )
        })
        .collect();
    // Stable: of two mounts at one place the later one shows.
    mounts.sort_by(|a, b| a.0.cmp(&b.0));
    json!(mounts)
}

/// Types, and whether each is the container's own or joined from elsewhere. A
/// type that is not listed is the node's.
fn namespaces(spec: &Spec) -> Value {
    let Some(linux) = spec.linux() else {
        return Value::Null;
    };
    let kinds: BTreeMap<String, &str> = linux
        .namespaces()
        .iter()
        .flatten()
        .map(|n| {
            let joined = n.path().as_ref().is_some_and(|p| !p.as_os_str().is_empty());
            (kind(n.typ()), if joined { "joined" } else { "own" })
        })
        .collect();
    json!([kinds, linux.uid_mappings(), linux.gid_mappings()])
}

fn kind(typ: LinuxNamespaceType) -> String {
    value(&typ).as_str().unwrap_or_default().to_owned()
}

/// seccomp with its sets sorted; rules stay in order.
fn seccomp(profile: &oci_spec::runtime::LinuxSeccomp) -> Value {
    let mut whole = value(profile);
    for key in ["architectures", "flags"] {
        if let Some(list) = whole.get_mut(key).and_then(Value::as_array_mut) {
            list.sort_by_key(canonical);
        }
    }
    let rules = whole.get_mut("syscalls").and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        if let Some(names) = rule.get_mut("names").and_then(Value::as_array_mut) {
            names.sort_by_key(canonical);
        }
    }
    whole
}

/// The environment without per-pod names, sorted by name; of several lines with
/// one name the order stays.
fn environment(env: &[String]) -> Vec<&String> {
    let mut kept: Vec<(&str, &String)> = Vec::new();
    let services = services(env);
    for line in env {
        let name = line.split_once('=').map_or(line.as_str(), |(name, _)| name);
        if name != "HOSTNAME" && !of_service(name, &services) {
            kept.push((name, line));
        }
    }
    kept.sort_by_key(|(name, _)| *name);
    kept.into_iter().map(|(_, line)| line).collect()
}

/// Prefixes of the services that the kubelet announces in an environment.
fn services(env: &[String]) -> BTreeSet<&str> {
    let pairs: BTreeMap<&str, &str> = env.iter().filter_map(|l| l.split_once('=')).collect();
    pairs
        .iter()
        .filter_map(|(name, value)| {
            let service = name.strip_suffix("_SERVICE_HOST")?;
            value.parse::<IpAddr>().ok()?;
            let url = pairs.get(format!("{service}_PORT").as_str())?;
            url.split_once("://")
                .is_some_and(|(scheme, _)| matches!(scheme, "tcp" | "udp" | "sctp"))
                .then_some(service)
        })
        .collect()
}

fn of_service(name: &str, services: &BTreeSet<&str>) -> bool {
    services.iter().any(|service| {
        let Some(rest) = name.strip_prefix(service) else {
            return false;
        };
        if matches!(rest, "_SERVICE_HOST" | "_SERVICE_PORT" | "_PORT")
            || rest.starts_with("_SERVICE_PORT_")
        {
            return true;
        }
        let mut words = rest.strip_prefix("_PORT_").unwrap_or_default().split('_');
        let number = words.next().unwrap_or_default();
        !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
            && matches!(words.next(), Some("TCP" | "UDP" | "SCTP"))
            && matches!(words.next(), None | Some("PROTO" | "PORT" | "ADDR"))
            && words.next().is_none()
    })
}

/// Anything that serialises, as JSON.
fn value<T: Serialize>(thing: &T) -> Value {
    // The types of the OCI spec have no maps with keys that JSON cannot have.
    serde_json::to_value(thing).unwrap_or(Value::Null)
}

/// A text, or null when it is empty or absent.
fn filled(text: Option<&str>) -> Value {
    json!(text.filter(|t| !t.is_empty()))
}

/// A set, in canonical order.
fn sorted<'a, T: Serialize + 'a>(items: impl Iterator<Item = &'a T>) -> Vec<Value> {
    let mut values: Vec<Value> = items.map(value).collect();
    values.sort_by_cached_key(canonical);
    values
}

/// SHA-256 of the canonical JSON, in hex.
fn hash(value: &Value) -> String {
    let digest = Sha256::digest(canonical(value).as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON with sorted keys and no blanks, whatever order `value` keeps them in.
fn canonical(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let items: Vec<String> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", json!(key), canonical(value)))
                .collect();
            format!("{{{}}}", items.join(","))
        }
        plain => plain.to_string(),
    }
}

#[cfg(test)]
#[path = "fingerprint_tests.rs"]
mod tests;
