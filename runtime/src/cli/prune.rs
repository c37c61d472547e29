//! `reprise prune`: what the limits of the config file do not allow goes, and what
//! nobody can use.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use reprise_runtime::Result;
use reprise_runtime::policy::LimitsConfig;
use reprise_runtime::store::limits::{Kept, surplus};
use reprise_runtime::store::{self, Store, Stored};
use serde_json::json;

use super::{Places, remove, show};

#[derive(Debug, Args)]
pub(super) struct Prune {
    /// Remove those, too, that cannot be used (`reprise verify` says why)
    #[arg(long)]
    unusable: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// A checkpoint that goes.
struct Going {
    id: String,
    bytes: u64,
    why: String,
}

impl Prune {
    pub(super) fn run(&self, places: &Places) -> Result<String> {
        let store = places.open()?;
        let mut going = above_limits(places, &store)?;
        if self.unusable {
            going.extend(unusable(places, &store)?);
        }
        if !self.dry_run {
            for one in &going {
                remove(places, &store, &one.id)?;
            }
        }
        Ok(if self.json {
            let rows = going.iter();
            let rows = rows.map(|g| json!({ "id": g.id, "bytes": g.bytes, "reason": g.why }));
            show::json(rows.collect())
        } else {
            self.say(&going)
        })
    }

    fn say(&self, going: &[Going]) -> String {
        let done = if self.dry_run { "would go" } else { "removed" };
        let bytes = going.iter().map(|g| g.bytes).sum();
        let mut rows: Vec<[String; 3]> = going
            .iter()
            .map(|g| [g.id.clone(), show::size(g.bytes), g.why.clone()])
            .collect();
        rows.push([
            format!("{} {done}", going.len()),
            show::size(bytes),
            String::new(),
        ]);
        show::columns(&rows)
    }
}

/// Removes what is above the limits, after a checkpoint was added.
///
/// # Errors
/// I/O; containerd's.
pub(super) fn enforce(places: &Places) -> Result<()> {
    let store = places.open()?;
    for one in above_limits(places, &store)? {
        remove(places, &store, &one.id)?;
    }
    Ok(())
}

fn above_limits(places: &Places, store: &Store) -> Result<Vec<Going>> {
    let limits = places.settings()?.limits;
    // Most nodes have none, and this is asked after each checkpoint.
    if limits == LimitsConfig::default() {
        return Ok(Vec::new());
    }
    let users = store::all_users(&places.run_root);
    let kept: Vec<Kept> = store
        .list()?
        .iter()
        .map(|s| kept(store, s, users.contains_key(s.id())))
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let going = surplus(&limits, &kept, unix_ms(now.unwrap_or_default()));
    Ok(going
        .into_iter()
        .map(|(one, why)| Going {
            id: one.id.clone(),
            bytes: one.bytes,
            why: why.to_string(),
        })
        .collect())
}

fn unix_ms(since: Duration) -> u64 {
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn kept(store: &Store, stored: &Stored, in_use: bool) -> Kept {
    let m = stored.manifest();
    let origin = &m.origin;
    Kept {
        id: m.id.clone(),
        namespace: origin
            .pod_namespace
            .as_ref()
            .unwrap_or(&origin.namespace)
            .clone(),
        bytes: m.image_bytes,
        created_unix_ms: stored.made_unix_ms(),
        restored_unix_ms: store.restores(&m.id).last_unix_ms,
        in_use,
    }
}

/// Those that cannot be used and that no container uses.
fn unusable(places: &Places, store: &Store) -> Result<Vec<Going>> {
    let users = store::all_users(&places.run_root);
    let all = store.entries()?.into_iter();
    Ok(all
        .filter(|(id, _)| !users.contains_key(id))
        .filter_map(|(id, entry)| {
            let why = entry.err()?.message;
            Some(Going { id, bytes: 0, why })
        })
        .collect())
}
