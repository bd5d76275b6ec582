use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::answer::ApiVersion;
use crate::image::ImageError;
use crate::rt;
use crate::types::{Secret, parse_go_duration};

/// Nobody's configuration is longer.
const LONGEST: u64 = 1 << 20;

const GROUP: &str = "kubelet.config.k8s.io/";

const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];

/// One provider of the kubelet's `CredentialProviderConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProviderConfig {
    /// Its name, which is its executable's.
    pub(super) name: String,
    /// Patterns of the images it's asked for.
    pub(super) match_images: Vec<String>,
    pub(super) args: Vec<String>,
    /// Variables beside our own.
    pub(super) env: Vec<(String, Secret<String>)>,
    pub(super) version: ApiVersion,
    /// How long an answer is kept that doesn't say it.
    pub(super) keep: Duration,
    /// Why it can't be used, if so.
    pub(super) unusable: Option<&'static str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_version: String,
    kind: String,
    providers: Option<Vec<Provider>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Provider {
    name: String,
    match_images: Option<Vec<String>>,
    default_cache_duration: Option<String>,
    api_version: Option<String>,
    args: Option<Vec<String>>,
    env: Option<Vec<Variable>>,
    token_attributes: Option<TokenAttributes>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenAttributes {
    require_service_account: Option<bool>,
}

/// Reads the kubelet's configuration at `path`, a path of the host: a file, or a directory whose `.json`, `.yaml` and
/// `.yml` files count together, in the order of their names. It blocks.
pub(super) fn read(host_root: Option<&Path>, path: &Path) -> Result<Vec<ProviderConfig>, ImageError> {
    let failed = |path: &Path, problem: String| ImageError::ProviderConfig { path: path.to_owned(), problem };
    let unreadable = |error: io::Error| failed(path, format!("it can't be read: {error}"));
    let here = rt::host_path(host_root, path).map_err(unreadable)?;
    let mut files = Vec::new();
    if fs::metadata(&here).map_err(unreadable)?.is_dir() {
        for entry in fs::read_dir(&here).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = PathBuf::from(entry.file_name());
            let extension = name.extension().and_then(|extension| extension.to_str());
            if matches!(extension, Some("json" | "yaml" | "yml")) && !entry.path().is_dir() {
                files.push(path.join(name));
            }
        }
        files.sort();
        if files.is_empty() {
            return Err(failed(path, "there is no .json, .yaml or .yml file in it".to_owned()));
        }
    } else {
        files.push(path.to_owned());
    }
    let mut providers = Vec::new();
    for file in files {
        let text = read_text(host_root, &file).map_err(|problem| failed(&file, problem))?;
        providers.extend(parse(&text).map_err(|problem| failed(&file, problem))?);
    }
    let mut names = HashSet::new();
    for provider in &mut providers {
        if !names.insert(provider.name.clone()) {
            provider.unusable = Some("another provider has the same name");
        }
    }
    Ok(providers)
}

fn read_text(host_root: Option<&Path>, path: &Path) -> Result<String, String> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(rt::host_path(host_root, path)?)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error: io::Error| format!("it can't be read: {error}"))?;
    if bytes.len() as u64 > LONGEST {
        return Err("it is over 1 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "it isn't UTF-8".to_owned())
}

/// Reads one document of YAML or JSON. What an error tells is a place and never a value: variables may hold secrets.
/// A provider that we can't use is listed with the reason, and keeps no other from being used.
pub(super) fn parse(text: &str) -> Result<Vec<ProviderConfig>, String> {
    let document: Document = if text.trim_start().starts_with('{') {
        // JSON may be indented with tabs, which YAML forbids.
        serde_json::from_str(text).map_err(|error| malformed(error.line(), error.column()))?
    } else {
        serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location();
            let place = place.map(|place| (as_usize(place.line()), as_usize(place.column())));
            let (line, column) = place.unwrap_or_default();
            malformed(line, column)
        })?
    };
    let version = document.api_version.strip_prefix(GROUP);
    if document.kind != "CredentialProviderConfig" || !version.is_some_and(|v| VERSIONS.contains(&v)) {
        return Err(format!("it isn't a CredentialProviderConfig of {GROUP}v1, v1beta1 or v1alpha1"));
    }
    Ok(document.providers.unwrap_or_default().into_iter().map(ProviderConfig::from).collect())
}

fn malformed(line: usize, column: usize) -> String {
    format!("it isn't a CredentialProviderConfig (line {line}, column {column})")
}

fn as_usize(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or_default()
}

impl From<Provider> for ProviderConfig {
    fn from(provider: Provider) -> Self {
        let name = provider.name;
        let version = provider.api_version.as_deref().and_then(ApiVersion::named);
        let keep = provider.default_cache_duration.as_deref().and_then(parse_go_duration);
        let keep = keep.and_then(|nanoseconds| u64::try_from(nanoseconds).ok()).map(Duration::from_nanos);
        let needs_token =
            provider.token_attributes.is_some_and(|token| token.require_service_account != Some(false));
        let unusable = if name.is_empty() || name == "." || name == ".." || name.contains(['/', ' ', '\0']) {
            Some("its name must be a file's, without slashes and spaces")
        } else if version.is_none() {
            Some("its apiVersion must be credentialprovider.kubelet.k8s.io/v1, v1beta1 or v1alpha1")
        } else if keep.is_none() {
            Some("its defaultCacheDuration must be a duration, as 12h")
        } else if needs_token {
            Some("it wants a token of a pod's service account, which only the kubelet can get")
        } else {
            None
        };
        let env = provider.env.unwrap_or_default().into_iter();
        Self {
            name,
            match_images: provider.match_images.unwrap_or_default(),
            args: provider.args.unwrap_or_default(),
            env: env.map(|variable| (variable.name, Secret::new(variable.value))).collect(),
            version: version.unwrap_or(ApiVersion::V1),
            keep: keep.unwrap_or_default(),
            unusable,
        }
    }
}
