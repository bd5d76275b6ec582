use std::time::Duration;

use base64::Engine as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

use super::challenge::Challenge;
use super::wire::{Stop, Wire, Words};
use crate::source::{SourceError, dns, redirects};
use crate::types::RegistryAuth;

/// A token's lifetime where the server tells none (distribution spec, "Token Authentication").
const LIFETIME: Duration = Duration::from_secs(60);

/// No token is trusted for longer without asking.
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Tokens are some kilobytes.
const LONGEST_ANSWER: usize = 256 << 10;

/// What a token server is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenRequest {
    realm: Url,
    service: Option<String>,
    scopes: Vec<String>,
}

/// What it gave.
pub(super) struct Token {
    pub(super) authorization: HeaderValue,
    pub(super) lifetime: Duration,
}

/// Of both spellings, one is there: OAuth2's and Docker's own.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl TokenRequest {
    /// What `challenge` of the server at `from` asks for, and `scope` beside it, as containerd adds it
    /// (`remotes/docker/scope.go`).
    pub(super) fn new(challenge: &Challenge, scope: Option<&str>, from: &Stop) -> Result<Self, SourceError> {
        let Some(realm) = challenge.get("realm").and_then(|realm| Url::parse(realm).ok()) else {
            return Err(from.protocol("it asks for a token and doesn't say from where"));
        };
        let is_fit = match realm.scheme() {
            "https" => true,
            "http" => from.url.scheme() == "http",
            _ => false,
        };
        if !is_fit || dns::names_link_local(&realm) {
            return Err(from.invalid(format!(
                "it asks for a token from {}, which must be an https:// address that is not link-local",
                Stop::home(realm).what
            )));
        }
        let asked = challenge.get("scope").unwrap_or_default();
        let mut scopes: Vec<String> =
            asked.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
        scopes.extend(scope.map(str::to_owned));
        scopes.sort();
        scopes.dedup();
        let service = challenge.get("service").filter(|service| !service.is_empty()).map(str::to_owned);
        Ok(Self { realm, service, scopes })
    }

    /// Asks for a token, once. With a password or an identity token by OAuth2; where the server doesn't know that,
    /// in Docker's older way, as containerd does (`remotes/docker/authorizer.go`: 400, 401, 404, and 405 with a
    /// user).
    pub(super) async fn ask(&self, wire: &Wire, auth: Option<&RegistryAuth>) -> Result<Token, SourceError> {
        let stop = Stop::home(self.realm.clone());
        if let Some(auth) = auth {
            let words = self.post(auth);
            let answer = wire.send(&stop, &words, None).await?;
            let status = answer.status();
            if status.is_success() {
                return token(&stop, &wire.read(&stop, answer, LONGEST_ANSWER).await?);
            }
            let has_user = matches!(auth, RegistryAuth::Basic { .. });
            let is_unknown =
                matches!(status.as_u16(), 400 | 401 | 404) || (status == 405 && has_user) || is_moved(status);
            if !is_unknown {
                return Err(stop.status(status, answer.headers()));
            }
            wire.scraps(&stop, answer).await;
        }
        self.get(wire, stop, auth).await
    }

    fn post(&self, auth: &RegistryAuth) -> Words {
        let mut form = Serializer::new(String::new());
        if !self.scopes.is_empty() {
            form.append_pair("scope", &self.scopes.join(" "));
        }
        form.append_pair("service", self.service.as_deref().unwrap_or_default());
        form.append_pair("client_id", "stoker");
        match auth {
            RegistryAuth::Basic { username, password } => {
                form.append_pair("grant_type", "password");
                form.append_pair("username", username);
                form.append_pair("password", password.reveal());
            }
            RegistryAuth::IdentityToken(token) => {
                form.append_pair("grant_type", "refresh_token");
                form.append_pair("refresh_token", token.reveal());
            }
        }
        let mut words = Words::get();
        words.method = Method::POST;
        words.form = Some(form.finish());
        words.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"),
        );
        words
    }

    async fn get(
        &self,
        wire: &Wire,
        mut stop: Stop,
        auth: Option<&RegistryAuth>,
    ) -> Result<Token, SourceError> {
        if self.service.is_some() || !self.scopes.is_empty() {
            let mut query = stop.url.query_pairs_mut();
            query.extend_pairs(self.service.iter().map(|service| ("service", service)));
            query.extend_pairs(self.scopes.iter().map(|scope| ("scope", scope)));
        }
        let authorization = auth.map(|auth| basic(auth, &stop)).transpose()?;
        for _ in 0..=redirects::MOST {
            let authorization = authorization.as_ref().filter(|_| stop.is_home);
            let answer = wire.send(&stop, &Words::get(), authorization).await?;
            if answer.status().is_success() {
                return token(&stop, &wire.read(&stop, answer, LONGEST_ANSWER).await?);
            }
            match stop.next(&answer)? {
                Some(next) => stop = next,
                None => return Err(stop.status(answer.status(), answer.headers())),
            }
        }
        Err(stop.invalid(redirects::TOO_MANY))
    }
}

fn is_moved(status: StatusCode) -> bool {
    status.is_redirection()
}

fn token(stop: &Stop, document: &[u8]) -> Result<Token, SourceError> {
    // The parser's own words could quote the token.
    let answer: Answer =
        serde_json::from_slice(document).map_err(|_| stop.protocol("its answer is no token in JSON"))?;
    let text = if answer.access_token.is_empty() { answer.token } else { answer.access_token };
    if text.is_empty() {
        return Err(stop.protocol("there is no token in its answer"));
    }
    let authorization = secret_header(format!("Bearer {text}"), stop)?;
    let told = answer.expires_in.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    Ok(Token { authorization, lifetime: told.unwrap_or(LIFETIME).min(LONGEST_LIFETIME) })
}

/// Basic (RFC 7617). An identity token has no user, as in containerd's GET.
pub(super) fn basic(auth: &RegistryAuth, stop: &Stop) -> Result<HeaderValue, SourceError> {
    let (user, password) = match auth {
        RegistryAuth::Basic { username, password } => (username.as_str(), password),
        RegistryAuth::IdentityToken(token) => ("", token),
    };
    let pair = format!("{user}:{}", password.reveal());
    secret_header(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)), stop)
}

fn secret_header(text: String, stop: &Stop) -> Result<HeaderValue, SourceError> {
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| stop.invalid(format!("no {AUTHORIZATION} header can hold what it wants shown")))?;
    value.set_sensitive(true);
    Ok(value)
}
