use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::source::SourceError;
use crate::source::cloud::endpoint::Endpoint;
use crate::source::cloud::tokens::{self, Owner, Tokens};
use crate::source::credentials::Credentials;

/// Where Google itself is.
const ENDPOINT: &str = "https://storage.googleapis.com";

/// The service account's key, in a Secret.
const KEY: &str = "key.json";

/// Says that nobody is to be named: for public buckets.
const ANONYMOUS: &str = "GOOGLE_ANONYMOUS";

/// Names another endpoint.
const BASE_URL: &str = "GOOGLE_BASE_URL";

/// The same for Google's own clients, which then name nobody.
const EMULATOR: &str = "STORAGE_EMULATOR_HOST";

const ADVICE: &str = "there may be none (GOOGLE_APPLICATION_CREDENTIALS, gcloud's own and the metadata server were asked); \
                      bind a service account to the pod, or name a Secret under `credentials`, with a file key.json, or \
                      GOOGLE_ANONYMOUS for a public bucket";

/// Who asks.
pub(super) type Identity = tokens::Identity<GcpCredential>;

/// What must be in a key file. There is more, which says nothing to us.
#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    private_key: Option<IgnoredAny>,
}

/// Who asks, and whom: as the Secret says, else as the environment does.
pub(super) async fn find(
    credentials: Option<&Credentials>,
    tokens: &Tokens,
) -> Result<(Identity, Endpoint), SourceError> {
    let owner = Owner { secret: credentials.map(|named| named.name.clone()), advice: ADVICE };
    let in_env = |key: &str| std::env::var(key).ok().filter(|value| !value.is_empty());
    let said = |key: &str| match credentials {
        Some(named) => named.get(key).map(str::to_owned),
        None => in_env(key),
    };
    let emulator = in_env(EMULATOR).map(with_scheme);
    let is_anonymous = said(ANONYMOUS).is_some() || (credentials.is_none() && emulator.is_some());
    let endpoint = said(BASE_URL).or_else(|| in_env(BASE_URL)).or(emulator);
    let endpoint = endpoint.unwrap_or_else(|| ENDPOINT.to_owned());
    let endpoint = Endpoint::parse(&endpoint)
        .ok_or_else(|| owner.failed(format!("its {BASE_URL} is no https:// or http:// URL")))?;
    if is_anonymous {
        return Ok((Identity::Anonymous, endpoint));
    }
    let builder = match credentials {
        Some(named) => {
            let key = named.need(KEY)?;
            check_key(key).map_err(|problem| owner.failed(problem))?;
            GoogleCloudStorageBuilder::new().with_config(GoogleConfigKey::ServiceAccountKey, key)
        }
        None => GoogleCloudStorageBuilder::from_env(),
    };
    // Only for its credentials: nothing else of it is used. The bucket's name means nothing to those.
    let builder = builder
        .with_bucket_name("bucket")
        .with_retry(Tokens::no_retries())
        .with_http_connector(tokens.clone());
    // It reads key files.
    let built = tokio::task::spawn_blocking(move || builder.build()).await;
    let unusable = match credentials {
        Some(_) => "its key.json is no service account's key that can be used; download it again",
        None => {
            "GOOGLE_APPLICATION_CREDENTIALS, or gcloud's own credentials, can't be used; a service account's key, \
                 or a user's, is understood"
        }
    };
    match built {
        Ok(Ok(store)) => {
            let provider = store.credentials().clone();
            Ok((Identity::Account { provider, owner }, endpoint))
        }
        Ok(Err(_)) | Err(_) => Err(owner.failed(unusable)),
    }
}

fn with_scheme(host: String) -> String {
    if host.contains("://") { host } else { format!("http://{host}") }
}

/// Nothing of what a file holds is ever repeated.
fn check_key(key: &str) -> Result<(), String> {
    let file: KeyFile =
        serde_json::from_str(key).map_err(|_| format!("its {KEY} is not a service account's key in JSON"))?;
    match file.kind.as_str() {
        "service_account" if file.private_key.is_some() => Ok(()),
        "service_account" => Err(format!("its {KEY} holds no private_key")),
        _ => Err(format!(
            "its {KEY} is not of type service_account; use such a key, or bind a service account to the pod"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_cannot_be_used_is_told_without_what_it_holds() {
        for (key, word) in [
            ("\"hunter2\"", "in JSON"),
            ("hunter2", "in JSON"),
            (r#"{"type":"hunter2"}"#, "type service_account"),
            (r#"{"type":"service_account"}"#, "private_key"),
        ] {
            let problem = check_key(key).unwrap_err();
            assert!(problem.contains(word) && !problem.contains("hunter2"), "{problem}");
        }
        assert!(check_key(r#"{"type":"service_account","private_key":"x","project_id":"p"}"#).is_ok());
    }

    #[test]
    fn an_emulator_may_be_named_without_a_scheme() {
        assert_eq!(with_scheme("localhost:4443".to_owned()), "http://localhost:4443");
        assert_eq!(with_scheme("https://gcs.local".to_owned()), "https://gcs.local");
    }
}
