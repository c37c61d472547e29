//! From our images to such that runc's restore takes.
//!
//! runc has CRIU join the pod's uts and ipc namespaces, hands it the network
//! namespace for a key, binds volumes and cgroups by destination, and leaves the
//! rest to CRIU. So the namespaces become the pod's instead of CRIU's, the files
//! appear that CRIU reads for such ones, and what we make anew at every restore
//! (`/dev`, the cgroup tmpfs, masked directories) gets a content in the image.
//!
//! CRIU sets the host name that it finds in an image in the namespace that it has
//! joined, with runc's own images as with these.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use oci_spec::runtime::Spec;

use super::super::copy;
use super::super::layout::Layout;
use super::super::record::{self, Kind, Record};
use super::super::tree::Devices;
use super::cgroups;
use super::images::{Changes, Images};
use super::inventory::{self, Inventory};
use super::mountpoints;
use super::wire::{Image, Message};
use crate::cri::annotation;
use crate::error::{Doing, Error, ErrorKind, Result};

const NETNS: u32 = 0x5593_3752;
const UTSNS: u32 = 0x5447_3203;
const IPC_VAR: u32 = 0x5311_5007;
/// The key under which runc hands the network namespace over.
const NETWORK_KEY: &str = "extRootNetNS";
/// The limits of a new ipc namespace (`init_ipc_ns` and the `*_init_ns` functions of
/// Linux), by their field in CRIU's `ipc_var_entry`.
const IPC_DEFAULTS: [(u32, u64); 13] = [
    (2, 8192),
    (3, 16384),
    (4, 32000),
    (5, 0),
    (6, u64::MAX - (1 << 24)),
    (7, u64::MAX - (1 << 24)),
    (8, 4096),
    (9, 0),
    (10, 256),
    (11, 10),
    (12, 8192),
    (13, 10),
    (14, 8192),
];
/// The same, of semaphores: field 1.
const SEMAPHORES: [u64; 4] = [32000, 1_024_000_000, 500, 32000];

/// What has to be written so that runc restores images of ours. `scratch` is an
/// empty directory in which it may make device nodes.
///
/// # Errors
/// They are not ours, or damaged; I/O.
pub fn for_runc(images: &Path, spec: &Spec, scratch: &Path) -> Result<Changes> {
    let open = Images::open(images)?;
    if !open.has(record::FILE) {
        let message = format!("The images in {} are not Reprise's", images.display());
        return Err(Error::new(ErrorKind::FailedPrecondition, message));
    }
    let record = Record::read(images)?;
    let init = open.ids()?;
    let mut inventory = open.understood("inventory.img", Inventory::parse)?;
    inventory.move_out_of_pod(&init);
    let mut changes = BTreeMap::from([("inventory.img".to_owned(), inventory.encode())]);
    for (which, field) in inventory::OF_POD {
        let id = init.number(field).unwrap_or_default();
        let (name, file) = match which {
            "net" => (format!("netns-{id}.img"), network()),
            "ipc" => (format!("ipcns-var-{id}.img"), ipc()),
            _ => (format!("utsns-{id}.img"), uts(spec)),
        };
        changes.insert(name, file);
    }
    if open.has("cgroup.img") {
        let file = open.understood("cgroup.img", cgroups::for_runc)?;
        changes.insert("cgroup.img".to_owned(), file);
    }
    let name = open.mounts(&init)?;
    let made = open.understood(&name, |file| mountpoints::for_runc(file, &record))?;
    changes.insert(name, made.image.encode());
    for (device, kind) in made.tmpfs {
        let content = content(kind, &record, spec, &scratch.join(device.to_string()))?;
        changes.insert(format!("tmpfs-dev-{device}.tar.gz.img"), content);
    }
    // They are not ours any more. What was in /dev/shm nobody else brings back.
    let without = [record::FILE, record::SHARED_MEMORY].map(str::to_owned);
    Ok(Changes {
        files: changes,
        without: without.into(),
    })
}

fn network() -> Vec<u8> {
    let mut entry = Message::default();
    entry.set_bytes(8, NETWORK_KEY.into());
    Image::new(NETNS, vec![entry]).encode()
}

fn uts(spec: &Spec) -> Vec<u8> {
    let name = spec.hostname().as_deref();
    let name = name.or_else(|| annotation(spec, "sandbox-name"));
    let mut entry = Message::default();
    entry.set_bytes(1, name.unwrap_or_default().into());
    entry.set_bytes(2, spec.domainname().as_deref().unwrap_or("(none)").into());
    Image::new(UTSNS, vec![entry]).encode()
}

fn ipc() -> Vec<u8> {
    let mut entry = Message::default();
    for limit in SEMAPHORES {
        entry.add_number(1, limit);
    }
    for (field, limit) in IPC_DEFAULTS {
        entry.set_number(field, limit);
    }
    Image::new(IPC_VAR, vec![entry]).encode()
}

/// A tmpfs as CRIU saves it: a tar, compressed.
fn content(kind: Kind, record: &Record, spec: &Spec, dir: &Path) -> Result<Vec<u8>> {
    let what = || format!("Cannot make {}", dir.display());
    std::fs::create_dir(dir).doing(what())?;
    match kind {
        Kind::Dev => {
            let inside = dir.join("dev");
            std::fs::create_dir(&inside).doing(what())?;
            let root = File::open(dir).doing(what())?;
            Devices::of_dev_alone(spec)?
                .make(root.as_fd())
                .map_err(Error::internal)?;
            let layout = Layout::of(spec, dir);
            let below = layout
                .mounts
                .iter()
                .filter_map(|(to, _)| to.strip_prefix("/dev").ok());
            for place in below.filter(|place| !place.as_os_str().is_empty()) {
                std::fs::create_dir_all(inside.join(place)).doing(what())?;
            }
            if record.terminal {
                std::fs::write(inside.join("console"), "").doing(what())?;
            }
            copy::pack_all(&inside)
        }
        Kind::CgroupRoot => {
            let cgroups = record
                .mounts
                .iter()
                .filter(|(_, kind)| **kind == Kind::Cgroup);
            let names: BTreeSet<_> = cgroups.filter_map(|(at, _)| at.file_name()).collect();
            for name in names {
                std::fs::create_dir_all(dir.join(name)).doing(what())?;
            }
            for (name, target) in &record.cgroup_links {
                if !name.contains('/') && !name.starts_with('.') {
                    symlink(target, dir.join(name)).doing(what())?;
                }
            }
            copy::pack_all(dir)
        }
        Kind::Bind | Kind::Cgroup | Kind::MaskedDir | Kind::MaskedFile => copy::pack_all(dir),
    }
}
