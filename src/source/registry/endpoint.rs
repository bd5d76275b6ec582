use std::sync::Arc;

use reqwest::Response;
use serde::Deserialize;
use url::Url;

use super::RegistryHost;
use super::gate::Gate;
use super::registries::Shared;
use super::wire::{Stop, Wire, Words};
use crate::source::{SourceError, answer, redirects};

/// One host of a repository, ready to be asked.
pub(super) struct Endpoint {
    base: Url,
    namespace: Option<String>,
    repository: String,
    gate: Arc<Gate>,
    shared: Arc<Shared>,
    pub(super) wire: Wire,
}

/// An answer that is no redirect, and where it came from.
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) stop: Stop,
}

impl Endpoint {
    pub(super) fn new(
        host: &RegistryHost,
        repository: &str,
        gate: Arc<Gate>,
        shared: Arc<Shared>,
        wire: Wire,
    ) -> Self {
        Self {
            base: host.base.clone(),
            namespace: host.namespace.clone(),
            repository: repository.to_owned(),
            gate,
            shared,
            wire,
        }
    }

    /// `<base>/<repository>/<kind>/<reference>`, with `?ns=` where this host serves for another.
    pub(super) fn place(&self, kind: &str, reference: &str) -> Stop {
        let mut url = self.base.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{}/{kind}/{reference}", self.repository));
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Stop::home(url)
    }

    /// Asks at `stop`, follows where it's sent, and proves who we are where that's wanted: with our credentials to
    /// this host, as nobody to any other.
    pub(super) async fn ask(&self, mut stop: Stop, words: &Words) -> Result<Answer, SourceError> {
        for _ in 0..=redirects::MOST {
            let response = self.ask_once(&stop, words).await?;
            match stop.next(&response)? {
                None => return Ok(Answer { response, stop }),
                Some(next) => {
                    self.wire.scraps(&stop, response).await;
                    stop = next;
                }
            }
        }
        Err(stop.invalid(format!("its redirects can't be followed: {}", redirects::TOO_MANY)))
    }

    async fn ask_once(&self, stop: &Stop, words: &Words) -> Result<Response, SourceError> {
        let gate = match stop.is_home {
            true => Arc::clone(&self.gate),
            false => self.shared.gate(&stop.url, &self.repository, &[], None),
        };
        let mut pass = gate.pass(stop, &self.wire).await?;
        let mut tries = gate.tries();
        loop {
            let response = self.wire.send(stop, words, pass.header()).await?;
            let status = response.status().as_u16();
            tries -= 1;
            if !matches!(status, 401 | 403) {
                pass.worked();
                return Ok(response);
            }
            if tries == 0 {
                return Ok(response);
            }
            let refused = gate.refused(&pass, status == 403, response.headers(), stop, &self.wire);
            match refused.await? {
                Some(next) => pass = next,
                None => return Ok(response),
            }
            self.wire.scraps(stop, response).await;
        }
    }

    /// A refusal as an error: with the registry's own code, where it gives one (distribution spec, "Error Codes"),
    /// and what to do.
    pub(super) async fn refusal(&self, answer: Answer) -> SourceError {
        let Answer { response, stop } = answer;
        let (status, headers) = (response.status(), response.headers().clone());
        let hint = match status.as_u16() {
            401 | 403 => "check the pull secrets or the credential provider for this registry",
            404 => "is the name spelt right? Some registries say so too where credentials are missing",
            _ => "",
        };
        let code = code(&self.wire.scraps(&stop, response).await);
        let says = match (code, hint) {
            (None, "") => return stop.status(status, &headers),
            (None, hint) => hint.to_owned(),
            (Some(code), "") => code,
            (Some(code), hint) => format!("{code}; {hint}"),
        };
        let retry_after = answer::retry_after(&headers, jiff::Timestamp::now());
        SourceError::Refused { what: stop.what, status: status.as_u16(), says, retry_after }
    }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    code: String,
}

/// The first error's code. Its message isn't shown: it's the server's to write, and may hold anything.
fn code(document: &[u8]) -> Option<String> {
    let Errors { errors } = serde_json::from_slice(document).ok()?;
    let code = errors.into_iter().next()?.code;
    let is_code = (1..=40).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    is_code.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn only_a_code_is_shown() {
        let one = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"hunter2"}}]}}"#);
        assert_eq!(code(one("TOOMANYREQUESTS").as_bytes()).as_deref(), Some("TOOMANYREQUESTS"));
        for document in [one("a token"), one(""), one(&"A".repeat(41)), "{}".to_owned(), "<html>".to_owned()]
        {
            assert_eq!(code(document.as_bytes()), None, "{document}");
        }
    }
}
