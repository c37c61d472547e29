//! The runtime crate behind the traits that the driver knows.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Spec};
use reprise_runtime::cgroup::{self, Cgroup, Stats};
use reprise_runtime::checkpoint::Origin;
use reprise_runtime::fingerprint::{Fingerprint, Subject as Likeness};
use reprise_runtime::node::NodeFacts;
use reprise_runtime::plan::{self, Known, Plan};
use reprise_runtime::policy::{CONFIG_PATH, Config, RestorePolicy};
use reprise_runtime::rootfs::RootfsMount;
use reprise_runtime::store::Store;
use reprise_runtime::worker::{
    self, Create, CriuConfig, Exec, Prepared, Remove, Restore, Started, Stdio,
};
use reprise_runtime::{Error, Result};

use crate::checkpoint;
use crate::request::{CheckpointRequest, CreateRequest};
use crate::runtime::{Dumped, Group, Identity, Planned, Record, Runtime, Subject, Way, Worker};

/// Where CRIU's work directories go.
const CRIU_WORK_ROOT: &str = "/run/reprise/criu";
/// What a worker may take beyond CRIU's own time.
const WORKER_MARGIN: Duration = Duration::from_secs(30);

/// The real runtime, with the operator's settings.
#[derive(Debug)]
pub(crate) struct House {
    /// The settings, or why they cannot be read: containers start cold then.
    config: Result<Config>,
}

impl House {
    /// Reads the settings.
    pub(crate) fn open() -> Self {
        Self {
            config: Config::load(Path::new(CONFIG_PATH)),
        }
    }

    /// How much is logged, if the settings say so.
    pub(crate) fn log_level(&self) -> Option<String> {
        self.config.as_ref().ok().map(|c| c.log.level.clone())
    }

    /// The settings; the defaults when they cannot be read.
    pub(crate) fn settings(&self) -> Config {
        self.config.clone().unwrap_or_default()
    }

    /// Why checkpoints are not stored, if they are not.
    pub(crate) fn store(&self) -> Result<Store> {
        let config = self.config.clone()?;
        if !config.checkpoint.store {
            return Err(Error::internal(format!(
                "Checkpoints are not stored: checkpoint.store is false in {CONFIG_PATH}"
            )));
        }
        Ok(Store::at(&config.store.path))
    }

    /// What this node is, for a manifest.
    pub(crate) fn node(&self) -> NodeFacts {
        NodeFacts::cached(&self.settings().criu.path)
    }

    /// A worker process, as the runtime crate has it.
    pub(crate) fn worker(&self) -> Result<worker::Worker> {
        let criu = u64::from(self.settings().criu.timeout_seconds);
        worker::Worker::spawn(Duration::from_secs(criu) + WORKER_MARGIN)
    }
}

impl Runtime for House {
    fn prewarm(&self) {
        cgroup::prewarm();
    }

    fn plan(&self, request: &CreateRequest) -> Result<Planned> {
        let (spec, warnings) = worker::load_spec(&request.bundle.join("config.json"))?;
        for warning in warnings {
            log::warn!(container = request.id.as_str(); "{warning}");
        }
        let policy = RestorePolicy::of(&spec)?;
        let likeness = Likeness::of(&spec, &request.namespace, &request.rootfs);
        let fingerprint = likeness.as_ref().map(Fingerprint::of);
        let known = Known {
            spec: &spec,
            config: self.config.as_ref(),
            policy,
            has_subject: likeness.is_some(),
            is_fresh: is_fresh(&request.rootfs),
        };
        let find = || match &fingerprint {
            Some(fingerprint) => Store::at(&self.settings().store.path).find(fingerprint),
            None => Ok(None),
        };
        let (way, required) = match plan::decide(&known, find, || self.node()) {
            Plan::Cold(why) => (
                Way::Cold {
                    why: why.to_string(),
                },
                false,
            ),
            Plan::Refuse(why) => (
                Way::Cold {
                    why: why.to_string(),
                },
                true,
            ),
            Plan::Restore(stored) => {
                let way = Way::Restore {
                    checkpoint: stored.id().to_owned(),
                    from: Restore {
                        images: stored.images(),
                        layers: stored.layers(),
                    },
                };
                (way, policy == RestorePolicy::Require)
            }
        };
        let identity = likeness
            .zip(fingerprint)
            .map(|(likeness, fingerprint)| Identity {
                fingerprint,
                fields: likeness.hashes(),
                origin: origin(&spec, request),
            });
        Ok(Planned {
            way,
            required,
            pod: pod(&spec),
            group: Arc::new(Bounds(Cgroup::of(&spec, &request.id)?)),
            private_pids: has_private_pids(&spec),
            record: Arc::new(Record {
                identity,
                refusal: plan::checkpointable(&spec).err(),
            }),
        })
    }

    fn spawn(&self) -> Result<Box<dyn Worker>> {
        Ok(Box::new(Hand(self.worker()?)))
    }

    fn mount_rootfs(&self, request: &CreateRequest) -> Result<()> {
        worker::mount_rootfs(&request.bundle, &request.rootfs)
    }

    fn checkpoint(&self, subject: &Subject, request: &CheckpointRequest) -> Result<Dumped> {
        checkpoint::take(self, subject, request)
    }

    fn criu(&self) -> CriuConfig {
        let criu = self.settings().criu;
        CriuConfig {
            path: criu.path,
            work_root: PathBuf::from(CRIU_WORK_ROOT),
            timeout_ms: u64::from(criu.timeout_seconds) * 1000,
        }
    }
}

/// Whether nobody put files into the writable layer (`ctr container restore --rw`
/// does).
fn is_fresh(rootfs: &[RootfsMount]) -> bool {
    RootfsMount::upper_dir(rootfs)
        .and_then(|dir| std::fs::read_dir(dir).ok())
        .is_none_or(|mut files| files.next().is_none())
}

fn annotation(spec: &Spec, name: &str) -> Option<String> {
    let annotations: &HashMap<String, String> = spec.annotations().as_ref()?;
    annotations
        .get(&format!("io.kubernetes.cri.{name}"))
        .cloned()
}

fn pod(spec: &Spec) -> String {
    let name = annotation(spec, "sandbox-name");
    let namespace = annotation(spec, "sandbox-namespace");
    match (namespace, name) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => String::new(),
    }
}

fn origin(spec: &Spec, request: &CreateRequest) -> Origin {
    Origin {
        namespace: request.namespace.clone(),
        container: request.id.clone(),
        name: annotation(spec, "container-name"),
        pod: annotation(spec, "sandbox-name"),
        pod_namespace: annotation(spec, "sandbox-namespace"),
        image: annotation(spec, "image-name"),
    }
}

/// Whether the kernel ends all processes with init.
fn has_private_pids(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
    namespaces.is_some_and(|all| {
        all.iter().any(|namespace| {
            namespace.typ() == LinuxNamespaceType::Pid
                && namespace
                    .path()
                    .as_ref()
                    .is_none_or(|path| path.as_os_str().is_empty())
        })
    })
}

/// A worker process.
#[derive(Debug)]
struct Hand(worker::Worker);

impl Worker for Hand {
    fn pid(&self) -> i32 {
        self.0.pid()
    }

    fn prepare(&mut self, create: Create, stdio: Stdio) -> Result<Prepared> {
        self.0.prepare(create, stdio)
    }

    fn start(self: Box<Self>) -> Result<()> {
        self.0.start()
    }

    fn exec(self: Box<Self>, exec: Exec, stdio: Stdio) -> Result<Started> {
        self.0.exec(exec, stdio)
    }

    fn remove(self: Box<Self>, remove: Remove) -> Result<()> {
        self.0.remove(remove)
    }
}

/// A container's cgroup.
#[derive(Debug)]
struct Bounds(Cgroup);

impl Group for Bounds {
    fn update(&self, resources: &LinuxResources) -> Result<()> {
        self.0.update(resources)
    }

    fn freeze(&self) -> Result<()> {
        self.0.freeze()
    }

    fn thaw(&self) -> Result<()> {
        self.0.thaw()
    }

    fn pids(&self) -> Result<Vec<i32>> {
        self.0.pids()
    }

    fn kill_all(&self) -> Result<()> {
        self.0.kill_all()
    }

    fn stats(&self) -> Result<Stats> {
        self.0.stats()
    }

    fn oom_watch(&self) -> Result<OwnedFd> {
        self.0.oom_watch()
    }

    fn oom_kills(&self) -> Result<u64> {
        self.0.oom_kills()
    }
}
