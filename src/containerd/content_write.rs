use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::{WriteAction, WriteContentRequest, WriteContentResponse};
use futures::SinkExt as _;
use futures::channel::mpsc;
use tonic::{Code, Streaming};

use super::client::{MESSAGE_LIMIT, WRITE_DEADLINE, under};
use super::ingest::IngestFile;
use super::{Containerd, ContainerdError, Lease};
use crate::types::{Descriptor, Digest};

/// Bytes of one message: few messages, and far below what gRPC takes.
const PIECE: usize = 1 << 20;

/// Messages that containerd hasn't answered yet. It answers each one; waiting for each answer would leave both sides
/// idle half of the time.
const IN_FLIGHT: usize = 4;

/// Committing hashes nothing more, but it fsyncs the whole blob.
pub(super) const COMMIT_DEADLINE: Duration = Duration::from_secs(600);

/// Writes one blob into the content store, piece by piece, in order. containerd checks the digest. Dropped, it leaves
/// what it has written as a half-written blob, which the next writer goes on with or overwrites, and which goes with the
/// lease.
pub struct BlobWriter {
    pub(super) containerd: Containerd,
    pub(super) lease: Lease,
    pub(super) what: String,
    pub(super) blob: Descriptor,
    /// Under which name containerd has it until it's committed.
    pub(super) reference: String,
    /// Its file in containerd's content store, once it was opened.
    pub(super) file: Option<IngestFile>,
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
    offset: u64,
    unanswered: usize,
}

impl Containerd {
    /// Puts a small blob (a manifest, a configuration) into the content store with these labels; one that is there
    /// gets the labels, beside those that it has. It hangs on `lease`.
    ///
    /// # Errors
    /// When the call fails, and when `bytes` don't have that digest; [`ContainerdError::Locked`] while somebody else
    /// writes the same.
    pub async fn put_blob(
        &self,
        lease: &Lease,
        digest: Digest,
        bytes: Vec<u8>,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), ContainerdError> {
        let what = format!("store the blob {digest}");
        let message = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: reference(digest),
            total: length(bytes.len() as u64),
            expected: digest.to_string(),
            offset: 0,
            data: bytes,
            labels: message_labels(labels),
        };
        let stream = futures::stream::iter([message]);
        let mut client = ContentClient::new(self.channel()).max_encoding_message_size(MESSAGE_LIMIT);
        let write = async {
            let mut answers = client.write(under(lease, stream)).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok(tonic::Response::new(()))
        };
        match self.call(&what, WRITE_DEADLINE, write).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_already_there() => self.label_blob(digest, labels).await,
            Err(error) => self.throw_away_if_spoiled(&reference(digest), error).await,
        }
    }

    /// Opens a blob for writing; `None` where it's in the content store already: then it hangs on the lease. Its reference in the store is ours alone, so nobody's pull finds what we left behind.
    ///
    /// # Errors
    /// When the call fails; [`ContainerdError::Locked`] while somebody else of us writes the same.
    pub async fn write_blob(
        &self,
        lease: &Lease,
        blob: &Descriptor,
    ) -> Result<Option<BlobWriter>, ContainerdError> {
        self.open_blob(lease, blob, reference(blob.digest), WRITE_DEADLINE).await
    }

    pub(super) async fn open_blob(
        &self,
        lease: &Lease,
        blob: &Descriptor,
        reference: String,
        deadline: Duration,
    ) -> Result<Option<BlobWriter>, ContainerdError> {
        let what = format!("store the blob {}", blob.digest);
        let (mut requests, stream) = mpsc::channel(IN_FLIGHT);
        // containerd answers nothing, not even headers, before the first message.
        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: reference.clone(),
            total: length(blob.size),
            expected: blob.digest.to_string(),
            ..WriteContentRequest::default()
        };
        let mut client = ContentClient::new(self.channel()).max_encoding_message_size(MESSAGE_LIMIT);
        let open = async {
            let sent = requests.send(first).await;
            let mut answers = client.write(under(lease, stream)).await?.into_inner();
            let offset = answers.message().await?.map(|answer| answer.offset);
            Ok(tonic::Response::new(sent.ok().and(offset).map(|offset| (answers, offset))))
        };
        let (answers, offset) = match self.call(&what, deadline, open).await {
            Ok(Some(opened)) => opened,
            Ok(None) => return Err(ended(&what)),
            Err(error) if error.is_already_there() => return Ok(None),
            Err(error) => return Err(error.of_write()),
        };
        let offset = u64::try_from(offset).unwrap_or_default();
        Ok(Some(BlobWriter {
            containerd: self.clone(),
            lease: lease.clone(),
            what,
            blob: blob.clone(),
            reference,
            file: None,
            requests,
            answers,
            offset,
            unanswered: 0,
        }))
    }

    /// Throws away what we have written of `blob` and not committed. Nothing is no error.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn throw_away(&self, blob: Digest) -> Result<(), ContainerdError> {
        self.abort_ingest(&reference(blob)).await
    }

    /// A half-written blob with wrong bytes would fail every later try, too.
    async fn throw_away_if_spoiled(
        &self,
        reference: &str,
        error: ContainerdError,
    ) -> Result<(), ContainerdError> {
        if matches!(error, ContainerdError::Call { code: Code::FailedPrecondition, .. }) {
            self.abort_ingest(reference).await?;
        }
        Err(error.of_write())
    }
}

impl BlobWriter {
    /// How many bytes the store has: those of an earlier try, and what was written since. The next piece begins there.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Begins again at the first byte: what the store has is thrown away when the next piece comes.
    pub fn rewind(&mut self) {
        self.offset = 0;
    }

    /// Writes the next bytes, any number. It returns when containerd has most of them.
    ///
    /// # Errors
    /// When the call fails. The writer can't be used any more then.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), ContainerdError> {
        for piece in bytes.chunks(PIECE) {
            let message = WriteContentRequest {
                action: WriteAction::Write.into(),
                r#ref: self.reference.clone(),
                offset: length(self.offset),
                data: piece.to_vec(),
                ..WriteContentRequest::default()
            };
            self.send(message).await?;
            self.offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Puts the whole blob in its place, on the disk and with these labels.
    ///
    /// # Errors
    /// When the call fails, or the bytes are too few, too many or wrong: then they are thrown away.
    pub async fn commit(mut self, labels: &BTreeMap<String, String>) -> Result<(), ContainerdError> {
        let message = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: self.reference.clone(),
            total: length(self.blob.size),
            expected: self.blob.digest.to_string(),
            // Not 0: that would throw the bytes away before the commit.
            offset: length(self.offset),
            labels: message_labels(labels),
            ..WriteContentRequest::default()
        };
        let committed = match self.send(message).await {
            Ok(()) => self.answers_to_all(COMMIT_DEADLINE).await,
            Err(error) => Err(error),
        };
        match committed {
            Ok(()) => Ok(()),
            Err(error) if error.is_already_there() => {
                // Somebody else was faster.
                self.containerd.hold_blob(&self.lease, self.blob.digest).await?;
                self.containerd.label_blob(self.blob.digest, labels).await
            }
            Err(error) => self.containerd.throw_away_if_spoiled(&self.reference, error).await,
        }
    }

    /// Throws away what was written.
    ///
    /// # Errors
    /// When the call fails; the bytes go with the lease then.
    pub async fn abort(self) -> Result<(), ContainerdError> {
        let (containerd, reference) = (self.containerd.clone(), self.reference.clone());
        self.let_go().await;
        containerd.abort_ingest(&reference).await
    }

    /// Leaves what was written as a half-written blob. It returns when containerd has closed it, which it does when it has
    /// seen the end of the stream: until then it's locked, and containerd may write into its directory.
    pub async fn let_go(self) {
        let Self { requests, mut answers, .. } = self;
        drop(requests);
        let end = async { while let Ok(Some(_)) = answers.message().await {} };
        let _ = tokio::time::timeout(WRITE_DEADLINE, end).await;
    }

    async fn send(&mut self, message: WriteContentRequest) -> Result<(), ContainerdError> {
        while self.unanswered >= IN_FLIGHT {
            self.answer(WRITE_DEADLINE).await?;
        }
        // A closed stream has its reason in the answers.
        if self.requests.send(message).await.is_err() {
            self.unanswered += 1;
            self.answers_to_all(WRITE_DEADLINE).await?;
            return Err(ended(&self.what));
        }
        self.unanswered += 1;
        Ok(())
    }

    async fn answers_to_all(&mut self, deadline: Duration) -> Result<(), ContainerdError> {
        while self.unanswered > 0 {
            self.answer(deadline).await?;
        }
        Ok(())
    }

    async fn answer(&mut self, deadline: Duration) -> Result<(), ContainerdError> {
        match tokio::time::timeout(deadline, self.answers.message()).await {
            Ok(Ok(Some(_))) => {
                self.unanswered -= 1;
                Ok(())
            }
            Ok(Ok(None)) => Err(ended(&self.what)),
            Ok(Err(status)) => Err(self.containerd.error(&self.what, &status)),
            Err(_) => Err(self.containerd.late(&self.what, deadline)),
        }
    }
}

impl fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobWriter").field("blob", &self.blob.digest).field("offset", &self.offset).finish()
    }
}

/// What our half-written blob is called. containerd's own pulls call theirs otherwise: bad bytes under their name would
/// fail every pull of that blob.
pub(super) fn reference(blob: Digest) -> String {
    format!("stoker-{blob}")
}

fn ended(what: &str) -> ContainerdError {
    ContainerdError::Answer { what: what.to_owned(), problem: "it ended too soon".to_owned() }
}

fn message_labels(labels: &BTreeMap<String, String>) -> HashMap<String, String> {
    labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn length(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
