//! containerd's snapshots, of any snapshotter.

use std::path::{Path, PathBuf};

use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, Info, Kind as ApiKind, PrepareSnapshotRequest, RemoveSnapshotRequest,
    StatSnapshotRequest, ViewSnapshotRequest,
};
use containerd_client::types::Mount;
use reprise_runtime::maker::Maker;
use reprise_runtime::{Error, ErrorKind, Result};

use super::client::{LONG, optional, to_map};
use super::{Client, Labels};

/// What a snapshot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Somebody writes to it, under its key.
    Active,
    /// Somebody reads it, under its key.
    View,
    /// It is finished, and can be a parent.
    Committed,
}

/// What is known of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Its name, or its key while it is no committed one.
    pub(crate) name: String,
    /// What it lies on; empty for none.
    pub(crate) parent: String,
    /// What it is for.
    pub(crate) kind: Kind,
    /// What keeps what.
    pub(crate) labels: Labels,
}

impl From<Info> for Snapshot {
    fn from(info: Info) -> Self {
        let kind = match info.kind() {
            ApiKind::Committed => Kind::Committed,
            ApiKind::Active => Kind::Active,
            ApiKind::View | ApiKind::Unknown => Kind::View,
        };
        Self {
            name: info.name,
            parent: info.parent,
            kind,
            labels: info.labels.into_iter().collect(),
        }
    }
}

impl Client {
    fn snapshots(&self) -> SnapshotsClient<containerd_client::tonic::transport::Channel> {
        SnapshotsClient::new(self.channel.clone())
    }

    /// Makes a snapshot that can be written to; `parent` may be empty.
    pub(crate) fn prepare_snapshot(
        &self,
        snapshotter: &str,
        key: &str,
        parent: &str,
        labels: &Labels,
    ) -> Result<Vec<Mount>> {
        let request = self.request(PrepareSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: to_map(labels),
        });
        let mut client = self.snapshots();
        let doing = format_args!("Cannot make a snapshot in {snapshotter}");
        Ok(self.call(doing, client.prepare(request))?.mounts)
    }

    /// Makes a snapshot that shows its parent and cannot be written to.
    pub(crate) fn view_snapshot(
        &self,
        snapshotter: &str,
        key: &str,
        parent: &str,
        labels: &Labels,
    ) -> Result<Vec<Mount>> {
        let request = self.request(ViewSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: to_map(labels),
        });
        let mut client = self.snapshots();
        let doing = format_args!("Cannot look into snapshot {parent} of {snapshotter}");
        Ok(self.call(doing, client.view(request))?.mounts)
    }

    /// Finishes the active snapshot `key` under the name `name`.
    pub(crate) fn commit_snapshot(
        &self,
        snapshotter: &str,
        name: &str,
        key: &str,
        labels: &Labels,
    ) -> Result<()> {
        let request = self.request(CommitSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels: to_map(labels),
        });
        let mut client = self.snapshots();
        let doing = format_args!("Cannot commit snapshot {name} of {snapshotter}");
        // The native snapshotters count every file's size first.
        self.wait(LONG, doing, async {
            client.commit(request).await.map(drop)
        })
    }

    /// Makes the committed snapshot `name` of what `fill` puts into its directory;
    /// nothing, when it is there.
    ///
    /// # Errors
    /// containerd's, what `fill` says. Nothing is left then.
    pub(crate) fn filled_snapshot(
        &self,
        snapshotter: &str,
        name: &str,
        labels: &Labels,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        if self.snapshot(snapshotter, name)?.is_some() {
            return Ok(());
        }
        let key = format!("{name}-new-{}", Maker::me());
        let mounts = self.prepare_snapshot(snapshotter, &key, "", labels)?;
        let filled = directory(snapshotter, &mounts)
            .and_then(|dir| fill(&dir))
            .and_then(|()| self.commit_snapshot(snapshotter, name, &key, labels));
        match filled {
            // Another one was faster.
            Err(error) if error.kind == ErrorKind::AlreadyExists => {
                self.remove_snapshot(snapshotter, &key)
            }
            Err(error) => {
                // The lease gives it up, if this does not.
                self.remove_snapshot(snapshotter, &key).ok();
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// The directories that a committed snapshot and those below it are, uppermost
    /// first; `None` if there is no such snapshot.
    pub(crate) fn lower(&self, snapshotter: &str, name: &str) -> Result<Option<Vec<String>>> {
        if self.snapshot(snapshotter, name)?.is_none() {
            return Ok(None);
        }
        let key = format!("reprise-look-{}-{name}", Maker::me());
        let mounts = self.view_snapshot(snapshotter, &key, name, &Labels::new())?;
        self.remove_snapshot(snapshotter, &key)?;
        Ok(lower_directories(&mounts)
            .map(|dirs| dirs.iter().map(|dir| dir.display().to_string()).collect()))
    }

    /// Directory of a committed snapshot without a parent.
    ///
    /// # Errors
    /// FailedPrecondition: it is kept in no directory.
    pub(crate) fn directory_of(&self, snapshotter: &str, name: &str) -> Result<PathBuf> {
        let dirs = self.lower(snapshotter, name)?.unwrap_or_default();
        dirs.into_iter().next().map(PathBuf::from).ok_or_else(|| {
            Error::new(
                ErrorKind::FailedPrecondition,
                format!("Snapshotter {snapshotter} keeps {name} in no directory; use overlayfs"),
            )
        })
    }

    /// What is known of a snapshot, if it is there.
    pub(crate) fn snapshot(&self, snapshotter: &str, key: &str) -> Result<Option<Snapshot>> {
        let request = self.request(StatSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        });
        let mut client = self.snapshots();
        let doing = format_args!("Cannot look at snapshot {key} of {snapshotter}");
        let found = optional(self.call(doing, client.stat(request)))?;
        Ok(found.and_then(|answer| answer.info).map(Snapshot::from))
    }

    /// Removes a snapshot that nothing lies on; none there is no error.
    pub(crate) fn remove_snapshot(&self, snapshotter: &str, key: &str) -> Result<()> {
        let request = self.request(RemoveSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        });
        let mut client = self.snapshots();
        let doing = format_args!("Cannot remove snapshot {key} of {snapshotter}");
        optional(self.call(doing, client.remove(request))).map(drop)
    }
}

/// The directory that a snapshot without a parent is. Snapshotters that give a
/// block device have none.
///
/// # Errors
/// FailedPrecondition: the mounts are no bind of one directory.
pub(crate) fn directory(snapshotter: &str, mounts: &[Mount]) -> Result<PathBuf> {
    match mounts {
        [mount] if mount.r#type == "bind" => Ok(PathBuf::from(&mount.source)),
        _ => Err(Error::new(
            ErrorKind::FailedPrecondition,
            format!(
                "Snapshotter {snapshotter} keeps its snapshots in no directory, so no \
                 checkpoint can be kept in it; use overlayfs"
            ),
        )),
    }
}

/// The directories that a view of an image's uppermost snapshot shows, uppermost
/// first: what an overlay of it has as `lowerdir`. `None` for other snapshotters.
pub(crate) fn lower_directories(mounts: &[Mount]) -> Option<Vec<PathBuf>> {
    let [mount] = mounts else { return None };
    match mount.r#type.as_str() {
        // One layer alone needs no overlay.
        "bind" => Some(vec![PathBuf::from(&mount.source)]),
        "overlay" => mount
            .options
            .iter()
            .find_map(|option| option.strip_prefix("lowerdir="))
            .map(|dirs| dirs.split(':').map(PathBuf::from).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(typ: &str, source: &str, options: &[&str]) -> Mount {
        Mount {
            r#type: typ.to_owned(),
            source: source.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn a_bind_is_a_directory_and_nothing_else_is() {
        let bind = [mount("bind", "/s/1/fs", &["rw", "rbind"])];
        assert_eq!(
            directory("overlayfs", &bind).unwrap(),
            PathBuf::from("/s/1/fs")
        );
        let device = [mount("ext4", "/dev/dm-1", &[])];
        let error = directory("devmapper", &device).unwrap_err();
        assert!(error.message.contains("devmapper"), "{error}");
    }

    #[test]
    fn lower_directories_come_uppermost_first() {
        let overlay = [mount("overlay", "overlay", &["lowerdir=/s/2/fs:/s/1/fs"])];
        let dirs = ["/s/2/fs", "/s/1/fs"].map(PathBuf::from).to_vec();
        assert_eq!(lower_directories(&overlay), Some(dirs));
        let bind = [mount("bind", "/s/1/fs", &["ro"])];
        assert_eq!(
            lower_directories(&bind),
            Some(vec![PathBuf::from("/s/1/fs")])
        );
        assert_eq!(lower_directories(&[mount("ext4", "/dev/dm-1", &[])]), None);
    }
}
