//! The runtime crate as the driver uses it, with the operator's settings. Every
//! call blocks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use reprise_runtime::cgroup::Cgroup;
use reprise_runtime::checkpoint::Origin;
use reprise_runtime::cri::annotation;
use reprise_runtime::fingerprint::{Fingerprint, Subject as Likeness};
use reprise_runtime::namespaces::{self, Namespace};
use reprise_runtime::node::NodeFacts;
use reprise_runtime::plan::{self, Known, Plan, Why};
use reprise_runtime::policy::{CONFIG_PATH, Config, RestorePolicy};
use reprise_runtime::rootfs::RootfsMount;
use reprise_runtime::store::{Blobs, Freshness, Store, Stored};
use reprise_runtime::worker::{self, CriuConfig, Restore, Worker};
use reprise_runtime::{Error, ErrorKind, Result, publish, volumes};

use crate::request::CreateRequest;
use crate::runtime::{Identity, Planned, Way};
use crate::telemetry;

/// Where CRIU's work directories go.
const CRIU_WORK_ROOT: &str = "/run/reprise/criu";
/// What a worker may take beyond CRIU's own time.
const WORKER_MARGIN: Duration = Duration::from_secs(30);

/// What all containers of a shim are made and checkpointed with.
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

    /// Says why checkpoints do not become images, if they do not.
    pub(crate) fn publishes(&self) -> Result<()> {
        if self.config.clone()?.checkpoint.store {
            return Ok(());
        }
        Err(Error::internal(format!(
            "Checkpoints are not stored: checkpoint.store is false in {CONFIG_PATH}"
        )))
    }

    /// What this node is, for a manifest.
    pub(crate) fn node(&self) -> NodeFacts {
        NodeFacts::cached(&self.settings().criu.path)
    }

    /// Reads the bundle and decides how the container starts.
    /// `containerd` is its socket.
    pub(crate) fn plan(&self, request: &CreateRequest, containerd: &Path) -> Result<Planned> {
        let (spec, warnings) = worker::load_spec(&request.bundle.join("config.json"))?;
        for warning in warnings {
            log::warn!(container = request.id.as_str(); "{warning}");
        }
        let policy = RestorePolicy::of(&spec)?;
        let known = Known {
            spec: &spec,
            config: self.config.as_ref(),
            policy,
            has_subject: Likeness::exists_for(&request.rootfs),
            is_fresh: is_fresh(&request.rootfs),
        };
        let mut likeness = None;
        let find = || {
            let contents = volumes::gather(&spec).map_err(|e| Why::Volumes(e.message))?;
            likeness = Likeness::of(&spec, &request.namespace, &request.rootfs, &contents);
            let Some(likeness) = &likeness else {
                return Ok(None);
            };
            let found = self.find(request, &likeness.fingerprint(), containerd);
            found.map_err(|e| Why::Unusable(e.message))
        };
        if plan::is_sandbox(&spec) {
            self.look_for_images(request, containerd);
        }
        let began = Instant::now();
        let plan = plan::decide(&known, find, || self.node());
        let decide_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (way, required) = match plan {
            Plan::Cold(why) => (Way::Cold { why }, false),
            Plan::Refuse(why) => (Way::Cold { why }, true),
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
        let identity = (!plan::is_sandbox(&spec)).then(|| Identity {
            origin: Origin::of(&spec, &request.namespace, &request.id),
            likeness,
        });
        let group = Cgroup::of(&spec, &request.id)?;
        if request.systemd_cgroup && !group.is_systemd() {
            return Err(not_for_systemd(&spec));
        }
        Ok(Planned {
            way,
            decide_us,
            identity,
            required,
            pod: pod(&spec),
            group: Arc::new(group),
            private_pids: namespaces::of(&spec, LinuxNamespaceType::Pid) == Namespace::Own,
        })
    }

    /// Looks a checkpoint up; once more when containerd has got something since the
    /// index was made.
    fn find(
        &self,
        request: &CreateRequest,
        fingerprint: &Fingerprint,
        containerd: &Path,
    ) -> Result<Option<Stored>> {
        let settings = self.settings();
        let store = Store::at(&settings.store.path);
        let found = store.find(fingerprint)?;
        let Some(blobs) = Blobs::behind(&request.rootfs).filter(|_| found.is_none()) else {
            return Ok(found);
        };
        let at_most = Duration::from_millis(settings.images.refresh_wait_ms);
        let refresh = || refresh_beside(&request.id, containerd);
        if store.freshness(&blobs) == Freshness::Stale
            && !store.await_refresh(&blobs, at_most, refresh)
            && let Some(changed_ns) = blobs.changed_ns()
        {
            // Whatever it was, nobody else waits for it until something comes again.
            let late = format!("it was not done in {at_most:?}");
            store.note_refresh(changed_ns, Some(late))?;
        }
        // A refresh may have been done since the first look.
        store.find(fingerprint)
    }

    /// A pod's first containers come soon: the index shall be right by then.
    fn look_for_images(&self, request: &CreateRequest, containerd: &Path) {
        let settings = self.settings();
        let store = Store::at(&settings.store.path);
        if settings.restore.enabled
            && let Some(blobs) = Blobs::behind(&request.rootfs)
            && store.wants_refresh(&blobs)
            && !store.is_refreshing()
        {
            refresh_beside(&request.id, containerd);
        }
    }

    /// What a container is, for those whose start asked for no checkpoint. Reads its
    /// spec and its volumes.
    pub(crate) fn likeness(&self, request: &CreateRequest) -> Result<Option<Likeness>> {
        if !Likeness::exists_for(&request.rootfs) {
            return Ok(None);
        }
        let (spec, _) = worker::load_spec(&request.bundle.join("config.json"))?;
        let contents = volumes::gather(&spec)?;
        Ok(Likeness::of(
            &spec,
            &request.namespace,
            &request.rootfs,
            &contents,
        ))
    }

    /// A worker process.
    pub(crate) fn spawn(&self) -> Result<Worker> {
        let criu = u64::from(self.settings().criu.timeout_seconds);
        Worker::spawn(Duration::from_secs(criu) + WORKER_MARGIN)
    }

    /// How CRIU is driven.
    pub(crate) fn criu(&self) -> CriuConfig {
        let criu = self.settings().criu;
        CriuConfig {
            path: criu.path,
            work_root: PathBuf::from(CRIU_WORK_ROOT),
            timeout_ms: u64::from(criu.timeout_seconds) * 1000,
        }
    }
}

/// Has the program make the index anew; `false`: it cannot be started.
fn refresh_beside(container: &str, containerd: &Path) -> bool {
    let started = publish::start(containerd, "refresh", &["--if-stale"]);
    if let Err(error) = &started {
        telemetry::log_failure(container, "new checkpoint images are not found", error);
    }
    started.is_ok()
}

/// `SystemdCgroup = true` with a path that is none of systemd's.
fn not_for_systemd(spec: &Spec) -> Error {
    let linux = spec.linux().as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let path = path.unwrap_or(Path::new("")).display().to_string();
    Error::new(
        ErrorKind::InvalidArgument,
        format!(
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, \
             got {path:?} instead"
        ),
    )
}

/// Whether nobody put files into the writable layer (`ctr container restore --rw`
/// does).
fn is_fresh(rootfs: &[RootfsMount]) -> bool {
    RootfsMount::upper_dir(rootfs)
        .and_then(|dir| std::fs::read_dir(dir).ok())
        .is_none_or(|mut files| files.next().is_none())
}

fn pod(spec: &Spec) -> String {
    let name = annotation(spec, "sandbox-name");
    let namespace = annotation(spec, "sandbox-namespace");
    match (namespace, name) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => String::new(),
    }
}
