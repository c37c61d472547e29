//! containerd's differ: layers from snapshots, snapshots from layers.

use std::pin::pin;
use std::time::Duration;

use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::{ApplyRequest, DiffRequest};
use containerd_client::types::{Descriptor, Mount};
use reprise_runtime::{Error, Result};

use super::Client;
use super::client::LONG;
use super::meter::Meter;

/// How often one looks how much of a layer there is.
const LOOK_EVERY: Duration = Duration::from_millis(300);

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
    /// label `containerd.io/uncompressed` has the uncompressed digest. The meter says
    /// how much of it has been written, as compressed.
    pub(crate) fn diff(
        &self,
        left: Vec<Mount>,
        right: Vec<Mount>,
        media_type: &str,
        reference: &str,
        meter: &Meter,
    ) -> Result<Descriptor> {
        let doing = "Cannot pack a layer";
        let request = self.request(DiffRequest {
            left,
            right,
            media_type: media_type.to_owned(),
            r#ref: reference.to_owned(),
            ..DiffRequest::default()
        });
        let mut client = self.differ();
        let answer = self.wait(LONG, doing, async {
            let mut packed = pin!(client.diff(request));
            loop {
                tokio::select! {
                    answer = &mut packed => return answer.map(|answer| answer.into_inner()),
                    () = tokio::time::sleep(LOOK_EVERY) => {
                        if let Some(bytes) = self.written(reference).await {
                            meter.set(bytes, 0);
                        }
                    }
                }
            }
        })?;
        answer
            .diff
            .ok_or_else(|| Error::internal(format!("{doing}: containerd says nothing of it")))
    }
}
