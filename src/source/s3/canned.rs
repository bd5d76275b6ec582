//! A server that answers whatever is asked of it with the same bytes, for those who try any bytes as an answer: what
//! reads a listing's XML is the SDK's, and can't be called by itself.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials as Keys, Region};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use tokio::runtime::Runtime;

use super::Bucket;
use crate::source::{SourceConfig, SourceError};
use crate::types::RelPath;

#[derive(Debug, Clone)]
struct Canned {
    status: u16,
    document: Vec<u8>,
}

impl HttpClient for Canned {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Canned {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let answer = StatusCode::try_from(self.status)
            .map(|status| HttpResponse::new(status, self.document.clone().into()))
            .map_err(|error| ConnectorError::user(Box::new(error)));
        HttpConnectorFuture::ready(answer)
    }
}

/// What [`s3_listing`] runs on: without threads, since nothing there waits.
///
/// # Errors
/// When the system gives none.
pub(crate) fn s3_listing_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The files on a page of a listing of everything, as the answer to a request that went the way of all others.
pub(crate) fn s3_listing(runtime: &Runtime, document: &[u8]) -> Result<Vec<RelPath>, SourceError> {
    runtime.block_on(async {
        let bucket = bucket(200, document);
        let page = bucket.page("", None).await?;
        let seen = page.contents().iter().map(|object| bucket.seen("", object));
        let seen: Vec<_> = seen.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        Ok(seen.into_iter().map(|seen| seen.path).collect())
    })
}

/// What is made of the same bytes where they come as a refusal; `None` where they're taken for a page.
pub(crate) fn s3_refusal(runtime: &Runtime, document: &[u8]) -> Option<SourceError> {
    runtime.block_on(async { bucket(403, document).page("", None).await.err() })
}

fn bucket(status: u16, document: &[u8]) -> Bucket {
    let sdk = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(Canned { status, document: document.to_vec() })
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Keys::new("nobody", "nothing", None, None, "canned"))
        .retry_config(aws_config::retry::RetryConfig::disabled())
        .build();
    let (name, origin) = ("bucket".to_owned(), "canned:443".to_owned());
    Bucket {
        client: Client::from_conf(sdk),
        name,
        origin,
        payer: None,
        signed: None,
        config: SourceConfig::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_as_one_and_a_web_page_is_not() {
        let runtime = s3_listing_runtime().unwrap();
        let listing =
            "<ListBucketResult><Contents><Key>a/b.bin</Key><Size>3</Size></Contents></ListBucketResult>";
        let files = s3_listing(&runtime, listing.as_bytes()).unwrap();
        assert_eq!(files, ["a/b.bin".parse().unwrap()]);
        assert!(s3_listing(&runtime, b"<html>").is_err());
        let refusal = "<Error><Code>Slow\nDown</Code><Message>Please</Message></Error>";
        let refusal = s3_refusal(&runtime, refusal.as_bytes()).unwrap().to_string();
        assert!(refusal.ends_with("SlowDown: Please"), "{refusal}");
        let outside = listing.replace("a/b.bin", "../b.bin");
        assert!(s3_listing(&runtime, outside.as_bytes()).is_err());
    }
}
