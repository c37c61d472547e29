//! Which mounts are external, and under which key.
//!
//! CRIU makes a mount itself unless its entry in `mountpoints-N.img` has a key;
//! then it asks where to bind it from. runc leaves `/dev`, masked directories and
//! the cgroup tmpfs to CRIU, and names all masked files `/dev/null`. Ours are
//! external all, each under its mountpoint: a restore makes them anew, as a cold
//! start does, and takes no device node from an image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::layout::Layout;
use super::super::record::{Kind, Record};
use super::wire::{Image, Message};

const MOUNTS: u32 = 0x5556_3928;

/// Fields of CRIU's `mnt_entry`.
mod field {
    pub(super) const FSTYPE: u32 = 1;
    pub(super) const DEVICE: u32 = 3;
    pub(super) const ROOT: u32 = 6;
    pub(super) const MOUNTPOINT: u32 = 7;
    pub(super) const EXT_MOUNT: u32 = 13;
    pub(super) const EXT_KEY: u32 = 18;
}

/// The key that runc gives masked files, all of them.
const MASKED_KEY: &str = "/dev/null";

/// Numbers of CRIU's `fstype` that matter here.
mod fstype {
    pub(super) const TMPFS: u64 = 5;
    pub(super) const DEVTMPFS: u64 = 3;
    pub(super) const CGROUP: u64 = 12;
    pub(super) const CGROUP2: u64 = 23;
}

/// The mounts in our form: the image, and how each is made.
#[derive(Debug)]
pub(super) struct Mounts {
    pub(super) image: Image,
    pub(super) kinds: BTreeMap<PathBuf, Kind>,
}

/// Makes every mount external that is so in our images.
pub(super) fn adapt(file: &[u8], layout: &Layout) -> Result<Mounts, String> {
    let mut image = Image::parse(file, MOUNTS)?;
    let mut kinds = BTreeMap::new();
    for entry in &mut image.entries {
        let at = PathBuf::from(
            entry
                .text(field::MOUNTPOINT)
                .ok_or("a mount has no place")?,
        );
        if !at.is_absolute() {
            return Err(format!("the place {at:?} of a mount is not absolute"));
        }
        let Some(kind) = kind_of(entry, &at, layout) else {
            continue;
        };
        entry.set_bytes(field::EXT_KEY, at.to_string_lossy().into_owned().into());
        entry.clear(field::EXT_MOUNT);
        kinds.insert(at, kind);
    }
    if kinds.is_empty() && image.entries.is_empty() {
        return Err("it has no mounts".to_owned());
    }
    Ok(Mounts { image, kinds })
}

/// The mounts in runc's form: the image, and which tmpfs, by their device, CRIU has
/// to fill with what.
#[derive(Debug)]
pub(super) struct ForRunc {
    pub(super) image: Image,
    pub(super) tmpfs: BTreeMap<u64, Kind>,
}

/// Takes the keys away that runc has no sources for.
pub(super) fn for_runc(file: &[u8], record: &Record) -> Result<ForRunc, String> {
    let mut image = Image::parse(file, MOUNTS)?;
    let mut tmpfs = BTreeMap::new();
    for entry in &mut image.entries {
        let at = entry.text(field::MOUNTPOINT).unwrap_or_default();
        match record.mounts.get(Path::new(at)) {
            Some(Kind::Bind | Kind::Cgroup) | None => {}
            Some(Kind::MaskedFile) => entry.set_bytes(field::EXT_KEY, MASKED_KEY.into()),
            Some(kind) => {
                let device = entry.number(field::DEVICE).ok_or("a mount has no device")?;
                entry.clear(field::EXT_KEY);
                tmpfs.insert(device, *kind);
            }
        }
    }
    Ok(ForRunc { image, tmpfs })
}

fn kind_of(entry: &Message, at: &Path, layout: &Layout) -> Option<Kind> {
    if layout.masked.iter().any(|masked| masked == at) {
        // A masked file is `null` of some /dev, a masked directory a tmpfs.
        let null = entry.text(field::ROOT) != Some("/");
        return Some(if null {
            Kind::MaskedFile
        } else {
            Kind::MaskedDir
        });
    }
    let fstype = match entry.number(field::FSTYPE) {
        Some(fstype::TMPFS) => "tmpfs",
        Some(fstype::DEVTMPFS) => "devtmpfs",
        Some(fstype::CGROUP) => "cgroup",
        Some(fstype::CGROUP2) => "cgroup2",
        _ => "",
    };
    let external =
        entry.bytes(field::EXT_KEY).is_some() || entry.number(field::EXT_MOUNT) == Some(1);
    // The place of a bind may be a link's target in a rootfs that is not here.
    layout
        .kind_unless_masked(at, fstype)
        .or_else(|| external.then_some(Kind::Bind))
}
