use std::fmt;
use std::str::FromStr;

use url::Url;

use super::{HubRepo, RelPath};

/// Where weights come from. One variant a scheme; each source room understands its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WeightsUri {
    /// `https://…` (and `http://…`, which the agent must be told to allow): one file, or an index.
    Http(Url),
    /// `s3://bucket/key`: one object, or every object under a prefix that ends in `/`.
    S3 {
        /// The bucket.
        bucket: String,
        /// An object's key, or a prefix that is empty or ends in `/`.
        key: String,
    },
    /// `gs://bucket/key`, as for S3.
    Gcs {
        /// The bucket.
        bucket: String,
        /// An object's name, or a prefix that is empty or ends in `/`.
        key: String,
    },
    /// `az://container/blob` or `az://container@account/blob`, as for S3.
    Azure {
        /// The storage account, or `None` for that of the credentials.
        account: Option<String>,
        /// The container.
        container: String,
        /// A blob's name, or a prefix that is empty or ends in `/`.
        key: String,
    },
    /// `hf://org/name@revision`.
    HuggingFace {
        /// `org/name`.
        repo: HubRepo,
        /// A branch, a tag or a commit; `main` where none is given.
        revision: RelPath,
    },
    /// `oci://registry/repository:tag`: an artifact in a registry.
    Oci(super::ImageRef),
    /// `file:///path`.
    File(String),
}

/// Text that isn't a place for weights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a weights URI: {problem}")]
pub struct InvalidWeightsUri {
    problem: String,
}

impl WeightsUri {
    /// The scheme, as an allow-list names it.
    #[must_use]
    pub fn scheme(&self) -> &str {
        match self {
            Self::Http(url) => url.scheme(),
            Self::S3 { .. } => "s3",
            Self::Gcs { .. } => "gs",
            Self::Azure { .. } => "az",
            Self::HuggingFace { .. } => "hf",
            Self::Oci(_) => "oci",
            Self::File(_) => "file",
        }
    }
}

impl FromStr for WeightsUri {
    type Err = InvalidWeightsUri;

    fn from_str(text: &str) -> Result<Self, InvalidWeightsUri> {
        let invalid = |problem: &str| InvalidWeightsUri { problem: problem.to_owned() };
        if text.len() > 4096 || text.chars().any(char::is_control) {
            return Err(invalid("it is too long or holds control characters"));
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| invalid("it has no scheme (https:// s3:// hf:// gs:// az:// oci:// file://)"))?;
        match scheme {
            "https" | "http" => parse_http(text),
            "s3" => bucket_and_key(rest).map(|(bucket, key)| Self::S3 { bucket, key }),
            "gs" => bucket_and_key(rest).map(|(bucket, key)| Self::Gcs { bucket, key }),
            "az" => parse_azure(rest),
            "hf" => parse_hugging_face(rest),
            "oci" => rest
                .parse()
                .map(Self::Oci)
                .map_err(|error: super::InvalidImageRef| invalid(&error.to_string())),
            "file" if rest.starts_with('/') && !rest.split('/').any(|part| part == "..") => {
                Ok(Self::File(rest.to_owned()))
            }
            "file" => Err(invalid("write file:/// and an absolute path without ..")),
            other => Err(invalid(&format!(
                "the scheme {:?} is not known",
                other.chars().take(20).collect::<String>()
            ))),
        }
    }
}

/// A password or a token in a list would end up in the status; it belongs in `credentials`.
fn parse_http(text: &str) -> Result<WeightsUri, InvalidWeightsUri> {
    let invalid = |problem: &str| InvalidWeightsUri { problem: problem.to_owned() };
    let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("it holds a user name or a password; name a Secret under `credentials` instead"));
    }
    if url.fragment().is_some() {
        return Err(invalid("it holds a fragment (#…), which no server sees"));
    }
    Ok(WeightsUri::Http(url))
}

fn bucket_and_key(rest: &str) -> Result<(String, String), InvalidWeightsUri> {
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(InvalidWeightsUri { problem: "the bucket's name is missing or malformed".to_owned() });
    }
    Ok((bucket.to_owned(), key.to_owned()))
}

/// The endpoints of the public cloud may be spelt out, as other tools want it. Another host is none that a list may
/// choose, since the agent's signatures go there: the credentials name it.
fn parse_azure(rest: &str) -> Result<WeightsUri, InvalidWeightsUri> {
    const ENDPOINTS: [&str; 2] = [".blob.core.windows.net", ".dfs.core.windows.net"];
    let invalid = |problem: &str| InvalidWeightsUri { problem: problem.to_owned() };
    let (place, key) = rest.split_once('/').unwrap_or((rest, ""));
    let (container, host) = match place.split_once('@') {
        Some((container, host)) => (container, Some(host)),
        None => (place, None),
    };
    let is_container = (3..=63).contains(&container.len())
        && container.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !is_container {
        return Err(invalid("write az://container/blob or az://container@account/blob"));
    }
    let account = host.map(|host| {
        ENDPOINTS.iter().find_map(|endpoint| host.strip_suffix(endpoint)).unwrap_or(host).to_owned()
    });
    let is_account = |name: &str| {
        (3..=24).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if account.as_deref().is_some_and(|name| !is_account(name)) {
        return Err(invalid(
            "after @ comes the storage account's name; another endpoint is named by AZURE_STORAGE_ENDPOINT in the \
             credentials",
        ));
    }
    Ok(WeightsUri::Azure { account, container: container.to_owned(), key: key.to_owned() })
}

/// A revision becomes the name of a file in a cache of the Hub's layout.
fn parse_hugging_face(rest: &str) -> Result<WeightsUri, InvalidWeightsUri> {
    let invalid = |problem: &str| InvalidWeightsUri { problem: problem.to_owned() };
    let (repo, revision) = rest.split_once('@').unwrap_or((rest, "main"));
    let repo = repo.parse().map_err(|_| invalid("write hf://org/name or hf://org/name@revision"))?;
    let revision = revision.parse::<RelPath>().ok().filter(|it| !it.as_str().contains(char::is_whitespace));
    let revision = revision.ok_or_else(|| invalid("the revision after @ is malformed"))?;
    Ok(WeightsUri::HuggingFace { repo, revision })
}

/// The URI for people and logs: what follows `?` may be a signature, so it's left out.
impl fmt::Display for WeightsUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => {
                let mut shown = url.clone();
                shown.set_query(None);
                write!(f, "{shown}{}", if url.query().is_some() { "?…" } else { "" })
            }
            Self::S3 { bucket, key } => write!(f, "s3://{bucket}/{key}"),
            Self::Gcs { bucket, key } => write!(f, "gs://{bucket}/{key}"),
            Self::Azure { account: Some(account), container, key } => {
                write!(f, "az://{container}@{account}/{key}")
            }
            Self::Azure { account: None, container, key } => write!(f, "az://{container}/{key}"),
            Self::HuggingFace { repo, revision } => write!(f, "hf://{repo}@{revision}"),
            Self::Oci(reference) => write!(f, "oci://{reference}"),
            Self::File(path) => write!(f, "file://{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<WeightsUri>().unwrap().to_string()
    }

    #[test]
    fn every_scheme_is_read() {
        for text in [
            "https://host/a/model.safetensors",
            "http://127.0.0.1:80/x",
            "s3://bucket/models/llama/",
            "gs://bucket/key",
            "az://container/dir/",
            "az://container@account/dir/blob",
            "hf://org/name@9f3c2a",
            "hf://org/name@refs/pr/1",
            "oci://ghcr.io/a/b:1",
            "file:///mnt/models/",
        ] {
            assert!(text.parse::<WeightsUri>().is_ok(), "{text}");
        }
        assert_eq!(shown("hf://org/name"), "hf://org/name@main");
        assert_eq!(shown("s3://bucket"), "s3://bucket/");
        assert_eq!(shown("az://models"), "az://models/");
        for endpoint in ["", ".blob.core.windows.net", ".dfs.core.windows.net"] {
            assert_eq!(shown(&format!("az://models@account{endpoint}/a/b")), "az://models@account/a/b");
        }
    }

    #[test]
    fn a_signature_is_never_shown() {
        let uri: WeightsUri = "https://host/a?X-Amz-Signature=abc".parse().unwrap();
        assert_eq!(uri.to_string(), "https://host/a?…");
    }

    #[test]
    fn what_is_malformed_or_holds_a_secret_is_refused() {
        for text in [
            "",
            "model",
            "ftp://host/a",
            "s3:///key",
            "s3://b?/k",
            "https://user:pw@host/a",
            "https://host/a#b",
            "https://",
            "hf://name",
            "hf://a/b/c",
            "hf://../b",
            "hf://a/b@",
            "hf://a--b/c",
            "hf://a/b@x/../y",
            "hf://a/b@x y",
            "file://relative",
            "file:///a/../b",
            "az://",
            "az:///key",
            "az://No/key",
            "az://models@/key",
            "az://models@evil.example.com/key",
            "az://models@127.0.0.1:10000/key",
        ] {
            assert!(text.parse::<WeightsUri>().is_err(), "{text}");
        }
    }
}
