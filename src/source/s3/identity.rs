//! As whom S3 is asked where the list names no credentials: what the AWS SDK's own chain would find, in its own order,
//! each with a name for people and a deadline.

use std::error::Error;
use std::time::Duration;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_sdk_s3::config::Credentials as Keys;
use aws_smithy_runtime_api::client::result::ConnectorError;

use super::failure::shortened;
use crate::rt::chain as told;
use crate::source::SourceError;

/// How long an identity may take to give keys. A request waits for it within its own first-byte deadline.
const PATIENCE: Duration = Duration::from_secs(6);

/// The environment's keys, a profile, web identity, container credentials, the instance's metadata; the first that is
/// set up says who asks, and if it fails, nobody else does.
pub(super) fn chain(config: &ProviderConfig) -> CredentialsProviderChain {
    let profile = ProfileFileCredentialsProvider::builder().configure(config).build();
    let web = WebIdentityTokenCredentialsProvider::builder().configure(config).build();
    let container = EcsCredentialsProvider::builder().configure(config).build();
    let instance = ImdsCredentialsProvider::builder().configure(config).build();
    CredentialsProviderChain::first_try("Environment", EnvironmentVariableCredentialsProvider::new())
        .or_else("Profile", Named { who: Who::Profile, inner: profile })
        .or_else("WebIdentityToken", Named { who: Who::WebIdentity, inner: web })
        .or_else("EcsContainer", Named { who: Who::Container, inner: container })
        .or_else("Ec2InstanceMetadata", Named { who: Who::Instance, inner: instance })
}

/// An identity that is had from somewhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Profile,
    WebIdentity,
    Container,
    Instance,
}

impl Who {
    /// Its name for people, from what the environment says. None of these is a secret.
    fn name(self, said: impl Fn(&str) -> Option<String>) -> String {
        let or = |key: &str, otherwise: &str| said(key).unwrap_or_else(|| otherwise.to_owned());
        match self {
            Self::Profile => format!("the AWS profile {:?}", or("AWS_PROFILE", "default")),
            Self::WebIdentity => format!(
                "the web identity (AWS_ROLE_ARN {}, AWS_WEB_IDENTITY_TOKEN_FILE {})",
                or("AWS_ROLE_ARN", "not set"),
                or("AWS_WEB_IDENTITY_TOKEN_FILE", "not set")
            ),
            Self::Container => {
                let kind = match said("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
                    Some(_) => "EKS Pod Identity",
                    None => "the container's identity",
                };
                let full = or("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.2");
                format!("{kind} at {}", full.split('?').next().unwrap_or_default())
            }
            Self::Instance => format!(
                "the instance metadata at {}",
                or("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254")
            ),
        }
    }

    /// What to do about it.
    fn advice(self) -> &'static str {
        match self {
            Self::Profile => {
                "look at AWS_PROFILE, AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE, or name a Secret under \
                 `credentials`"
            }
            Self::WebIdentity => {
                "look at the role that the service account is annotated with, at the role's trust policy, and whether \
                 STS can be reached; or name a Secret under `credentials`"
            }
            Self::Container => {
                "look at the association of the agent's service account, and whether the EKS Pod Identity Agent runs on \
                 this node; or name a Secret under `credentials`"
            }
            Self::Instance => {
                "give the instance a role, and let IMDSv2 answer the agent (its hop limit, or hostNetwork); or name a \
                 Secret under `credentials`"
            }
        }
    }
}

/// What a variable of the environment says.
fn said(key: &str) -> Option<String> {
    std::env::var(key).ok().filter(|value| !value.is_empty())
}

/// Why an identity that is set up gave no keys.
#[derive(Debug, thiserror::Error)]
#[error("{who} gave no keys: {why}; {advice}")]
pub(super) struct IdentityError {
    who: String,
    why: String,
    advice: &'static str,
    /// Whether nobody answered, or said that they can't now.
    passes: bool,
}

impl IdentityError {
    fn new(who: Who, why: &str, passes: bool) -> Self {
        let [name, why] = [who.name(said), why.to_owned()].map(|text| shortened(&text));
        Self { who: name, why, advice: who.advice(), passes }
    }

    /// What the SDK's error about `who` comes to. Such an error holds no keys: it's about an answer that had none.
    fn of(who: Who, error: &CredentialsError) -> Self {
        let why = told(error);
        let why = plain(&why);
        let unreached = in_chain::<ConnectorError>(error).is_some();
        // The last is how the SDK says that the instance's metadata don't answer.
        let silence = ["timed out", "timeout", "could not communicate with IMDS"];
        let timed_out = matches!(error, CredentialsError::ProviderTimedOut(_))
            || silence.iter().any(|said| why.contains(said));
        // The SDK's ways to say 5xx where there's a status.
        let later = ["StatusCode(5", "code: 5", "status: 5"].iter().any(|said| why.contains(said));
        let is_setting = matches!(error, CredentialsError::InvalidConfiguration(_));
        Self::new(who, why, !is_setting && (unreached || timed_out || later))
    }

    /// The same for whoever waits for bytes.
    pub(super) fn as_source_error(&self) -> SourceError {
        if self.passes {
            let cause = format!("{}; {}", self.why, self.advice);
            return SourceError::Connect { origin: self.who.clone(), cause: cause.into() };
        }
        SourceError::Credentials { name: "of the environment".to_owned(), problem: self.to_string() }
    }
}

/// The SDK's words without those that say nothing, and without the dump of an answer.
fn plain(why: &str) -> &str {
    let why = why.trim_start_matches("an error occurred while loading credentials: ");
    why.split(". Response {").next().unwrap_or(why)
}

/// The first cause of this kind.
pub(super) fn in_chain<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// One of the chain's, with its name and its deadline.
#[derive(Debug)]
struct Named<P> {
    who: Who,
    inner: P,
}

impl<P: ProvideCredentials> Named<P> {
    /// Whether somebody says that this is who asks, where the SDK takes silence for that it isn't: metadata that don't
    /// answer are missing on any other machine than an instance.
    fn is_set_up(&self) -> bool {
        let is_off = said("AWS_EC2_METADATA_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"));
        self.who == Who::Instance && !is_off && said("AWS_EC2_METADATA_SERVICE_ENDPOINT").is_some()
    }

    async fn keys(&self) -> provider::Result {
        let failed = |error: IdentityError| Err(CredentialsError::provider_error(error));
        match tokio::time::timeout(PATIENCE, self.inner.provide_credentials()).await {
            Ok(Ok(keys)) => Ok(keys),
            // It isn't set up: the next one is asked.
            Ok(Err(error @ CredentialsError::CredentialsNotLoaded(_))) if !self.is_set_up() => Err(error),
            Ok(Err(error)) => failed(IdentityError::of(self.who, &error)),
            Err(_) => {
                let why = format!("nothing came within {} s", PATIENCE.as_secs());
                failed(IdentityError::new(self.who, &why, true))
            }
        }
    }
}

impl<P: ProvideCredentials> ProvideCredentials for Named<P> {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.keys())
    }

    fn fallback_on_interrupt(&self) -> Option<Keys> {
        self.inner.fallback_on_interrupt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_named_by_what_the_environment_says() {
        let said = |key: &str| match key {
            "AWS_ROLE_ARN" => Some("arn:aws:iam::1:role/reader".to_owned()),
            "AWS_WEB_IDENTITY_TOKEN_FILE" | "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE" => {
                Some("/var/run/token".to_owned())
            }
            "AWS_CONTAINER_CREDENTIALS_FULL_URI" => {
                Some("http://169.254.170.23/v1/credentials?x=1".to_owned())
            }
            _ => None,
        };
        let web = Who::WebIdentity.name(said);
        assert!(web.contains("role/reader") && web.contains("/var/run/token"), "{web}");
        assert_eq!(Who::Container.name(said), "EKS Pod Identity at http://169.254.170.23/v1/credentials");
        assert_eq!(Who::Container.name(|_| None), "the container's identity at http://169.254.170.2");
        assert_eq!(Who::Instance.name(said), "the instance metadata at http://169.254.169.254");
        assert_eq!(Who::Profile.name(|_| None), "the AWS profile \"default\"");
    }

    #[test]
    fn a_refusal_stays_and_silence_passes() {
        let of = |error| IdentityError::of(Who::Container, &error).as_source_error();
        let refused = of(CredentialsError::provider_error("Non-success status: StatusCode(403)"));
        assert!(matches!(refused, SourceError::Credentials { .. }), "{refused}");
        assert!(refused.to_string().contains("EKS Pod Identity Agent runs"), "{refused}");
        for passing in [
            CredentialsError::provider_error("Non-success status: StatusCode(503)"),
            CredentialsError::provider_timed_out(Duration::from_secs(1)),
            CredentialsError::unhandled(ConnectorError::io("refused".into())),
        ] {
            assert!(matches!(of(passing), SourceError::Connect { .. }));
        }
        let setting = CredentialsError::invalid_configuration("not an allowed address: http://10.0.0.1/time");
        assert!(matches!(of(setting), SourceError::Credentials { .. }));
    }

    #[test]
    fn an_answer_is_not_dumped() {
        let why = "an error occurred while loading credentials: error response from IMDS (code: 403). Response { status";
        assert_eq!(plain(why), "error response from IMDS (code: 403)");
        assert_eq!(plain("service error"), "service error");
    }

    /// What never answers, and what isn't set up.
    #[derive(Debug)]
    struct Odd(bool);

    impl ProvideCredentials for Odd {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            if self.0 {
                return future::ProvideCredentials::new(std::future::pending());
            }
            future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("not set up")))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_ends_by_itself_and_one_that_is_not_set_up_lets_the_next_be_asked() {
        let hung = Named { who: Who::WebIdentity, inner: Odd(true) }.keys().await.unwrap_err();
        let error = in_chain::<IdentityError>(&hung).unwrap();
        assert!(error.passes && error.why.contains("within 6 s"), "{error}");
        let next = Named { who: Who::Profile, inner: Odd(false) }.keys().await.unwrap_err();
        assert!(matches!(next, CredentialsError::CredentialsNotLoaded(_)));
    }
}
