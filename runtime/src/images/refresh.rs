//! All images in containerd's store -> the records and the index of this node. The
//! truth is containerd's; what it does not have any more goes, what came is taken in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use reprise_runtime::maker::Maker;
use reprise_runtime::policy::Trusted;
use reprise_runtime::store::{Blobs, Store, Unused};
use reprise_runtime::timestamp::rfc3339;
use reprise_runtime::{ErrorKind, Result};
use serde::Serialize;

use super::adopt::{Adopted, Adopter};
use super::announced::Announced;
use super::client::Client;
use super::{Labels, names, records, sweep};

/// When containerd itself gives up what a refresh was at, in seconds.
const EXPIRES_AFTER_S: u64 = 3600;
/// Where the content of a containerd lies.
const CONTENT: (&str, &str) = ("io.containerd.content.v1", "content");

/// What a refresh came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Refreshed {
    /// Checkpoints that containers can be restored from.
    pub(crate) found: usize,
    /// Records that went, since their images have.
    pub(crate) gone: Vec<String>,
    /// Images that are not used.
    pub(crate) unused: Vec<Unused>,
}

/// Brings the node's records in line with containerd. One does so at a time; a second
/// one that finds nothing new afterwards does nothing (`None`), unless it is `forced`.
///
/// # Errors
/// containerd's, I/O; noted, so that no container waits for the next one.
pub(crate) fn refresh(
    client: &Client,
    store: &Store,
    trusted: &Trusted,
    forced: bool,
) -> Result<Option<Refreshed>> {
    let root = client.plugin_root(CONTENT.0, CONTENT.1)?;
    let blobs = root.map(|root| Blobs::of_content(&root));
    let _turn = store.begin_refresh()?;
    // Before anything is read: what comes meanwhile makes it stale again.
    let changed_ns = blobs.as_ref().and_then(Blobs::changed_ns);
    if let (false, Some(blobs)) = (forced, &blobs)
        && !store.wants_refresh(blobs)
    {
        return Ok(None);
    }
    let done = everything(client, store, trusted);
    if let Some(changed_ns) = changed_ns {
        let failed = done.as_ref().err().map(|e| e.message.clone());
        store.note_refresh(changed_ns, failed)?;
    }
    done.map(Some)
}

fn everything(client: &Client, store: &Store, trusted: &Trusted) -> Result<Refreshed> {
    let mut refreshed = Refreshed::default();
    let mut kept = BTreeSet::new();
    let mut known = Known::of(store)?;
    for namespace in client.namespaces()? {
        let client = client.within(&namespace)?;
        let all = checkpoints(&client, &mut known)?;
        if all.is_empty() {
            continue;
        }
        sweep::dead_publishers(&client)?;
        let lease = take_lease(&client)?;
        let mut adopter = Adopter::new(client.under(&lease)?, store);
        for (id, images) in all {
            match take_in(&mut adopter, &id, &images, trusted)? {
                Ok(()) => drop(kept.insert(id)),
                Err(why) => refreshed.unused.extend(images.iter().map(|image| Unused {
                    namespace: namespace.clone(),
                    image: image.name.clone(),
                    checkpoint: id.clone(),
                    why: why.clone(),
                })),
            }
        }
        client.remove_lease(&lease, false)?;
    }
    known.write(store)?;
    store.note_unused(&refreshed.unused)?;
    let unused = refreshed.unused.iter().map(|u| u.checkpoint.as_str());
    refreshed.gone = forget_others(client, store, &kept, &unused.collect())?;
    refreshed.found = store.rebuild_index()?;
    Ok(refreshed)
}

/// Takes one checkpoint in, from the first of its images that allows it; why not, if
/// none does.
fn take_in(
    adopter: &mut Adopter<'_>,
    id: &str,
    images: &[records::Record],
    trusted: &Trusted,
) -> Result<std::result::Result<(), String>> {
    let trusted: Vec<&records::Record> = images
        .iter()
        .filter(|image| is_trusted(image, trusted))
        .collect();
    let names: Vec<String> = trusted.iter().map(|image| image.name.clone()).collect();
    let mut why =
        "it is not trusted; `reprise trust IMAGE`, or images.trusted in the config file, \
                   says that its makers may run code in pods"
            .to_owned();
    for image in trusted {
        match adopter.adopt(id, image, &names) {
            Ok(Adopted::Recorded) => return Ok(Ok(())),
            Ok(Adopted::Waiting(what)) => why = what,
            Err(error) if error.kind == ErrorKind::Unavailable => return Err(error),
            // One bad image keeps no other from being found.
            Err(error) => why = error.message,
        }
    }
    Ok(Err(why))
}

/// Only the record in containerd says so: nothing that a registry serves can set its
/// labels, and its name is what somebody on this node pulled.
fn is_trusted(image: &records::Record, trusted: &Trusted) -> bool {
    match image.labels.get(names::TRUSTED).map(String::as_str) {
        Some("true") => true,
        Some(_) => false, // `reprise trust --not`
        None => trusted.matches(&image.name),
    }
}

/// The checkpoints of a namespace: id, and all images that are it, by name.
fn checkpoints(
    client: &Client,
    known: &mut Known,
) -> Result<BTreeMap<String, Vec<records::Record>>> {
    let mut all: BTreeMap<String, Vec<records::Record>> = BTreeMap::new();
    let mut images = client.list_images(&[])?;
    images.sort_by(|a, b| a.name.cmp(&b.name));
    for image in images {
        if let Some(id) = known.id_of(client, &image)? {
            all.entry(id).or_default().push(image);
        }
    }
    Ok(all)
}

/// Which digests are checkpoints and which are not: they never change, so each
/// manifest is read once.
#[derive(Debug, Default)]
struct Known {
    /// By namespace and digest: what others built has another id in each.
    checkpoints: BTreeMap<(String, String), String>,
    others: BTreeSet<String>,
    seen: BTreeSet<String>,
}

impl Known {
    fn of(store: &Store) -> Result<Self> {
        let recorded = store.list()?;
        let checkpoints = recorded
            .iter()
            .filter_map(|s| Some((s.source().ok()?, s.id().to_owned())))
            .map(|(source, id)| ((source.namespace, source.digest), id));
        Ok(Self {
            checkpoints: checkpoints.collect(),
            others: store.other_images(),
            seen: BTreeSet::new(),
        })
    }

    /// The checkpoint that an image is, if it is one.
    fn id_of(&mut self, client: &Client, image: &records::Record) -> Result<Option<String>> {
        let key = (client.namespace().to_owned(), image.digest.clone());
        if let Some(id) = self.checkpoints.get(&key) {
            return Ok(Some(id.clone()));
        }
        if self.others.contains(&image.digest) {
            self.seen.insert(image.digest.clone());
            return Ok(None);
        }
        let announced = Announced::of_image(client, image);
        let id = announced.and_then(|said| said.map(|said| said.id(client, image)).transpose());
        match id {
            Ok(Some(id)) => {
                self.checkpoints.insert(key, id.clone());
                Ok(Some(id))
            }
            Err(error) if error.kind == ErrorKind::Unavailable => Err(error),
            // Being pulled, or gone.
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            // What is too large for a manifest is none.
            Ok(None) | Err(_) => {
                self.seen.insert(image.digest.clone());
                Ok(None)
            }
        }
    }

    fn write(&self, store: &Store) -> Result<()> {
        if self.seen == self.others {
            return Ok(());
        }
        store.note_other_images(&self.seen)
    }
}

/// Forgets records whose images have gone, or are not used any more.
fn forget_others(
    client: &Client,
    store: &Store,
    kept: &BTreeSet<String>,
    unused: &BTreeSet<&str>,
) -> Result<Vec<String>> {
    let mut gone = Vec::new();
    for id in store.ids()? {
        if kept.contains(&id) {
            continue;
        }
        if unused.contains(id.as_str()) || !has_image(client, store, &id)? {
            store.forget(&id)?;
            gone.push(id);
        }
    }
    Ok(gone)
}

/// Whether a record has an image after all: it may have been published meanwhile.
fn has_image(client: &Client, store: &Store, id: &str) -> Result<bool> {
    let Ok(source) = store.source(id) else {
        return Ok(false);
    };
    let client = client.within(&source.namespace)?;
    for name in &source.names {
        if client
            .image(name)?
            .is_some_and(|image| image.digest == source.digest)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A lease for what an adoption makes; the next sweep ends those of the dead.
fn take_lease(client: &Client) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let lease = format!("reprise-refresh-{}", Maker::me());
    let labels = Labels::from([
        (names::PUBLISHER.to_owned(), Maker::me().to_string()),
        (
            names::EXPIRE.to_owned(),
            rfc3339(now.unwrap_or_default().as_secs() + EXPIRES_AFTER_S),
        ),
    ]);
    match client.create_lease(&lease, &labels) {
        Err(error) if error.kind != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(lease),
    }
}
