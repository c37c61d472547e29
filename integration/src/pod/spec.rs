//! What a pod and a container are asked to be.

use crate::cri::proto::{
    ContainerConfig, ContainerMetadata, DnsConfig, ImageSpec, Int64Value, KeyValue,
    LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, SecurityProfile,
};
use crate::node::Node;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// A pod to be run; starts as Kubernetes' defaults.
#[derive(Clone, Debug)]
pub struct PodSpec {
    pub(super) name: String,
    pub(super) handler: String,
    namespace: String,
    annotations: HashMap<String, String>,
    namespaces: NamespaceOption,
}

impl PodSpec {
    /// A pod under our runtime. Containers are found again within one pod
    /// namespace only, so each test uses its own.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            handler: handler(),
            namespace: namespace.to_owned(),
            annotations: HashMap::new(),
            namespaces: NamespaceOption {
                pid: NamespaceMode::Container.into(),
                ..NamespaceOption::default()
            },
        }
    }

    /// Under another runtime handler.
    #[must_use]
    pub fn handler(mut self, handler: &str) -> Self {
        handler.clone_into(&mut self.handler);
        self
    }

    /// With an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With `reprise.dev/restore`.
    #[must_use]
    pub fn restore(self, policy: &str) -> Self {
        self.annotation("reprise.dev/restore", policy)
    }

    /// With this PID namespace: the container's own, the pod's or the node's.
    #[must_use]
    pub fn pid_namespace(mut self, mode: NamespaceMode) -> Self {
        self.namespaces.pid = mode.into();
        self
    }

    /// In the node's network, PID and IPC namespaces; its containers have to
    /// say so too.
    #[must_use]
    pub fn on_the_node(mut self) -> Self {
        self.namespaces = on_the_node();
        self
    }

    /// What is sent to containerd; a new uid each time.
    pub(super) fn config(&self, node: &Node) -> PodSandboxConfig {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let uid = format!("uid-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let logs = node.dir().join("logs");
        let full_name = format!("{}_{}_{uid}", self.namespace, self.name);
        PodSandboxConfig {
            log_directory: logs.join(full_name).display().to_string(),
            metadata: Some(PodSandboxMetadata {
                name: self.name.clone(),
                uid: uid.clone(),
                namespace: self.namespace.clone(),
                attempt: 0,
            }),
            hostname: self.hostname(),
            dns_config: Some(DnsConfig {
                servers: vec!["10.96.0.10".to_owned()],
                searches: vec![format!("{}.svc.cluster.local", self.namespace)],
                options: vec!["ndots:5".to_owned()],
            }),
            labels: HashMap::from([
                ("io.kubernetes.pod.name".to_owned(), self.name.clone()),
                (
                    "io.kubernetes.pod.namespace".to_owned(),
                    self.namespace.clone(),
                ),
                ("io.kubernetes.pod.uid".to_owned(), uid),
            ]),
            annotations: self.annotations.clone(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: node.cgroup(),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(self.namespaces.clone()),
                    seccomp: Some(SecurityProfile::default()),
                }),
            }),
        }
    }
}

impl PodSpec {
    /// On the node's network a pod has the node's name.
    fn hostname(&self) -> String {
        if self.namespaces.network() == NamespaceMode::Node {
            String::new()
        } else {
            self.name.clone()
        }
    }
}

fn on_the_node() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Node.into(),
        ipc: NamespaceMode::Node.into(),
        ..NamespaceOption::default()
    }
}

/// Tests that compare us with runc's shim can be checked against it first:
/// `REPRISE_TEST_HANDLER=runc cargo test -p integration --test cold`.
fn handler() -> String {
    std::env::var("REPRISE_TEST_HANDLER").unwrap_or_else(|_| "reprise".to_owned())
}

/// A container to be created.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// What is sent to containerd, but for what the pod adds.
    pub config: ContainerConfig,
}

impl ContainerSpec {
    /// A container of this image, with its own command, named `app`.
    #[must_use]
    pub fn new(image: &str) -> Self {
        Self {
            config: ContainerConfig {
                metadata: Some(ContainerMetadata {
                    name: "app".to_owned(),
                    attempt: 0,
                }),
                image: Some(ImageSpec {
                    image: image.to_owned(),
                    user_specified_image: image.to_owned(),
                }),
                log_path: "app/0.log".to_owned(),
                linux: Some(LinuxContainerConfig {
                    resources: Some(LinuxContainerResources {
                        cpu_shares: 102,
                        ..LinuxContainerResources::default()
                    }),
                    security_context: Some(kubernetes_defaults()),
                }),
                ..ContainerConfig::default()
            },
        }
    }

    /// A container of the small image that runs this shell script.
    #[must_use]
    pub fn shell(script: &str) -> Self {
        Self::new(crate::programs::BUSYBOX).command(&["/bin/sh", "-c", script])
    }

    /// With another name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.config.metadata = Some(ContainerMetadata {
            name: name.to_owned(),
            attempt: 0,
        });
        self.config.log_path = format!("{name}/0.log");
        self
    }

    /// As a kubelet names what it starts again.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        let metadata = self.config.metadata.get_or_insert_default();
        metadata.attempt = attempt;
        self.config.log_path = format!("{}/{attempt}.log", metadata.name);
        self
    }

    /// With another command.
    #[must_use]
    pub fn command(mut self, command: &[&str]) -> Self {
        self.config.command = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// With one more environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.config.envs.push(KeyValue {
            key: key.to_owned(),
            value: value.to_owned(),
        });
        self
    }

    /// With a directory or file of the node mounted.
    #[must_use]
    pub fn mount(mut self, from: &str, to: &str, readonly: bool) -> Self {
        self.config.mounts.push(Mount {
            container_path: to.to_owned(),
            host_path: from.to_owned(),
            readonly,
        });
        self
    }

    /// As this user.
    #[must_use]
    pub fn user(mut self, uid: i64) -> Self {
        self.security().run_as_user = Some(Int64Value { value: uid });
        self
    }

    /// With one more capability.
    #[must_use]
    pub fn capability(mut self, name: &str) -> Self {
        let capabilities = self.security().capabilities.get_or_insert_default();
        capabilities.add_capabilities.push(name.to_owned());
        self
    }

    /// In this PID namespace; must be the pod's choice.
    #[must_use]
    pub fn pid_namespace(mut self, mode: NamespaceMode) -> Self {
        self.security().namespace_options = Some(NamespaceOption {
            pid: mode.into(),
            ..NamespaceOption::default()
        });
        self
    }

    /// In the node's network, PID and IPC namespaces; must be the pod's choice.
    #[must_use]
    pub fn on_the_node(mut self) -> Self {
        self.security().namespace_options = Some(on_the_node());
        self
    }

    /// In the PID namespace of another container, as ephemeral ones are.
    #[must_use]
    pub fn beside(mut self, container: &str) -> Self {
        self.security().namespace_options = Some(NamespaceOption {
            pid: NamespaceMode::Target.into(),
            target_id: container.to_owned(),
            ..NamespaceOption::default()
        });
        self
    }

    /// With a terminal.
    #[must_use]
    pub fn tty(mut self) -> Self {
        self.config.tty = true;
        self.config.stdin = true;
        self
    }

    /// With a standard input.
    #[must_use]
    pub fn stdin(mut self) -> Self {
        self.config.stdin = true;
        self
    }

    /// With a memory limit in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: i64) -> Self {
        let linux = self.config.linux.get_or_insert_default();
        linux
            .resources
            .get_or_insert_default()
            .memory_limit_in_bytes = bytes;
        self
    }

    /// With CRI annotations, as a kubelet sets them.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        let annotations = &mut self.config.annotations;
        annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// From containerd's own checkpoint archive instead of an image.
    #[must_use]
    pub fn from_archive(mut self, archive: &str) -> Self {
        self.config.image.get_or_insert_default().image = archive.to_owned();
        self
    }

    fn security(&mut self) -> &mut LinuxContainerSecurityContext {
        let linux = self.config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default()
    }
}

/// The security context of a container whose pod says nothing about it.
fn kubernetes_defaults() -> LinuxContainerSecurityContext {
    let masked = [
        "/proc/asound",
        "/proc/acpi",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ];
    let readonly = [
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ];
    LinuxContainerSecurityContext {
        namespace_options: Some(NamespaceOption {
            pid: NamespaceMode::Container.into(),
            ..NamespaceOption::default()
        }),
        masked_paths: masked.map(str::to_owned).to_vec(),
        readonly_paths: readonly.map(str::to_owned).to_vec(),
        seccomp: Some(SecurityProfile { profile_type: 1 }),
        ..LinuxContainerSecurityContext::default()
    }
}
