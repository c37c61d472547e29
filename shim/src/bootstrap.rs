//! One shim per pod: `start` finds or spawns it, `delete` removes what one left
//! behind that died, the rest serves.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::types::introspection::RuntimeInfo;
use containerd_shim::publisher::RemotePublisher;
use containerd_shim::{Config, DeleteResponse, Error, ExitSignal, Flags, Shim, StartOpts, spawn};
use reprise_runtime::worker::{Remove, Worker};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::driver::{Context, Mark, remove_run_dir};
use crate::events::{self, Teller, to_timestamp};
use crate::house::House;
use crate::reaper::{Exit, Reaper};
use crate::rest::Rest;
use crate::server::Service;
use crate::vacancy::{self, Bundle};
use crate::{info, protocol, socket};

/// Where our own state is, one folder per namespace of containerd below.
const STATE_ROOT: &str = "/run/reprise";
/// glibc's allocator without caches of freed memory for each thread: they hold on to
/// a few bytes in many pages, more than all that a shim at rest needs. It can be told
/// so only by the environment; what the shim executes does not inherit that.
const ALLOCATOR: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");
/// How long the last events may take to get out.
const LAST_EVENTS: Duration = Duration::from_secs(3);
/// How long a shim may take to end once containerd has noticed; it waits 5 s for us.
const DYING: Duration = Duration::from_secs(1);
/// How long one removal may take.
const REMOVE_DEADLINE: Duration = Duration::from_secs(60);

/// One face of the shim, with what containerd told it.
pub(crate) struct Reprise {
    namespace: String,
    id: String,
    bundle: String,
    address: String,
    /// containerd's own socket.
    containerd: PathBuf,
    exit: Arc<ExitSignal>,
    publishing: Mutex<Option<JoinHandle<()>>>,
}

/// What of a bundle's `config.json` decides about the shim.
#[derive(Deserialize, Default)]
struct Annotated {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

#[async_trait]
impl Shim for Reprise {
    type T = Service;

    async fn new(_runtime_id: &str, args: &Flags, config: &mut Config) -> Self {
        if let Some(level) = House::open().log_level() {
            config.default_log_level = level;
        }
        if args.action.is_empty() {
            // A Ctrl-C for containerd is not for us. In a group of our own already
            // is as good.
            nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0)).ok();
            vacancy::begin();
        }
        Self {
            namespace: args.namespace.clone(),
            id: args.id.clone(),
            bundle: args.bundle.clone(),
            address: args.socket.clone(),
            containerd: PathBuf::from(&args.address),
            exit: Arc::default(),
            publishing: Mutex::default(),
        }
    }

    async fn start_shim(&mut self, opts: StartOpts) -> Result<String, Error> {
        let spec: Annotated = std::fs::read("config.json")
            .map_err(|err| Error::IoError {
                context: "Cannot read the bundle's config.json".to_owned(),
                err,
            })
            .and_then(|text| serde_json::from_slice(&text).map_err(Error::from))?;
        let grouping = protocol::grouping(&spec.annotations)
            .unwrap_or(&opts.id)
            .to_owned();
        let address = opts.socket_address(&grouping);
        if socket::claim(&address) {
            return Ok(address);
        }
        socket::remove(&address);
        spawn(opts, &grouping, vec![ALLOCATOR]).await
    }

    async fn delete_shim(&mut self) -> Result<DeleteResponse, Error> {
        let orphans = self.orphans()?;
        let run_dir = Path::new(STATE_ROOT).join(&self.namespace).join(&self.id);
        let pid = read_run_file(&run_dir, "pid").and_then(|text| text.parse::<u32>().ok());
        let address = read_run_file(&run_dir, "address");
        let removed = tokio::task::spawn_blocking(move || {
            orphans
                .into_iter()
                .map(remove_orphan)
                .fold(Ok(()), Result::and)
        });
        match removed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Error::Other(error.message)),
            Err(error) => return Err(Error::Other(error.to_string())),
        }
        if let Some(address) = address
            && !socket::is_served(&address)
        {
            socket::remove(&address);
        }
        let exit = Exit::killed();
        Ok(DeleteResponse {
            exit_status: exit.status,
            exited_at: MessageField::some(to_timestamp(exit.at)),
            pid: pid.unwrap_or_default(),
            ..Default::default()
        })
    }

    async fn wait(&mut self) {
        self.exit.wait().await;
        if let Some(publishing) = self.publishing.lock().await.take() {
            drop(tokio::time::timeout(LAST_EVENTS, publishing).await);
        }
    }

    async fn create_task_service(&self, publisher: RemotePublisher) -> Service {
        vacancy::has_begun();
        let (teller, told) = Teller::new();
        let address = publisher.address.clone();
        let exit = Arc::clone(&self.exit);
        let publishing = events::publish(told, address, self.namespace.clone(), exit);
        *self.publishing.lock().await = Some(tokio::spawn(publishing));
        let reaper = Reaper::start().unwrap_or_else(|error| {
            log::error!(error = error.to_string().as_str(); "children are not reaped");
            Reaper::default()
        });
        let state_root = Path::new(STATE_ROOT).join(&self.namespace);
        if let Err(error) = make_private(&state_root) {
            log::error!(error = error.to_string().as_str(); "cannot make {}", state_root.display());
        }
        let context = Context {
            runtime: Arc::new(House::open()),
            reaper,
            events: teller,
            rest: Rest::begin(),
            namespace: self.namespace.clone(),
            state_root,
            address: self.address.clone(),
            containerd: self.containerd.clone(),
        };
        let service = Service::new(Arc::new(context), Arc::clone(&self.exit));
        tokio::spawn(vacancy::watch(service.clone(), Bundle::ours()));
        service
    }

    fn runtime_info(runtime_id: &str, options: Option<&Any>) -> Result<RuntimeInfo, Error> {
        info::describe(runtime_id, options)
    }
}

impl Reprise {
    /// The container that containerd names, and those that shared its dead shim:
    /// containerd asks for the first of a pod only, and nobody else could ever end
    /// the others.
    fn orphans(&self) -> Result<Vec<Remove>, Error> {
        let state_root = Path::new(STATE_ROOT).join(&self.namespace);
        let bundle = self.bundle_path()?;
        let address = read_run_file(&state_root.join(&self.id), "address");
        let mut ids = vec![self.id.clone()];
        // containerd has seen the connection close, which a dying process does first.
        let dead = address.filter(|address| socket::goes_within(address, DYING));
        if let Some(address) = &dead {
            let entries = std::fs::read_dir(&state_root)
                .into_iter()
                .flatten()
                .flatten();
            let same = entries
                .filter(|entry| read_run_file(&entry.path(), "address").as_ref() == Some(address))
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|id| *id != self.id);
            ids.extend(same);
        }
        let making = Mark::left(&state_root, |address| {
            dead.as_deref() != Some(address) && socket::is_served(address)
        });
        for id in making {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let criu_work = House::open().criu().work_root;
        Ok(ids
            .into_iter()
            .map(|id| Remove {
                namespace: self.namespace.clone(),
                bundle: bundle.with_file_name(&id),
                id,
                state_root: state_root.clone(),
                criu_work: criu_work.clone(),
            })
            .collect())
    }

    /// `delete` runs in some bundle of containerd's; ours is its neighbour.
    fn bundle_path(&self) -> Result<PathBuf, Error> {
        if !self.bundle.is_empty() {
            return Ok(PathBuf::from(&self.bundle));
        }
        let cwd = std::env::current_dir().map_err(|err| Error::IoError {
            context: "Cannot tell where the bundles are".to_owned(),
            err,
        })?;
        let bundles = cwd.parent().unwrap_or(&cwd);
        Ok(bundles.join(&self.id))
    }
}

fn remove_orphan(remove: Remove) -> reprise_runtime::Result<()> {
    let (state_root, id) = (remove.state_root.clone(), remove.id.clone());
    Worker::spawn(REMOVE_DEADLINE)?.remove(remove)?;
    remove_run_dir(&state_root.join(&id))?;
    Mark::remove(&state_root, &id)
}

fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

fn read_run_file(dir: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(dir.join(name)).ok()
}
