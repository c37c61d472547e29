//! A scratch container like the one that was checkpointed, so that a restore can be
//! timed: its spec from the checkpoint, on its base image, in namespaces of its own.
//!
//! It never touches what the original has: what that may write to is an empty directory
//! or a copied file here. Volumes whose content counts are only read, and must still be
//! there.

use std::fs::File;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use reprise_runtime::error::Doing;
use reprise_runtime::maker::Maker;
use reprise_runtime::policy::RESTORE_ANNOTATION;
use reprise_runtime::store::{Source, Stored};
use reprise_runtime::volumes;
use reprise_runtime::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::client::Client;
use super::containers::NewContainer;
use super::names::layer;
use super::sandbox::Sandbox;
use super::{Labels, sweep};

/// On a scratch container: who made it ([`Maker`]).
const TRIAL: &str = "reprise.dev/bench";
/// Bind mounts that are files in every pod, whose sources may have gone.
const FILES: [&str; 4] = [
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/dev/termination-log",
];

/// What one restore took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Until containerd had answered Create: the shim started, the processes restored
    /// and held.
    pub(crate) create: Duration,
    /// Until it had answered Start: they run.
    pub(crate) start: Duration,
}

/// A checkpoint that is restored again and again.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    /// Under a lease.
    client: Client,
    source: Source,
    chain: String,
    spec: Value,
    runtime: &'a str,
    /// Made for it, and removed by whoever did.
    scratch: &'a Path,
}

/// Removes what trials that were killed have left.
///
/// # Errors
/// containerd's.
pub(crate) fn sweep_dead(client: &Client) -> Result<()> {
    sweep::dead_publishers(client)?;
    for container in client.containers_with(TRIAL)? {
        let maker = container.labels.get(TRIAL);
        let maker = maker.and_then(|text| Maker::parse(text));
        if maker.is_some_and(|maker| maker.is_gone()) {
            client.remove_task(&container.id)?;
            client.remove_container(&container.id)?;
        }
    }
    Ok(())
}

impl<'a> Trial<'a> {
    /// Of a checkpoint on this node. `client` keeps what it makes under a lease.
    ///
    /// # Errors
    /// FailedPrecondition: no container like it can be made here.
    pub(crate) fn of(
        client: Client,
        stored: &Stored,
        runtime: &'a str,
        scratch: &'a Path,
    ) -> Result<Self> {
        let images = stored.images();
        let data = images.parent().unwrap_or(&images);
        let text = std::fs::read(data.join(layer::SPEC));
        let text = text.doing("Cannot read the checkpointed container's spec")?;
        let spec: Value =
            serde_json::from_slice(&text).doing("Cannot read the checkpointed container's spec")?;
        if spec["process"]["terminal"] == true {
            return Err(cannot("it has a terminal"));
        }
        let base = stored.manifest().base.as_ref();
        let chain = base.map(|base| base.chain.clone()).unwrap_or_default();
        Ok(Self {
            client,
            source: stored.source()?,
            chain,
            spec,
            runtime,
            scratch,
        })
    }

    /// Restores it once, as container `id`, and removes that.
    ///
    /// # Errors
    /// It was not restored, and why; containerd's. Nothing is left.
    pub(crate) fn once(&self, id: &str) -> Result<Times> {
        let sandbox = Sandbox::make()?;
        let dir = self.scratch.join(id);
        let spec = self.spec_of(id, &sandbox, &dir)?;
        let output = Output::make(&dir)?;
        let snapshotter = &self.source.snapshotter;
        let timed = self
            .client
            .prepare_snapshot(snapshotter, id, &self.chain, &Labels::new())
            .and_then(|rootfs| {
                self.client.create_container(NewContainer {
                    id,
                    runtime: self.runtime,
                    snapshotter,
                    snapshot_key: id,
                    spec: serde_json::to_vec(&spec).doing("Cannot write a spec")?,
                    labels: Labels::from([(TRIAL.to_owned(), Maker::me().to_string())]),
                })?;
                let begun = Instant::now();
                self.client.create_task(id, rootfs, &output.path)?;
                let create = begun.elapsed();
                self.client.start_task(id)?;
                let start = begun.elapsed();
                Ok(Times { create, start })
            });
        // All of it is tried; the first failure counts.
        let removed = self.client.remove_task(id);
        let removed = removed.and(self.client.remove_container(id));
        let removed = removed.and(self.client.remove_snapshot(snapshotter, id));
        std::fs::remove_dir_all(&dir).ok();
        let times = timed?;
        removed.map(|()| times)
    }

    fn spec_of(&self, id: &str, sandbox: &Sandbox, dir: &Path) -> Result<Value> {
        let mut spec = self.spec.clone();
        for namespace in spec["linux"]["namespaces"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            join(namespace, sandbox)?;
        }
        // Below no other, so that nothing stays when it goes.
        let path = spec["linux"]["cgroupsPath"].as_str().unwrap_or_default();
        let cgroup = match path.contains(':') {
            true => format!("system.slice:reprise:{id}"),
            false => format!("/{id}"),
        };
        spec["linux"]["cgroupsPath"] = json!(cgroup);
        // A pod of its own has a shim of its own.
        spec["annotations"]["io.kubernetes.cri.sandbox-id"] = json!(id);
        spec["annotations"][RESTORE_ANNOTATION] = json!("require");
        let mounts = spec["mounts"].as_array_mut();
        for (n, mount) in mounts.into_iter().flatten().enumerate() {
            replace(mount, &dir.join(n.to_string()))?;
        }
        Ok(spec)
    }
}

/// Where a container's output goes: as in a pod, pipes are what was checkpointed.
struct Output {
    path: PathBuf,
    /// Whoever writes needs a reader. It is killed before it could fill the pipe.
    _reader: File,
}

impl Output {
    fn make(dir: &Path) -> Result<Self> {
        let path = dir.join("output");
        let doing = || format!("Cannot make {}", path.display());
        std::fs::create_dir_all(dir).doing(doing())?;
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| Error::because(doing(), &e))?;
        let reader = File::options().read(true).write(true).open(&path);
        Ok(Self {
            _reader: reader.doing(doing())?,
            path,
        })
    }
}

/// Has a namespace of the pod's be the sandbox's.
fn join(namespace: &mut Value, sandbox: &Sandbox) -> Result<()> {
    let joins = namespace["path"].as_str().is_some_and(|p| !p.is_empty());
    if !joins {
        return Ok(());
    }
    let typ = namespace["type"].as_str().unwrap_or_default().to_owned();
    let path = sandbox
        .path(&typ)
        .ok_or_else(|| cannot(&format!("it joins a {typ} namespace of another container")))?;
    namespace["path"] = json!(path);
    Ok(())
}

/// Gives a bind mount a source of its own at `scratch`, unless nobody can write to it.
fn replace(mount: &mut Value, scratch: &Path) -> Result<()> {
    let options = mount["options"].as_array().into_iter().flatten();
    let options: Vec<&str> = options.filter_map(Value::as_str).collect();
    let is_bind = mount["type"] == "bind" || options.iter().any(|o| matches!(*o, "bind" | "rbind"));
    if !is_bind {
        return Ok(());
    }
    let destination = mount["destination"].as_str().unwrap_or_default().to_owned();
    let source = PathBuf::from(mount["source"].as_str().unwrap_or_default());
    let about = std::fs::metadata(&source).ok();
    if volumes::kind_of(&source).is_some() {
        // Its content decides what is restored.
        return match about {
            Some(_) => Ok(()),
            None => Err(cannot(&format!(
                "its ConfigMap, Secret or projected volume at {destination} has gone with its pod"
            ))),
        };
    }
    if about.is_some() && options.contains(&"ro") {
        return Ok(());
    }
    let doing = || format!("Cannot make {}", scratch.display());
    let is_directory = match &about {
        Some(about) => about.is_dir(),
        None => !FILES.contains(&destination.as_str()),
    };
    if is_directory {
        std::fs::create_dir_all(scratch).doing(doing())?;
    } else {
        let parent = scratch.parent().unwrap_or(scratch);
        std::fs::create_dir_all(parent).doing(doing())?;
        let special = about.is_some_and(|a| {
            let kind = a.file_type();
            kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device()
        });
        let text = if special {
            Ok(Vec::new())
        } else {
            std::fs::read(&source)
        };
        std::fs::write(scratch, text.unwrap_or_default()).doing(doing())?;
    }
    mount["source"] = json!(scratch);
    Ok(())
}

fn cannot(why: &str) -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        format!("No container like it can be made here: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_original_may_write_to_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts");
        std::fs::write(&hosts, "127.0.0.1 localhost").unwrap();
        let replaced = |source: &Path, destination: &str, options: &[&str]| {
            let mut mount = json!({
                "type": "bind", "source": source, "destination": destination, "options": options,
            });
            replace(&mut mount, &dir.path().join("scratch")).unwrap();
            PathBuf::from(mount["source"].as_str().unwrap())
        };
        let file = replaced(&hosts, "/etc/hosts", &["rbind", "rw"]);
        assert_ne!(file, hosts);
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            "127.0.0.1 localhost"
        );
        std::fs::remove_file(file).unwrap();
        assert_eq!(replaced(&hosts, "/etc/hosts", &["rbind", "ro"]), hosts);
        let gone = replaced(Path::new("/nonexistent"), "/etc/hostname", &["rbind"]);
        assert!(gone.is_file());
        std::fs::remove_file(gone).unwrap();
        assert!(replaced(dir.path(), "/data", &["rbind", "rw"]).is_dir());
    }

    #[test]
    fn a_volume_that_counts_must_be_there() {
        let source = "/var/lib/kubelet/pods/gone/volumes/kubernetes.io~secret/s";
        let mut mount = json!({"type": "bind", "source": source, "destination": "/s"});
        let error = replace(&mut mount, Path::new("/nonexistent")).unwrap_err();
        assert!(error.message.contains("at /s has gone"), "{error}");
    }
}
