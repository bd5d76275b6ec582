use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{ImageRef, RegistryAuth, Secret, parse_go_duration};

/// Which version of `credentialprovider.kubelet.k8s.io` a plugin speaks. All have the same fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApiVersion {
    V1,
    V1Beta1,
    V1Alpha1,
}

impl ApiVersion {
    /// The version with this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::V1, Self::V1Beta1, Self::V1Alpha1].into_iter().find(|version| version.name() == name)
    }

    /// Its name, with its group.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V1 => "credentialprovider.kubelet.k8s.io/v1",
            Self::V1Beta1 => "credentialprovider.kubelet.k8s.io/v1beta1",
            Self::V1Alpha1 => "credentialprovider.kubelet.k8s.io/v1alpha1",
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    kind: &'static str,
    api_version: &'static str,
    image: &'a str,
}

/// What a plugin is asked: the `CredentialProviderRequest`. The image is without tag and digest, as the kubelet asks.
pub(super) fn request(version: ApiVersion, image: &str) -> Vec<u8> {
    let request = Request { kind: "CredentialProviderRequest", api_version: version.name(), image };
    // A struct of texts always becomes JSON.
    serde_json::to_vec(&request).unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    kind: String,
    api_version: String,
    cache_key_type: String,
    cache_duration: Option<String>,
    auth: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize)]
struct Auth {
    username: Option<String>,
    password: Option<String>,
}

/// For which other images an answer is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// None: the same repository only.
    Image,
    /// Those of the same registry.
    Registry,
    /// All.
    Global,
}

impl Scope {
    /// Whether an answer for `asked` is good for `image`.
    pub(super) fn covers(self, asked: &ImageRef, image: &ImageRef) -> bool {
        match self {
            Self::Image => asked.name() == image.name(),
            Self::Registry => asked.domain() == image.domain(),
            Self::Global => true,
        }
    }
}

/// What a plugin says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) scope: Scope,
    /// How long it may be kept, where it says so; zero is not at all.
    pub(super) keep: Option<Duration>,
    /// Credentials by pattern of the images they are for.
    pub(super) auths: Vec<(String, RegistryAuth)>,
}

/// Reads a `CredentialProviderResponse`. What an error tells is a place or a rule, and never anything from the text.
pub(super) fn parse(version: ApiVersion, text: &[u8]) -> Result<Answer, String> {
    let response: Response = serde_json::from_slice(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("it isn't a CredentialProviderResponse (line {line}, column {column})")
    })?;
    if response.kind != "CredentialProviderResponse" {
        return Err("its kind isn't CredentialProviderResponse".to_owned());
    }
    if response.api_version != version.name() {
        return Err(format!("its apiVersion isn't {}, which the provider is configured for", version.name()));
    }
    let scope = match response.cache_key_type.as_str() {
        "Image" => Scope::Image,
        "Registry" => Scope::Registry,
        "Global" => Scope::Global,
        _ => return Err("its cacheKeyType isn't Image, Registry or Global".to_owned()),
    };
    let keep = response.cache_duration.map(|text| {
        let nanoseconds = parse_go_duration(&text).ok_or("its cacheDuration isn't a duration, as 12h")?;
        // What has expired already isn't kept.
        Ok::<_, &str>(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default()))
    });
    let auths = response.auth.unwrap_or_default().into_iter().filter_map(|(pattern, auth)| {
        let (username, password) = (auth.username.unwrap_or_default(), auth.password.unwrap_or_default());
        let says_nothing = username.is_empty() && password.is_empty();
        (!says_nothing).then(|| (pattern, RegistryAuth::Basic { username, password: Secret::new(password) }))
    });
    Ok(Answer { scope, keep: keep.transpose()?, auths: auths.collect() })
}
