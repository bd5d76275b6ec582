use std::sync::Arc;

use object_store::azure::{AzureConfigKey, AzureCredential, MicrosoftAzureBuilder};

use crate::source::SourceError;
use crate::source::cloud::endpoint::Endpoint;
use crate::source::cloud::tokens::{self, Owner, Tokens};
use crate::source::credentials::Credentials;

/// Says that nobody is to be named: for public containers.
const ANONYMOUS: &str = "AZURE_STORAGE_ANONYMOUS";

const ADVICE: &str = "there may be none (AZURE_* of the environment, workload identity and the instance's managed identity \
                      were asked); bind an identity to the pod, or name a Secret under `credentials`, with files \
                      AZURE_STORAGE_*, or AZURE_STORAGE_ANONYMOUS for a public container";

/// What of a Secret or the environment is understood: what tells who asks. The rest of object_store's keys would
/// change what is asked, or run programs.
const UNDERSTOOD: [AzureConfigKey; 13] = [
    AzureConfigKey::AccountName,
    AzureConfigKey::AccessKey,
    AzureConfigKey::ClientId,
    AzureConfigKey::ClientSecret,
    AzureConfigKey::AuthorityId,
    AzureConfigKey::AuthorityHost,
    AzureConfigKey::SasKey,
    AzureConfigKey::Token,
    AzureConfigKey::Endpoint,
    AzureConfigKey::MsiEndpoint,
    AzureConfigKey::ObjectId,
    AzureConfigKey::MsiResourceId,
    AzureConfigKey::FederatedTokenFile,
];

/// What of them is enough to be somebody.
const ENOUGH: [AzureConfigKey; 6] = [
    AzureConfigKey::AccessKey,
    AzureConfigKey::SasKey,
    AzureConfigKey::Token,
    AzureConfigKey::ClientId,
    AzureConfigKey::ObjectId,
    AzureConfigKey::MsiResourceId,
];

/// Who asks.
pub(super) type Identity = tokens::Identity<AzureCredential>;

/// Who asks, and whom.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) identity: Identity,
    pub(super) account: String,
    pub(super) endpoint: Endpoint,
}

/// What a Secret or the environment holds, by object_store's names for it.
type Values = Vec<(AzureConfigKey, String)>;

/// Who asks, and whom: as the Secret says, else as the environment does. `account` is the one that the list names.
pub(super) async fn find(
    account: Option<&str>,
    credentials: Option<&Credentials>,
    tokens: &Tokens,
) -> Result<Found, SourceError> {
    let owner = Owner { secret: credentials.map(|named| named.name.clone()), advice: ADVICE };
    let environment = || {
        std::env::vars_os().filter_map(|(key, value)| key.into_string().ok().zip(value.into_string().ok()))
    };
    let values: Values = match credentials {
        Some(named) => understood(named.all()),
        None => understood(environment()),
    };
    let account = which_account(account, value(&values, AzureConfigKey::AccountName), &owner)?;
    let in_env = || value(&understood(environment()), AzureConfigKey::Endpoint).map(str::to_owned);
    let endpoint = value(&values, AzureConfigKey::Endpoint).map(str::to_owned).or_else(in_env);
    let endpoint = endpoint.unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
    let endpoint = Endpoint::parse(&endpoint)
        .ok_or_else(|| owner.failed("its AZURE_STORAGE_ENDPOINT is no https:// or http:// URL"))?;
    let is_anonymous = match credentials {
        Some(named) => named.get(ANONYMOUS).is_some(),
        None => std::env::var_os(ANONYMOUS).is_some_and(|value| !value.is_empty()),
    };
    if is_anonymous {
        return Ok(Found { identity: Identity::Anonymous, account, endpoint });
    }
    if credentials.is_some() && !ENOUGH.iter().any(|key| value(&values, *key).is_some()) {
        return Err(owner.failed(
            "it has none of AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_CLIENT_ID (with \
             AZURE_CLIENT_SECRET and AZURE_TENANT_ID) and AZURE_STORAGE_ANONYMOUS",
        ));
    }
    // Only for its credentials: nothing else of it is used. The container's name means nothing to those.
    let builder = MicrosoftAzureBuilder::new()
        .with_container_name("container")
        .with_retry(Tokens::no_retries())
        .with_http_connector(tokens.clone());
    let builder = values.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
    let unusable = "its key, its SAS token or its client can't be used; is each value whole?";
    let store = builder.with_account(&account).build().map_err(|_| owner.failed(unusable))?;
    let provider = Arc::clone(store.credentials());
    Ok(Found { identity: Identity::Account { provider, owner }, account, endpoint })
}

/// Only what begins with AZURE_: object_store has short names, too, which mean other things elsewhere. The instance's
/// own endpoint for tokens has another name in App Service and Azure Arc.
fn understood(all: impl Iterator<Item = (String, String)>) -> Values {
    all.filter(|(name, value)| {
        (name.starts_with("AZURE_") || name == "IDENTITY_ENDPOINT") && !value.is_empty()
    })
    .filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)))
    .filter(|(key, _)| UNDERSTOOD.contains(key))
    .collect()
}

fn value(values: &Values, key: AzureConfigKey) -> Option<&str> {
    values.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
}

/// The account that the list names, and that of the credentials: the key of one never goes to another.
fn which_account(listed: Option<&str>, own: Option<&str>, owner: &Owner) -> Result<String, SourceError> {
    match (listed, own) {
        (Some(listed), Some(own)) if listed != own => {
            Err(owner.failed(format!("they are for the account {own}, and the list names {listed}")))
        }
        (Some(account), _) | (None, Some(account)) => Ok(account.to_owned()),
        (None, None) => Err(owner.failed(
            "no storage account is named; write az://container@account/…, or give them AZURE_STORAGE_ACCOUNT_NAME",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sent_to_its_own_account_only() {
        let owner = Owner { secret: Some("prod".to_owned()), advice: ADVICE };
        let which = |listed, own| which_account(listed, own, &owner).map_err(|error| error.to_string());
        assert_eq!(which(Some("a"), None).unwrap(), "a");
        assert_eq!(which(None, Some("a")).unwrap(), "a");
        assert_eq!(which(Some("a"), Some("a")).unwrap(), "a");
        assert!(which(Some("evil"), Some("a")).unwrap_err().contains("evil"));
        assert!(which(None, None).unwrap_err().contains("AZURE_STORAGE_ACCOUNT_NAME"));
    }

    #[test]
    fn names_of_others_are_understood_and_nothing_that_changes_the_question() {
        let keys = |names: &[&str]| {
            let all = names.iter().map(|name| ((*name).to_owned(), "x".to_owned()));
            understood(all).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(
            keys(&[
                "AZURE_STORAGE_ACCESS_KEY",
                "AZURE_STORAGE_ACCOUNT_KEY",
                "AZURE_CLIENT_ID",
                "AZURE_TENANT_ID"
            ]),
            [
                AzureConfigKey::AccessKey,
                AzureConfigKey::AccessKey,
                AzureConfigKey::ClientId,
                AzureConfigKey::AuthorityId
            ]
        );
        assert_eq!(
            keys(&["AZURE_USE_AZURE_CLI", "AZURE_STORAGE_USE_EMULATOR", "token", "TOKEN", "proxy_url"]),
            []
        );
    }
}
