use std::path::{Path, PathBuf};

use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::snapshots::StatSnapshotRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::{Plugin, PluginsRequest};
use tonic::Code;

use super::client::{MESSAGE_LIMIT, READ_DEADLINE, in_namespace};
use super::{Containerd, ContainerdError};
use crate::types::Digest;

/// The plugin type of every snapshotter.
const PLUGIN_TYPE: &str = "io.containerd.snapshotter.v1";

/// The snapshotter that the kubelet's images go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshotter {
    /// Its name: `overlayfs`, mostly.
    pub name: String,
    /// The directory it keeps its snapshots in, on the host.
    pub root: PathBuf,
}

/// When a snapshot was made. The same chain id unpacked anew has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotStamp {
    seconds: i64,
    nanos: i32,
}

impl SnapshotStamp {
    /// `seconds` and `nanos` since 1970.
    #[must_use]
    pub const fn new(seconds: i64, nanos: i32) -> Self {
        Self { seconds, nanos }
    }
}

impl Containerd {
    /// Which snapshotter CRI unpacks into, and where that is.
    ///
    /// # Errors
    /// When a call fails, or no snapshotter belongs to the path that CRI names.
    pub async fn snapshotter(&self) -> Result<Snapshotter, ContainerdError> {
        let path = self.image_file_system().await?;
        let what = "list the snapshotters";
        let request = in_namespace(PluginsRequest { filters: vec![format!("type=={PLUGIN_TYPE}")] });
        let mut client = IntrospectionClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT);
        let answer = self.call(what, READ_DEADLINE, client.plugins(request)).await?;
        choose(&path, &answer.plugins).ok_or_else(|| ContainerdError::Answer {
            what: what.to_owned(),
            problem: format!("none of them owns {}", path.display()),
        })
    }

    /// When the committed snapshot called `name` was made, or `None` where there is none.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn snapshot(
        &self,
        snapshotter: &str,
        name: Digest,
    ) -> Result<Option<SnapshotStamp>, ContainerdError> {
        let what = format!("find the snapshot {name}");
        let request =
            in_namespace(StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: name.to_string() });
        let mut client = SnapshotsClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT);
        match self.call(&what, READ_DEADLINE, client.stat(request)).await {
            Ok(answer) => {
                let made = answer.info.and_then(|info| info.created_at).unwrap_or_default();
                Ok(Some(SnapshotStamp::new(made.seconds, made.nanos)))
            }
            Err(ContainerdError::Call { code: Code::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// CRI names the file system by the snapshotter's root, or by `<containerd's root>/io.containerd.snapshotter.v1.<name>`
/// where the plugin exports none.
fn choose(path: &Path, plugins: &[Plugin]) -> Option<Snapshotter> {
    let exported = |plugin: &Plugin| plugin.exports.get("root").map(PathBuf::from);
    let by_root = plugins.iter().find(|plugin| exported(plugin).is_some_and(|root| root == path));
    let name = path.file_name().and_then(|name| name.to_str());
    let by_name = || {
        let name = name?.strip_prefix(PLUGIN_TYPE)?.strip_prefix('.')?;
        plugins.iter().find(|plugin| plugin.id == name)
    };
    let plugin = by_root.or_else(by_name)?;
    let root = exported(plugin).unwrap_or_else(|| path.to_path_buf());
    Some(Snapshotter { name: plugin.id.clone(), root })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(id: &str, root: Option<&str>) -> Plugin {
        let exports = root.map(|root| ("root".to_owned(), root.to_owned())).into_iter().collect();
        Plugin { id: id.to_owned(), exports, ..Plugin::default() }
    }

    #[test]
    fn the_path_names_the_snapshotter() {
        let plugins =
            [plugin("native", Some("/c/native")), plugin("overlayfs", Some("/data/o")), plugin("soci", None)];
        let chosen = |path: &str| choose(Path::new(path), &plugins).map(|s| (s.name, s.root));
        let found = |name: &str, root: &str| Some((name.to_owned(), PathBuf::from(root)));
        assert_eq!(chosen("/data/o"), found("overlayfs", "/data/o"));
        assert_eq!(chosen("/c/io.containerd.snapshotter.v1.overlayfs"), found("overlayfs", "/data/o"));
        assert_eq!(
            chosen("/c/io.containerd.snapshotter.v1.soci"),
            found("soci", "/c/io.containerd.snapshotter.v1.soci")
        );
        assert_eq!(chosen("/c/io.containerd.snapshotter.v1.zfs"), None);
        assert_eq!(chosen("/elsewhere"), None);
    }
}
