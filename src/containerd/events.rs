use containerd_client::services::v1::SubscribeRequest;
use containerd_client::services::v1::events_client::EventsClient;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _};

use super::client::in_namespace;
use super::{Containerd, ContainerdError};

/// What can make an image warm or cold: records that come and go, and snapshots that go.
const FILTERS: [&str; 2] =
    [r#"namespace=="k8s.io",topic~="^/images/""#, r#"namespace=="k8s.io",topic=="/snapshot/remove""#];

/// The changes that containerd reports, as they happen.
///
/// containerd doesn't say when a subscription has begun (its first answer is the first event), so a change during the
/// first moments can be missed: look at the images again a little later.
pub struct Changes(BoxStream<'static, Result<(), ContainerdError>>);

impl Containerd {
    /// Subscribes to changes of images. It begins with the first call to [`Changes::next`] and never ends by itself:
    /// an end is an error, after which this is to be called again.
    #[must_use]
    pub fn changes(&self) -> Changes {
        let this = self.clone();
        let failed = move |status: tonic::Status| this.error("tell of changes", &status);
        let request = in_namespace(SubscribeRequest { filters: FILTERS.map(str::to_owned).to_vec() });
        let mut client = EventsClient::new(self.channel());
        let stream = async move { client.subscribe(request).await.map(tonic::Response::into_inner) }
            .boxed()
            .try_flatten_stream()
            .map_ok(drop)
            .map_err(failed)
            .boxed();
        Changes(stream)
    }
}

impl Changes {
    /// Waits for the next change. Dropping the future loses none.
    ///
    /// # Errors
    /// When the subscription has ended: the daemon went away or restarts.
    pub async fn next(&mut self) -> Result<(), ContainerdError> {
        match self.0.next().await {
            Some(change) => change,
            None => Err(ContainerdError::Answer {
                what: "tell of changes".to_owned(),
                problem: "the stream of events ended".to_owned(),
            }),
        }
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Changes")
    }
}
