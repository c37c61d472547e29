//! What an archive of Kubernetes' convention says beside CRIU's images: who the
//! container was (`config.dump`), its spec (`spec.dump`), and CRIU's log.
//!
//! containerd, CRI-O and Podman write these files alike but for the names of some
//! fields. None of them says which CPU the processes have seen.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use oci_spec::runtime::Spec;
use serde::Deserialize;

use super::super::prepare;
use super::super::record;
use super::images::read;
use super::wire::Image;
use crate::checkpoint::{Needs, Origin};
use crate::cri::annotation;
use crate::error::{Error, ErrorKind, Result};

/// `spec.dump` of a container with a thousand volumes and a seccomp profile has
/// half a megabyte, Podman's `config.dump` holds the spec again.
const MAX_BYTES: u64 = 4 << 20;
/// CRIU's log begins with what it is and where it runs.
const LOG_HEAD: usize = 4096;
/// A log is as long as the images are many.
const MAX_LOG: u64 = 256 << 20;
const CORE: u32 = 0x5505_3847;

/// Who made a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// We did, through whatever engine.
    Reprise,
    /// containerd's CRI, with runc or another runtime.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman.
    Podman,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reprise => "Reprise",
            Self::Containerd => "containerd",
            Self::CriO => "CRI-O",
            Self::Podman => "Podman",
        })
    }
}

/// The image that a container was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseImage {
    /// As the user named it.
    pub name: Option<String>,
    /// Digest of its configuration (`sha256:...`), which engines call its id.
    pub config: Option<String>,
}

/// An unpacked archive.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Who made it.
    pub engine: Engine,
    /// The container's spec, with annotations as containerd's CRI writes them.
    pub spec: Spec,
    /// Who the container was; without containerd's namespace, which no archive names.
    pub origin: Origin,
    /// What it came from.
    pub base: BaseImage,
    /// What the node must offer, as far as the archive tells.
    pub needs: Needs,
    /// Seconds since the epoch.
    pub created_unix_s: u64,
    /// The runtime, as the engine calls it.
    pub runtime: String,
    /// What is beside the images and would be lost: why nothing can be restored.
    pub beyond: Option<&'static str>,
}

/// The parts of `config.dump` that are of use here.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    id: String,
    name: String,
    rootfs_image: Option<String>,
    rootfs_image_ref: Option<String>,
    rootfs_image_name: Option<String>,
    #[serde(rename = "rootfsImageID")]
    rootfs_image_id: Option<String>,
    runtime: String,
}

impl Archive {
    /// Reads what is beside the images in `dir`, an archive's root.
    ///
    /// # Errors
    /// InvalidArgument: it is no archive, or it is damaged.
    pub fn read(dir: &Path) -> Result<Self> {
        if !dir.join("config.dump").exists() || !dir.join("spec.dump").exists() {
            let message = "It is no archive of a container's checkpoint (no config.dump or no \
                           spec.dump)";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let config = read(&dir.join("config.dump"), MAX_BYTES)?;
        let config: Config = serde_json::from_slice(&config).map_err(|e| {
            Error::because("config.dump is damaged", &e).with_kind(ErrorKind::InvalidArgument)
        })?;
        let text = read(&dir.join("spec.dump"), MAX_BYTES)?;
        let (mut spec, _) = prepare::parse_spec(&text, "spec.dump is damaged")?;
        let engine = engine(dir, &spec);
        as_cri_annotates(&mut spec);
        let images = dir.join("checkpoint");
        let made = std::fs::metadata(images.join("inventory.img")).and_then(|m| m.modified());
        let made = made.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Ok(Self {
            engine,
            origin: origin(&config, &spec),
            runtime: config.runtime.clone(),
            beyond: beyond(dir),
            base: base(config),
            needs: needs(dir, &images)?,
            created_unix_s: made.unwrap_or_default().as_secs(),
            spec,
        })
    }
}

/// Podman and CRI-O say apart from the layer what was deleted in it, and Podman has
/// the content of `/dev/shm`; an empty tar with its root alone has three blocks.
fn beyond(dir: &Path) -> Option<&'static str> {
    let bytes = |name: &str| std::fs::metadata(dir.join(name)).map_or(0, |about| about.len());
    if bytes("devshm-checkpoint.tar") > 3 * 512 {
        Some("it has files in /dev/shm, which only Podman brings back")
    } else if bytes("deleted.files") > "null".len() as u64 {
        Some("it has deleted files of its image, in Podman's and CRI-O's own way")
    } else {
        None
    }
}

fn engine(dir: &Path, spec: &Spec) -> Engine {
    let manager = spec.annotations().as_ref();
    let manager = manager.and_then(|all| all.get("io.container.manager"));
    match manager.map(String::as_str) {
        _ if dir.join("checkpoint").join(record::FILE).exists() => Engine::Reprise,
        Some("libpod") => Engine::Podman,
        Some("cri-o") => Engine::CriO,
        _ => Engine::Containerd,
    }
}

/// CRI-O has other names for what containerd's CRI says of a container.
fn as_cri_annotates(spec: &mut Spec) {
    let Some(said) = spec.annotations() else {
        return;
    };
    let pairs = [
        ("io.kubernetes.container.name", "container-name"),
        ("io.kubernetes.pod.name", "sandbox-name"),
        ("io.kubernetes.pod.namespace", "sandbox-namespace"),
        ("io.kubernetes.pod.uid", "sandbox-uid"),
        ("io.kubernetes.cri-o.ContainerType", "container-type"),
        ("io.kubernetes.cri-o.ImageName", "image-name"),
    ];
    let mut all: HashMap<String, String> = said.clone();
    for (theirs, ours) in pairs {
        if let Some(value) = said.get(theirs) {
            let ours = format!("io.kubernetes.cri.{ours}");
            all.entry(ours).or_insert_with(|| value.clone());
        }
    }
    spec.set_annotations(Some(all));
}

fn origin(config: &Config, spec: &Spec) -> Origin {
    let said = |name| annotation(spec, name).map(str::to_owned);
    let own_name = Some(config.name.clone()).filter(|name| !name.is_empty());
    Origin {
        namespace: String::new(),
        container: config.id.clone(),
        name: said("container-name").or(own_name),
        pod: said("sandbox-name"),
        pod_namespace: said("sandbox-namespace"),
        image: said("image-name").or_else(|| config.rootfs_image_name.clone()),
    }
}

fn base(config: Config) -> BaseImage {
    let id = config.rootfs_image_id.or(config.rootfs_image_ref);
    BaseImage {
        name: config.rootfs_image_name.or(config.rootfs_image),
        config: id.and_then(|id| digest(&id)),
    }
}

/// A digest, with or without its algorithm before it.
fn digest(id: &str) -> Option<String> {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    let fits = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    fits.then(|| format!("sha256:{hex}"))
}

fn needs(dir: &Path, images: &Path) -> Result<Needs> {
    let log = read(&dir.join("dump.log"), MAX_LOG).unwrap_or_default();
    let head = String::from_utf8_lossy(log.get(..LOG_HEAD).unwrap_or(&log)).into_owned();
    Ok(Needs {
        arch: arch(images)?.to_owned(),
        cpu_features: Vec::new(),
        kernel: after(&head, "Running on ")
            .and_then(|rest| rest.split_whitespace().nth(2))
            .unwrap_or_default()
            .to_owned(),
        criu_version: after(&head, "Version: ").map_or(0, version),
        memory_bytes: record::image_files(images)?
            .into_iter()
            .filter(|(name, _)| name.starts_with("pages-"))
            .fold(0, |sum, (_, bytes)| sum.saturating_add(bytes)),
    })
}

fn after<'a>(log: &'a str, what: &str) -> Option<&'a str> {
    log.lines()
        .find_map(|line| line.split_once(what))
        .map(|(_, rest)| rest)
}

/// `4.2.1 (gitid ...)` as a number, as [`Needs::criu_version`] has it.
fn version(text: &str) -> u32 {
    let number = text.split_whitespace().next().unwrap_or_default();
    let mut parts = number
        .split('.')
        .map(|part| part.parse().unwrap_or(0_u32).min(99));
    let mut next = || parts.next().unwrap_or(0);
    next() * 10_000 + next() * 100 + next()
}

/// The architecture that the first process ran on, as we call it.
fn arch(images: &Path) -> Result<&'static str> {
    let damaged = |why: String| {
        let message = format!("The image core-1.img is damaged: {why}");
        Error::new(ErrorKind::InvalidArgument, message)
    };
    let file = images.join("core-1.img");
    if !file.exists() {
        // A shared pid namespace: `adapt` says so.
        return Ok("");
    }
    let core = Image::parse(&read(&file, MAX_BYTES)?, CORE).map_err(damaged)?;
    match core.entries.first().and_then(|core| core.number(1)) {
        Some(1) => Ok("x86_64"),
        Some(3) => Ok("aarch64"),
        Some(other) => Err(damaged(format!("it is for a machine of type {other}"))),
        None => Err(damaged(
            "it does not say for which machine it is".to_owned(),
        )),
    }
}
