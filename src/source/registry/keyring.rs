//! Which credentials of a mounted docker configuration fit what is asked of a registry, by the kubelet's rules, so that
//! what the kubelet can pull we can (kubernetes, `pkg/credentialprovider/{config,keyring}.go`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::pattern::{pattern_matches, pattern_of};
use crate::types::{ImageRef, RegistryAuth, Secret};

/// A docker configuration is a few lines; a Secret holds at most 1 MiB.
const FILE_LIMIT: u64 = 1 << 20;

/// The key of a `kubernetes.io/dockerconfigjson` Secret, the name docker gives the same file, and the key of the older
/// `kubernetes.io/dockercfg` Secret, which is that file's `auths` alone.
const FILE_NAMES: [&str; 3] = [".dockerconfigjson", "config.json", OLD_FILE_NAME];

const OLD_FILE_NAME: &str = ".dockercfg";

/// Docker Hub as `docker login` writes it, without the path.
const DOCKER_HUB: &str = "index.docker.io";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Credentials by registry pattern: of one docker configuration, or of what credential providers say.
#[derive(Default)]
pub(crate) struct Keyring {
    /// Sorted by pattern: the last that matches is the most specific.
    by_pattern: BTreeMap<String, Vec<RegistryAuth>>,
}

#[derive(Deserialize)]
struct DockerConfig {
    auths: Option<DockerAuths>,
}

type DockerAuths = BTreeMap<String, Option<DockerAuth>>;

#[derive(Deserialize)]
struct DockerAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Keyring {
    /// Reads the credentials called `name`: the Secret that is mounted at `dir/name`; `None` where no docker
    /// configuration is in it. They are read at each use, since a mounted Secret changes under us.
    ///
    /// # Errors
    /// What is wrong with the name or the file, without anything that it holds.
    pub(crate) async fn read(dir: &Path, name: &str) -> Result<Option<Self>, String> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err("that can't be the name of a mounted Secret".to_owned());
        }
        for file in FILE_NAMES {
            let path = dir.join(name).join(file);
            let shown = path.display();
            let size = match tokio::fs::metadata(&path).await {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(format!("cannot read {shown}: {error}")),
            };
            if size > FILE_LIMIT {
                return Err(format!("{shown} is over 1 MiB"));
            }
            let bytes =
                tokio::fs::read(&path).await.map_err(|error| format!("cannot read {shown}: {error}"))?;
            let parse = if file == OLD_FILE_NAME { Self::parse_old } else { Self::parse };
            return parse(&bytes).map(Some).map_err(|problem| format!("{shown}: {problem}"));
        }
        Ok(None)
    }

    /// What to mount where [`Self::read`] found nothing.
    pub(crate) fn missing(dir: &Path, name: &str) -> String {
        format!(
            "there is no {} in {}; mount a Secret of type kubernetes.io/dockerconfigjson there",
            FILE_NAMES[0],
            dir.join(name).display()
        )
    }

    /// Reads a docker configuration. Errors name the registry and never the credentials.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let config: DockerConfig = serde_json::from_slice(bytes).map_err(|error| not_docker(&error))?;
        Self::of(config.auths.unwrap_or_default())
    }

    /// The same for the older format.
    fn parse_old(bytes: &[u8]) -> Result<Self, String> {
        Self::of(serde_json::from_slice(bytes).map_err(|error| not_docker(&error))?)
    }

    fn of(auths: DockerAuths) -> Result<Self, String> {
        let mut keyring = Self::default();
        for (registry, auth) in auths {
            let auths = auth.map_or_else(|| Ok(Vec::new()), DockerAuth::read);
            for auth in auths.map_err(|problem| format!("auths[{registry:?}]: {problem}"))? {
                keyring.add(&registry, auth);
            }
        }
        Ok(keyring)
    }

    /// Adds credentials for `registry`, to be tried after those that are there for the same one.
    pub(crate) fn add(&mut self, registry: &str, auth: RegistryAuth) {
        self.by_pattern.entry(pattern_of(registry)).or_default().push(auth);
    }

    /// The credentials to try for `image`, in order. None is one that is asked for without.
    pub(crate) fn candidates(&self, image: &ImageRef) -> Vec<RegistryAuth> {
        let found: Vec<RegistryAuth> = self
            .by_pattern
            .iter()
            .rev()
            .filter(|(pattern, _)| pattern_matches(pattern, image))
            .flat_map(|(_, auths)| auths.iter().cloned())
            .collect();
        if found.is_empty() && image.domain() == "docker.io" {
            return self.by_pattern.get(DOCKER_HUB).cloned().unwrap_or_default();
        }
        found
    }
}

/// serde's message can quote what it stumbled over, which can be a password: only the place is told.
fn not_docker(error: &serde_json::Error) -> String {
    format!("not a docker configuration (line {}, column {})", error.line(), error.column())
}

impl DockerAuth {
    /// What there is to try. Nothing is an entry such as docker leaves behind where a credential helper has the rest.
    /// The kubelet knows no identity tokens and takes the password beside one, so that is tried, too.
    fn read(self) -> Result<Vec<RegistryAuth>, &'static str> {
        let mut found = Vec::new();
        if let Some(token) = self.identitytoken.filter(|token| !token.is_empty()) {
            found.push(RegistryAuth::IdentityToken(Secret::new(token)));
        }
        let (username, password) = match self.auth.filter(|auth| !auth.is_empty()) {
            None => (self.username.unwrap_or_default(), self.password.unwrap_or_default()),
            Some(auth) => {
                let auth: String = auth.trim().chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
                let plain = BASE64.decode(auth).map_err(|_| "auth isn't base64")?;
                let plain = String::from_utf8(plain).map_err(|_| "auth isn't base64 of user:password")?;
                let (username, password) =
                    plain.split_once(':').ok_or("auth isn't base64 of user:password")?;
                (username.to_owned(), password.trim_matches('\0').to_owned())
            }
        };
        let is_worth_trying = if found.is_empty() {
            !username.is_empty() || !password.is_empty()
        } else {
            !password.is_empty()
        };
        if is_worth_trying {
            found.push(RegistryAuth::Basic { username, password: Secret::new(password) });
        }
        Ok(found)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_pattern.keys()).finish()
    }
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
