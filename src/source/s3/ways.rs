use aws_sdk_s3::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector, tls};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use url::Url;

use crate::source::SourceError;
use crate::source::direct::is_direct;
use crate::source::dns::Resolver;

/// Bytes of what is said about a thousand parts, which is some hundred each.
const LONGEST_ATTRIBUTES: u64 = 4 << 20;

/// The same TLS, trust and addresses as everywhere else, and the proxy that the environment names, except to hosts that
/// no proxy is asked for.
pub(super) fn http_client(authorities: Vec<Vec<u8>>) -> Result<SharedHttpClient, SourceError> {
    let trusted = authorities.into_iter().fold(TrustStore::default(), TrustStore::with_pem_certificate);
    let tls = TlsContext::builder().with_trust_store(trusted).build().map_err(|error| {
        SourceError::Invalid { what: "the CA certificates".to_owned(), problem: crate::rt::chain(&error) }
    })?;
    let client = |proxy: fn() -> ProxyConfig| {
        let tls = tls.clone();
        Builder::new().build_with_connector_fn(move |settings, components| {
            let mut builder = Connector::builder().enable_tcp_nodelay(true).proxy_config(proxy());
            builder.set_connector_settings(settings.cloned());
            builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
            let crypto = tls::rustls_provider::CryptoMode::AwsLc;
            let builder = builder.tls_provider(tls::Provider::Rustls(crypto));
            builder.tls_context(tls.clone()).build_with_resolver(Resolver)
        })
    };
    let (direct, proxied) = (client(ProxyConfig::disabled), client(ProxyConfig::from_env));
    Ok(SharedHttpClient::new(Ways { direct, proxied }))
}

/// The two ways to a server.
#[derive(Debug)]
struct Ways<T> {
    direct: T,
    proxied: T,
}

impl HttpClient for Ways<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let [direct, proxied] =
            [&self.direct, &self.proxied].map(|way| way.http_connector(settings, components));
        SharedHttpConnector::new(Ways { direct, proxied })
    }
}

impl HttpConnector for Ways<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let url = Url::parse(request.uri()).ok();
        let way = if url.as_ref().is_some_and(is_direct) { &self.direct } else { &self.proxied };
        let answer = way.call(request);
        if url.is_some_and(|url| asks_for_attributes(&url)) {
            return HttpConnectorFuture::new(async { Ok(attributes(answer.await?)) });
        }
        answer
    }
}

/// Whether what is asked for is what there is to say about an object, and not the object.
fn asks_for_attributes(url: &Url) -> bool {
    url.query_pairs().any(|(key, _)| key == "attributes")
}

/// An answer to that. The SDK has all of it in memory before anybody sees it, and servers that don't know the question
/// send the object: one that is longer than such a document can be becomes what those should have said.
fn attributes(answer: HttpResponse) -> HttpResponse {
    let length = answer.headers().get("content-length").and_then(|length| length.parse::<u64>().ok());
    if length.is_none_or(|length| length <= LONGEST_ATTRIBUTES) {
        return answer;
    }
    let unknown = StatusCode::try_from(501_u16);
    unknown.map_or(answer, |unknown| HttpResponse::new(unknown, SdkBody::empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_where_its_attributes_were_asked_for_is_not_read() {
        let answer = |length: u64| {
            let mut answer = HttpResponse::new(StatusCode::try_from(200_u16).unwrap(), SdkBody::from("x"));
            answer.headers_mut().insert("content-length", length.to_string());
            attributes(answer).status().as_u16()
        };
        assert_eq!([answer(300_000), answer(LONGEST_ATTRIBUTES + 1)], [200, 501]);
        let asks = |url: &str| asks_for_attributes(&Url::parse(url).unwrap());
        assert!(asks("http://host/bucket/key?attributes"));
        assert!(!asks("http://host/bucket/attributes?x-id=GetObject"));
    }
}
