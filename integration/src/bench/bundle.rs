//! A bundle as containerd's CRI writes it, for shims that are driven directly.

use crate::node::Node;
use crate::pod::Container;
use crate::shim::Mount;
use anyhow::{Context, Result};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::PathBuf;

const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";

/// The spec of a container that lives, and the layers beneath its rootfs.
pub(crate) struct Template<'n> {
    node: &'n Node,
    spec: Value,
    layers: String,
}

impl<'n> Template<'n> {
    /// Copies what containerd wrote for this one. Its pod has to live on: the
    /// copies join its namespaces.
    pub(crate) fn of(container: &Container<'n>) -> Result<Self> {
        let node = container.node();
        let bundle = format!("{BUNDLES}/{}", container.id());
        let spec = fs::read(node.path(format!("{bundle}/config.json")))?;
        let mounts = fs::read_to_string(node.path("/proc/1/mountinfo"))?;
        let rootfs = format!("{bundle}/rootfs");
        let layers = mounts
            .lines()
            .filter(|line| line.split(' ').nth(4) == Some(rootfs.as_str()))
            .find_map(|line| {
                line.rsplit(' ')
                    .next()?
                    .split(',')
                    .find(|o| o.starts_with("lowerdir="))
            })
            .context("no layers beneath the rootfs")?;
        Ok(Self {
            node,
            spec: serde_json::from_slice(&spec)?,
            layers: layers.to_owned(),
        })
    }

    /// A bundle of a container that runs `/bin/true`.
    pub(crate) fn lay(&self, id: &str) -> Result<Laid> {
        let dir = self.node.dir().join("direct").join(id);
        let [bundle, upper, work] = ["bundle", "upper", "work"].map(|name| dir.join(name));
        for dir in [&bundle.join("rootfs"), &upper, &work] {
            fs::create_dir_all(dir)?;
        }
        let mut spec = self.spec.clone();
        spec["process"]["args"] = json!(["/bin/true"]);
        spec["linux"]["cgroupsPath"] = json!(format!("{}/{id}", self.node.cgroup()));
        // A pod of its own, so that it gets a shim of its own.
        spec["annotations"]["io.kubernetes.cri.sandbox-id"] = json!(id);
        fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?)?;
        let rootfs = Mount {
            kind: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options: vec![
                self.layers.clone(),
                format!("upperdir={}", upper.display()),
                format!("workdir={}", work.display()),
            ],
        };
        // Where shims log, as containerd makes it; few lines fit into it unread.
        let log = bundle.join("log");
        mkfifo(&log, Mode::S_IRWXU)?;
        let log = File::options().read(true).write(true).open(log)?;
        Ok(Laid {
            dir,
            bundle,
            log: Some(log),
            rootfs: [rootfs],
        })
    }
}

/// A bundle; gone when dropped.
pub(crate) struct Laid {
    dir: PathBuf,
    pub(crate) bundle: PathBuf,
    log: Option<File>,
    pub(crate) rootfs: [Mount; 1],
}

impl Laid {
    /// Nobody reads the shim's log any more.
    pub(crate) fn close_log(&mut self) {
        self.log = None;
    }
}

impl Drop for Laid {
    fn drop(&mut self) {
        // The node's own end takes what is left.
        fs::remove_dir_all(&self.dir).ok();
    }
}
