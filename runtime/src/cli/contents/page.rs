//! A checkpoint's contents, for people.

use super::super::show::{columns, size};
use super::Contents;

/// Processes, what they have open, and mounts.
pub(in super::super) fn page(contents: &Contents) -> String {
    let open: Vec<String> = contents
        .kinds()
        .into_iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    let or_none = |list: Vec<String>| {
        if list.is_empty() {
            "none".to_owned()
        } else {
            list.join(", ")
        }
    };
    format!(
        "\n{}\n{}\n{}",
        processes(contents),
        columns(&[
            ["open:".to_owned(), or_none(open)],
            ["listening:".to_owned(), or_none(contents.listening())],
        ]),
        mounts(contents)
    )
}

fn processes(contents: &Contents) -> String {
    let head = [
        "PID", "PARENT", "STATE", "THREADS", "MEMORY", "OPEN", "COMMAND",
    ];
    let mut rows = vec![head.map(ToOwned::to_owned)];
    rows.extend(contents.processes.iter().map(|p| {
        [
            p.pid.to_string(),
            p.parent.to_string(),
            p.state.to_owned(),
            p.threads.to_string(),
            size(p.memory_bytes),
            p.files.len().to_string(),
            p.command.clone(),
        ]
    }));
    columns(&rows)
}

fn mounts(contents: &Contents) -> String {
    let mut rows = vec![["MOUNT", "KIND", "COMES FROM"].map(ToOwned::to_owned)];
    rows.extend(contents.mounts.iter().map(|m| {
        let from = if m.external {
            "the new container"
        } else {
            "the checkpoint"
        };
        [m.path.clone(), m.kind.clone(), from.to_owned()]
    }));
    columns(&rows)
}
