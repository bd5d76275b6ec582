use std::collections::{BTreeMap, HashMap};

use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, Info, Kind, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest,
    RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::types::Mount as MountMessage;
use tonic::Code;
use tonic::transport::Channel;

use super::client::{MESSAGE_LIMIT, READ_DEADLINE, WRITE_DEADLINE, in_namespace, under};
use super::{Containerd, ContainerdError, Lease, Mount};

/// A snapshot, as its snapshotter describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its key, or its name once it's committed.
    pub key: String,
    /// The name of the one below it; empty where there is none.
    pub parent: String,
    /// Whether it's committed: nothing changes it any more.
    pub committed: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Containerd {
    /// Makes a writable snapshot called `key` on top of the committed one called `parent`, or of nothing. It hangs on
    /// `lease`.
    ///
    /// # Errors
    /// When the call fails; [`ContainerdError::is_already_there`] when there is one of that key, or when `labels` name
    /// a target (`containerd.io/snapshot.ref`) that is committed already.
    pub async fn prepare_snapshot(
        &self,
        lease: &Lease,
        snapshotter: &str,
        key: &str,
        parent: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, ContainerdError> {
        let what = format!("prepare the snapshot {key}");
        let request = PrepareSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.unwrap_or_default().to_owned(),
            labels: message(labels),
        };
        let answer =
            self.call(&what, WRITE_DEADLINE, self.snapshots().prepare(under(lease, request))).await?;
        Ok(answer.mounts.into_iter().map(mount_from).collect())
    }

    /// How a writable snapshot is to be mounted.
    ///
    /// # Errors
    /// When the call fails, also because there is no such snapshot.
    pub async fn snapshot_mounts(&self, snapshotter: &str, key: &str) -> Result<Vec<Mount>, ContainerdError> {
        let what = format!("tell the mounts of the snapshot {key}");
        let request =
            in_namespace(MountsRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() });
        let answer = self.call(&what, READ_DEADLINE, self.snapshots().mounts(request)).await?;
        Ok(answer.mounts.into_iter().map(mount_from).collect())
    }

    /// The snapshot called `key`, or `None`.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn snapshot_info(
        &self,
        snapshotter: &str,
        key: &str,
    ) -> Result<Option<SnapshotInfo>, ContainerdError> {
        let what = format!("find the snapshot {key}");
        let request =
            in_namespace(StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() });
        match self.call(&what, READ_DEADLINE, self.snapshots().stat(request)).await {
            Ok(answer) => Ok(answer.info.map(info_from)),
            Err(ContainerdError::Call { code: Code::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes of the writable snapshot `key` the committed one called `name`, with these labels and no others. It hangs
    /// on `lease`.
    ///
    /// # Errors
    /// When the call fails; [`ContainerdError::is_already_there`] when there is one of that name: `key` is left as it
    /// was then.
    pub async fn commit_snapshot(
        &self,
        lease: &Lease,
        snapshotter: &str,
        name: &str,
        key: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), ContainerdError> {
        let what = format!("commit the snapshot {name}");
        let request = CommitSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels: message(labels),
        };
        self.call(&what, WRITE_DEADLINE, self.snapshots().commit(under(lease, request))).await
    }

    /// Removes a snapshot; one that isn't there is no error. Committed ones are better left to the garbage collection:
    /// somebody may just be building on them.
    ///
    /// # Errors
    /// When the call fails, also because another snapshot is on top of it.
    pub async fn remove_snapshot(&self, snapshotter: &str, key: &str) -> Result<(), ContainerdError> {
        let what = format!("remove the snapshot {key}");
        let request =
            in_namespace(RemoveSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() });
        match self.call(&what, WRITE_DEADLINE, self.snapshots().remove(request)).await {
            Ok(()) | Err(ContainerdError::Call { code: Code::NotFound, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The snapshots that match any of `filters` (containerd, `pkg/filters`); all, if there are none.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn list_snapshots(
        &self,
        snapshotter: &str,
        filters: Vec<String>,
    ) -> Result<Vec<SnapshotInfo>, ContainerdError> {
        let what = "list the snapshots";
        let request = in_namespace(ListSnapshotsRequest { snapshotter: snapshotter.to_owned(), filters });
        let mut client = self.snapshots();
        let list = async {
            let mut stream = client.list(request).await?.into_inner();
            let mut found = Vec::new();
            while let Some(some) = stream.message().await? {
                found.extend(some.info.into_iter().map(info_from));
            }
            Ok(tonic::Response::new(found))
        };
        self.call(what, READ_DEADLINE, list).await
    }

    fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT)
    }
}

fn message(labels: &BTreeMap<String, String>) -> HashMap<String, String> {
    labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn mount_from(mount: MountMessage) -> Mount {
    Mount { kind: mount.r#type, source: mount.source.into(), options: mount.options }
}

fn info_from(info: Info) -> SnapshotInfo {
    let committed = info.kind() == Kind::Committed;
    let labels = info.labels.into_iter().collect();
    SnapshotInfo { key: info.name, parent: info.parent, committed, labels }
}
