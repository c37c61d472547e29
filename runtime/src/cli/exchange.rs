//! `reprise import` and `reprise export`: archives of Kubernetes' checkpoint
//! convention, in and out.

use std::path::PathBuf;

use clap::Args;
use reprise_runtime::{Error, Result};
use serde_json::json;

use super::{Places, full_id, none, progress, show};
use crate::images::export::export;
use crate::images::import::{From, Wanted, import};

#[derive(Debug, Args)]
pub(super) struct Import {
    /// Archive (tar, plain or compressed with gzip or zstd) of `crictl checkpoint`, of
    /// CRI-O, Podman or `reprise export`
    #[arg(required_unless_present = "from_image", value_name = "FILE")]
    file: Option<PathBuf>,
    /// An image in containerd instead, as `checkpointctl build` or buildah made it
    #[arg(long, value_name = "REF", conflicts_with = "file")]
    from_image: Option<String>,
    /// Name of the checkpoint's image [default: one below reprise.local]
    #[arg(long, value_name = "REF")]
    image: Option<String>,
    /// containerd's namespace
    #[arg(long, short, default_value = "k8s.io")]
    namespace: String,
    /// The snapshotter of the containers that are to be restored
    #[arg(long, default_value = "overlayfs")]
    snapshotter: String,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Checkpoint id, or a prefix that only one has
    id: String,
    /// The archive; one that is there is replaced
    file: PathBuf,
}

impl Import {
    pub(super) fn run(&self, places: &Places) -> Result<String> {
        let (from, what) = match (&self.file, &self.from_image) {
            (Some(file), _) => (From::Archive(file), file.display().to_string()),
            (None, Some(image)) => (From::Image(image), image.clone()),
            (None, None) => return Err(Error::internal("Nothing to import is named")),
        };
        let wanted = Wanted {
            from,
            name: self.image.as_deref(),
            snapshotter: &self.snapshotter,
        };
        let client = places.containerd(&self.namespace)?;
        let store = places.open()?;
        let imported =
            progress::shown("Importing", |meter| import(&client, &store, &wanted, meter));
        let imported = imported.map_err(|error| Error {
            message: format!("Cannot import {what}: {}", error.message),
            ..error
        })?;
        let state = match &imported.foreign {
            None => "ready".to_owned(),
            Some(why) => format!("foreign: {why}"),
        };
        if self.json {
            return Ok(show::json(vec![json!({
                "id": imported.id,
                "image": imported.image,
                "engine": imported.engine,
                "container": imported.origin.container,
                "name": imported.origin.name,
                "pod_namespace": imported.origin.pod_namespace,
                "state": state,
            })]));
        }
        Ok(format!(
            "{} of {} ({}), image {}: {state}\n",
            imported.id,
            imported
                .origin
                .name
                .as_ref()
                .unwrap_or(&imported.origin.container),
            imported.engine,
            imported.image,
        ))
    }
}

impl Export {
    pub(super) fn run(&self, places: &Places) -> Result<String> {
        let store = places.open()?;
        let id = full_id(&store, &self.id)?;
        let stored = store.load(&id)?.ok_or_else(|| none(&id))?;
        let client = places.containerd(&stored.source()?.namespace)?;
        let scratch = places.store_path()?.join("staging");
        let exported = progress::shown("Exporting", |meter| {
            export(&client, &stored, &scratch, &self.file, meter)
        });
        exported.map_err(|error| Error {
            message: format!("Cannot export checkpoint {id}: {}", error.message),
            ..error
        })?;
        Ok(format!("{}\n", self.file.display()))
    }
}
