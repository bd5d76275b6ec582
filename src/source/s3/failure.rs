//! What the SDK's errors, and answers that refuse, mean. They may hold headers and signed URLs, so only their code, their message and their
//! status are taken.

use std::future::Future;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use reqwest::Response;

use super::Bucket;
use super::identity::{IdentityError, in_chain};
use crate::rt::chain;
use crate::source::{SourceError, answer, client, xml};

/// The SDK's words for that it knows nobody to ask as.
const NOBODY: &str = "no credentials found";

/// Bytes of what a server says about why it refuses.
const LONGEST_REFUSAL: usize = 64 << 10;

const UNREADABLE: &str = "its answer can't be read";

/// Characters of a server's own words that are passed on.
const LONGEST_MESSAGE: usize = 200;

impl Bucket {
    /// The answer to one request, within the first-byte deadline.
    pub(super) async fn answered<T, E>(
        &self,
        key: &str,
        answer: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, SourceError>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let after = self.config.first_byte;
        match tokio::time::timeout(after, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(key, &error)),
            Err(_) => Err(SourceError::Stalled { origin: self.origin.clone(), after }),
        }
    }

    fn failed<E>(&self, key: &str, error: &SdkError<E, HttpResponse>) -> SourceError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        if let Some(nobody) = in_chain::<IdentityError>(error) {
            return nobody.as_source_error();
        }
        let origin = self.origin.clone();
        match error {
            SdkError::ServiceError(refused) => {
                let (status, headers) = (refused.raw().status().as_u16(), refused.raw().headers());
                let header = |name: &str| headers.get(name);
                self.refused(key, status, header, refused.err().code(), refused.err().message())
            }
            SdkError::ResponseError(unread) if !unread.raw().status().is_success() => {
                let (status, headers) = (unread.raw().status().as_u16(), unread.raw().headers());
                self.refused(key, status, |name| headers.get(name), None, None)
            }
            SdkError::ResponseError(_) => self.protocol(key, UNREADABLE),
            SdkError::TimeoutError(_) => {
                SourceError::Connect { origin, cause: "the connection took too long".into() }
            }
            SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
                Some(cause) if cause.is_io() || cause.is_timeout() => {
                    SourceError::Connect { origin, cause: chain(cause).into() }
                }
                Some(cause) => self.unsent(&chain(cause)),
                None => SourceError::Connect { origin, cause: "it could not be asked".into() },
            },
            SdkError::ConstructionFailure(_) => self.unsent(&chain(error)),
            _ => SourceError::Connect { origin, cause: "it could not be asked".into() },
        }
    }

    /// There are no keys to sign with.
    pub(super) fn no_keys(&self, error: &CredentialsError) -> SourceError {
        match (in_chain::<IdentityError>(error), error) {
            (Some(nobody), _) => nobody.as_source_error(),
            (None, CredentialsError::CredentialsNotLoaded(_)) => self.unsent(NOBODY),
            (None, error) => self.unsent(&chain(error)),
        }
    }

    /// What an answer means that isn't what was asked for.
    pub(super) async fn refused_answer(&self, key: &str, answer: Response) -> SourceError {
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let stall = self.config.stall;
        let document = client::whole(answer, LONGEST_REFUSAL, stall, &self.origin).await.ok().flatten();
        let words = document.and_then(|document| xml::refusal(&document));
        let (code, message) = words.unzip();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        self.refused(key, status, header, code.as_deref(), message.as_deref())
    }

    /// Nothing was sent. As a rule because nobody knows as whom: the SDK says so in a list of all it tried.
    fn unsent(&self, why: &str) -> SourceError {
        if why.contains(NOBODY) {
            let problem = "there are none (no keys in the environment, no profile, no web identity, no EKS Pod \
                           Identity or ECS, and no answer of instance metadata with a role); name a Secret under `credentials`, with a file \
                           AWS_ANONYMOUS for a public bucket";
            return SourceError::Credentials {
                name: "of the environment".to_owned(),
                problem: problem.to_owned(),
            };
        }
        let cause = shortened(why.lines().next().unwrap_or_default());
        SourceError::Connect { origin: self.origin.clone(), cause: cause.into() }
    }

    fn refused<'a>(
        &self,
        key: &str,
        status: u16,
        header: impl Fn(&str) -> Option<&'a str>,
        code: Option<&str>,
        message: Option<&str>,
    ) -> SourceError {
        if status == 412 {
            return SourceError::Changed { what: self.shown(key) };
        }
        if let (301 | 307 | 400, Some(region)) = (status, header("x-amz-bucket-region")) {
            let problem =
                format!("the bucket is in {region}; set AWS_REGION, in the Secret or the environment");
            return self.invalid(key, problem);
        }
        let retry_after = header("retry-after").and_then(|text| {
            let headers = http::HeaderMap::from_iter([(http::header::RETRY_AFTER, text.parse().ok()?)]);
            answer::retry_after(&headers, jiff::Timestamp::now())
        });
        let Some(code) = code else {
            if (200..300).contains(&status) {
                return self.protocol(key, UNREADABLE);
            }
            return SourceError::Status { what: self.shown(key), status, retry_after };
        };
        let [word, words] = [code, message.unwrap_or_default()].map(shortened);
        let says = if words.is_empty() { word } else { format!("{word}: {words}") };
        SourceError::Refused { what: self.shown(key), status: meant(status, code), says, retry_after }
    }
}

pub(super) fn shortened(words: &str) -> String {
    words.chars().filter(|letter| !letter.is_control()).take(LONGEST_MESSAGE).collect()
}

/// The status that says what S3's code says, where S3 itself sends a vaguer one ("Error responses" in its API
/// reference).
fn meant(status: u16, code: &str) -> u16 {
    match code {
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "AuthorizationHeaderMalformed" => 401,
        "RequestTimeout" => 408,
        "SlowDown" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded" => 503,
        _ => status,
    }
}
