//! `reprise explain`: why a container was or was not restored.

use std::path::Path;

use clap::Args;
use reprise_runtime::checkpoint::{Manifest, Origin};
use reprise_runtime::explain::{Nearest, nearest};
use reprise_runtime::start::{Decision, Start};
use reprise_runtime::store::Stored;
use reprise_runtime::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::{Places, checkpoint::dirs, show};

/// How wide a value may be in a table.
const WIDTH: usize = 60;

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Pod (NAME or NAMESPACE/NAME), or container id or a prefix of it
    #[arg(value_name = "POD|CONTAINER")]
    whom: String,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn run(&self, places: &Places) -> Result<String> {
        let starts = self.find(&places.run_root)?;
        let store = places.open()?;
        let all = store.list()?;
        let told: Vec<(Start, Option<Nearest>)> = starts
            .into_iter()
            .map(|start| {
                let near = nearest(&start, all.iter().map(Stored::manifest));
                (start, near)
            })
            .collect();
        Ok(if self.json {
            show::json(
                told.iter()
                    .map(|(start, near)| row(start, near.as_ref()))
                    .collect(),
            )
        } else {
            let pages = told.iter().map(|(start, near)| {
                let of = near.as_ref().map(|near| {
                    let stored = all.iter().find(|s| s.id() == near.checkpoint);
                    (near, stored.map(Stored::manifest))
                });
                page(start, of)
            });
            let mut text = pages.collect::<Vec<_>>().join("\n");
            for unused in store.unused() {
                text.push_str(&format!("not used:  {}: {}\n", unused.image, unused.why));
            }
            text
        })
    }

    /// What was noted of the containers that are meant, by pod and name.
    fn find(&self, run_root: &Path) -> Result<Vec<Start>> {
        let mut found = Vec::new();
        let mut silent = None;
        for namespace in dirs(run_root) {
            let dir = run_root.join(&namespace);
            for id in dirs(&dir)
                .into_iter()
                .filter(|id| dir.join(id).join("address").exists())
            {
                match Start::read(&dir.join(&id))? {
                    Some(start) if self.means(&start.origin) => found.push(start),
                    None if id.starts_with(&self.whom) => silent = Some(id),
                    _ => {}
                }
            }
        }
        found.sort_by(|a, b| key(&a.origin).cmp(&key(&b.origin)));
        match silent {
            _ if !found.is_empty() => Ok(found),
            Some(id) => Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "Nothing was noted of how {id} started: it is a pod's sandbox, or was made by \
                     an older shim"
                ),
            )),
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "There is no pod or container {} under Reprise; `crictl pods` and `crictl ps` \
                     show them",
                    self.whom
                ),
            )),
        }
    }

    fn means(&self, origin: &Origin) -> bool {
        let whom = self.whom.as_str();
        let pod = origin.pod.as_deref();
        !whom.is_empty()
            && (origin.container.starts_with(whom)
                || pod == Some(whom)
                || whom.split_once('/').is_some_and(|(namespace, name)| {
                    pod == Some(name) && origin.pod_namespace.as_deref() == Some(namespace)
                }))
    }
}

/// Containers of a pod stay together.
fn key(origin: &Origin) -> [Option<&str>; 4] {
    [
        origin.pod_namespace.as_deref(),
        origin.pod.as_deref(),
        origin.name.as_deref(),
        Some(&origin.container),
    ]
}

fn row(start: &Start, near: Option<&Nearest>) -> Value {
    json!({ "origin": start.origin, "decision": start.decision, "nearest": near })
}

fn page(start: &Start, near: Option<(&Nearest, Option<&Manifest>)>) -> String {
    let origin = &start.origin;
    let mut rows = vec![
        ["container:".to_owned(), called(origin)],
        ["started:".to_owned(), decided(&start.decision)],
    ];
    let restored_from = match &start.decision {
        Decision::Restore { checkpoint } => Some(checkpoint),
        Decision::Cold { .. } => None,
    };
    let Some((near, manifest)) = near else {
        let why = if start.fields.is_empty() {
            "not known, since its image or its volumes cannot be compared"
        } else {
            "there is no checkpoint on this node"
        };
        rows.push(["nearest:".to_owned(), why.to_owned()]);
        return show::columns(&rows);
    };
    if restored_from == Some(&near.checkpoint) {
        return show::columns(&rows);
    }
    let whose = manifest.map_or_else(String::new, |m| format!(", {}", called(&m.origin)));
    rows.push(["nearest:".to_owned(), format!("{}{whose}", near.checkpoint)]);
    let differs = match near.fields.as_slice() {
        [] => "nothing; the next container of its kind is restored from it".to_owned(),
        fields => fields.join(", "),
    };
    rows.push(["differs in:".to_owned(), differs]);
    let mut text = show::columns(&rows);
    if !near.differences.is_empty() {
        let mut table =
            vec![["FIELD", "WHAT", "THIS CONTAINER", "CHECKPOINT"].map(ToOwned::to_owned)];
        table.extend(near.differences.iter().map(|d| {
            let what = d.what.clone().unwrap_or_else(|| "-".to_owned());
            [d.field.clone(), what, cell(&d.here), cell(&d.there)]
        }));
        text.push_str(&show::columns(&table));
    }
    text
}

fn called(origin: &Origin) -> String {
    let id: String = origin.container.chars().take(13).collect();
    match (&origin.pod_namespace, &origin.pod, &origin.name) {
        (Some(namespace), Some(pod), Some(name)) => format!("{name} of {namespace}/{pod} ({id})"),
        _ => id,
    }
}

fn decided(decision: &Decision) -> String {
    match decision {
        Decision::Cold { reason, .. } => format!("cold: {reason}"),
        Decision::Restore { checkpoint } => format!("restored from {checkpoint}"),
    }
}

/// A value in a table: texts as they are, `-` for none, not too long.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.escape_debug().to_string(),
        other => other.to_string(),
    };
    if text.chars().count() <= WIDTH {
        return text;
    }
    let mut short: String = text.chars().take(WIDTH - 3).collect();
    short.push_str("...");
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fit_into_a_table() {
        assert_eq!(cell(&Value::Null), "-");
        assert_eq!(cell(&json!("a\nb")), "a\\nb");
        assert_eq!(cell(&json!(["x", 1])), r#"["x",1]"#);
        assert_eq!(cell(&json!("x".repeat(99))).chars().count(), WIDTH);
    }

    #[test]
    fn pods_and_containers_are_meant_by_name_and_prefix() {
        let origin = Origin {
            namespace: "k8s.io".to_owned(),
            container: "0abc".to_owned(),
            name: Some("web".to_owned()),
            pod: Some("web-1".to_owned()),
            pod_namespace: Some("default".to_owned()),
            image: None,
        };
        let means = |whom: &str| {
            let whom = whom.to_owned();
            Explain { whom, json: false }.means(&origin)
        };
        for yes in ["0a", "0abc", "web-1", "default/web-1"] {
            assert!(means(yes), "{yes}");
        }
        for no in ["", "web", "abc", "other/web-1", "default/web"] {
            assert!(!means(no), "{no}");
        }
    }
}
