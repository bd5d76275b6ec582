use std::collections::HashMap;
use std::sync::Arc;

use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::endpoint::Params;
use aws_sdk_s3::config::{
    Credentials as Keys, RequestChecksumCalculation, ResponseChecksumValidation, SharedCredentialsProvider,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use tokio::sync::Mutex;
use url::Url;

use super::keys::Kept;
use super::signed::{Senders, Signed};
use super::{Bucket, identity, payer, ways};
use crate::source::credentials::Credentials;
use crate::source::{SourceConfig, SourceError, trust};

/// One client for each set of credentials, made when it's first needed, made anew when they change.
#[derive(Debug)]
pub(crate) struct Clients {
    config: SourceConfig,
    http: SharedHttpClient,
    senders: Senders,
    /// By name; without a name it's the environment's own chain.
    made: Mutex<HashMap<Option<String>, Made>>,
}

#[derive(Debug, Clone)]
struct Made {
    credentials: Option<Credentials>,
    config: Arc<SdkConfig>,
}

/// Where requests go when neither the Secret nor the environment says.
const REGION: &str = "us-east-1";

impl Clients {
    /// # Errors
    /// When a file of CA certificates can't be read, or there are none.
    pub(crate) fn new(config: &SourceConfig) -> Result<Self, SourceError> {
        let http = ways::http_client(trust::pem(&config.ca_files)?)?;
        let senders = Senders::new(config)?;
        Ok(Self { config: config.clone(), http, senders, made: Mutex::default() })
    }

    /// The bucket as somebody with these credentials sees it.
    pub(crate) async fn bucket(
        &self,
        name: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Bucket, SourceError> {
        let payer = payer::of(credentials)?;
        let sdk = self.sdk(credentials).await?;
        let endpoint = endpoint(&sdk, credentials);
        // Names with dots aren't covered by a wildcard certificate; other servers rarely have names for buckets.
        let by_path = endpoint.is_some() || name.contains('.');
        let config = aws_sdk_s3::config::Builder::from(&*sdk).force_path_style(by_path).build();
        let place = Params::builder().bucket(name).set_region(sdk.region().map(|region| region.to_string()));
        let place = place.set_endpoint(endpoint.clone()).force_path_style(by_path);
        let place = place.set_use_fips(sdk.use_fips()).set_use_dual_stack(sdk.use_dual_stack()).build();
        let signed = match place {
            Ok(place) => Signed::new(&self.senders, place, sdk.credentials_provider()).await,
            Err(_) => None,
        };
        let origin = endpoint.as_deref().and_then(origin).unwrap_or_else(|| {
            let region = sdk.region().map_or(REGION, Region::as_ref);
            format!("s3.{region}.amazonaws.com:443")
        });
        let client = aws_sdk_s3::Client::from_conf(config);
        Ok(Bucket { client, name: name.to_owned(), origin, payer, signed, config: self.config.clone() })
    }

    async fn sdk(&self, credentials: Option<&Credentials>) -> Result<Arc<SdkConfig>, SourceError> {
        let name = credentials.map(|credentials| credentials.name.clone());
        let mut made = self.made.lock().await;
        if let Some(known) = made.get(&name).filter(|known| known.credentials.as_ref() == credentials) {
            return Ok(Arc::clone(&known.config));
        }
        let config = Arc::new(self.load(credentials).await?);
        made.insert(name, Made { credentials: credentials.cloned(), config: Arc::clone(&config) });
        Ok(config)
    }

    /// Retries, stall deadlines and checksums are ours: the SDK's own are off, so that each exists once.
    async fn load(&self, credentials: Option<&Credentials>) -> Result<SdkConfig, SourceError> {
        let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(self.http.clone())
            .retry_config(RetryConfig::standard().with_max_attempts(1))
            .timeout_config(TimeoutConfig::builder().connect_timeout(self.config.connect).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        let Some(credentials) = credentials else {
            let whoever = ProviderConfig::without_region()
                .with_http_client(self.http.clone())
                .with_retry_config(RetryConfig::standard().with_max_attempts(1))
                .with_timeout_config(TimeoutConfig::builder().connect_timeout(self.config.connect).build());
            let found = loader.load().await;
            let region = found.region().cloned().unwrap_or(Region::from_static(REGION));
            let keys = identity::chain(&whoever.with_region(Some(region.clone())));
            let keys = SharedCredentialsProvider::new(Kept::new(keys));
            return Ok(found.into_builder().region(region).credentials_provider(keys).build());
        };
        let region = credentials.get("AWS_REGION").map(str::to_owned);
        let region = region.or_else(|| std::env::var("AWS_REGION").ok()).unwrap_or_else(|| REGION.to_owned());
        let mut loader = loader.region(Region::new(region));
        if let Some(endpoint) = credentials.get("AWS_ENDPOINT_URL") {
            if origin(endpoint).is_none() {
                return Err(credentials.failed("its AWS_ENDPOINT_URL is no https:// or http:// URL"));
            }
            loader = loader.endpoint_url(endpoint);
        }
        let loader = if credentials.get("AWS_ANONYMOUS").is_some() {
            loader.no_credentials()
        } else {
            let (id, secret) =
                (credentials.need("AWS_ACCESS_KEY_ID")?, credentials.need("AWS_SECRET_ACCESS_KEY")?);
            let token = credentials.get("AWS_SESSION_TOKEN").map(str::to_owned);
            loader.credentials_provider(Keys::new(id, secret, token, None, "stoker"))
        };
        Ok(loader.load().await)
    }
}

/// The server that is to be asked instead of AWS, if any: what a Secret says, then what is said for S3 alone, then what
/// is said for all of AWS, which is the SDK's own order.
fn endpoint(sdk: &SdkConfig, credentials: Option<&Credentials>) -> Option<String> {
    let named = credentials.and_then(|credentials| credentials.get("AWS_ENDPOINT_URL")).map(str::to_owned);
    let for_s3 = || std::env::var("AWS_ENDPOINT_URL_S3").ok().filter(|url| !url.is_empty());
    named.or_else(for_s3).or_else(|| sdk.endpoint_url().map(str::to_owned))
}

fn origin(endpoint: &str) -> Option<String> {
    let url = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "https" | "http"))?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}
