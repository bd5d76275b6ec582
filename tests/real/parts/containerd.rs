//! containerd, of four lines, in a mount and a process namespace of its own.

use std::path::{Path, PathBuf};
use std::process::Output;

use k8s_cri::v1::{StatusRequest, runtime_service_client::RuntimeServiceClient};

use super::cgroup::{cgroup_of, cgroups_of};
use super::namespaces::Namespaces;
use super::process::Process;
use super::programs::{part, parts_dir};
use super::scratch::Scratch;
use super::wait::START;

/// Which containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// 2.4: configuration version 3.
    V2_4,
    /// 2.2, the same; only there after `bring-parts.sh --matrix`.
    V2_2,
    /// 1.7: configuration version 2.
    V1_7,
    /// 1.6 as Debian 12 has it, the same; only there after `bring-parts.sh --matrix`.
    V1_6,
}

impl Version {
    /// Those that `make setup` brings.
    pub(crate) const ALL: [Self; 2] = [Self::V2_4, Self::V1_7];

    const EVERY: [Self; 4] = [Self::V2_4, Self::V2_2, Self::V1_7, Self::V1_6];

    /// The newer line, of the two that tests of both are for: `STOKER_TEST_NEWER` names another than 2.4.
    pub(crate) fn newer() -> Self {
        Self::named("STOKER_TEST_NEWER").unwrap_or(Self::V2_4)
    }

    /// The older one: `STOKER_TEST_OLDER` names another than 1.7.
    pub(crate) fn older() -> Self {
        Self::named("STOKER_TEST_OLDER").unwrap_or(Self::V1_7)
    }

    /// Whether CRI shows a pin that somebody else has set: 1.6.20 never does.
    pub(crate) fn shows_pins(self) -> bool {
        self != Self::V1_6
    }

    fn named(variable: &str) -> Option<Self> {
        let line = std::env::var(variable).ok()?;
        let found = Self::EVERY.into_iter().find(|version| version.number().starts_with(&format!("{line}.")));
        Some(found.unwrap_or_else(|| panic!("{variable}={line}: there are 2.4, 2.2, 1.7 and 1.6")))
    }

    /// The number that it reports.
    pub(crate) fn number(self) -> &'static str {
        match self {
            Self::V2_4 => "2.4.2",
            Self::V2_2 => "2.2.9",
            Self::V1_7 => "1.7.35",
            Self::V1_6 => "1.6.20",
        }
    }

    pub(super) fn part(self) -> String {
        format!("containerd-{}", self.number())
    }
}

/// What a test may want otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// `discard_unpacked_layers`: layer blobs leave the content store once they are unpacked.
    pub(crate) discard_unpacked_layers: bool,
    /// Its root is a disk of its own with so much room.
    pub(crate) root_mib: Option<u32>,
    /// Another snapshotter than overlayfs.
    pub(crate) snapshotter: Option<&'static str>,
    /// The registry at this address is set up in its own configuration, the old way, and not by hosts.toml files.
    pub(crate) mirrors: Option<&'static str>,
    /// No namespace is given what another one has in the content store.
    pub(crate) isolated: bool,
}

/// A containerd with its own root, state, socket and configuration; overlayfs; CRI on, NRI off, no CNI.
///
/// It runs in a mount and a process namespace whose first process holds them: containerd can be killed and
/// started again while its mounts and shims stay, and when the holder goes, all of it goes.
#[derive(Debug)]
pub(crate) struct Containerd {
    // Dropped in this order.
    daemon: Option<Process>,
    namespaces: Namespaces,
    scratch: Scratch,
    version: Version,
    env: Vec<(&'static str, &'static str)>,
}

impl Containerd {
    /// Starts one; it's ready when CRI answers.
    pub(crate) async fn start(version: Version) -> Self {
        Self::start_with(version, Options::default()).await
    }

    /// The same, with options.
    pub(crate) async fn start_with(version: Version, options: Options) -> Self {
        Self::start_configured(version, options, "", &[]).await
    }

    /// The same, with more in its configuration and in its environment.
    pub(crate) async fn start_configured(
        version: Version,
        options: Options,
        more: &str,
        env: &[(&'static str, &'static str)],
    ) -> Self {
        let scratch = Scratch::new("containerd");
        for dir in ["root", "state", "certs.d", "cni/bin", "cni/net", "verifiers"] {
            scratch.dir(dir);
        }
        if let Some(mib) = options.root_mib {
            small_disk(&scratch.join("root"), mib);
        }
        scratch.file("config.toml", config(scratch.path(), version, options) + more);
        // Shims keep their sockets below /run/containerd whatever the state directory is.
        let script = "mkdir -p /run/containerd; mount -t tmpfs tmpfs /run/containerd";
        let namespaces = Namespaces::hold(&scratch, script).await;
        let mut containerd = Self { daemon: None, namespaces, scratch, version, env: env.to_vec() };
        containerd.launch().await;
        containerd
    }

    /// The socket's path.
    pub(crate) fn address(&self) -> PathBuf {
        self.scratch.join("c.sock")
    }

    /// Its own directory.
    pub(crate) fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// The `/` of the host that it runs on: its own, with its own processes.
    pub(crate) fn host_root(&self) -> PathBuf {
        self.namespaces.root()
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.scratch.join("config.toml")
    }

    /// The directory with all its content and snapshots.
    pub(crate) fn root(&self) -> PathBuf {
        self.scratch.join("root")
    }

    /// The directory of the overlayfs snapshotter.
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root().join("io.containerd.snapshotter.v1.overlayfs/snapshots")
    }

    /// Which version this is.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The daemon's process, as this machine sees it.
    ///
    /// # Panics
    /// When it doesn't run.
    pub(crate) fn pid(&self) -> u32 {
        let daemon = self.daemon.as_ref().and_then(Process::child).expect("containerd runs");
        daemon.as_raw_nonzero().get().unsigned_abs()
    }

    /// All that it has logged, over its restarts.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.join("containerd.log")).unwrap_or_default()
    }

    /// Has pulls from the registry `host` (`127.0.0.1:PORT`) go to `url`: a registry of plain HTTP, a mirror or a
    /// fault proxy. It is read at each pull.
    pub(crate) fn trust(&self, host: &str, url: &str) {
        self.scratch.file(format!("certs.d/{host}/hosts.toml"), hosts_toml(url));
    }

    /// Stops it as a service manager does, and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.daemon = None;
        self.launch().await;
    }

    /// Kills it with SIGKILL. Its shims and mounts stay; [`Self::restart`] starts it again.
    pub(crate) fn kill9(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill9();
        }
    }

    /// Runs `ctr` on the namespace that CRI uses. The output is given whatever the exit status is.
    pub(crate) async fn ctr(&self, args: &[&str]) -> Output {
        let ctr = self.namespaces.enter(&part(&self.version.part(), "ctr"));
        let mut command = tokio::process::Command::from(ctr);
        command
            .arg("--address")
            .arg(self.address())
            .args(["--namespace", "k8s.io"])
            .args(args)
            .kill_on_drop(true);
        command.output().await.expect("ctr can be run")
    }

    /// Runs `ctr` and gives its standard output.
    ///
    /// # Panics
    /// When it fails.
    pub(crate) async fn ctr_ok(&self, args: &[&str]) -> String {
        let output = self.ctr(args).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctr {args:?}: {}: {errors}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a container of a pulled image, in a cgroup that goes with this fixture.
    pub(crate) async fn run(&self, image: &str, id: &str) {
        let cgroup = format!("/{}/{id}", cgroup_of(self.scratch.path()));
        self.ctr_ok(&["run", "--detach", "--cgroup", &cgroup, image, id]).await;
    }

    /// The directories of its containers' cgroups, one in each hierarchy.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        cgroups_of(self.scratch.path())
    }

    async fn launch(&mut self) {
        let part_dir = parts_dir().join(self.version.part());
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = self.namespaces.enter(&part(&self.version.part(), "containerd"));
        command
            .arg("--config")
            .arg(self.config())
            // The shim is looked up beside the daemon, runc on the PATH.
            .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", part_dir.display()))
            .envs(self.env.iter().copied());
        let name = format!("containerd {}", self.version.number());
        let daemon = Process::start_wrapped(&name, &command, &self.scratch.join("containerd.log"));
        let address = self.address();
        daemon
            .wait_ready("an answer of CRI", START, async || cri_answers(&address).await.then_some(()))
            .await;
        self.daemon = Some(daemon);
    }
}

/// What containerd reads about a registry's host (containerd's docs/hosts.md).
pub(super) fn hosts_toml(url: &str) -> String {
    format!("server = \"{url}\"\n\n[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
}

pub(super) async fn cri_answers(address: &Path) -> bool {
    let Ok(channel) = containerd_client::connect(address).await else { return false };
    let mut cri = RuntimeServiceClient::new(channel);
    let ready = cri.status(StatusRequest { verbose: false }).await;
    ready.is_ok_and(|answer| {
        let conditions = answer.into_inner().status.map(|status| status.conditions).unwrap_or_default();
        conditions.iter().any(|condition| condition.r#type == "RuntimeReady" && condition.status)
    })
}

/// Mounts a disk of its own there; the scratch directory takes it down with it.
pub(super) fn small_disk(place: &Path, mib: u32) {
    let size = std::ffi::CString::new(format!("size={mib}m")).expect("no zeros");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", place, "tmpfs", flags, Some(&*size)).expect("a tmpfs can be mounted");
}

fn config(dir: &Path, version: Version, options: Options) -> String {
    let dir = dir.display();
    let discard = options.discard_unpacked_layers;
    let snapshotter = options.snapshotter.unwrap_or("overlayfs");
    // Its transfer service has a setting of its own.
    let unpack = options.snapshotter.map(|snapshotter| {
        format!(
            "[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = \"linux\"
  snapshotter = \"{snapshotter}\""
        )
    });
    let unpack = unpack.unwrap_or_default();
    let registry = match options.mirrors {
        None => format!("config_path = \"{dir}/certs.d\""),
        Some(host) => format!("mirrors = {{\"{host}\" = {{endpoint = [\"http://{host}\"]}}}}"),
    };
    let sharing = if options.isolated { "isolated" } else { "shared" };
    let common = format!(
        r#"root = "{dir}/root"
state = "{dir}/state"

[grpc]
  address = "{dir}/c.sock"
[debug]
  level = "info"
[plugins."io.containerd.metadata.v1.bolt"]
  content_sharing_policy = "{sharing}"
"#
    );
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE a sandbox's negative score can't be set.
    match version {
        Version::V2_4 | Version::V2_2 => format!(
            r#"version = 3
{common}
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "{snapshotter}"
  discard_unpacked_layers = {discard}
  [plugins.'io.containerd.cri.v1.images'.registry]
    {registry}
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{dir}/cni/bin"]
    conf_dir = "{dir}/cni/net"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.internal.v1.opt']
  path = "{dir}/opt"
[plugins.'io.containerd.image-verifier.v1.bindir']
  bin_dir = "{dir}/verifiers"
{unpack}
"#
        ),
        Version::V1_7 | Version::V1_6 => format!(
            r#"version = 2
{common}
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    discard_unpacked_layers = {discard}
  [plugins."io.containerd.grpc.v1.cri".registry]
    {registry}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{dir}/cni/bin"
    conf_dir = "{dir}/cni/net"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
"#
        ),
    }
}
