use std::collections::BTreeMap;
use std::fmt;

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::{
    Info, InfoRequest, ReadContentRequest, ReadContentResponse, UpdateRequest,
};
use prost_types::FieldMask;
use tonic::{Code, Streaming};

use super::client::{MESSAGE_LIMIT, READ_DEADLINE, WRITE_DEADLINE, in_namespace};
use super::{Containerd, ContainerdError};
use crate::types::Digest;

/// A blob of the content store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its size in bytes.
    pub size: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Bytes of a blob, as containerd sends them.
pub struct BlobReader {
    containerd: Containerd,
    what: String,
    stream: Streaming<ReadContentResponse>,
}

impl Containerd {
    /// What the content store has of a blob, or `None`.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn blob_info(&self, blob: Digest) -> Result<Option<BlobInfo>, ContainerdError> {
        let what = format!("find the blob {blob}");
        let request = in_namespace(InfoRequest { digest: blob.to_string() });
        let mut client = ContentClient::new(self.channel());
        match self.call(&what, READ_DEADLINE, client.info(request)).await {
            Ok(answer) => Ok(answer.info.map(|info| BlobInfo {
                size: u64::try_from(info.size).unwrap_or_default(),
                labels: info.labels.into_iter().collect(),
            })),
            Err(ContainerdError::Call { code: Code::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets labels on a blob; its other labels stay as they are, also when they were changed meanwhile.
    ///
    /// # Errors
    /// When the call fails, also because there is no such blob.
    pub async fn label_blob(
        &self,
        blob: Digest,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), ContainerdError> {
        if labels.is_empty() {
            return Ok(());
        }
        let what = format!("label the blob {blob}");
        let set = labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let request = in_namespace(UpdateRequest {
            // containerd 2.4.2 panics, and dies, on an update without it.
            info: Some(Info { digest: blob.to_string(), labels: set, ..Info::default() }),
            update_mask: Some(FieldMask {
                paths: labels.keys().map(|key| format!("labels.{key}")).collect(),
            }),
        });
        let mut client = ContentClient::new(self.channel());
        self.call(&what, WRITE_DEADLINE, client.update(request)).await.map(drop)
    }

    /// Reads `length` bytes of a blob from `offset` on, or up to its end where that comes first; `None` where there is
    /// no such blob. Nothing checks their digest.
    ///
    /// # Errors
    /// When the call fails, also because `offset` is behind the blob's end.
    pub async fn read_range(
        &self,
        blob: Digest,
        offset: u64,
        length: u64,
    ) -> Result<Option<BlobReader>, ContainerdError> {
        let what = format!("read the blob {blob}");
        let number = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        if length == 0 {
            // containerd takes that for "all of it".
            let problem = "no bytes were asked for".to_owned();
            return Err(ContainerdError::Answer { what, problem });
        }
        // The end must not overflow in containerd's sum.
        let size = number(length).min(i64::MAX - number(offset));
        let request =
            in_namespace(ReadContentRequest { digest: blob.to_string(), offset: number(offset), size });
        let mut client = ContentClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT);
        match self.call(&what, READ_DEADLINE, client.read(request)).await {
            Ok(stream) => Ok(Some(BlobReader { containerd: self.clone(), what, stream })),
            Err(ContainerdError::Call { code: Code::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl BlobReader {
    /// The next bytes, never none, or `None` at the end.
    ///
    /// # Errors
    /// When the call fails, or containerd sends nothing for a while.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ContainerdError> {
        loop {
            match tokio::time::timeout(READ_DEADLINE, self.stream.message()).await {
                Ok(Ok(Some(piece))) if piece.data.is_empty() => {}
                Ok(Ok(piece)) => return Ok(piece.map(|piece| piece.data)),
                Ok(Err(status)) => return Err(self.containerd.error(&self.what, &status)),
                Err(_) => return Err(self.containerd.late(&self.what, READ_DEADLINE)),
            }
        }
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlobReader").field(&self.what).finish()
    }
}
