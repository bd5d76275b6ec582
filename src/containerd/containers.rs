use std::path::PathBuf;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{Container, ContainerState, ContainerStatusRequest, ListContainersRequest};
use tonic::transport::Channel;

use super::client::{MESSAGE_LIMIT, READ_DEADLINE};
use super::{Containerd, ContainerdError};

/// How many containers are asked about at once.
const LOOKUPS: usize = 8;

/// The label with which the kubelet says which pod a container is of.
const POD: &str = "io.kubernetes.pod.name";

/// What of the host one container has mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerMounts {
    /// For people: `POD/CONTAINER`, or the container's name or id where it has no pod.
    pub container: String,
    /// The paths on the host, as the kubelet gave them.
    pub host_paths: Vec<PathBuf>,
}

impl Containerd {
    /// What of the host each container has mounted that runs or is about to, as CRI knows it.
    ///
    /// # Errors
    /// When a call fails. A container that goes meanwhile is none.
    pub async fn container_mounts(&self) -> Result<Vec<ContainerMounts>, ContainerdError> {
        let request = ListContainersRequest { filter: None };
        let mut runtime = self.runtime();
        let listed = self.call("list the containers", READ_DEADLINE, runtime.list_containers(request));
        let ended = ContainerState::ContainerExited as i32;
        let alive = listed.await?.containers.into_iter().filter(|container| container.state != ended);
        let asked = futures::stream::iter(alive).map(|container| self.mounts_of(container));
        asked.buffered(LOOKUPS).try_filter_map(|mounts| std::future::ready(Ok(mounts))).try_collect().await
    }

    async fn mounts_of(&self, container: Container) -> Result<Option<ContainerMounts>, ContainerdError> {
        let request = ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
        let mut runtime = self.runtime();
        let answer = runtime.container_status(request);
        let answer = match self.call("tell a container's mounts", READ_DEADLINE, answer).await {
            Ok(answer) => answer,
            Err(error) if error.is_not_there() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mounts = answer.status.map(|status| status.mounts).unwrap_or_default();
        let host_paths = mounts.into_iter().map(|mount| PathBuf::from(mount.host_path));
        let host_paths: Vec<PathBuf> = host_paths.filter(|path| !path.as_os_str().is_empty()).collect();
        Ok(Some(ContainerMounts { container: name(&container), host_paths }))
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT)
    }
}

fn name(container: &Container) -> String {
    let own =
        container.metadata.as_ref().map(|metadata| metadata.name.as_str()).filter(|name| !name.is_empty());
    let own = own.unwrap_or(&container.id);
    container.labels.get(POD).map_or_else(|| own.to_owned(), |pod| format!("{pod}/{own}"))
}
