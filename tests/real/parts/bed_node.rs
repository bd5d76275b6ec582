//! One node of the test cluster: containerd and kubelet on a machine of their own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::{ImageSpec, ListImagesRequest, PullImageRequest, RemoveImageRequest};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use super::bed::BedOptions;
use super::containerd::{Version, cri_answers, hosts_toml};
use super::control_plane::{ControlPlane, KUBERNETES, flag};
use super::free_port::FreePort;
use super::machine::Machine;
use super::pki::Usage;
use super::process::Process;
use super::programs::{part, parts_dir};
use super::wait::START;

/// Where containerd listens on every node.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";
const CONTAINERD: Version = Version::V2_4;

/// In the machine's own directory.
const KUBELET_CONFIG: &str = "kubelet.yaml";

/// A node. Everything on it is at the paths that real nodes have it at, so that manifests run as they are shipped.
#[derive(Debug)]
pub(crate) struct BedNode {
    // Dropped in this order.
    kubelet: Option<Process>,
    containerd: Option<Process>,
    machine: Machine,
    name: String,
    kubeconfig: PathBuf,
    _port: FreePort,
}

impl BedNode {
    /// Starts containerd, which takes images and its sandboxes' one from the registry at `host`, and then kubelet.
    pub(super) async fn start(
        name: &str,
        control: &ControlPlane,
        (host, url): (&str, &str),
        pause: &str,
        options: &BedOptions,
    ) -> Self {
        let machine = Machine::make(name, &options.binds).await;
        let port = FreePort::find();
        let user = format!("node-{name}");
        let names = [format!("DNS:{name}"), "IP:127.0.0.1".to_owned()];
        let names = names.each_ref().map(String::as_str);
        let subject = format!("/O=system:nodes/CN=system:node:{name}");
        control.pki.issue(&user, &subject, Usage::Server, &names);
        let kubeconfig = control.write_user(&user);
        let config = kubelet_config(control, &machine, &user, &port, options);
        machine.scratch().file(KUBELET_CONFIG, config.to_string());
        machine.scratch().file("own/etc/containerd/config.toml", containerd_config(pause));
        install_network(&machine);
        let name = name.to_owned();
        let mut node = Self { kubelet: None, containerd: None, machine, name, kubeconfig, _port: port };
        node.trust(host, url);
        node.start_containerd().await;
        node.pull(pause).await;
        node.start_kubelet();
        node
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where a path of this node, such as `/var/cache/stoker/…`, is on the machine that runs the test.
    pub(crate) fn host_path(&self, path: &str) -> PathBuf {
        self.machine.path(path)
    }

    /// containerd's socket, as the test's own programs reach it.
    pub(crate) fn socket(&self) -> PathBuf {
        self.host_path(SOCKET)
    }

    /// The processes of the node's pods, as the machine that runs the test sees them: pids and command lines.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        self.machine.processes()
    }

    /// Kills the one process of a pod here whose command line contains `words`, with SIGKILL.
    pub(crate) fn kill9(&self, words: &str) {
        let all = self.processes();
        let found: Vec<u32> =
            all.iter().filter(|(_, line)| line.contains(words)).map(|(pid, _)| *pid).collect();
        let [pid] = found[..] else { panic!("{words:?} should name one process of {all:?}") };
        let pid = Pid::from_raw(pid.cast_signed()).expect("a pid");
        rustix::process::kill_process(pid, Signal::KILL).expect("it can be killed");
    }

    /// A command that runs `program` as a process of the node, outside its pods.
    pub(crate) fn enter(&self, program: &Path) -> Command {
        self.machine.enter(program)
    }

    /// The node's own directory.
    pub(crate) fn directory(&self) -> &Path {
        self.machine.scratch().path()
    }

    /// Starts kubelet, again where it was killed before; doesn't wait for what it does.
    pub(crate) fn start_kubelet(&mut self) {
        self.kubelet = None;
        let mut command = self.machine.enter(&part(KUBERNETES, "kubelet"));
        command
            .arg(flag("--config", &self.machine.scratch().join(KUBELET_CONFIG)))
            .arg(flag("--kubeconfig", &self.kubeconfig))
            .arg(format!("--hostname-override={}", self.name))
            .env("PATH", path());
        let log = self.machine.scratch().join("kubelet.log");
        self.kubelet = Some(Process::start_wrapped(&format!("kubelet of {}", self.name), &command, &log));
    }

    /// Puts these fields into kubelet's configuration, for when it's started again.
    pub(crate) fn reconfigure_kubelet(&self, fields: &Value) {
        let text =
            std::fs::read_to_string(self.machine.scratch().join(KUBELET_CONFIG)).expect("its configuration");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        let (Some(all), Some(fields)) = (config.as_object_mut(), fields.as_object()) else {
            panic!("{fields} isn't an object");
        };
        all.extend(fields.clone());
        self.machine.scratch().file(KUBELET_CONFIG, config.to_string());
    }

    /// Kills kubelet with SIGKILL. Containers go on.
    pub(crate) fn kill_kubelet(&mut self) {
        if let Some(kubelet) = self.kubelet.take() {
            kubelet.kill9();
        }
    }

    /// Kills containerd with SIGKILL. Containers go on.
    pub(crate) fn kill_containerd(&mut self) {
        if let Some(containerd) = self.containerd.take() {
            containerd.kill9();
        }
    }

    /// Starts containerd, again where it was killed before; it's ready when CRI answers.
    pub(crate) async fn start_containerd(&mut self) {
        self.containerd = None;
        let part_dir = parts_dir().join(CONTAINERD.part());
        let mut command = self.machine.enter(&part(&CONTAINERD.part(), "containerd"));
        // The shim is looked up beside the daemon, runc on the PATH.
        command.env("PATH", format!("{}:{}", part_dir.display(), path()));
        let log = self.machine.scratch().join("containerd.log");
        let daemon = Process::start_wrapped(&format!("containerd of {}", self.name), &command, &log);
        let socket = self.socket();
        daemon.wait_ready("an answer of CRI", START, async || cri_answers(&socket).await.then_some(())).await;
        self.containerd = Some(daemon);
    }

    /// All that kubelet has logged, over its restarts.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.machine.scratch().join("kubelet.log")).unwrap_or_default()
    }

    /// All that containerd has logged, over its restarts.
    pub(crate) fn containerd_log(&self) -> String {
        std::fs::read_to_string(self.machine.scratch().join("containerd.log")).unwrap_or_default()
    }

    /// Has pulls from the registry `host` (`127.0.0.1:PORT`) go to `url`: a registry of plain HTTP, a mirror or a
    /// fault proxy. It is read at each pull.
    pub(crate) fn trust(&self, host: &str, url: &str) {
        let file = format!("own/etc/containerd/certs.d/{host}/hosts.toml");
        self.machine.scratch().file(file, hosts_toml(url));
    }

    /// Runs `ctr` on the namespace that CRI uses. The output is given whatever the exit status is.
    pub(crate) async fn ctr(&self, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::from(self.machine.enter(&part(&CONTAINERD.part(), "ctr")));
        command.args(["--address", SOCKET, "--namespace", "k8s.io"]).args(args).kill_on_drop(true);
        command.output().await.expect("ctr can be run")
    }

    /// The references by which CRI knows images, with tags and with digests.
    pub(crate) async fn images(&self) -> Vec<String> {
        let answer = self.image_service().await.list_images(ListImagesRequest { filter: None }).await;
        let images = answer.expect("CRI lists its images").into_inner().images;
        images.into_iter().flat_map(|image| [image.repo_tags, image.repo_digests].concat()).collect()
    }

    /// Has CRI pull an image, as kubelet does.
    pub(crate) async fn pull(&self, image: &str) {
        let request = PullImageRequest { image: Some(image_spec(image)), ..Default::default() };
        let pulled = self.image_service().await.pull_image(request).await;
        pulled.unwrap_or_else(|error| panic!("{image} can't be pulled: {error}"));
    }

    /// Has CRI remove an image, as `crictl rmi` does; all names of the same image go.
    pub(crate) async fn remove_image(&self, image: &str) {
        let request = RemoveImageRequest { image: Some(image_spec(image)) };
        let removed = self.image_service().await.remove_image(request).await;
        removed.unwrap_or_else(|error| panic!("{image} can't be removed: {error}"));
    }

    async fn image_service(&self) -> ImageServiceClient<tonic::transport::Channel> {
        ImageServiceClient::new(containerd_client::connect(self.socket()).await.expect("containerd answers"))
    }
}

/// Where runc, mount and the like are found.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin:/usr/bin:/bin", std::env::var("PATH").unwrap_or_default())
}

fn image_spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..Default::default() }
}

/// A network for pods that aren't on the host's: each has its loopback, and an address at which nothing reaches it.
/// It's enough for what only reads files and sockets, and needs no plugin and nothing of this machine's network.
fn install_network(machine: &Machine) {
    const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "alone", "plugins": [{"type": "alone"}]}"#;
    const PLUGIN: &str = r#"#!/bin/sh
case $CNI_COMMAND in
ADD)
    number=$(printf %s "$CNI_CONTAINERID" | cksum | cut -d ' ' -f 1)
    address=10.88.$((number / 250 % 250 + 1)).$((number % 250 + 1))
    printf '{"cniVersion": "1.0.0", "interfaces": [{"name": "%s", "sandbox": "%s"}],' "$CNI_IFNAME" "$CNI_NETNS"
    printf '"ips": [{"interface": 0, "address": "%s/16"}]}' "$address" ;;
VERSION) printf '{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}' ;;
esac
"#;
    machine.scratch().file("own/etc/cni/net.d/10-alone.conflist", LIST);
    let plugin = machine.scratch().file("own/opt/cni/bin/alone", PLUGIN);
    std::fs::set_permissions(plugin, Permissions::from_mode(0o755)).expect("it can be made a program");
}

fn containerd_config(pause: &str) -> String {
    // All the rest is as containerd has it by itself. config_path: by itself it reads nothing about registries.
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE a sandbox's negative score can't be set. disable_apparmor: a
    // profile would stay in this machine's kernel.
    format!(
        r#"version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "/etc/containerd/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    use_internal_loopback = true
[plugins.'io.containerd.nri.v1.nri']
  disable = true
"#
    )
}

fn kubelet_config(
    control: &ControlPlane,
    machine: &Machine,
    user: &str,
    port: &FreePort,
    options: &BedOptions,
) -> Value {
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "port": port.number(),
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": control.ca()},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": control.pki.certificate(user),
        "tlsPrivateKeyFile": control.pki.key(user),
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": machine.cgroup(),
        "failCgroupV1": false,
        "failSwapOn": false,
        // Neither iptables nor anything outside the node's own directories is touched.
        "makeIPTablesUtilChains": false,
        "clusterDomain": "cluster.local",
        "clusterDNS": ["127.96.0.10"],
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "serializeImagePulls": false,
        "nodeStatusUpdateFrequency": "2s",
        // Whoever runs tests may have a full disk; nobody's images are to go for it.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    });
    if let (Some(config), Some(wanted)) = (config.as_object_mut(), options.kubelet.as_object()) {
        config.extend(wanted.clone());
    }
    config
}
