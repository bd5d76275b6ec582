mod answers;
mod configs;
mod keeping;
mod plugins;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::types::Secret;

const GROUP: &str = "credentialprovider.kubelet.k8s.io";

/// A node with plugins that are shell scripts.
struct Node {
    root: TempDir,
    providers: Providers,
}

impl Node {
    fn new() -> Self {
        Self::with_patience(Duration::from_secs(30))
    }

    fn with_patience(patience: Duration) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/libexec/plugins")).unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        let paths =
            ProviderPaths { config: "/etc/providers.yaml".into(), bin_dir: "/usr/libexec/plugins".into() };
        let providers = Providers { patience, ..Providers::new(paths, Some(root.path().to_owned())) };
        Self { root, providers }
    }

    /// A node with one plugin, `test`, that is asked for images of `*.io` and `docker.io`; what it prints is kept for
    /// an hour unless it says otherwise. `$D` is the node's root, where each of its runs adds a line to `runs`.
    fn with_plugin(script: &str) -> Self {
        let node = Self::new();
        node.config(&provider("test", "[\"*.io\"]", ""));
        node.plugin("test", script);
        node
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn config(&self, providers: &str) {
        let head = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n";
        fs::write(self.path("etc/providers.yaml"), format!("{head}{providers}")).unwrap();
    }

    fn plugin(&self, name: &str, script: &str) {
        let path = self.path("usr/libexec/plugins").join(name);
        let script = format!("#!/bin/sh\nD={}\necho x >> $D/runs\n{script}\n", self.root.path().display());
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// How often plugins have run.
    fn runs(&self) -> usize {
        fs::read_to_string(self.path("runs")).unwrap_or_default().lines().count()
    }

    async fn ask(&self, image: &str) -> Result<Vec<RegistryAuth>, ImageError> {
        self.providers.candidates(&image.parse().unwrap()).await
    }

    /// The problem that is told about `image`, with its causes.
    async fn problem(&self, image: &str) -> String {
        rt::chain(&self.ask(image).await.unwrap_err())
    }
}

/// An entry of the configuration.
fn provider(name: &str, match_images: &str, more: &str) -> String {
    format!(
        "- name: {name}\n  apiVersion: {GROUP}/v1\n  matchImages: {match_images}\n  defaultCacheDuration: 1h\n{more}"
    )
}

/// A script that answers with `fields`, which are JSON's.
fn answers(fields: &str) -> String {
    let head = format!(r#""kind":"CredentialProviderResponse","apiVersion":"{GROUP}/v1""#);
    format!("cat <<'END'\n{{{head},{fields}}}\nEND")
}

fn basic(username: &str, password: &str) -> RegistryAuth {
    RegistryAuth::Basic { username: username.to_owned(), password: Secret::new(password.to_owned()) }
}
