//! Which credentials of a mounted docker configuration fit an image, by the kubelet's rules, so that what the kubelet
//! can pull we can (kubernetes, `pkg/credentialprovider/{config,keyring}.go`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::image::ImageError;
use crate::types::{ImageRef, RegistryAuth, Secret};

/// A docker configuration is a few lines; a Secret holds at most 1 MiB.
const FILE_LIMIT: u64 = 1 << 20;

/// The key of a `kubernetes.io/dockerconfigjson` Secret, and the name docker gives the same file.
const FILE_NAMES: [&str; 2] = [".dockerconfigjson", "config.json"];

/// Docker Hub as `docker login` writes it, without the path.
const DOCKER_HUB: &str = "index.docker.io";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The credentials of one docker configuration, by registry pattern.
pub(in crate::image) struct Keyring {
    /// Sorted by pattern: the last that matches is the most specific.
    by_pattern: BTreeMap<String, Vec<RegistryAuth>>,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerAuth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl Keyring {
    /// Reads the credentials called `name`: the Secret that is mounted at `dir/name`. They are read at each use, since
    /// a mounted Secret changes under us.
    pub(in crate::image) async fn read(dir: &Path, name: &str) -> Result<Self, ImageError> {
        let failed = |problem: String| ImageError::Credentials { name: name.to_owned(), problem };
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Err(failed("that can't be the name of a mounted Secret".to_owned()));
        }
        for file in FILE_NAMES {
            let path = dir.join(name).join(file);
            let shown = path.display();
            let size = match tokio::fs::metadata(&path).await {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(format!("cannot read {shown}: {error}"))),
            };
            if size > FILE_LIMIT {
                return Err(failed(format!("{shown} is over 1 MiB")));
            }
            let bytes = tokio::fs::read(&path)
                .await
                .map_err(|error| failed(format!("cannot read {shown}: {error}")))?;
            return Self::parse(&bytes).map_err(|problem| failed(format!("{shown}: {problem}")));
        }
        Err(failed(format!(
            "there is no {} in {}; mount a Secret of type kubernetes.io/dockerconfigjson there",
            FILE_NAMES[0],
            dir.join(name).display()
        )))
    }

    /// Reads a docker configuration. Errors name the registry and never the credentials.
    pub(in crate::image) fn parse(bytes: &[u8]) -> Result<Self, String> {
        // serde's message can quote what it stumbled over, which can be a password: only the place is told.
        let config: DockerConfig = serde_json::from_slice(bytes).map_err(|error| {
            format!("not a docker configuration (line {}, column {})", error.line(), error.column())
        })?;
        let mut by_pattern: BTreeMap<String, Vec<RegistryAuth>> = BTreeMap::new();
        for (registry, auth) in config.auths {
            let auth = auth.read().map_err(|problem| format!("auths[{registry:?}]: {problem}"))?;
            if let Some(auth) = auth {
                by_pattern.entry(pattern(&registry)).or_default().push(auth);
            }
        }
        Ok(Self { by_pattern })
    }

    /// The credentials to try for `image`, in order. None is an image that is pulled without.
    pub(in crate::image) fn candidates(&self, image: &ImageRef) -> Vec<RegistryAuth> {
        let found: Vec<RegistryAuth> = self
            .by_pattern
            .iter()
            .rev()
            .filter(|(pattern, _)| matches(pattern, image))
            .flat_map(|(_, auths)| auths.iter().cloned())
            .collect();
        if found.is_empty() && image.domain() == "docker.io" {
            return self.by_pattern.get(DOCKER_HUB).cloned().unwrap_or_default();
        }
        found
    }
}

impl DockerAuth {
    /// `None` is an entry that holds nothing (docker leaves such behind where a credential helper has the rest).
    fn read(self) -> Result<Option<RegistryAuth>, &'static str> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(RegistryAuth::IdentityToken(Secret::new(self.identitytoken))));
        }
        let (username, password) = if self.auth.is_empty() {
            (self.username, self.password)
        } else {
            let plain = BASE64.decode(self.auth.trim()).map_err(|_| "auth isn't base64")?;
            let plain = String::from_utf8(plain).map_err(|_| "auth isn't base64 of user:password")?;
            let (username, password) = plain.split_once(':').ok_or("auth isn't base64 of user:password")?;
            (username.to_owned(), password.trim_matches('\0').to_owned())
        };
        if username.is_empty() && password.is_empty() {
            return Ok(None);
        }
        Ok(Some(RegistryAuth::Basic { username, password: Secret::new(password) }))
    }
}

/// A registry as it's written in `auths`, as `host[:port][/path]`: without a scheme, and without the `/v1/` or `/v2/`
/// of an API's address.
fn pattern(registry: &str) -> String {
    let rest =
        registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let path = if path.starts_with("/v1/") || path.starts_with("/v2/") { &path[3..] } else { path };
    format!("{host}{}", if path == "/" { "" } else { path })
}

/// Whether `pattern` is for `image`: as many parts in the host and each one a glob that fits, the same port, and a
/// path that the image's begins with.
fn matches(pattern: &str, image: &ImageRef) -> bool {
    let (host, path) = pattern.split_once('/').map_or((pattern, ""), |(host, path)| (host, path));
    let (want_name, want_port) = split_port(host);
    let (name, port) = split_port(image.domain());
    let (want_parts, parts) = (want_name.split('.'), name.split('.'));
    port == want_port
        && image.repository().starts_with(path)
        && want_parts.clone().count() == parts.clone().count()
        && want_parts.zip(parts).all(|(glob, part)| fits(glob.as_bytes(), part.as_bytes()))
}

/// A host without its port and brackets, and the port.
fn split_port(host: &str) -> (&str, &str) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    (name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name), port)
}

/// `*` is any characters, `?` one; what else a host's name holds stands for itself.
fn fits(glob: &[u8], text: &[u8]) -> bool {
    let (mut glob_at, mut text_at, mut star) = (0, 0, None);
    while text_at < text.len() {
        match glob.get(glob_at) {
            Some(b'*') => {
                star = Some((glob_at, text_at));
                glob_at += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[text_at] => {
                glob_at += 1;
                text_at += 1;
            }
            _ => match star {
                None => return false,
                // Let the last star take one more.
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    glob_at = star_at + 1;
                    text_at = taken + 1;
                }
            },
        }
    }
    glob[glob_at..].iter().all(|&byte| byte == b'*')
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_pattern.keys()).finish()
    }
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
