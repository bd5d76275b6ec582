use std::collections::HashMap;
use std::sync::Arc;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{
    Credentials as Keys, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector, tls};
use tokio::sync::Mutex;
use url::Url;

use super::Bucket;
use crate::source::credentials::Credentials;
use crate::source::dns::Resolver;
use crate::source::{SourceConfig, SourceError, trust};

/// One client for each set of credentials, made when it's first needed, made anew when they change.
#[derive(Debug)]
pub(crate) struct Clients {
    config: SourceConfig,
    http: SharedHttpClient,
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
    /// When a file of CA certificates can't be read.
    pub(crate) fn new(config: &SourceConfig) -> Result<Self, SourceError> {
        let http = http_client(trust::pem(&config.ca_files)?)?;
        Ok(Self { config: config.clone(), http, made: Mutex::default() })
    }

    /// The bucket as somebody with these credentials sees it.
    pub(crate) async fn bucket(
        &self,
        name: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Bucket, SourceError> {
        let sdk = self.sdk(credentials).await?;
        let endpoint =
            sdk.endpoint_url().map(str::to_owned).or_else(|| std::env::var("AWS_ENDPOINT_URL_S3").ok());
        // Names with dots aren't covered by a wildcard certificate; other servers rarely have names for buckets.
        let by_path = endpoint.is_some() || name.contains('.');
        let config = aws_sdk_s3::config::Builder::from(&*sdk).force_path_style(by_path).build();
        let origin = endpoint.as_deref().and_then(origin).unwrap_or_else(|| {
            let region = sdk.region().map_or(REGION, Region::as_ref);
            format!("s3.{region}.amazonaws.com:443")
        });
        let client = aws_sdk_s3::Client::from_conf(config);
        Ok(Bucket { client, name: name.to_owned(), origin, config: self.config.clone() })
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
            // The loader's own chain: only that one asks the instance metadata by our HTTP client.
            let found = loader.load().await;
            let region = found.region().cloned().unwrap_or(Region::from_static(REGION));
            return Ok(found.into_builder().region(region).build());
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

fn origin(endpoint: &str) -> Option<String> {
    let url = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "https" | "http"))?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

/// The same TLS, trust and addresses as everywhere else, and the proxy that the environment names.
fn http_client(authorities: Vec<Vec<u8>>) -> Result<SharedHttpClient, SourceError> {
    let trusted = authorities.into_iter().fold(TrustStore::default(), TrustStore::with_pem_certificate);
    let tls = TlsContext::builder().with_trust_store(trusted).build().map_err(|error| {
        SourceError::Invalid { what: "the CA certificates".to_owned(), problem: crate::rt::chain(&error) }
    })?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder().enable_tcp_nodelay(true).proxy_config(ProxyConfig::from_env());
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        let builder = builder.tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc));
        builder.tls_context(tls.clone()).build_with_resolver(Resolver)
    }))
}
