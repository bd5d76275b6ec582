//! GETs of objects, signed here ("Authenticating Requests: Using the Authorization Header" in S3's API reference) and sent
//! by the client that speaks plain HTTP: what the SDK does about a request costs more processor time than a small object's
//! bytes. The SDK says where a bucket is and who asks, lists and heads, and gets what this can't.

use std::time::SystemTime;

use aws_credential_types::provider::ProvideCredentials as _;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
use aws_sdk_s3::config::{Credentials as Keys, SharedCredentialsProvider};
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION};
use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, RequestBuilder};
use url::Url;

use crate::source::direct::is_direct;
use crate::source::{SourceConfig, SourceError, client};

/// What of a key is written as it is ("Create a canonical request", `UriEncode` of a path).
const IN_A_KEY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The clients to send by.
#[derive(Debug, Clone)]
pub(super) struct Senders {
    proxied: Client,
    direct: Client,
}

impl Senders {
    /// # Errors
    /// When there are no CA certificates to trust.
    pub(super) fn new(config: &SourceConfig) -> Result<Self, SourceError> {
        // Whoever is led elsewhere would have to sign anew.
        let builder =
            || Ok::<_, SourceError>(client::builder(config)?.redirect(reqwest::redirect::Policy::none()));
        let proxied = builder()?.build().map_err(client::no_trust)?;
        let direct = builder()?.no_proxy().build().map_err(client::no_trust)?;
        Ok(Self { proxied, direct })
    }
}

/// One bucket, as somebody sees it.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    sender: Client,
    /// Its URL, without a slash at its end.
    bucket: String,
    region: String,
    /// Without any, nothing is signed.
    keys: Option<SharedCredentialsProvider>,
}

impl Signed {
    /// `None` where requests to this bucket need more than a signature of the usual kind: then the SDK makes them all.
    pub(super) async fn new(
        senders: &Senders,
        place: Params,
        keys: Option<SharedCredentialsProvider>,
    ) -> Option<Self> {
        let resolver = DefaultResolver::new();
        let endpoint = resolver.resolve_endpoint(&place).await.ok()?;
        let scheme = endpoint.auth_schemes().first().filter(|scheme| scheme.name() == "sigv4")?;
        if scheme.get("signingName").and_then(|name| name.as_string()) != Some("s3") {
            return None;
        }
        let region = scheme.get("signingRegion").and_then(|region| region.as_string())?.to_owned();
        let url = Url::parse(endpoint.url()).ok().filter(is_bare)?;
        let has_headers = endpoint.headers().next().is_some();
        let sender = if is_direct(&url) { &senders.direct } else { &senders.proxied };
        let bucket = url.as_str().trim_end_matches('/').to_owned();
        (!has_headers).then(|| Self { sender: sender.clone(), bucket, region, keys })
    }

    /// As whom to ask; `None` is nobody.
    pub(super) async fn keys(&self) -> Result<Option<Keys>, CredentialsError> {
        match &self.keys {
            Some(keys) => keys.provide_credentials().await.map(Some),
            None => Ok(None),
        }
    }

    /// A GET of an object, or `None` where its key can't be written in a URL that everybody reads alike.
    pub(super) fn get(&self, key: &str, keys: Option<&Keys>, headers: HeaderMap) -> Option<RequestBuilder> {
        let url = self.url(key)?;
        let request = match keys {
            Some(keys) => self.sign(url.as_str(), keys, headers, SystemTime::now())?,
            None => headers,
        };
        // Not signed: who stands on the way may change it.
        Some(self.sender.get(url).headers(request).header(ACCEPT_ENCODING, "identity"))
    }

    fn url(&self, key: &str) -> Option<Url> {
        let text = format!("{}/{}", self.bucket, utf8_percent_encode(key, IN_A_KEY));
        // One with `..` in it becomes another one.
        Url::parse(&text).ok().filter(|url| url.as_str() == text)
    }

    fn sign(&self, url: &str, keys: &Keys, mut headers: HeaderMap, now: SystemTime) -> Option<HeaderMap> {
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let identity = keys.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(now)
            .settings(settings)
            .build()
            .ok()?
            .into();
        let said = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let request = SignableRequest::new("GET", url, said, SignableBody::empty()).ok()?;
        let (signature, _) = sign(request, &params).ok()?.into_parts();
        for header in signature.into_parts().0 {
            let mut value = HeaderValue::from_str(header.value()).ok()?;
            value.set_sensitive(header.sensitive() || header.name() == AUTHORIZATION.as_str());
            headers.insert(header.name(), value);
        }
        Some(headers)
    }
}

/// Whether a URL is nothing but a place.
fn is_bare(url: &Url) -> bool {
    let has_user = !url.username().is_empty() || url.password().is_some();
    url.has_host() && !has_user && url.query().is_none() && url.fragment().is_none()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn signed(place: aws_sdk_s3::config::endpoint::ParamsBuilder) -> Option<Signed> {
        let senders = Senders::new(&SourceConfig::default()).unwrap();
        Signed::new(&senders, place.region("eu-central-1").build().unwrap(), None).await
    }

    fn bucket(name: &str) -> aws_sdk_s3::config::endpoint::ParamsBuilder {
        Params::builder().bucket(name)
    }

    #[tokio::test]
    async fn a_bucket_is_where_the_sdk_says() {
        let usual = signed(bucket("models")).await.unwrap();
        assert_eq!(usual.bucket, "https://models.s3.eu-central-1.amazonaws.com");
        assert_eq!(usual.region, "eu-central-1");
        let by_path = signed(bucket("my.models").force_path_style(true)).await.unwrap();
        assert_eq!(by_path.bucket, "https://s3.eu-central-1.amazonaws.com/my.models");
        let own = bucket("models").endpoint("http://127.0.0.1:9000/").force_path_style(true);
        assert_eq!(signed(own).await.unwrap().bucket, "http://127.0.0.1:9000/models");
        let china = bucket("models").use_dual_stack(true);
        let senders = Senders::new(&SourceConfig::default()).unwrap();
        let china = Signed::new(&senders, china.region("cn-north-1").build().unwrap(), None).await.unwrap();
        assert_eq!(china.bucket, "https://models.s3.dualstack.cn-north-1.amazonaws.com.cn");
    }

    #[tokio::test]
    async fn what_needs_another_signature_is_left_to_the_sdk() {
        assert!(signed(bucket("models--euc1-az1--x-s3")).await.is_none(), "a directory bucket");
        let user = bucket("models").endpoint("http://me:secret@127.0.0.1:9000").force_path_style(true);
        assert!(signed(user).await.is_none());
        assert!(signed(bucket("models").endpoint("not a URL")).await.is_none());
    }

    #[tokio::test]
    async fn a_key_is_written_as_everybody_reads_it_or_left_to_the_sdk() {
        let signed = signed(bucket("models").endpoint("http://h:1").force_path_style(true)).await.unwrap();
        let path = |key| signed.url(key).map(|url| url.path().to_owned());
        let written = |key, text: &str| assert_eq!(path(key), Some(format!("/models/{text}")), "{key}");
        written("a/b-c_d.e~f", "a/b-c_d.e~f");
        written(
            "a b+c%2F(d)*'!&=?#;:@$,é",
            "a%20b%2Bc%252F%28d%29%2A%27%21%26%3D%3F%23%3B%3A%40%24%2C%C3%A9",
        );
        written("a//b/", "a//b/");
        written("..a/b..", "..a/b..");
        for key in ["../b", "a/../b", "a/./b", "a/..", "."] {
            assert_eq!(path(key), None, "{key}");
        }
    }

    /// "Example: GET Object" of "Signature Calculations for the Authorization Header" in S3's API reference.
    #[tokio::test]
    async fn a_signature_is_that_of_the_documentation() {
        let place = Params::builder().bucket("examplebucket").region("us-east-1").use_global_endpoint(true);
        let senders = Senders::new(&SourceConfig::default()).unwrap();
        let signed = Signed::new(&senders, place.build().unwrap(), None).await.unwrap();
        let keys =
            Keys::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None, None, "test");
        let headers = HeaderMap::from_iter([(http::header::RANGE, HeaderValue::from_static("bytes=0-9"))]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        let url = signed.url("test.txt").unwrap();
        assert_eq!(url.as_str(), "https://examplebucket.s3.amazonaws.com/test.txt");
        let headers = signed.sign(url.as_str(), &keys, headers, now).unwrap();
        assert_eq!(
            headers["authorization"],
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, \
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        assert!(headers["authorization"].is_sensitive());
        assert_eq!(headers["range"], "bytes=0-9");
    }

    #[tokio::test]
    async fn who_has_no_keys_signs_nothing() {
        let signed = signed(bucket("models")).await.unwrap();
        assert!(signed.keys().await.unwrap().is_none());
        let request = signed.get("a.bin", None, HeaderMap::new()).unwrap().build().unwrap();
        assert!(!request.headers().contains_key("authorization"));
        assert_eq!(request.headers()["accept-encoding"], "identity");
    }
}
