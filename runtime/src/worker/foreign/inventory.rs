//! Whose the namespaces are.
//!
//! CRIU takes a namespace for its own, to be neither saved nor made, where the
//! first process has the id that `inventory.img` gives for CRIU itself. runc and
//! crun run CRIU in the node's namespaces, so that in their images those of the
//! pod are strange ones: network as an external one, uts and ipc with their
//! content. We start CRIU inside the pod's. So the one form becomes the other by
//! writing ids.

use std::collections::BTreeSet;

use super::wire::{Image, Message};

const INVENTORY: u32 = 0x5831_3116;
const PSTREE: u32 = 0x5027_3030;
const IDS: u32 = 0x5443_2030;

/// Fields of CRIU's `inventory_entry`.
mod entry {
    pub(super) const VERSION: u32 = 1;
    pub(super) const ROOT_IDS: u32 = 3;
    pub(super) const TCP_CLOSE: u32 = 10;
    pub(super) const NETWORK_LOCK: u32 = 11;
}

/// The only version of the images' layout that CRIU has had since 2012.
const VERSION: u64 = 2;
/// How CRIU notes that it locked no network (`--network-lock skip`).
const LOCK_SKIP: u64 = 2;

/// Fields of CRIU's `task_kobj_ids_entry`.
mod ids {
    pub(super) const PID: u32 = 5;
    pub(super) const NET: u32 = 6;
    pub(super) const IPC: u32 = 7;
    pub(super) const UTS: u32 = 8;
    pub(super) const MNT: u32 = 9;
    pub(super) const USER: u32 = 10;
    /// Namespaces of later kernels come up to here.
    pub(super) const LAST: u32 = 16;
}

/// The namespaces that belong to the pod.
pub(super) const OF_POD: [(&str, u32); 3] =
    [("net", ids::NET), ("ipc", ids::IPC), ("uts", ids::UTS)];

/// The numbers of the processes in an image, the first one first.
pub(super) fn processes(pstree: &[u8]) -> Result<Vec<u64>, String> {
    let image = Image::parse(pstree, PSTREE)?;
    let pids: Vec<u64> = image.entries.iter().filter_map(|p| p.number(1)).collect();
    if pids.is_empty() || pids.len() != image.entries.len() {
        return Err("it names no process".to_owned());
    }
    Ok(pids)
}

/// The ids of one process.
pub(super) fn ids(file: &[u8]) -> Result<Message, String> {
    let image = Image::parse(file, IDS)?;
    let first = image.entries.into_iter().next();
    first.ok_or_else(|| "it is empty".to_owned())
}

/// The id of a process's mount namespace, by which the file with its mounts is named.
pub(super) fn mounts_of(ids: &Message) -> Option<u64> {
    ids.number(ids::MNT)
}

/// The inventory of an image.
#[derive(Debug)]
pub(super) struct Inventory {
    image: Image,
    entry: Message,
    /// Ids of CRIU itself.
    root: Message,
}

impl Inventory {
    pub(super) fn parse(file: &[u8]) -> Result<Self, String> {
        let mut image = Image::parse(file, INVENTORY)?;
        let entry = image.entries.pop().ok_or("it is empty")?;
        if !image.entries.is_empty() {
            return Err("it has more than one entry".to_owned());
        }
        match entry.number(entry::VERSION) {
            Some(VERSION) => {}
            Some(other) => {
                return Err(format!(
                    "its images have version {other}, and CRIU reads version {VERSION}"
                ));
            }
            None => return Err("it has no version".to_owned()),
        }
        let root = entry
            .bytes(entry::ROOT_IDS)
            .ok_or("it does not say in which namespaces CRIU ran")?;
        let root = Message::parse(root)?;
        Ok(Self { image, entry, root })
    }

    /// Why processes with these ids cannot be restored into a pod.
    pub(super) fn refuses(&self, init: &Message) -> Option<&'static str> {
        let own = |field| {
            let id = init.number(field);
            id.is_some() && id != self.root.number(field)
        };
        if !own(ids::PID) {
            Some("it shares its pid namespace, where pids of the checkpoint may be taken")
        } else if !own(ids::MNT) {
            Some("it has no mount namespace of its own")
        } else if own(ids::USER) {
            Some("it has a user namespace, which cannot be restored yet")
        } else {
            None
        }
    }

    /// Whether CRIU found the namespaces of the pod to be its own.
    #[cfg(test)]
    pub(super) fn is_in_pod(&self, init: &Message) -> bool {
        OF_POD
            .iter()
            .all(|(_, field)| init.number(*field) == self.root.number(*field))
    }

    /// Declares the namespaces of `init` that belong to the pod to be CRIU's own.
    pub(super) fn move_into_pod(&mut self, init: &Message) -> Result<(), String> {
        for (name, field) in OF_POD {
            let id = init.number(field);
            let id = id.ok_or_else(|| format!("it does not say which {name} namespace it has"))?;
            self.root.set_number(field, id);
        }
        self.entry.set_number(entry::NETWORK_LOCK, LOCK_SKIP);
        Ok(())
    }

    /// Gives CRIU namespaces that are not those of the pod, in which `init` is.
    pub(super) fn move_out_of_pod(&mut self, init: &Message) {
        let all = ids::PID..=ids::LAST;
        let taken: BTreeSet<u64> = all
            .flat_map(|field| [init.number(field), self.root.number(field)])
            .flatten()
            .collect();
        let free = (1..).filter(|id| !taken.contains(id));
        for ((_, field), id) in OF_POD.into_iter().zip(free) {
            self.root.set_number(field, id);
        }
        // Connections were closed in the images already; a restore that is not told
        // to close them refuses such images.
        self.entry.clear(entry::TCP_CLOSE);
    }

    pub(super) fn encode(mut self) -> Vec<u8> {
        self.entry.set_bytes(entry::ROOT_IDS, self.root.encode());
        self.image.entries.push(self.entry);
        self.image.encode()
    }
}
