//! containerd's differ: layers from snapshots, snapshots from layers.

use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::{ApplyRequest, DiffRequest};
use containerd_client::types::{Descriptor, Mount};
use reprise_runtime::{Error, Result};

use super::client::{LONG, to_map};
use super::{Client, Labels};

impl Client {
    fn differ(&self) -> DiffClient<containerd_client::tonic::transport::Channel> {
        DiffClient::new(self.channel.clone())
    }

    /// Unpacks a layer onto mounts; the answer describes the uncompressed layer.
    pub(crate) fn apply(&self, layer: &Descriptor, mounts: Vec<Mount>) -> Result<Descriptor> {
        let doing = format!("Cannot unpack layer {}", layer.digest);
        let request = self.request(ApplyRequest {
            diff: Some(layer.clone()),
            mounts,
            ..ApplyRequest::default()
        });
        let mut client = self.differ();
        let answer = self.wait(LONG, &doing, async {
            client
                .apply(request)
                .await
                .map(|answer| answer.into_inner())
        })?;
        answer
            .applied
            .ok_or_else(|| Error::internal(format!("{doing}: containerd says nothing of it")))
    }

    /// Packs what `right` has beyond `left` into a layer of the given media type. Its
    /// label `containerd.io/uncompressed` has the uncompressed digest.
    pub(crate) fn diff(
        &self,
        left: Vec<Mount>,
        right: Vec<Mount>,
        media_type: &str,
        reference: &str,
        labels: &Labels,
    ) -> Result<Descriptor> {
        let doing = "Cannot pack a layer";
        let request = self.request(DiffRequest {
            left,
            right,
            media_type: media_type.to_owned(),
            r#ref: reference.to_owned(),
            labels: to_map(labels),
            ..DiffRequest::default()
        });
        let mut client = self.differ();
        let answer = self.wait(LONG, doing, async {
            client.diff(request).await.map(|answer| answer.into_inner())
        })?;
        answer
            .diff
            .ok_or_else(|| Error::internal(format!("{doing}: containerd says nothing of it")))
    }
}
