use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

use super::{ContainerdError, Lease};

/// The namespace in which CRI keeps its images (containerd, `internal/cri/constants`).
pub(super) const NAMESPACE: &str = "k8s.io";

/// The largest message containerd sends (`defaults.DefaultMaxRecvMsgSize`): a full list of records can be large.
pub(super) const MESSAGE_LIMIT: usize = 16 << 20;

/// For calls that only read. containerd answers these in a millisecond unless its disk is drowning.
pub(super) const READ_DEADLINE: Duration = Duration::from_secs(20);

/// For calls that write a record: one transaction with an fsync, in line behind those of a pull.
pub(super) const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// A connection to containerd's socket. Cheap to clone; it connects at the first call and again whenever the daemon
/// has gone and come back.
#[derive(Clone)]
pub struct Containerd {
    address: Arc<Path>,
    channel: Channel,
}

impl Containerd {
    /// A connection to the socket at `address`, made when it's first needed. Call it within a tokio runtime: the
    /// connection lives there.
    #[must_use]
    pub fn new(address: &Path) -> Self {
        let address: Arc<Path> = address.into();
        let path = Arc::clone(&address);
        // The URI is not used: the connector goes to the socket, whatever it says.
        let channel = Endpoint::from_static("http://containerd").connect_with_connector_lazy(
            tower::service_fn(move |_: Uri| {
                let path = Arc::clone(&path);
                async move { io::Result::Ok(TokioIo::new(UnixStream::connect(&path).await?)) }
            }),
        );
        Self { address, channel }
    }

    /// The socket's path.
    #[must_use]
    pub fn address(&self) -> &Path {
        &self.address
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Makes `call`, which is described by `what` ("list the image records"), within `deadline`.
    pub(super) async fn call<T>(
        &self,
        what: &str,
        deadline: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ContainerdError> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.error(what, &status)),
            Err(_) => Err(self.late(what, deadline)),
        }
    }

    pub(super) fn error(&self, what: &str, status: &Status) -> ContainerdError {
        ContainerdError::of(&self.address, what, status)
    }

    pub(super) fn late(&self, what: &str, after: Duration) -> ContainerdError {
        ContainerdError::Late { address: self.address.to_path_buf(), what: what.to_owned(), after }
    }
}

/// `message` with the header that containerd wants on every call of its own services.
pub(super) fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    request
}

/// The same, with the header that has what the call makes hang on `lease`.
pub(super) fn under<T>(lease: &Lease, message: T) -> Request<T> {
    let mut request = in_namespace(message);
    request.metadata_mut().insert("containerd-lease", lease.header());
    request
}

impl fmt::Debug for Containerd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Containerd").field(&self.address).finish()
    }
}
