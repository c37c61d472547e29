//! `reprise checkpoint`: straight to the container's shim.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use containerd_shim_protos::TaskClient;
use containerd_shim_protos::api::CheckpointTaskRequest;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use reprise_runtime::publish::IMAGE_HEADER;
use reprise_runtime::store::Stored;
use reprise_runtime::{Error, ErrorKind, Result};
use ttrpc::context;

use super::{Places, show, unique};

#[derive(Debug, Args)]
pub(super) struct Checkpoint {
    /// Container id, or a prefix that only one has
    container: String,
    /// containerd's namespace [default: any]
    #[arg(long, short)]
    namespace: Option<String>,
    /// Name of the checkpoint's image [default: one below reprise.local]; one that a
    /// checkpoint has moves to this one
    #[arg(long, value_name = "REF")]
    image: Option<String>,
    /// End the container once its checkpoint is taken
    #[arg(long)]
    exit: bool,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// What the shim is asked: an empty path means into the store only.
fn request(id: &str, exit: bool) -> CheckpointTaskRequest {
    let mut request = CheckpointTaskRequest::new();
    request.id = id.to_owned();
    if exit {
        // containerd.runc.v1.CheckpointOptions { exit = 1: true }
        let mut options = Any::new();
        options.type_url = "containerd.runc.v1.CheckpointOptions".to_owned();
        options.value = vec![0x08, 0x01];
        request.options = Some(options).into();
    }
    request
}

impl Checkpoint {
    pub(super) fn run(&self, places: &Places) -> Result<String> {
        let (namespace, id) = self.find(&places.run_root)?;
        let settings = places.settings()?;
        if !settings.checkpoint.store {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "Checkpoints are not kept: set checkpoint.store = true in {}",
                    places.config.display()
                ),
            ));
        }
        let store = places.open()?;
        let before: HashSet<String> = store.list()?.iter().map(|s| s.id().to_owned()).collect();
        let file = places.run_root.join(&namespace).join(&id).join("address");
        let address = std::fs::read_to_string(&file)
            .map_err(|e| Error::because(format_args!("Cannot read {}", file.display()), &e))?;
        // The dump's own deadline, twice (it may wait for another one), and some
        // more for the rest.
        let seconds = u64::from(settings.criu.timeout_seconds) * 2 + 60;
        ask(
            address.trim(),
            &namespace,
            &request(&id, self.exit),
            self.image.as_deref(),
            Duration::from_secs(seconds),
        )?;
        let made = store.list()?.into_iter().find(|s| {
            let origin = &s.manifest().origin;
            !before.contains(s.id()) && origin.container == id && origin.namespace == namespace
        });
        let made = made.ok_or_else(|| {
            Error::internal(format!(
                "The shim took a checkpoint of {id} but it is not in the store at {}; its log \
                 (containerd's journal) says why",
                places
                    .store_path()
                    .map_or_else(|_| String::new(), |p| p.display().to_string())
            ))
        })?;
        Ok(if self.json {
            show::json(vec![show::summary(&made)])
        } else {
            line(&made)
        })
    }

    /// Namespace and id of the container.
    fn find(&self, run_root: &Path) -> Result<(String, String)> {
        let mut known = Vec::new();
        for namespace in dirs(run_root) {
            if self
                .namespace
                .as_ref()
                .is_some_and(|only| *only != namespace)
            {
                continue;
            }
            let dir = run_root.join(&namespace);
            known.extend(
                dirs(&dir)
                    .into_iter()
                    .filter(|id| dir.join(id).join("address").exists())
                    .map(|id| (namespace.clone(), id)),
            );
        }
        let ids = known.iter().map(|(_, id)| id.clone());
        let hint = "`crictl ps` shows containers, and only those under Reprise can be named";
        let id = unique("container", &self.container, ids, hint)?;
        let mut hits = known.into_iter().filter(|(_, other)| *other == id);
        match (hits.next(), hits.next()) {
            (Some(hit), None) => Ok(hit),
            _ => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("Container {id} is in more than one namespace; add --namespace"),
            )),
        }
    }
}

/// Names in a directory; none if it cannot be read.
pub(super) fn dirs(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

fn line(made: &Stored) -> String {
    let m = made.manifest();
    format!(
        "{}  {}, stood still for {} ms\n",
        m.id,
        show::size(m.image_bytes),
        show::milliseconds(m.frozen_us)
    )
}

/// Calls Task.Checkpoint of the shim at an address.
fn ask(
    address: &str,
    namespace: &str,
    request: &CheckpointTaskRequest,
    image: Option<&str>,
    deadline: Duration,
) -> Result<()> {
    let unavailable = |e: ttrpc::Error| {
        Error::because(
            format_args!("Cannot reach the shim of {} at {address}", request.id),
            &e,
        )
        .with_kind(ErrorKind::Unavailable)
    };
    let client = ttrpc::Client::connect(address).map_err(unavailable)?;
    let nanoseconds = i64::try_from(deadline.as_nanos()).unwrap_or(i64::MAX);
    let mut context = context::with_timeout(nanoseconds);
    context.add(
        "containerd-namespace-ttrpc".to_owned(),
        namespace.to_owned(),
    );
    if let Some(image) = image {
        context.add(IMAGE_HEADER.to_owned(), image.to_owned());
    }
    match TaskClient::new(client).checkpoint(context, request) {
        Ok(_) => Ok(()),
        // The shim's own line says what went wrong.
        Err(ttrpc::Error::RpcStatus(status)) => Err(Error::internal(status.message)),
        Err(other) => Err(unavailable(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_found_by_prefix_in_any_or_one_namespace() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["k8s.io/abc1", "k8s.io/abd", "moby/abd"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("address"), "unix:///x").unwrap();
        }
        std::fs::create_dir_all(dir.path().join("moby/abc2")).unwrap();
        let find = |container: &str, namespace: Option<&str>| {
            Checkpoint {
                container: container.to_owned(),
                namespace: namespace.map(ToOwned::to_owned),
                image: None,
                exit: false,
                json: false,
            }
            .find(dir.path())
        };
        assert_eq!(
            find("abc", None).unwrap(),
            ("k8s.io".to_owned(), "abc1".to_owned())
        );
        assert_eq!(find("abd", Some("moby")).unwrap().0, "moby");
        assert!(
            find("abd", None)
                .unwrap_err()
                .message
                .contains("--namespace")
        );
        assert!(find("zzz", None).unwrap_err().message.contains("crictl ps"));
    }

    #[test]
    fn the_request_goes_into_the_store_and_may_end_the_container() {
        assert!(request("abc", false).options.is_none());
        let request = request("abc", true);
        assert!(request.path.is_empty());
        assert_eq!(request.options.value, [8, 1]);
    }
}
