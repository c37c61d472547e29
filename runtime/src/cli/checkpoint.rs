//! `reprise checkpoint`: straight to the container's shim.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use reprise_runtime::store::Stored;
use reprise_runtime::{Error, ErrorKind, Result};

use super::shim::Shim;
use super::{Places, idle, show, unique};

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
    /// First wait until the container uses less than a twentieth of a CPU for a second:
    /// what it is at, each container restored from it goes on with. Fails if that does not
    /// come within so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "60")]
    when_idle: Option<u64>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
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
        let shim = Shim::of(&places.run_root, namespace, id)?;
        if let Some(seconds) = self.when_idle {
            idle::wait(&shim, Duration::from_secs(seconds))?;
        }
        let store = places.open()?;
        let before: HashSet<String> = store.list()?.iter().map(|s| s.id().to_owned()).collect();
        // The dump's own deadline, twice (it may wait for another one), and some
        // more for the rest.
        let seconds = u64::from(settings.criu.timeout_seconds) * 2 + 60;
        let deadline = Duration::from_secs(seconds);
        shim.checkpoint(self.image.as_deref(), self.exit, deadline)?;
        let made = store.list()?.into_iter().find(|s| {
            let origin = &s.manifest().origin;
            !before.contains(s.id())
                && origin.container == shim.id()
                && origin.namespace == shim.namespace()
        });
        let made = made.ok_or_else(|| {
            Error::internal(format!(
                "The shim took a checkpoint of {} but it is not in the store at {}; its log \
                 (containerd's journal) says why",
                shim.id(),
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
                when_idle: None,
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
}
