//! What containerd's CRI plugin does for runc's shim alone, done for it by us.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// CRIU's statistics, under the name that it gives them.
const STATISTICS: &str = "stats-dump";

/// What of a bundle's `config.json` tells where the plugin keeps its files.
#[derive(Deserialize, Default)]
struct Mounts {
    #[serde(default)]
    mounts: Vec<Mount>,
}

#[derive(Deserialize)]
struct Mount {
    #[serde(default)]
    source: PathBuf,
}

/// Puts a dump's statistics into the archive that the plugin is about to write
/// (`crictl checkpoint`), where `checkpointctl inspect` looks for them. The plugin
/// has only runc's shim write there: it sets `WorkPath` to `<root>/containers/<id>/
/// ctrd-checkpoint` (`withCheckpointOpts`, containerd 2.2.9, 2.3.7, 2.4.2).
/// Whatever is not as expected, the archive lacks them, no more.
pub(crate) fn add_statistics(bundle: &Path, id: &str, images: &Path) {
    let Some(archive) = archive_dir(bundle, id).filter(|dir| dir.is_dir()) else {
        return;
    };
    if let Err(error) = std::fs::copy(images.join(STATISTICS), archive.join(STATISTICS)) {
        log::debug!(container = id, error = error.to_string().as_str(); "the archive has no statistics");
    }
}

/// The directory whose content becomes the archive: the plugin's root is known
/// from the files that it mounts into every container.
fn archive_dir(bundle: &Path, id: &str) -> Option<PathBuf> {
    let text = std::fs::read(bundle.join("config.json")).ok()?;
    let spec: Mounts = serde_json::from_slice(&text).ok()?;
    spec.mounts.iter().find_map(|mount| {
        // <root>/sandboxes/<sandbox>/hostname
        let sandboxes = mount.source.parent()?.parent()?;
        (sandboxes.ends_with("sandboxes") && mount.source.ends_with("hostname"))
            .then(|| sandboxes.with_file_name("containers").join(id))
            .map(|container| container.join("ctrd-checkpoint"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugins_root_is_found_by_what_it_mounts() {
        let dir = tempfile::tempdir().unwrap();
        let spec = r#"{"mounts": [
            {"destination": "/proc", "source": "proc"},
            {"destination": "/data", "source": "/home/hostname"},
            {"destination": "/etc/hostname", "source": "/var/lib/cri/sandboxes/s1/hostname"}]}"#;
        std::fs::write(dir.path().join("config.json"), spec).unwrap();
        let expected = Path::new("/var/lib/cri/containers/c1/ctrd-checkpoint");
        assert_eq!(archive_dir(dir.path(), "c1").as_deref(), Some(expected));
    }

    #[test]
    fn a_container_without_a_pod_has_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), "{}").unwrap();
        assert_eq!(archive_dir(dir.path(), "c1"), None);
    }
}
