//! Containers without a pod, as `ctr run` makes them: with a spec of one's own, and
//! through containerd's API, since a process for each call would take most of the time.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use integration::containerd::{NewTask, Output, upper};
use integration::programs::BUSYBOX;
use integration::{CgroupDriver, Node};
use serde_json::{Value, json};

use crate::round::Outcome;

/// What containers without a pod are made from.
pub(crate) struct Bare<'n> {
    node: &'n Node,
    layer: String,
    plain: Value,
}

impl<'n> Bare<'n> {
    pub(crate) fn new(node: &'n Node) -> Result<Self> {
        let inspect = ["inspecti", "--output", "json", BUSYBOX];
        let image: Value = node.run("crictl", inspect)?.json()?;
        let layer = image["info"]["imageSpec"]["rootfs"]["diff_ids"][0].as_str();
        let mut plain: Value = node.run("ctr", ["oci", "spec"])?.json()?;
        plain["root"] = json!({"path": "rootfs"});
        Ok(Self {
            node,
            layer: layer.context("busybox has no layer")?.to_owned(),
            plain,
        })
    }

    /// containerd's default spec, with this script.
    pub(crate) fn spec(&self, id: &str, script: &str) -> Value {
        let mut spec = self.plain.clone();
        spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
        spec["linux"]["cgroupsPath"] = json!(self.node.cgroups_path(id));
        spec
    }

    /// Runs it to its end; `fill` is given the writable layer before.
    pub(crate) fn run(
        &self,
        id: &str,
        spec: &Value,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Outcome> {
        let api = self.node.containerd()?;
        let kept = HashMap::from([("containerd.io/gc.root".to_owned(), "escapes".to_owned())]);
        let rootfs = api.prepare(id, &self.layer, kept)?;
        fill(&self.node.path(upper(&rootfs)?))?;
        let said = self.node.dir().join(format!("{id}.out"));
        let output = Output {
            stdout: format!("file://{}", said.display()),
            stderr: String::new(),
            terminal: spec["process"]["terminal"] == true,
        };
        let created = api.create(NewTask {
            id,
            runtime: "io.containerd.reprise.v2",
            spec,
            rootfs,
            output: &output,
            systemd: self.node.cgroup_driver() == CgroupDriver::Systemd,
        });
        let outcome = match created {
            Err(refused) => Outcome::Refused(refused.message),
            Ok(_) => {
                let started = api.start(id, "");
                if started.is_ok() {
                    api.wait(id, "")?;
                }
                api.delete(id)?;
                api.forget(id)?;
                match started {
                    Err(refused) => Outcome::Refused(refused.message),
                    Ok(_) => Outcome::Ran(fs::read_to_string(&said)?),
                }
            }
        };
        api.remove_layer(id)?;
        Ok(outcome)
    }
}

/// A bind mount.
pub(crate) fn bind(from: &Path, to: &str) -> Value {
    json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", "rw"]})
}

/// The mounts of a spec that `ctr` made.
pub(crate) fn mounts(spec: &mut Value) -> &mut Vec<Value> {
    spec["mounts"].as_array_mut().unwrap()
}
