//! Containers as the kubelet has CRI make them, without a kubelet.

use std::path::Path;
use std::process::Command;

use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::security_profile::ProfileType;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxContainerConfig,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PullImageRequest, RemovePodSandboxRequest,
    RunPodSandboxRequest, SecurityProfile, StartContainerRequest, StopPodSandboxRequest,
};
use tonic::transport::Channel;

use super::cgroup::cgroup_of;
use super::containerd::Containerd;
use super::image::{BuiltImage, ImageBuilder, Layer};
use super::programs::system;
use super::scratch::Scratch;

/// A pod with one container that only waits.
#[derive(Debug)]
pub(crate) struct Pod {
    cri: RuntimeServiceClient<Channel>,
    id: String,
}

impl Pod {
    /// Runs it on the host's network, with `host_path` mounted read-only. `image` is also what
    /// containerd's configuration names for sandboxes.
    pub(crate) async fn run(containerd: &Containerd, name: &str, image: &str, host_path: &Path) -> Self {
        let channel = containerd_client::connect(containerd.address()).await.expect("containerd answers");
        let spec = ImageSpec { image: image.to_owned(), ..ImageSpec::default() };
        let pull = PullImageRequest { image: Some(spec.clone()), ..PullImageRequest::default() };
        let pulled = ImageServiceClient::new(channel.clone()).pull_image(pull).await;
        pulled.unwrap_or_else(|error| panic!("{image}: {error}"));
        let mut cri = RuntimeServiceClient::new(channel);
        let namespaces = || NamespaceOption {
            network: NamespaceMode::Node.into(),
            pid: NamespaceMode::Container.into(),
            ipc: NamespaceMode::Pod.into(),
            ..NamespaceOption::default()
        };
        let cgroup_parent = format!("/{}", cgroup_of(containerd.directory()));
        let context =
            LinuxSandboxSecurityContext { namespace_options: Some(namespaces()), ..Default::default() };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: name.to_owned(),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            labels: [("io.kubernetes.pod.name".to_owned(), name.to_owned())].into(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent,
                security_context: Some(context),
                ..Default::default()
            }),
            ..Default::default()
        };
        let sandbox = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let sandbox = cri.run_pod_sandbox(sandbox).await.unwrap_or_else(|error| panic!("sandbox: {error}"));
        let id = sandbox.into_inner().pod_sandbox_id;
        let unconfined =
            SecurityProfile { profile_type: ProfileType::Unconfined.into(), ..SecurityProfile::default() };
        let context = LinuxContainerSecurityContext {
            namespace_options: Some(namespaces()),
            apparmor: Some(unconfined.clone()),
            seccomp: Some(unconfined),
            ..Default::default()
        };
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
            image: Some(spec),
            labels: config.labels.clone(),
            mounts: vec![Mount {
                container_path: "/weights".to_owned(),
                host_path: host_path.to_str().expect("text").to_owned(),
                readonly: true,
                ..Mount::default()
            }],
            linux: Some(LinuxContainerConfig { security_context: Some(context), ..Default::default() }),
            ..Default::default()
        };
        let container = CreateContainerRequest {
            pod_sandbox_id: id.clone(),
            config: Some(container),
            sandbox_config: Some(config),
        };
        let container =
            cri.create_container(container).await.unwrap_or_else(|error| panic!("container: {error}"));
        let container_id = container.into_inner().container_id;
        let started = cri.start_container(StartContainerRequest { container_id }).await;
        started.unwrap_or_else(|error| panic!("start: {error}"));
        Self { cri, id }
    }

    /// Ends it, and removes it.
    pub(crate) async fn remove(mut self) {
        let stop = StopPodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.cri.stop_pod_sandbox(stop).await.unwrap_or_else(|error| panic!("stop: {error}"));
        let remove = RemovePodSandboxRequest { pod_sandbox_id: self.id };
        self.cri.remove_pod_sandbox(remove).await.unwrap_or_else(|error| panic!("remove: {error}"));
    }
}

/// An image with a program that only waits, for sandboxes and containers.
pub(crate) fn pause_image() -> BuiltImage {
    let program = compiled("#include <unistd.h>\nint main(void) { for (;;) pause(); }\n");
    ImageBuilder::new().layer(Layer::new().file("pause", program, 0o755)).entrypoint(&["/pause"]).build()
}

/// A static program of this C source.
pub(crate) fn compiled(source: &str) -> Vec<u8> {
    let scratch = Scratch::new("cc");
    let source = scratch.file("program.c", source);
    let program = scratch.join("program");
    let mut command = Command::new(system("cc"));
    command.args(["-static", "-Os", "-o"]).arg(&program).arg(source);
    let output = command.output().expect("cc can be run");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(program).expect("cc has written it")
}
