//! containerd's content: blobs by digest.

use std::fmt::Write as _;
use std::io::Read;

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::{
    DeleteContentRequest, Info, InfoRequest, ReadContentRequest, StatusRequest, UpdateRequest,
    WriteAction, WriteContentRequest,
};
use containerd_client::tonic::Status;
use containerd_client::tonic::codegen::tokio_stream;
use reprise_runtime::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};

use super::client::{LONG, mask, optional, to_map};
use super::{Client, Labels};

/// What is sent at once; gRPC's usual limit is 4 MiB a message.
const CHUNK: usize = 1 << 20;
/// A manifest, index or config larger than that is none (the OCI distribution
/// specification has registries accept 4 MiB).
const DOCUMENT_LIMIT: usize = 4 << 20;

/// A blob in containerd's content store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    /// `sha256:<hex>`.
    pub(crate) digest: String,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// When it came to this namespace, in milliseconds since the epoch.
    pub(crate) created_unix_ms: u64,
    /// What keeps what.
    pub(crate) labels: Labels,
}

impl From<Info> for Blob {
    fn from(info: Info) -> Self {
        let created_unix_ms = info.created_at.map_or(0, |at| {
            let ms = i128::from(at.seconds) * 1000 + i128::from(at.nanos) / 1_000_000;
            u64::try_from(ms).unwrap_or_default()
        });
        Self {
            created_unix_ms,
            digest: info.digest,
            bytes: u64::try_from(info.size).unwrap_or_default(),
            labels: info.labels.into_iter().collect(),
        }
    }
}

impl Client {
    fn content(&self) -> ContentClient<containerd_client::tonic::transport::Channel> {
        ContentClient::new(self.channel.clone())
    }

    /// Writes a small blob; gives its digest. One that is there already gets the
    /// labels, and the lease holds it.
    pub(crate) fn write_blob(&self, data: &[u8], labels: &Labels) -> Result<String> {
        let digest = digest_of(data);
        let reference = format!("reprise-{}-{digest}", std::process::id());
        let bytes = data.len() as u64;
        self.write_stream(
            &reference,
            std::io::Cursor::new(data.to_vec()),
            bytes,
            &digest,
            labels,
            &|_written| {},
        )?;
        Ok(digest)
    }

    /// Writes a blob of known size and digest from a reader. `reference` is the name
    /// under which containerd keeps what has come so far; `seen` hears how much that is.
    pub(crate) fn write_stream(
        &self,
        reference: &str,
        from: impl Read + Send + 'static,
        bytes: u64,
        digest: &str,
        labels: &Labels,
        seen: &dyn Fn(u64),
    ) -> Result<()> {
        let doing = format!("Cannot write blob {digest}");
        let chunks = Chunks {
            from,
            offset: 0,
            template: WriteContentRequest {
                r#ref: reference.to_owned(),
                total: i64::try_from(bytes).unwrap_or(i64::MAX),
                expected: digest.to_owned(),
                labels: to_map(labels),
                ..WriteContentRequest::default()
            },
            over: false,
        };
        let request = self.request(tokio_stream::iter(chunks));
        let mut client = self.content();
        let written = self.wait(LONG, &doing, async {
            let mut answers = client.write(request).await?.into_inner();
            let mut last = None;
            while let Some(answer) = answers.message().await? {
                seen(u64::try_from(answer.offset).unwrap_or_default());
                last = Some(answer);
            }
            last.ok_or_else(|| Status::unavailable("nothing"))
        });
        match written {
            Ok(answer) if answer.digest == digest => Ok(()),
            Ok(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("{doing}: its end was not reached"),
            )),
            Err(error) if error.kind == ErrorKind::AlreadyExists => {
                self.relabel_blob(digest, labels)
            }
            Err(error) => Err(error),
        }
    }

    /// How many bytes have been written of what is being written under a reference.
    pub(super) async fn written(&self, reference: &str) -> Option<u64> {
        let request = self.request(StatusRequest {
            r#ref: reference.to_owned(),
        });
        let answer = self.content().status(request).await.ok()?;
        u64::try_from(answer.into_inner().status?.offset).ok()
    }

    /// Reads a manifest, index or config whole.
    ///
    /// # Errors
    /// NotFound; more than 4 MiB; bytes that do not have that digest.
    pub(crate) fn read_blob(&self, digest: &str) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        self.each_chunk(digest, &mut |chunk| {
            data.extend_from_slice(chunk);
            if data.len() > DOCUMENT_LIMIT {
                return Err(std::io::Error::other("it is more than a document holds"));
            }
            Ok(())
        })?;
        if digest_of(&data) == digest {
            Ok(data)
        } else {
            Err(Error::internal(format!(
                "Cannot read blob {digest}: its bytes have another digest"
            )))
        }
    }

    /// Hands a blob over piece by piece.
    ///
    /// # Errors
    /// NotFound; what `each` refuses.
    pub(super) fn each_chunk(
        &self,
        digest: &str,
        each: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<()> {
        let doing = format!("Cannot read blob {digest}");
        let request = self.request(ReadContentRequest {
            digest: digest.to_owned(),
            ..ReadContentRequest::default()
        });
        let mut client = self.content();
        self.wait(LONG, &doing, async {
            let mut answers = client.read(request).await?.into_inner();
            while let Some(answer) = answers.message().await? {
                each(&answer.data).map_err(|e| Status::aborted(e.to_string()))?;
            }
            Ok(())
        })
    }

    /// What is known of a blob, if it is there.
    pub(crate) fn blob(&self, digest: &str) -> Result<Option<Blob>> {
        let request = self.request(InfoRequest {
            digest: digest.to_owned(),
        });
        let mut client = self.content();
        let info = self.call(
            format_args!("Cannot look at blob {digest}"),
            client.info(request),
        );
        Ok(optional(info)?
            .and_then(|answer| answer.info)
            .map(Blob::from))
    }

    /// Sets labels of a blob; an empty value removes one. Others stay.
    pub(crate) fn relabel_blob(&self, digest: &str, labels: &Labels) -> Result<()> {
        let request = self.request(UpdateRequest {
            info: Some(Info {
                digest: digest.to_owned(),
                labels: to_map(labels),
                ..Info::default()
            }),
            update_mask: Some(mask(labels)),
        });
        let mut client = self.content();
        self.call(
            format_args!("Cannot label blob {digest}"),
            client.update(request),
        )
        .map(drop)
    }

    /// Removes a blob; none there is no error.
    pub(crate) fn remove_blob(&self, digest: &str) -> Result<()> {
        let request = self.request(DeleteContentRequest {
            digest: digest.to_owned(),
        });
        let mut client = self.content();
        let removed = self.call(
            format_args!("Cannot remove blob {digest}"),
            client.delete(request),
        );
        optional(removed).map(drop)
    }
}

/// A blob as the messages that carry it; the last one commits.
struct Chunks<R> {
    from: R,
    offset: i64,
    template: WriteContentRequest,
    over: bool,
}

impl<R: Read> Iterator for Chunks<R> {
    type Item = WriteContentRequest;

    fn next(&mut self) -> Option<WriteContentRequest> {
        if self.over {
            return None;
        }
        let mut data = Vec::with_capacity(CHUNK);
        let read = self.from.by_ref().take(CHUNK as u64).read_to_end(&mut data);
        // A reader that fails ends the stream without a commit, and containerd
        // then answers without a digest.
        read.ok()?;
        let offset = self.offset;
        self.offset += i64::try_from(data.len()).unwrap_or_default();
        self.over = data.is_empty();
        let action = if self.over {
            WriteAction::Commit
        } else {
            WriteAction::Write
        };
        Some(WriteContentRequest {
            action: action.into(),
            offset,
            data,
            ..self.template.clone()
        })
    }
}

/// `sha256:<hex>` of some bytes.
pub(crate) fn digest_of(data: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(data) {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_sent_in_chunks_and_committed_once_at_its_end() {
        let data = vec![7; CHUNK + 5];
        let chunks = Chunks {
            from: data.as_slice(),
            offset: 0,
            template: WriteContentRequest::default(),
            over: false,
        };
        let sent: Vec<(i64, usize, i32)> = chunks
            .map(|chunk| (chunk.offset, chunk.data.len(), chunk.action))
            .collect();
        let (write, commit) = (WriteAction::Write.into(), WriteAction::Commit.into());
        let size = |n: usize| i64::try_from(n).unwrap();
        assert_eq!(
            sent,
            [
                (0, CHUNK, write),
                (size(CHUNK), 5, write),
                (size(CHUNK + 5), 0, commit)
            ]
        );
    }

    #[test]
    fn digests_are_sha256() {
        assert_eq!(
            digest_of(b""),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
