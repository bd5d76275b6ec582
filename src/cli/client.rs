//! The agent's socket, from the other side.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::document::Status;
use super::proto;
use super::proto::stoker_client::StokerClient;
use crate::types::EntryId;

/// Where the agent listens unless it's told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/stoker/stoker.sock";

/// An agent that is there answers at once; one that doesn't is wedged.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// On an idle watch, how soon an agent that is wedged is noticed.
const PING: Duration = Duration::from_secs(15);

/// Why the agent can't be asked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum ClientError {
    #[error(
        "cannot reach the agent at {}: is the agent running? (name another socket with --socket)",
        socket.display()
    )]
    Unreachable {
        socket: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("{} is not a Stoker agent's socket; name another one with --socket", socket.display())]
    Protocol {
        socket: PathBuf,
        #[source]
        cause: tonic::transport::Error,
    },
    #[error("the agent at {} answered {code:?}: {message}", socket.display())]
    Answer { socket: PathBuf, code: tonic::Code, message: String },
}

/// One connection to an agent. It's not made anew when it breaks.
#[derive(Debug)]
pub struct Client {
    stoker: StokerClient<Channel>,
    socket: PathBuf,
}

impl Client {
    /// Connects to the agent that listens at `socket`.
    ///
    /// # Errors
    /// When nobody listens there, or nobody who speaks gRPC.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let unreachable = |cause| ClientError::Unreachable { socket: socket.to_owned(), cause };
        let protocol = |cause| ClientError::Protocol { socket: socket.to_owned(), cause };
        let stream = tokio::time::timeout(ANSWER_DEADLINE, UnixStream::connect(socket))
            .await
            .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
            .map_err(unreachable)?;
        // The channel gets this one stream, so that its failure to connect is told in the kernel's plain words.
        let mut once = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = once.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            std::future::ready(stream)
        });
        // Of a unix socket's URI nothing but the shape matters.
        let channel = Endpoint::from_static("http://stoker.invalid")
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .connect_with_connector(connector)
            .await
            .map_err(protocol)?;
        Ok(Self { stoker: StokerClient::new(channel), socket: socket.to_owned() })
    }

    /// Where the node stands now.
    ///
    /// # Errors
    /// When the agent doesn't answer within 10 s, or with an error.
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        let mut request = tonic::Request::new(proto::StatusRequest {});
        request.set_timeout(ANSWER_DEADLINE);
        match self.stoker.status(request).await {
            Ok(answer) => Ok(answer.into_inner().into()),
            Err(status) => Err(answered(&self.socket, &status)),
        }
    }

    /// Where the node stands now, and at each change until the agent stops.
    ///
    /// # Errors
    /// When the agent answers with an error, here or in an item. The stream ends after one.
    pub async fn watch(&mut self) -> Result<BoxStream<'static, Result<Status, ClientError>>, ClientError> {
        let socket = self.socket.clone();
        match self.stoker.watch_status(proto::StatusRequest {}).await {
            Ok(answers) => Ok(answers
                .into_inner()
                .map(move |answer| match answer {
                    Ok(answer) => Ok(answer.into()),
                    Err(status) => Err(answered(&socket, &status)),
                })
                .boxed()),
            Err(status) => Err(answered(&self.socket, &status)),
        }
    }

    /// Where these entries stand, now and at each change, until the last of them is warm or one can't be.
    ///
    /// # Errors
    /// When the agent answers with an error, here or in an item. The stream ends after one.
    pub(super) async fn wait(
        &mut self,
        ids: &[EntryId],
        fetch: bool,
    ) -> Result<BoxStream<'static, Result<proto::WaitResponse, ClientError>>, ClientError> {
        let socket = self.socket.clone();
        let request = proto::WaitRequest { ids: ids.iter().map(EntryId::to_string).collect(), fetch };
        match self.stoker.wait(request).await {
            Ok(answers) => Ok(answers
                .into_inner()
                .map(move |answer| answer.map_err(|status| answered(&socket, &status)))
                .boxed()),
            Err(status) => Err(answered(&self.socket, &status)),
        }
    }
}

fn answered(socket: &Path, status: &tonic::Status) -> ClientError {
    ClientError::Answer {
        socket: socket.to_owned(),
        code: status.code(),
        message: super::format::plain(status.message()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_there_names_the_socket_the_question_and_the_flag() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("none.sock");
        let error = Client::connect(&socket).await.unwrap_err();
        let text = crate::rt::chain(&error);
        for part in [&socket.display().to_string(), "is the agent running?", "--socket", "No such file"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[tokio::test]
    async fn something_else_there_is_an_error_and_not_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("other.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let other = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"220 smtp\r\n").await.unwrap();
        });
        let answer = match Client::connect(&socket).await {
            Ok(mut client) => client.status().await.map(|_| ()),
            Err(error) => Err(error),
        };
        assert!(answer.unwrap_err().to_string().contains("other.sock"));
        other.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_is_stuck_is_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("stuck.sock");
        let _never_accepts = tokio::net::UnixListener::bind(&socket).unwrap();
        let mut client = Client::connect(&socket).await.unwrap();
        let start = tokio::time::Instant::now();
        let error = client.status().await.unwrap_err();
        assert!(error.to_string().contains("stuck.sock"), "{error}");
        assert!(start.elapsed() <= ANSWER_DEADLINE + PING, "{:?}", start.elapsed());
        assert!(client.watch().await.is_err());
    }
}
