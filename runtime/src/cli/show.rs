//! How checkpoints are shown: tables and pages for people, JSON for programs.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use reprise_runtime::node;
use reprise_runtime::store::{self, Stored};
use reprise_runtime::timestamp::rfc3339;
use serde_json::{Value, json};

/// A JSON array, and a newline.
pub(super) fn json(rows: Vec<Value>) -> String {
    format!("{:#}\n", Value::Array(rows))
}

/// What programs get of a checkpoint.
pub(super) fn summary(stored: &Stored) -> Value {
    let m = stored.manifest();
    json!({
        "id": m.id,
        "container": m.origin.container,
        "name": m.origin.name,
        "namespace": m.origin.namespace,
        "pod": m.origin.pod,
        "pod_namespace": m.origin.pod_namespace,
        "image": m.origin.image,
        "created": rfc3339(m.created_unix_s),
        "bytes": m.image_bytes,
        "frozen_ms": milliseconds(m.frozen_us),
        "fingerprint": m.fingerprint,
        "durable": stored.is_durable(),
    })
}

/// Everything about a checkpoint.
pub(super) fn whole(stored: &Stored, run_root: &Path) -> Value {
    let m = stored.manifest();
    let mut all = summary(stored);
    all["needs"] = json!(m.needs);
    all["files"] = json!(m.files);
    all["layers"] = json!(m.layers);
    all["fields"] = json!(m.fields);
    all["path"] = json!(stored.dir());
    all["used_by"] = json!(store::users(run_root, &m.id));
    all
}

/// Everything about a checkpoint, for people.
pub(super) fn page(stored: &Stored, run_root: &Path) -> String {
    let m = stored.manifest();
    let o = &m.origin;
    let text = |t: &Option<String>| t.clone().unwrap_or_else(dash);
    let users = store::users(run_root, &m.id);
    let features = m.needs.cpu_features.len();
    let rows = [
        ("id", m.id.clone()),
        ("container", format!("{} ({})", text(&o.name), o.container)),
        (
            "pod",
            format!("{}/{}", text(&o.pod_namespace), text(&o.pod)),
        ),
        ("namespace", o.namespace.clone()),
        ("image", text(&o.image)),
        (
            "created",
            format!(
                "{} ({} ago)",
                rfc3339(m.created_unix_s),
                age(m.created_unix_s)
            ),
        ),
        (
            "size",
            format!("{} in {} files", size(m.image_bytes), m.files.len()),
        ),
        ("memory", size(m.needs.memory_bytes)),
        ("layers", m.layers.len().to_string()),
        ("stood still", format!("{} ms", milliseconds(m.frozen_us))),
        (
            "needs",
            format!(
                "{}, CRIU {} or later, {features} CPU features",
                m.needs.arch,
                node::show(m.needs.criu_version)
            ),
        ),
        ("made on", format!("Linux {}", m.needs.kernel)),
        ("fingerprint", m.fingerprint.to_string()),
        (
            "on disk",
            if stored.is_durable() {
                "yes"
            } else {
                "being written"
            }
            .to_owned(),
        ),
        (
            "used by",
            if users.is_empty() {
                dash()
            } else {
                users.join(", ")
            },
        ),
        ("path", stored.dir().display().to_string()),
    ];
    columns(&rows.map(|(name, value)| [format!("{name}:"), value]))
}

/// For what there is none of.
pub(super) fn dash() -> String {
    "-".to_owned()
}

/// Rows with aligned columns.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Microseconds as milliseconds with one decimal.
#[expect(
    clippy::cast_precision_loss,
    reason = "shown with one decimal; exact up to 285 years"
)]
pub(super) fn milliseconds(us: u64) -> f64 {
    (us as f64 / 100.0).round() / 10.0
}

/// `297.4 MiB`.
#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB"].into_iter();
    while value >= 1024.0 && units.len() > 1 {
        value /= 1024.0;
        units.next();
    }
    match units.next() {
        Some("B") | None => format!("{bytes} B"),
        Some(unit) => format!("{value:.1} {unit}"),
    }
}

/// How long ago, in its largest unit: `3h`.
pub(super) fn age(unix_s: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let s = now.saturating_sub(unix_s);
    match s {
        0..=119 => format!("{s}s"),
        120..=7199 => format!("{}m", s / 60),
        7200..=172_799 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_for_people() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(311_846_502), "297.4 MiB");
        assert_eq!(size(5 << 40), "5120.0 GiB");
        assert!((milliseconds(12_345) - 12.3).abs() < 1e-9);
    }

    #[test]
    fn columns_line_up() {
        let rows = [["A", "B"], ["long", "x"]].map(|r| r.map(ToOwned::to_owned));
        assert_eq!(columns(&rows), "A     B\nlong  x\n");
    }
}
