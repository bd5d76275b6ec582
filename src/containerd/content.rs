use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::{AbortRequest, ReadContentRequest};
use tonic::Code;

use super::client::{MESSAGE_LIMIT, READ_DEADLINE, WRITE_DEADLINE, in_namespace};
use super::{Containerd, ContainerdError};
use crate::types::Digest;

/// A manifest or a configuration is small; what is larger than this isn't one.
const BLOB_LIMIT: usize = 8 << 20;

impl Containerd {
    /// A small blob of the content store (a configuration, a manifest), or `None` where it isn't there. Its digest
    /// has been checked.
    ///
    /// # Errors
    /// When a call fails, or the blob is over 8 MiB, or its bytes don't have that digest.
    pub async fn read_blob(&self, blob: Digest) -> Result<Option<Vec<u8>>, ContainerdError> {
        let what = format!("read the blob {blob}");
        match tokio::time::timeout(READ_DEADLINE, self.read_all(blob, &what)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.late(&what, READ_DEADLINE)),
        }
    }

    /// Throws away the half-written blob called `name`. One that isn't there is no error.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn abort_ingest(&self, name: &str) -> Result<(), ContainerdError> {
        let what = format!("throw away the half-written blob {name}");
        let request = in_namespace(AbortRequest { r#ref: name.to_owned() });
        let mut client = ContentClient::new(self.channel());
        match self.call(&what, WRITE_DEADLINE, client.abort(request)).await {
            Ok(()) | Err(ContainerdError::Call { code: Code::NotFound, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn read_all(&self, blob: Digest, what: &str) -> Result<Option<Vec<u8>>, ContainerdError> {
        let answer =
            |problem: &str| ContainerdError::Answer { what: what.to_owned(), problem: problem.to_owned() };
        let request = in_namespace(ReadContentRequest { digest: blob.to_string(), offset: 0, size: 0 });
        let mut client = ContentClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT);
        let mut stream = match client.read(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(self.error(what, &status)),
        };
        let mut bytes = Vec::new();
        loop {
            match stream.message().await {
                Ok(Some(piece)) if bytes.len() + piece.data.len() > BLOB_LIMIT => {
                    return Err(answer("it is over 8 MiB"));
                }
                Ok(Some(piece)) => bytes.extend_from_slice(&piece.data),
                Ok(None) => break,
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                Err(status) => return Err(self.error(what, &status)),
            }
        }
        if Digest::of(&bytes) == blob {
            Ok(Some(bytes))
        } else {
            Err(answer("its bytes have another digest"))
        }
    }
}
