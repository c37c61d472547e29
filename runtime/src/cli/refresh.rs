//! `reprise refresh` and `reprise trust`: which of containerd's images containers are
//! restored from.

use clap::Args;
use reprise_runtime::store::Store;
use reprise_runtime::{Error, ErrorKind, Result};
use serde_json::json;

use super::{Places, show};
use crate::images::refresh::{Refreshed, refresh};
use crate::images::{Client, Labels, names};

#[derive(Debug, Args)]
pub(super) struct Refresh {
    /// Only if containerd's content has changed since
    #[arg(long)]
    if_stale: bool,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

impl Refresh {
    pub(super) fn run(&self, places: &Places) -> Result<String> {
        let done = all(places, !self.if_stale)?;
        Ok(match done {
            done if self.json => show::json(done.iter().map(|done| json!(done)).collect()),
            Some(done) => told(&done),
            None => "Nothing has changed.\n".to_owned(),
        })
    }
}

/// Brings this node's records in line with containerd's images; `None`, if that was
/// not necessary.
pub(super) fn all(places: &Places, forced: bool) -> Result<Option<Refreshed>> {
    let settings = places.settings()?;
    // All namespaces are looked at, whichever this one is.
    let client = places.containerd("default")?;
    let store = Store::at(&places.store_path()?);
    refresh(&client, &store, &settings.images.trusted, forced)
}

fn told(done: &Refreshed) -> String {
    let mut text = format!("{} checkpoints can be found\n", done.found);
    for id in &done.gone {
        text.push_str(&format!("gone  {id}\n"));
    }
    for unused in &done.unused {
        text.push_str(&format!("not used  {}: {}\n", unused.image, unused.why));
    }
    text
}

#[derive(Debug, Args)]
pub(super) struct Trust {
    /// Name of the image, as `ctr images ls` shows it
    image: String,
    /// containerd's namespace
    #[arg(long, short, default_value = "k8s.io")]
    namespace: String,
    /// Do not trust it any more
    #[arg(long)]
    not: bool,
}

impl Trust {
    pub(super) fn run(&self, places: &Places) -> Result<String> {
        let client: Client = places.containerd(&self.namespace)?;
        if client.image(&self.image)?.is_none() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "There is no image {} in namespace {}; `ctr -n {1} images ls` shows them",
                    self.image, self.namespace
                ),
            ));
        }
        let value = if self.not { "false" } else { "true" };
        let labels = Labels::from([(names::TRUSTED.to_owned(), value.to_owned())]);
        client.relabel_image(&self.image, &labels)?;
        let done = all(places, true)?;
        let mut unused = done.iter().flat_map(|done| &done.unused);
        let unused = unused.find(|unused| unused.image == self.image);
        Ok(match unused {
            Some(unused) if !self.not => {
                format!("{} is not used yet: {}\n", self.image, unused.why)
            }
            _ => String::new(),
        })
    }
}
