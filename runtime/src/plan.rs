//! Decides how a container starts: pure. The driver brings the facts.
//!
//! ```text
//!  before_lookup   what the spec and the settings alone say   no I/O at all
//!  find            the store, one look-up                     given as a closure
//!  before_restore  what the checkpoint needs of the node      given as a closure
//! ```

use std::fmt;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::checkpoint::Manifest;
use crate::cri;
use crate::error::{Error, ErrorKind, Result};
use crate::namespaces::{self, Namespace};
use crate::node::{self, NodeFacts};
use crate::policy::{Config, RestorePolicy};
use crate::restorable;
use crate::store::Stored;

/// How a container starts.
#[derive(Debug, Clone)]
pub enum Plan {
    /// Cold, and why.
    Cold(Why),
    /// From this checkpoint.
    Restore(Box<Stored>),
    /// Not at all: it must be restored (`reprise.dev/restore: require`), and this
    /// is why it cannot be.
    Refuse(Why),
}

impl Plan {
    /// What follows when a restore is not possible, or has failed.
    #[must_use]
    pub fn without_restore(policy: RestorePolicy, why: Why) -> Self {
        // A pod's annotation reaches its sandbox too, which is never restored and
        // must start.
        if policy == RestorePolicy::Require && why != Why::Sandbox {
            Self::Refuse(why)
        } else {
            Self::Cold(why)
        }
    }
}

/// Why a container starts cold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// No checkpoint has this fingerprint.
    NoMatch,
    /// Restoring is off in the config file.
    Disabled,
    /// The pod's annotation says `never`.
    Never,
    /// It is a pod's sandbox.
    Sandbox,
    /// Its pid namespace is shared with other containers.
    SharedPidNamespace,
    /// It runs in the node's pid namespace.
    HostPidNamespace,
    /// It has a user namespace.
    UserNamespace,
    /// Its rootfs has no layers that other containers share.
    NoSharedLayers,
    /// It sets sysctls, which CRIU would not.
    Sysctls,
    /// It has hooks, which would find another kind of container.
    Hooks,
    /// It has something of the kernel that cannot be restored.
    Beyond(&'static str),
    /// Its writable layer was given files before it was created.
    FilledLayer,
    /// Its volumes cannot be compared with those of a checkpoint.
    Volumes(String),
    /// CRIU cannot be used; the text says what to do.
    NoCriu(String),
    /// The config file cannot be read; the text says what to do.
    ConfigUnreadable(String),
    /// There is a checkpoint, but it cannot be used.
    Unusable(String),
    /// The checkpoint was made on another architecture.
    Architecture {
        /// The checkpoint's.
        needed: String,
        /// The node's.
        here: String,
    },
    /// The node's CPUs lack features that the checkpoint's had.
    CpuFeatures(Vec<String>),
    /// The checkpoint was made by a newer CRIU.
    CriuOlder {
        /// CRIU that made it.
        needed: u32,
        /// CRIU of the node.
        here: u32,
    },
    /// The checkpoint was made by a newer kernel.
    KernelOlder {
        /// Kernel that made it.
        needed: String,
        /// Kernel of the node.
        here: String,
    },
    /// The container's memory limit is below what the checkpoint holds.
    MemoryLimit {
        /// The limit, in bytes.
        limit: u64,
        /// What the checkpoint holds, in bytes.
        needed: u64,
    },
    /// A restore was tried and failed.
    RestoreFailed(String),
}

impl Why {
    /// A short constant word, for metrics and structured logs.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoMatch => "no_match",
            Self::Disabled => "disabled",
            Self::Never => "never",
            Self::Sandbox => "sandbox",
            Self::SharedPidNamespace => "shared_pid_namespace",
            Self::HostPidNamespace => "host_pid_namespace",
            Self::UserNamespace => "user_namespace",
            Self::NoSharedLayers => "no_shared_layers",
            Self::Sysctls => "sysctls",
            Self::Hooks => "hooks",
            Self::Beyond(_) => "beyond",
            Self::FilledLayer => "filled_layer",
            Self::Volumes(_) => "volumes",
            Self::NoCriu(_) => "no_criu",
            Self::ConfigUnreadable(_) => "config_unreadable",
            Self::Unusable(_) => "unusable_checkpoint",
            Self::Architecture { .. } => "architecture",
            Self::CpuFeatures(_) => "cpu_features",
            Self::CriuOlder { .. } => "criu_older",
            Self::KernelOlder { .. } => "kernel_older",
            Self::MemoryLimit { .. } => "memory_limit",
            Self::RestoreFailed(_) => "restore_failed",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMatch => f.write_str("no checkpoint matches this container"),
            Self::Disabled => f.write_str("restoring is off in the config file"),
            Self::Never => f.write_str("the pod is annotated reprise.dev/restore: never"),
            Self::Sandbox => f.write_str("a pod's sandbox is never restored"),
            Self::SharedPidNamespace => f.write_str(
                "its pid namespace is shared, where pids of the checkpoint may be taken",
            ),
            Self::HostPidNamespace => f.write_str(
                "it runs in the node's pid namespace, where pids of the checkpoint may be taken",
            ),
            Self::UserNamespace => {
                f.write_str("it has a user namespace, which cannot be restored yet")
            }
            Self::NoSharedLayers => f.write_str(
                "its snapshotter gives it no shared layers, so nothing says which image it is; \
                 use the overlayfs snapshotter",
            ),
            Self::Sysctls => f.write_str("it sets sysctls, which cannot be restored yet"),
            Self::Hooks => f.write_str("it has hooks, which cannot be run at a restore yet"),
            Self::Beyond(what) => write!(f, "it has {what}, which cannot be restored yet"),
            Self::FilledLayer => f.write_str(
                "its writable layer holds files already, which a checkpoint does not know",
            ),
            Self::NoCriu(why) | Self::ConfigUnreadable(why) | Self::Volumes(why) => {
                f.write_str(why)
            }
            Self::Unusable(why) => write!(f, "the matching checkpoint cannot be used: {why}"),
            Self::Architecture { needed, here } => {
                write!(f, "the checkpoint is for {needed}, and this node is {here}")
            }
            Self::CpuFeatures(missing) => write!(
                f,
                "this node's CPUs lack features that the checkpoint's had: {}",
                missing.join(" ")
            ),
            Self::CriuOlder { needed, here } => write!(
                f,
                "the checkpoint was made by CRIU {}, and this node has {}; install {0} or later",
                node::show(*needed),
                node::show(*here)
            ),
            Self::KernelOlder { needed, here } => write!(
                f,
                "the checkpoint was made under Linux {needed}, and this node has {here}; boot \
                 the same minor version or a later one"
            ),
            Self::MemoryLimit { limit, needed } => write!(
                f,
                "the memory limit of {limit} bytes is below the {needed} bytes that the \
                 checkpoint holds"
            ),
            Self::RestoreFailed(why) => write!(f, "the restore failed: {why}"),
        }
    }
}

/// What is known before anything is looked up.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The container's spec.
    pub spec: &'a Spec,
    /// The settings, or why they cannot be read.
    pub config: std::result::Result<&'a Config, &'a Error>,
    /// What the pod asks for.
    pub policy: RestorePolicy,
    /// Whether there is a subject: the rootfs has shared layers.
    pub has_subject: bool,
    /// Whether its writable layer is empty, as it is when it comes from an image.
    pub is_fresh: bool,
}

/// The whole decision. `find` is called only when the spec and the settings allow
/// a restore, `node` only when there is a checkpoint.
pub fn decide(
    known: &Known<'_>,
    find: impl FnOnce() -> std::result::Result<Option<Stored>, Why>,
    node: impl FnOnce() -> NodeFacts,
) -> Plan {
    let outcome = match before_lookup(known) {
        Some(why) => Err(why),
        None => match find() {
            Ok(None) => Err(Why::NoMatch),
            Err(why) => Err(why),
            Ok(Some(found)) => match before_restore(known.spec, found.manifest(), &node()) {
                Some(why) => Err(why),
                None => Ok(found),
            },
        },
    };
    match outcome {
        Ok(found) => Plan::Restore(Box::new(found)),
        Err(why) => Plan::without_restore(known.policy, why),
    }
}

/// Reasons that the spec and the settings alone give.
#[must_use]
pub fn before_lookup(known: &Known<'_>) -> Option<Why> {
    if is_sandbox(known.spec) {
        return Some(Why::Sandbox);
    }
    if known.policy == RestorePolicy::Never {
        return Some(Why::Never);
    }
    match known.config {
        Err(error) => return Some(Why::ConfigUnreadable(error.message.clone())),
        Ok(config) if !config.restore.enabled => return Some(Why::Disabled),
        Ok(_) => {}
    }
    match namespaces::of(known.spec, LinuxNamespaceType::Pid) {
        Namespace::Own => {}
        Namespace::Joined(_) => return Some(Why::SharedPidNamespace),
        Namespace::Host => return Some(Why::HostPidNamespace),
    }
    if namespaces::of(known.spec, LinuxNamespaceType::User) != Namespace::Host {
        return Some(Why::UserNamespace);
    }
    if restorable::has_sysctls(known.spec) {
        return Some(Why::Sysctls);
    }
    if restorable::has_hooks(known.spec) {
        return Some(Why::Hooks);
    }
    if let Some(what) = restorable::beyond(known.spec) {
        return Some(Why::Beyond(what));
    }
    if !known.has_subject {
        return Some(Why::NoSharedLayers);
    }
    (!known.is_fresh).then_some(Why::FilledLayer)
}

/// Reasons that a checkpoint gives on this node.
#[must_use]
pub fn before_restore(spec: &Spec, checkpoint: &Manifest, node: &NodeFacts) -> Option<Why> {
    let needs = &checkpoint.needs;
    let criu = match &node.criu {
        Ok(version) => *version,
        Err(why) => return Some(Why::NoCriu(why.clone())),
    };
    if needs.arch != node.arch {
        return Some(Why::Architecture {
            needed: needs.arch.clone(),
            here: node.arch.clone(),
        });
    }
    let missing: Vec<String> = needs
        .cpu_features
        .iter()
        .filter(|feature| !node.cpu_features.contains(*feature))
        .cloned()
        .collect();
    if !missing.is_empty() {
        return Some(Why::CpuFeatures(missing));
    }
    if criu < needs.criu_version {
        return Some(Why::CriuOlder {
            needed: needs.criu_version,
            here: criu,
        });
    }
    // What cannot be read is of no kernel that we know of.
    if node::kernel_version(&node.kernel) < node::kernel_version(&needs.kernel) {
        return Some(Why::KernelOlder {
            needed: needs.kernel.clone(),
            here: node.kernel.clone(),
        });
    }
    match memory_limit(spec) {
        Some(limit) if limit < needs.memory_bytes => Some(Why::MemoryLimit {
            limit,
            needed: needs.memory_bytes,
        }),
        _ => None,
    }
}

/// Whether a container of this spec can be checkpointed at all.
///
/// # Errors
/// FailedPrecondition: why not, and what to do.
pub fn checkpointable(spec: &Spec) -> Result<()> {
    let refuse = |why: &str| Err(Error::new(ErrorKind::FailedPrecondition, why));
    if is_sandbox(spec) {
        return refuse("A pod's sandbox cannot be checkpointed; name one of its containers");
    }
    match namespaces::of(spec, LinuxNamespaceType::Pid) {
        Namespace::Own => {}
        Namespace::Joined(_) => {
            return refuse(
                "The container shares its pid namespace with others, so its processes cannot be \
                 checkpointed apart; set shareProcessNamespace: false in the pod (crictl: \
                 namespace_options pid: 1)",
            );
        }
        Namespace::Host => {
            return refuse(
                "The container runs in the node's pid namespace, so its processes cannot be \
                 checkpointed; set hostPID: false in the pod (crictl: namespace_options pid: 1)",
            );
        }
    }
    if namespaces::of(spec, LinuxNamespaceType::User) != Namespace::Host {
        return refuse(
            "The container has a user namespace, which cannot be checkpointed yet; set \
             hostUsers: true in the pod",
        );
    }
    Ok(())
}

/// Whether it is a pod's sandbox (pause) container.
#[must_use]
pub fn is_sandbox(spec: &Spec) -> bool {
    cri::annotation(spec, "container-type") == Some("sandbox")
}

/// The spec's memory limit in bytes, if it sets one.
fn memory_limit(spec: &Spec) -> Option<u64> {
    let resources = spec.linux().as_ref()?.resources().as_ref()?;
    let limit = resources.memory().as_ref()?.limit()?;
    u64::try_from(limit).ok().filter(|limit| *limit > 0)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
