//! How object_store's credential providers reach the servers that give tokens: by one client of ours, without retries.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::{BackoffConfig, ClientOptions, CredentialProvider, RetryConfig};
use serde::Deserialize;

use crate::source::direct::is_direct;
use crate::source::{SourceConfig, SourceError, answer, client, trust};

/// Bytes of a refusal that are read.
const LONGEST_REFUSAL: usize = 16 << 10;

/// The clients for tokens. They may reach link-local addresses, where clouds serve the instance's own: no list can choose
/// what they ask.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    /// By the proxy that the environment names.
    client: reqwest::Client,
    /// By none.
    direct: reqwest::Client,
    patience: Duration,
}

/// Whose tokens are asked for, for errors.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    /// A Secret's name, or `None` for the environment and the instance.
    pub(super) secret: Option<String>,
    /// What to do where the environment has none.
    pub(super) advice: &'static str,
}

impl Owner {
    pub(super) fn failed(&self, problem: impl Into<String>) -> SourceError {
        let name = self.secret.clone().unwrap_or_else(|| "of the environment".to_owned());
        SourceError::Credentials { name, problem: problem.into() }
    }

    /// Nobody answered. Also where the environment has no credentials: on a node that has just booted, the service that
    /// gives the instance's own may not be there yet.
    fn unreached(&self) -> SourceError {
        let cause = if self.secret.is_none() { self.advice } else { "it could not be asked" };
        SourceError::Connect { origin: "a server that gives tokens".to_owned(), cause: cause.into() }
    }
}

/// Who asks.
pub(super) enum Identity<T> {
    /// Nobody in particular.
    Anonymous,
    /// Whoever these credentials are for.
    Account { provider: Arc<dyn CredentialProvider<Credential = T>>, owner: Owner },
}

impl<T> std::fmt::Debug for Identity<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Account { .. } => "Account",
        })
    }
}

impl<T> Identity<T> {
    /// What says who asks, good now; nothing for nobody.
    pub(super) async fn credential(
        &self,
        tokens: &Tokens,
        origin: &str,
    ) -> Result<Option<Arc<T>>, SourceError> {
        let Self::Account { provider, owner } = self else { return Ok(None) };
        Ok(Some(tokens.now(provider, owner, origin).await?))
    }

    pub(super) fn failed(&self, problem: &str) -> SourceError {
        match self {
            Self::Anonymous => Owner { secret: None, advice: "" }.failed(problem),
            Self::Account { owner, .. } => owner.failed(problem),
        }
    }
}

impl Tokens {
    pub(super) fn new(config: &SourceConfig) -> Result<Self, SourceError> {
        let authorities = trust::certificates(&config.ca_files)?;
        let builder = || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("stoker/", env!("CARGO_PKG_VERSION")))
                .retry(reqwest::retry::never())
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(config.connect);
            let authorities = authorities.clone();
            if authorities.is_empty() { builder } else { builder.tls_certs_merge(authorities) }
        };
        let client = builder().build().map_err(client::no_trust)?;
        let direct = builder().no_proxy().build().map_err(client::no_trust)?;
        Ok(Self { client, direct, patience: config.first_byte })
    }

    /// What a provider is to do by itself about failures: nothing.
    pub(super) fn no_retries() -> RetryConfig {
        RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::ZERO }
    }

    /// A token or key that is good now. Nothing of a failure is passed on but who answered what: the rest may hold what
    /// was sent.
    pub(super) async fn now<T>(
        &self,
        provider: &Arc<dyn CredentialProvider<Credential = T>>,
        owner: &Owner,
        origin: &str,
    ) -> Result<Arc<T>, SourceError> {
        let token =
            |cause: SourceError| SourceError::Token { host: origin.to_owned(), cause: Arc::new(cause) };
        let error = match tokio::time::timeout(self.patience, provider.get_credential()).await {
            Ok(Ok(credential)) => return Ok(credential),
            Ok(Err(error)) => error,
            Err(_) => return Err(token(owner.unreached())),
        };
        if let Some(refused) = in_chain::<Refused>(&error) {
            return Err(token(refused.as_error()));
        }
        match in_chain::<HttpError>(&error) {
            Some(_) => Err(token(owner.unreached())),
            None => Err(owner.failed("no token can be made of them; check each value")),
        }
    }
}

/// The first cause of this kind.
fn in_chain<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

impl HttpConnector for Tokens {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

type Answered<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Tokens {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> Answered<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let server = request.uri().host().unwrap_or_default().to_owned();
            let direct = request.uri().to_string().parse().is_ok_and(|url| is_direct(&url));
            let client = if direct { &self.direct } else { &self.client };
            let answer = HttpService::call(client, request).await?;
            if answer.status().is_success() {
                return Ok(answer);
            }
            Err(HttpError::new(HttpErrorKind::Unknown, Refused::read(server, answer).await))
        })
    }
}

/// A refusal by a server that gives tokens.
#[derive(Debug, thiserror::Error)]
#[error("{server} answered {status}")]
struct Refused {
    server: String,
    status: u16,
    code: Option<String>,
    retry_after: Option<Duration>,
}

/// RFC 6749, 5.2. Its description is left out: nobody promises what stands in it.
#[derive(Deserialize)]
struct OAuthError {
    error: String,
}

impl Refused {
    async fn read(server: String, answer: HttpResponse) -> Self {
        let status = answer.status().as_u16();
        let retry_after = answer::retry_after(answer.headers(), jiff::Timestamp::now());
        let mut document = Vec::new();
        let mut pieces = answer.into_body().bytes_stream();
        while let Some(Ok(piece)) = pieces.next().await {
            document.extend_from_slice(&piece);
            if document.len() > LONGEST_REFUSAL {
                break;
            }
        }
        let code = serde_json::from_slice(&document).ok().map(|OAuthError { error }| error);
        let is_code = |code: &String| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_graphic());
        Self { server, status, code: code.filter(is_code), retry_after }
    }

    fn as_error(&self) -> SourceError {
        // Wrong keys are a bad request to OAuth (RFC 6749, 5.2).
        let status = if self.status == 400 { 401 } else { self.status };
        let (what, retry_after) = (self.server.clone(), self.retry_after);
        match self.code.clone() {
            Some(says) => SourceError::Refused { what, status, says, retry_after },
            None => SourceError::Status { what, status, retry_after },
        }
    }
}
