//! What all cases stand on: one node, one client, one image with our probe in it.

use crate::containerd::{self, Containerd, proto::Mount};
use crate::gaps::case::Bundle;
use crate::gaps::place::Place;
use crate::gaps::spec::Spec;
use crate::programs::BUSYBOX;
use crate::tools;
use crate::{Criu, Node, NodeOptions};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Where root of a case's user namespace is, on the node.
pub(super) const HOST_ID: u32 = 200_000;
const PROBE: &str = include_str!("probes/probe.c");
const FACTS: &str = include_str!("probes/facts.sh");

/// What all cases stand on.
#[derive(Debug)]
pub struct Stand {
    node: Node,
    api: Containerd,
    spec: Value,
    seccomp: OnceLock<Value>,
    base: String,
    /// Committed layers by the script that filled them.
    layers: Mutex<HashMap<String, String>>,
}

impl Stand {
    /// Starts the node and makes the image.
    ///
    /// # Errors
    /// When something that is needed is missing.
    pub fn new() -> Result<Self> {
        let probe = probe()?;
        // Some cases run as another user, which CRIU must be able to dump here.
        let node = Node::start_with(&NodeOptions::with_criu(Criu::Preloaded))?;
        let shim = node.tools().program("containerd-shim-reprise-v2");
        if !shim.exists() {
            bail!("{} is missing: build it first", shim.display());
        }
        let socket = node.path("/run/containerd/containerd.sock");
        let api = Containerd::new(&socket.display().to_string(), "k8s.io")?;
        let spec = node.run("ctr", ["oci", "spec"])?.json()?;
        let image: Value = node
            .run("crictl", ["inspecti", "--output", "json", BUSYBOX])?
            .json()?;
        let busybox = image["info"]["imageSpec"]["rootfs"]["diff_ids"][0]
            .as_str()
            .context("busybox has no layer")?;
        let stand = Self {
            base: "gaps-base".to_owned(),
            seccomp: OnceLock::new(),
            layers: Mutex::default(),
            node,
            api,
            spec,
        };
        fs::write(stand.facts(), FACTS)?;
        stand.add_layer(busybox, &stand.base, |root| {
            fs::copy(&probe, root.join("probe"))?;
            fs::write(root.join("facts"), FACTS)?;
            Ok(())
        })?;
        Ok(stand)
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The shell functions of `probes/facts.sh`, for scripts on the node.
    #[must_use]
    pub fn facts(&self) -> PathBuf {
        self.node.dir().join("facts")
    }

    /// containerd's own API.
    #[must_use]
    pub fn api(&self) -> &Containerd {
        &self.api
    }

    /// containerd's default spec, for a container at this place.
    #[must_use]
    pub fn spec(&self, place: &Place<'_>) -> Spec {
        let mut spec = Spec(self.spec.clone());
        spec.set("/root/path", "rootfs")
            .set("/linux/cgroupsPath", place.cgroup())
            .args(&["/probe", "wait"]);
        spec
    }

    /// The seccomp profile that containerd gives its containers by default.
    ///
    /// # Errors
    /// When `ctr` does not tell it.
    pub fn seccomp(&self) -> Result<Value> {
        if let Some(profile) = self.seccomp.get() {
            return Ok(profile.clone());
        }
        let id = format!("seccomp-{:?}", std::thread::current().id()).replace(['(', ')'], "");
        self.node
            .ctr(["container", "create", "--seccomp", BUSYBOX, &id])?;
        let info: Value = self.node.run("ctr", ["container", "info", &id])?.json()?;
        self.node.ctr(["container", "rm", &id])?;
        let profile = &info["Spec"]["linux"]["seccomp"];
        if profile.is_null() {
            bail!("no seccomp profile in {info}");
        }
        Ok(self.seccomp.get_or_init(|| profile.clone()).clone())
    }

    /// The rootfs of a container: a new layer on the case's image.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn rootfs(&self, bundle: &Bundle, id: &str) -> Result<Vec<Mount>> {
        let parent = match &bundle.image {
            Some(script) => self.image(script)?,
            None => self.base.clone(),
        };
        let mut labels = kept();
        if bundle.mapped_layer {
            for kind in ["uidmapping", "gidmapping"] {
                let mapping = format!("0:{HOST_ID}:65536");
                labels.insert(format!("containerd.io/snapshot/{kind}"), mapping);
            }
        }
        self.api.prepare(id, &parent, labels)
    }

    /// The image that a script fills, made once.
    fn image(&self, script: &str) -> Result<String> {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = layers.get(script) {
            return Ok(name.clone());
        }
        let name = format!("gaps-image-{}", layers.len());
        self.add_layer(&self.base, &name, |root| {
            let done = Command::new("sh")
                .args(["-ec", script])
                .env("ROOT", root)
                .current_dir(root)
                .status()?;
            if !done.success() {
                bail!("`{script}` ended with {done}");
            }
            Ok(())
        })?;
        layers.insert(script.to_owned(), name.clone());
        Ok(name)
    }

    fn add_layer(
        &self,
        parent: &str,
        name: &str,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let key = format!("{name}-work");
        let mounts = self.api.prepare(&key, parent, kept())?;
        // containerd keeps its root in the node's own view of /var/lib.
        let root = self.node.path(containerd::upper(&mounts)?);
        fill(&root).with_context(|| format!("filling {name}"))?;
        self.api.commit(&key, name)
    }
}

/// Else containerd's garbage collector takes a layer that no image has.
fn kept() -> HashMap<String, String> {
    let now = json!("gaps").to_string();
    HashMap::from([("containerd.io/gc.root".to_owned(), now)])
}

/// Our probe, compiled once; where there is no compiler, the one that is there.
///
/// # Errors
/// When it does not compile.
pub fn probe() -> Result<PathBuf> {
    // Of several threads one compiles it, and the others find it.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tools::target().join("gaps");
    fs::create_dir_all(&dir)?;
    let (source, probe) = (dir.join("probe.c"), dir.join("probe"));
    if fs::read_to_string(&source).is_ok_and(|old| old == PROBE) && probe.exists() {
        return Ok(probe);
    }
    let aside = dir.join(format!("probe-{}.c", std::process::id()));
    fs::write(&aside, PROBE)?;
    let made = aside.with_extension("bin");
    let compiled = Command::new("cc")
        .args(["-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&made, &aside])
        .status()
        .context("cc, to compile gaps/probes/probe.c")?;
    if !compiled.success() {
        bail!("gaps/probes/probe.c does not compile");
    }
    fs::rename(&made, &probe)?;
    fs::rename(&aside, &source)?;
    Ok(probe)
}
