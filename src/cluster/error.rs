use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Response, StatusCode};
use tower::BoxError;

use crate::rt;
use crate::types::ErrorKind;

/// Why the API server didn't do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not {what}: {cause}")]
pub struct ClusterError {
    what: String,
    cause: String,
    fault: Fault,
}

/// What an answer that isn't the wanted one means for the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It may go away by itself: no connection, a timeout, a 5xx.
    Transient,
    /// The API server asks for patience (429, or a 503 with a time).
    Throttled {
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// Credentials that aren't known (401): they may have been replaced meanwhile.
    Unauthorized,
    /// Missing rights (403).
    Denied,
    /// The object isn't there (404).
    NotFound,
    /// Somebody else was faster (409).
    Conflict,
    /// The request isn't right for the object as it is (422): with a uid or a test in it, the object is another one.
    Invalid,
    /// The version to go on from isn't kept any more (410).
    Expired,
    /// The answer can't be understood, or the request was wrong from the start.
    Broken,
}

impl ClusterError {
    /// What became of the request that is described by `what` ("read the Node a").
    pub(super) fn of(server: &str, what: &str, error: &kube::Error) -> Self {
        let fault = fault(error);
        let cause = match error {
            kube::Error::Api(status) => {
                let said = if status.message.is_empty() { &status.reason } else { &status.message };
                format!("the API server says: {said}{}", next_step(fault, said))
            }
            _ if matches!(fault, Fault::Throttled { .. }) => "the API server asks for patience".to_owned(),
            _ => {
                format!(
                    "the API server at {server} can't be asked ({}){}",
                    cause(error),
                    next_step(fault, "")
                )
            }
        };
        Self { what: what.to_owned(), cause, fault }
    }

    pub(super) fn late(server: &str, what: &str, after: Duration) -> Self {
        let cause = format!("the API server at {server} did not answer within {} s", after.as_secs());
        Self { what: what.to_owned(), cause, fault: Fault::Transient }
    }

    /// A watch that ended before its time.
    pub(super) fn cut(what: &str) -> Self {
        let cause = "the API server, or something before it, ended it early".to_owned();
        Self { what: what.to_owned(), cause, fault: Fault::Transient }
    }

    /// The message without what was asked for.
    pub(super) fn cause(&self) -> &str {
        &self.cause
    }

    /// What to make of it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// The same in the words of the retry policy.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.fault {
            Fault::Transient => ErrorKind::Transient,
            Fault::Throttled { retry_after } => ErrorKind::Throttled { retry_after },
            Fault::Unauthorized | Fault::Denied => ErrorKind::Denied,
            Fault::NotFound => ErrorKind::NotFound,
            Fault::Conflict | Fault::Expired => ErrorKind::Changed,
            Fault::Invalid | Fault::Broken => ErrorKind::Invalid,
        }
    }
}

/// `said`: an admission policy or webhook refuses in words of its own, and no role changes that.
fn next_step(fault: Fault, said: &str) -> &'static str {
    match fault {
        Fault::Denied if said.contains("denied request") || said.contains("denied the request") => {
            "; change what is named there, or what this agent is told to write"
        }
        Fault::Denied => "; grant it with a Role or ClusterRole",
        Fault::Unauthorized => "; check the token or certificate: it may have expired",
        _ => "",
    }
}

/// The one place that knows what kube's errors mean.
fn fault(error: &kube::Error) -> Fault {
    match error {
        kube::Error::Api(status) => {
            let asked = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
            let retry_after = (asked > 0).then(|| Duration::from_secs(asked.into()));
            fault_of_status(status.code, retry_after)
        }
        kube::Error::Service(error) => match error.downcast_ref::<AskedToWait>() {
            Some(AskedToWait { status, retry_after }) => fault_of_status(status.as_u16(), *retry_after),
            None => Fault::Transient,
        },
        kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => Fault::Transient,
        // A program that the kubeconfig names failed, or wrote something else than a credential.
        kube::Error::Auth(_) => Fault::Unauthorized,
        _ => Fault::Broken,
    }
}

fn fault_of_status(code: u16, retry_after: Option<Duration>) -> Fault {
    match code {
        401 => Fault::Unauthorized,
        403 => Fault::Denied,
        404 => Fault::NotFound,
        409 => Fault::Conflict,
        410 => Fault::Expired,
        422 => Fault::Invalid,
        429 => Fault::Throttled { retry_after },
        500..=599 if retry_after.is_some() => Fault::Throttled { retry_after },
        408 | 500..=599 => Fault::Transient,
        _ => Fault::Broken,
    }
}

/// kube's errors end with their cause, those below don't.
fn cause(error: &kube::Error) -> String {
    match error {
        kube::Error::Service(error) => rt::chain(error.as_ref()),
        kube::Error::HyperError(error) => rt::chain(error),
        kube::Error::ReadEvents(error) => rt::chain(error),
        other => other.to_string(),
    }
}

/// An answer with `Retry-After`: kube drops the header, and the API server's own words with it say no more.
#[derive(Debug, thiserror::Error)]
#[error("status {status}, with a time to wait")]
pub(super) struct AskedToWait {
    status: StatusCode,
    retry_after: Option<Duration>,
}

/// Makes an answer that asks for patience an error that says for how long.
pub(super) fn asked_to_wait<B, E: Into<BoxError>>(
    answer: Result<Response<B>, E>,
) -> Result<Response<B>, BoxError> {
    let answer = answer.map_err(Into::into)?;
    let status = answer.status();
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return Ok(answer);
    }
    let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    match seconds.map(Duration::from_secs) {
        Some(retry_after) => Err(AskedToWait { status, retry_after: Some(retry_after) }.into()),
        None => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, message: &str) -> kube::Error {
        let text =
            format!(r#"{{"code": {code}, "message": {message:?}, "reason": "x", "status": "Failure"}}"#);
        kube::Error::Api(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn each_answer_has_its_meaning() {
        for (code, wanted) in [
            (401, Fault::Unauthorized),
            (403, Fault::Denied),
            (404, Fault::NotFound),
            (409, Fault::Conflict),
            (410, Fault::Expired),
            (422, Fault::Invalid),
            (429, Fault::Throttled { retry_after: None }),
            (500, Fault::Transient),
            (504, Fault::Transient),
            (400, Fault::Broken),
        ] {
            assert_eq!(fault(&api(code, "")), wanted, "{code}");
        }
    }

    #[test]
    fn a_missing_right_is_named_as_the_server_names_it() {
        let said = "configmaps \"l\" is forbidden: User \"u\" cannot watch resource \"configmaps\"";
        let error = ClusterError::of("https://s", "watch the ConfigMap n/l", &api(403, said));
        let message = error.to_string();
        assert!(message.contains("cannot watch resource") && message.contains("grant it"), "{message}");
        assert_eq!(error.kind(), ErrorKind::Denied);
    }

    #[test]
    fn no_role_is_asked_for_where_a_policy_refuses() {
        let said = "nodes \"n\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: not yours";
        let message = ClusterError::of("https://s", "write the Node n", &api(403, said)).to_string();
        assert!(message.contains("'p'") && !message.contains("Role or ClusterRole"), "{message}");
    }

    #[test]
    fn the_time_to_wait_is_kept() {
        let answer = |status: u16, retry_after: Option<&str>| {
            let mut response = Response::builder().status(status);
            if let Some(value) = retry_after {
                response = response.header(RETRY_AFTER, value);
            }
            Ok::<_, BoxError>(response.body(()).unwrap())
        };
        let wanted = Fault::Throttled { retry_after: Some(Duration::from_secs(7)) };
        for status in [429, 503] {
            let error = asked_to_wait(answer(status, Some("7"))).unwrap_err();
            assert_eq!(fault(&kube::Error::Service(error)), wanted);
        }
        assert!(asked_to_wait(answer(503, None)).is_ok() && asked_to_wait(answer(200, Some("7"))).is_ok());
        assert!(asked_to_wait(answer(429, Some("Tue, 01 Jan 2030 00:00:00 GMT"))).is_ok());
    }
}
