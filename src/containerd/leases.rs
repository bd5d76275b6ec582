use std::collections::HashMap;
use std::time::Duration;

use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, Lease as LeaseMessage, ListRequest,
    ListResourcesRequest, Resource,
};
use jiff::Timestamp;
use tonic::Code;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use super::client::{MESSAGE_LIMIT, READ_DEADLINE, WRITE_DEADLINE, in_namespace};
use super::{Containerd, ContainerdError};
use crate::types::Digest;

/// When containerd's garbage collection may take a lease (containerd, docs/garbage-collection.md). Nothing happens at
/// that moment: the first collection after it takes the lease and what only it held, also under whoever uses it.
const EXPIRE: &str = "containerd.io/gc.expire";

/// What holds content and snapshots against garbage collection until something else refers to them. Calls that make
/// something take one: what they made hangs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    id: String,
    header: MetadataValue<Ascii>,
    made: Timestamp,
}

impl Lease {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When it was made, by containerd's clock.
    #[must_use]
    pub fn made(&self) -> Timestamp {
        self.made
    }

    pub(super) fn header(&self) -> MetadataValue<Ascii> {
        self.header.clone()
    }

    fn from_message(lease: LeaseMessage, what: &str) -> Result<Self, ContainerdError> {
        let answer = |problem: String| ContainerdError::Answer { what: what.to_owned(), problem };
        let header = lease
            .id
            .parse()
            .map_err(|_| answer(format!("the lease's name {:?} can't be a header", lease.id)))?;
        let made = lease.created_at.unwrap_or_default();
        let made = Timestamp::new(made.seconds, made.nanos).map_err(|error| answer(error.to_string()))?;
        Ok(Self { id: lease.id, header, made })
    }
}

impl Containerd {
    /// Makes a lease called `id`, which garbage collection may take after `lasts`; `None` where there is one of that
    /// name.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn create_lease(&self, id: &str, lasts: Duration) -> Result<Option<Lease>, ContainerdError> {
        let what = format!("make the lease {id}");
        // A time past the calendar's end is as good as none: then garbage collection leaves it alone.
        let expires = Timestamp::now().checked_add(lasts).unwrap_or(Timestamp::MAX);
        let request = in_namespace(CreateRequest {
            id: id.to_owned(),
            labels: HashMap::from([(EXPIRE.to_owned(), expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())]),
        });
        let answer = match self.call(&what, WRITE_DEADLINE, self.leases().create(request)).await {
            Ok(answer) => answer,
            Err(error) if error.is_already_there() => return Ok(None),
            Err(error) => return Err(error),
        };
        let lease = answer.lease.unwrap_or_default();
        Lease::from_message(LeaseMessage { id: id.to_owned(), ..lease }, &what).map(Some)
    }

    /// The lease called `id`, or `None`.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn lease(&self, id: &str) -> Result<Option<Lease>, ContainerdError> {
        let what = format!("find the lease {id}");
        let request = in_namespace(ListRequest { filters: vec![format!("id=={id:?}")] });
        let answer = self.call(&what, READ_DEADLINE, self.leases().list(request)).await?;
        let found = answer.leases.into_iter().find(|lease| lease.id == id);
        found.map(|lease| Lease::from_message(lease, &what)).transpose()
    }

    /// Deletes a lease; one that isn't there is no error. With `sync`, it returns after a garbage collection, which has
    /// taken what only the lease held; without, that happens later.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn delete_lease(&self, lease: &Lease, sync: bool) -> Result<(), ContainerdError> {
        let what = format!("delete the lease {}", lease.id);
        let request = in_namespace(DeleteRequest { id: lease.id.clone(), sync });
        match self.call(&what, WRITE_DEADLINE, self.leases().delete(request)).await {
            Ok(()) | Err(ContainerdError::Call { code: Code::NotFound, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Has `lease` hold a blob. containerd doesn't look whether it's there: look afterwards, and what is there then
    /// stays.
    ///
    /// # Errors
    /// When the call fails, also because the lease has gone.
    pub async fn hold_blob(&self, lease: &Lease, blob: Digest) -> Result<(), ContainerdError> {
        self.hold(lease, "content".to_owned(), blob.to_string()).await
    }

    /// Has `lease` hold a snapshot, and with it those below. containerd doesn't look whether it's there: look
    /// afterwards, and what is there then stays.
    ///
    /// # Errors
    /// When the call fails, also because the lease has gone.
    pub async fn hold_snapshot(
        &self,
        lease: &Lease,
        snapshotter: &str,
        key: &str,
    ) -> Result<(), ContainerdError> {
        self.hold(lease, snapshots_of(snapshotter), key.to_owned()).await
    }

    /// The keys of the snapshots that hang on `lease`, whether they are there or not.
    ///
    /// # Errors
    /// When the call fails, also because the lease has gone.
    pub async fn held_snapshots(
        &self,
        lease: &Lease,
        snapshotter: &str,
    ) -> Result<Vec<String>, ContainerdError> {
        let what = format!("list what the lease {} holds", lease.id);
        let request = in_namespace(ListResourcesRequest { id: lease.id.clone() });
        let answer = self.call(&what, READ_DEADLINE, self.leases().list_resources(request)).await?;
        let kind = snapshots_of(snapshotter);
        let of_kind = answer.resources.into_iter().filter(|resource| resource.r#type == kind);
        Ok(of_kind.map(|resource| resource.id).collect())
    }

    async fn hold(&self, lease: &Lease, kind: String, id: String) -> Result<(), ContainerdError> {
        let what = format!("hold {id} by the lease {}", lease.id);
        // containerd 2.4.2 panics, and dies, on a request without a resource.
        let resource = Some(Resource { id, r#type: kind });
        let request = in_namespace(AddResourceRequest { id: lease.id.clone(), resource });
        self.call(&what, WRITE_DEADLINE, self.leases().add_resource(request)).await
    }

    fn leases(&self) -> LeasesClient<Channel> {
        LeasesClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT)
    }
}

/// How a lease names the snapshots of a snapshotter.
fn snapshots_of(snapshotter: &str) -> String {
    format!("snapshots/{snapshotter}")
}
