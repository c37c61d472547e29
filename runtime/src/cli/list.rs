//! `reprise list`: the checkpoints on this node, one a line.

use reprise_runtime::Result;
use reprise_runtime::store::{Restores, Store, Stored, Unused};
use serde_json::{Value, json};

use super::show::{age, columns, dash, json as array, size, summary};

/// A checkpoint, or why it cannot be used.
type Entry = (String, Result<Stored>);

/// All of them, newest first; then those that cannot be used, and images that are
/// not (not trusted, or without their base).
///
/// # Errors
/// I/O.
pub(super) fn run(store: &Store, as_json: bool) -> Result<String> {
    let mut all: Vec<Entry> = store.entries()?;
    all.sort_by_key(|(_, entry)| entry.is_err());
    let rows = all.iter().map(|entry| (entry, store.restores(&entry.0)));
    let unused = store.unused();
    if as_json {
        let rows = rows.map(|(entry, restores)| row_of(entry, restores));
        return Ok(array(
            rows.chain(unused.iter().map(row_of_unused)).collect(),
        ));
    }
    if all.is_empty() && unused.is_empty() {
        return Ok(
            "No checkpoints on this node; `reprise checkpoint CONTAINER` takes one.\n".to_owned(),
        );
    }
    let head = [
        "ID",
        "POD",
        "CONTAINER",
        "IMAGE",
        "SIZE",
        "AGE",
        "RESTORES",
        "LAST",
        "STATE",
    ];
    let mut table = vec![head.map(ToOwned::to_owned)];
    table.extend(rows.map(|(entry, restores)| line(entry, restores)));
    table.extend(unused.iter().map(line_of_unused));
    Ok(columns(&table))
}

/// What programs get.
fn row_of((id, entry): &Entry, restores: Restores) -> Value {
    let mut row = match entry {
        Ok(stored) => summary(stored),
        Err(_) => json!({ "id": id }),
    };
    row["state"] = json!(state(entry));
    row["reason"] = json!(entry.as_ref().err().map(|e| e.message.as_str()));
    row["restores"] = json!(restores.count);
    row["restored"] = json!(
        restores
            .last_unix_s()
            .map(reprise_runtime::timestamp::rfc3339)
    );
    row
}

fn row_of_unused(unused: &Unused) -> Value {
    json!({
        "id": unused.checkpoint,
        "namespace": unused.namespace,
        "checkpoint_image": unused.image,
        "state": "unused",
        "reason": unused.why,
    })
}

fn line_of_unused(unused: &Unused) -> [String; 9] {
    let mut line = std::array::from_fn(|_| dash());
    line[0].clone_from(&unused.checkpoint);
    line[8] = format!("unused: {}: {}", unused.image, unused.why);
    line
}

fn state(entry: &Result<Stored>) -> &'static str {
    match entry {
        Ok(stored) if stored.is_durable() => "ready",
        // It can be restored from, but a crash of the node would lose it.
        Ok(_) => "settling",
        Err(_) => "unusable",
    }
}

fn line((id, entry): &Entry, restores: Restores) -> [String; 9] {
    let count = restores.count.to_string();
    let last = restores.last_unix_s().map_or_else(dash, age);
    let Ok(stored) = entry else {
        let none = || dash();
        let state = format!("unusable; `reprise verify {id}` says why");
        return [
            id.clone(),
            none(),
            none(),
            none(),
            none(),
            none(),
            count,
            last,
            state,
        ];
    };
    let m = stored.manifest();
    let o = &m.origin;
    let pod = match (&o.pod_namespace, &o.pod) {
        (Some(namespace), Some(pod)) => format!("{namespace}/{pod}"),
        (_, pod) => pod.clone().unwrap_or_else(dash),
    };
    [
        id.clone(),
        pod,
        o.name.clone().unwrap_or_else(|| o.container.clone()),
        o.image.clone().unwrap_or_else(dash),
        size(m.image_bytes),
        age(m.created_unix_s),
        count,
        last,
        state(entry).to_owned(),
    ]
}
