use std::collections::HashMap;
use std::path::{Path, PathBuf};

use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::{Plugin, PluginsRequest};
use k8s_cri::v1::StatusRequest;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use serde::Deserialize;

use super::client::{MESSAGE_LIMIT, READ_DEADLINE, in_namespace};
use super::config_file::{ConfigFileError, ConfigFiles};
use super::{Containerd, ContainerdError, ContainerdVersion, Snapshotter};

/// Where image verifiers are looked for unless the configuration says otherwise (containerd 2,
/// `plugins/imageverifier/path_unix.go`).
const VERIFIER_DIR: &str = "/opt/containerd/image-verifier/bin";

/// What the running containerd tells of itself over its socket. What a version doesn't tell is as it is the safest to
/// assume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Which containerd.
    pub version: ContainerdVersion,
    /// Where CRI unpacks images.
    pub snapshotter: Snapshotter,
    /// Whether CRI leaves a layer's blob out of the content store once it's unpacked (`discard_unpacked_layers`);
    /// `false` where that isn't known.
    pub discards_layers: bool,
    /// The directory of its content store, where it tells.
    pub content_root: Option<PathBuf>,
    /// Where it is told which hosts serve a registry's images.
    pub registries: RegistrySetup,
    /// Who has a say in whether an image may be pulled.
    pub verifiers: Verifiers,
    /// Whether it is known to run in a user namespace. Versions before 2.4 don't tell.
    pub user_namespace: bool,
}

/// Where a containerd's registries are set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrySetup {
    /// In directories with hosts.toml files, in this order (CRI's `config_path`); none where CRI has none.
    HostsDirs(Vec<PathBuf>),
    /// In containerd's own configuration (`mirrors` and `configs`, the old way): where and how images are fetched then
    /// can't be told from outside.
    Legacy,
    /// Nobody tells, for this reason. From 2.0 on and before 2.4 containerd doesn't, and its configuration file may not
    /// either.
    Unknown(String),
}

impl RegistrySetup {
    /// By `config_path`, which joins directories by colons.
    pub(super) fn of_path(path: &str) -> Self {
        Self::HostsDirs(path.split(':').filter(|dir| !dir.is_empty()).map(PathBuf::from).collect())
    }
}

/// Image verifiers of containerd 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verifiers {
    /// No plugin of that kind is loaded.
    None,
    /// The programs in a directory, if there are any: the one that its configuration file names, or else the default
    /// one.
    Directory(PathBuf),
    /// A plugin of this name.
    Plugin(String),
}

impl Verifiers {
    /// In the directory that `files` name, if any does.
    fn in_directory(self, files: Option<&ConfigFiles>) -> Self {
        let named = files.and_then(|files| files.verifier_dir().ok().flatten());
        match (self, named) {
            (Self::Directory(_), Some(named)) => Self::Directory(named),
            (verifiers, _) => verifiers,
        }
    }
}

impl Containerd {
    /// Asks the daemon for all of [`Daemon`], and its configuration file for what it doesn't tell. The host's `/` is at
    /// `host_root`.
    ///
    /// # Errors
    /// When a call fails, or CRI's snapshotter can't be told.
    pub async fn daemon(&self, host_root: &Path) -> Result<Daemon, ContainerdError> {
        let version = self.version().await?;
        let snapshotter = self.snapshotter().await?;
        let request = in_namespace(PluginsRequest { filters: Vec::new() });
        let mut client = IntrospectionClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT);
        let plugins = self.call("list its plugins", READ_DEADLINE, client.plugins(request)).await?.plugins;
        let mut verifiers = verifiers(&plugins);
        let images = match images_plugin(&plugins) {
            None => self.images_of_cri().await?,
            Some(plugin) => {
                let files = self.config_files(host_root, content_root(&plugins)).await?;
                verifiers = verifiers.in_directory(files.as_ref().ok());
                images_of(plugin).unwrap_or_else(|| images_of_files(&files, version.line()))
            }
        };
        Ok(Daemon {
            content_root: content_root(&plugins),
            verifiers,
            user_namespace: is_in_user_namespace(&version, &snapshotter, &plugins),
            discards_layers: images.discards_layers,
            registries: images.registries,
            version,
            snapshotter,
        })
    }

    async fn config_files(
        &self,
        host_root: &Path,
        content_root: Option<PathBuf>,
    ) -> Result<Result<ConfigFiles, ConfigFileError>, ContainerdError> {
        let what = "tell its process";
        let mut client = IntrospectionClient::new(self.channel());
        let pid = self.call(what, READ_DEADLINE, client.server(in_namespace(()))).await?.pid;
        let (host_root, socket) = (host_root.to_owned(), self.address().to_owned());
        tokio::task::spawn_blocking(move || {
            ConfigFiles::read(&host_root, pid, &socket, content_root.as_deref())
        })
        .await
        .map_err(|error| ContainerdError::Answer { what: what.to_owned(), problem: error.to_string() })
    }

    /// containerd 1 tells its CRI configuration as text.
    async fn images_of_cri(&self) -> Result<ImageSettings, ContainerdError> {
        let what = "tell its CRI configuration";
        let mut client = RuntimeServiceClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT);
        let answer = self.call(what, READ_DEADLINE, client.status(StatusRequest { verbose: true })).await?;
        settings_of_cri(&answer.info)
            .map_err(|error| ContainerdError::Answer { what: what.to_owned(), problem: error.to_string() })
    }
}

/// What CRI does with images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageSettings {
    pub(super) discards_layers: bool,
    pub(super) registries: RegistrySetup,
}

/// containerd 2 has a plugin of its own for CRI's images.
fn images_plugin(plugins: &[Plugin]) -> Option<&Plugin> {
    plugins.iter().find(|plugin| plugin.r#type == "io.containerd.cri.v1" && plugin.id == "images")
}

/// `None` where it doesn't tell. Without registries of the old kind it always has a path
/// (`plugins/cri/images/plugin.go`), and where it has none there may be any.
fn images_of(plugin: &Plugin) -> Option<ImageSettings> {
    let path = plugin.exports.get("RegistryConfigPath")?;
    Some(ImageSettings {
        discards_layers: plugin.exports.get("DiscardUnpackedLayers").is_some_and(|value| value == "true"),
        registries: if path.is_empty() { RegistrySetup::Legacy } else { RegistrySetup::of_path(path) },
    })
}

fn images_of_files(files: &Result<ConfigFiles, ConfigFileError>, line: Option<(u32, u32)>) -> ImageSettings {
    let settings = match files {
        Ok(files) => files.image_settings(line).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let unknown =
        |reason| ImageSettings { discards_layers: false, registries: RegistrySetup::Unknown(reason) };
    settings.unwrap_or_else(unknown)
}

/// containerd 1's CRI tells all of its configuration. Only these fields are read: others hold passwords.
fn settings_of_cri(info: &HashMap<String, String>) -> Result<ImageSettings, serde_json::Error> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Config {
        containerd: Unpacking,
        registry: Registry,
    }
    #[derive(Deserialize, Default)]
    #[serde(default, rename_all = "camelCase")]
    struct Unpacking {
        discard_unpacked_layers: bool,
    }
    // Go writes an empty map as null.
    #[derive(Deserialize, Default)]
    #[serde(default, rename_all = "camelCase")]
    struct Registry {
        config_path: String,
        mirrors: Option<HashMap<String, serde::de::IgnoredAny>>,
        configs: Option<HashMap<String, serde::de::IgnoredAny>>,
        auths: Option<HashMap<String, serde::de::IgnoredAny>>,
    }
    let config: Config = match info.get("config") {
        Some(text) => serde_json::from_str(text)?,
        None => Config::default(),
    };
    let registry = config.registry;
    let old = [registry.mirrors, registry.configs, registry.auths];
    let is_old = old.into_iter().flatten().any(|map| !map.is_empty());
    Ok(ImageSettings {
        discards_layers: config.containerd.discard_unpacked_layers,
        registries: if is_old {
            RegistrySetup::Legacy
        } else {
            RegistrySetup::of_path(&registry.config_path)
        },
    })
}

fn content_root(plugins: &[Plugin]) -> Option<PathBuf> {
    let plugin = plugins.iter().find(|plugin| plugin.r#type == "io.containerd.content.v1")?;
    plugin.exports.get("root").map(PathBuf::from)
}

fn verifiers(plugins: &[Plugin]) -> Verifiers {
    let loaded =
        |plugin: &&Plugin| plugin.r#type == "io.containerd.image-verifier.v1" && plugin.init_err.is_none();
    let mut found = plugins.iter().filter(loaded).map(|plugin| plugin.id.as_str()).peekable();
    if found.peek().is_none() {
        return Verifiers::None;
    }
    match found.find(|id| *id != "bindir") {
        Some(other) => Verifiers::Plugin(other.to_owned()),
        None => Verifiers::Directory(VERIFIER_DIR.into()),
    }
}

/// From 2.4 on overlayfs can put a snapshot on another parent when it's committed, everywhere but in a user namespace
/// (`plugins/snapshots/overlay/plugin`).
fn is_in_user_namespace(version: &ContainerdVersion, snapshotter: &Snapshotter, plugins: &[Plugin]) -> bool {
    let is_it =
        |plugin: &&Plugin| plugin.r#type == "io.containerd.snapshotter.v1" && plugin.id == snapshotter.name;
    let Some(plugin) = plugins.iter().find(is_it) else { return false };
    snapshotter.name == "overlayfs"
        && version.line().is_some_and(|line| line >= (2, 4))
        && !plugin.capabilities.iter().any(|capability| capability == "rebase")
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
