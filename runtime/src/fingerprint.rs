//! What makes two containers interchangeable: pure, versioned.
//!
//! A [`Subject`] is everything that must be equal for one container to stand in
//! for another, as named fields. Each field has a hash, the SHA-256 in hex of the
//! canonical JSON (keys sorted, no blanks) of `[name, value]`: [`Hashes`]. A
//! [`Fingerprint`] is a hash over these. Format `v2`: `v2-` and the SHA-256 in hex
//! of the canonical JSON of `{"fields":{"<name>":"<hash>",...},"version":2}`. So
//! one field can be exchanged without knowing the others ([`Hashes::with_base`]). A
//! change to what a field holds, or to which fields there are, is a new version.
//!
//! | field | holds |
//! |---|---|
//! | `namespace` | containerd's namespace |
//! | `pod_namespace`, `container_name` | from the CRI annotations |
//! | `service_account` | the subject of the pod's token, `system:serviceaccount:<namespace>:<name>` |
//! | `image` | what the rootfs is based on, see [`Base`] |
//! | `args`, `cwd`, `terminal` | as in the spec |
//! | `env` | sorted by name, without the per-pod names below |
//! | `user` | uid, gid, umask, supplementary groups as a set |
//! | `capabilities` | five sets |
//! | `no_new_privileges`, `seccomp`, `apparmor`, `selinux`, `mount_label` | security |
//! | `rlimits`, `scheduling`, `personality`, `memory_policy`, `time_offsets` | process settings that CRIU brings back from the image |
//! | `mounts` | destination, type, options as a set; not the source |
//! | `volumes` | content of ConfigMap, Secret and projected volumes by destination ([`crate::volumes`]) |
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

mod canonical;
mod environment;
mod shown;

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cri::annotation;
use crate::rootfs::RootfsMount;
use crate::volumes::Contents;
use canonical::{canonical, filled, hash, hash_named, hash_of_hashes, sorted, value};
use environment::environment;

pub use shown::{Difference, Shown};

/// The version of the format that this build makes.
pub const FINGERPRINT_VERSION: u32 = 2;

/// A fingerprint: version and hash, `v2-<64 hex digits>`. Safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint over the hashes of all fields.
    #[must_use]
    pub fn of(hashes: &Hashes) -> Self {
        let hash = hash_of_hashes(&hashes.0, FINGERPRINT_VERSION);
        Self(format!("v{FINGERPRINT_VERSION}-{hash}"))
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
                "{text:?} is not a fingerprint (v2-<64 hex digits>)"
            ))
        }
    }
}

/// What a rootfs is based on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Overlay lower directories, uppermost first. Create knows them without asking
    /// anybody, and snapshots are unique on a node while they live. The fingerprint
    /// is this node's then.
    Here(Vec<String>),
    /// The chain id of the image's layers (`sha256:<hex>`), which is the name of the
    /// committed snapshot below the container's: the same on every node.
    Anywhere(String),
}

impl Base {
    /// The name of its field.
    const FIELD: &str = "image";

    /// What a container's rootfs is based on here. `None`: it is not one overlay
    /// mount with lower directories, so nothing says which image it is.
    #[must_use]
    pub fn here(rootfs: &[RootfsMount]) -> Option<Self> {
        let lower = lower_directories(rootfs)?;
        Some(Self::Here(lower.into_iter().map(str::to_owned).collect()))
    }

    fn value(&self) -> Value {
        match self {
            Self::Here(lower) => json!(lower),
            Self::Anywhere(chain) => json!({ "chain": chain }),
        }
    }

    fn hash(&self) -> String {
        hash_named(Self::FIELD, &self.value(), &mut Vec::new())
    }
}

/// A hash for each field of a [`Subject`]: what may be stored, so that one can say
/// later which fields of two containers differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hashes(BTreeMap<String, String>);

impl Hashes {
    /// The same with another base: how a fingerprint travels between nodes.
    #[must_use]
    pub fn with_base(&self, base: &Base) -> Self {
        let mut fields = self.0.clone();
        fields.insert(Base::FIELD.to_owned(), base.hash());
        Self(fields)
    }

    /// Whether they are of a container on this base.
    #[must_use]
    pub fn has_base(&self, base: &Base) -> bool {
        self.get(Base::FIELD) == Some(base.hash().as_str())
    }

    /// A field's hash.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }

    /// Whether there are none: a checkpoint that others have made says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names of the fields that differ, sorted.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        names
            .into_iter()
            .filter(|name| self.0.get(*name) != other.0.get(*name))
            .cloned()
            .collect()
    }
}

/// What must be equal for one container to stand in for another. Holds values of
/// the environment: not for logs, and never stored; [`Subject::hashes`] is, and
/// [`Subject::shown`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject(BTreeMap<&'static str, Value>);

impl Subject {
    /// Whether containers with this rootfs have one.
    #[must_use]
    pub fn exists_for(rootfs: &[RootfsMount]) -> bool {
        lower_directories(rootfs).is_some()
    }

    /// Takes it from what Create knows, and from what was read of its volumes.
    /// `None`: the rootfs has no layers that other containers share (it is not one
    /// overlay mount), so nothing says which image it is.
    #[must_use]
    pub fn of(
        spec: &Spec,
        namespace: &str,
        rootfs: &[RootfsMount],
        contents: &Contents,
    ) -> Option<Self> {
        let root = spec.root().as_ref();
        let mut fields = BTreeMap::new();
        let mut put = |name: &'static str, value: Value| {
            fields.insert(name, value);
        };
        put("namespace", json!(namespace));
        put(
            "pod_namespace",
            json!(annotation(spec, "sandbox-namespace")),
        );
        put("container_name", json!(annotation(spec, "container-name")));
        put("service_account", json!(contents.service_account));
        put(Base::FIELD, Base::here(rootfs)?.value());
        put(
            "rootfs_readonly",
            json!(root.is_some_and(|r| r.readonly() == Some(true))),
        );
        put("mounts", mounts(spec));
        put("volumes", json!(contents.volumes));
        put("hooks", value(spec.hooks()));
        if let Some(process) = spec.process() {
            process_fields(process, &mut put);
        }
        linux_fields(spec, &mut put);
        Some(Self(fields))
    }

    /// A hash for each field.
    #[must_use]
    pub fn hashes(&self) -> Hashes {
        let mut text = Vec::with_capacity(4096);
        let hashes = self.0.iter();
        Hashes(
            hashes
                .map(|(name, value)| ((*name).to_owned(), hash_named(name, value, &mut text)))
                .collect(),
        )
    }

    /// Its fingerprint on this node.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.hashes())
    }

    /// What people may see of it.
    #[must_use]
    pub fn shown(&self) -> Shown {
        Shown::of(&self.0)
    }
}

/// Works a fingerprint out that nobody wants. The first one in a process has the pages of
/// code brought in that a shim at rest has given back, which takes longer than the work;
/// beside the reading of a spec that costs nobody time.
pub fn prewarm() {
    let rootfs = [RootfsMount::overlay(vec!["lowerdir=/".to_owned()])];
    let subject = Subject::of(&Spec::default(), "", &rootfs, &Contents::default());
    std::hint::black_box(subject.map(|subject| subject.fingerprint()));
}

fn process_fields(process: &Process, put: &mut impl FnMut(&'static str, Value)) {
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

fn linux_fields(spec: &Spec, put: &mut impl FnMut(&'static str, Value)) {
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
            list.sort_by_cached_key(canonical);
        }
    }
    let rules = whole.get_mut("syscalls").and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        if let Some(names) = rule.get_mut("names").and_then(Value::as_array_mut) {
            names.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
    }
    whole
}

#[cfg(test)]
#[path = "fingerprint_tests.rs"]
pub(crate) mod tests;
