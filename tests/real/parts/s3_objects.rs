//! What is put into S3 servers, whichever they are, by the AWS SDK.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};

/// The region that the servers say they are in.
pub(super) const REGION: &str = "us-east-1";

/// A client of the AWS SDK for the server at `endpoint`.
pub(super) fn client(endpoint: &str, access_key: &str, secret_key: &str) -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(aws_smithy_http_client::tls::Provider::Rustls(
            aws_smithy_http_client::tls::rustls_provider::CryptoMode::AwsLc,
        ))
        .build_https();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .endpoint_url(endpoint)
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "fixture"))
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

/// The same client, that sends checksums only where one is given: the SDK adds some by itself.
fn that_sends(client: &Client, checksum: Option<&ChecksumAlgorithm>) -> Client {
    if checksum.is_some() {
        return client.clone();
    }
    let bare = RequestChecksumCalculation::WhenRequired;
    Client::from_conf(client.config().to_builder().request_checksum_calculation(bare).build())
}

/// Makes a bucket.
pub(super) async fn make_bucket(client: &Client, bucket: &str) {
    let made = client.create_bucket().bucket(bucket).send().await;
    made.unwrap_or_else(|error| panic!("bucket {bucket}: {error:?}"));
}

/// Puts an object at once, with a checksum of this kind, if any.
pub(super) async fn put(
    client: &Client,
    (bucket, key): (&str, &str),
    bytes: ByteStream,
    checksum: Option<ChecksumAlgorithm>,
) {
    let client = that_sends(client, checksum.as_ref());
    let put = client.put_object().bucket(bucket).key(key).body(bytes).set_checksum_algorithm(checksum);
    put.send().await.unwrap_or_else(|error| panic!("s3://{bucket}/{key}: {error:?}"));
}

/// Puts an object in parts of `part_size` bytes (5 MiB at least, except the last), each with a checksum of this kind, if
/// any. A CRC-64 is of the whole, any other of the parts.
pub(super) async fn put_in_parts(
    client: &Client,
    (bucket, key): (&str, &str),
    bytes: &[u8],
    part_size: usize,
    checksum: Option<ChecksumAlgorithm>,
) {
    let failed = |error: &dyn std::fmt::Debug| -> ! { panic!("s3://{bucket}/{key}: {error:?}") };
    let client = that_sends(client, checksum.as_ref());
    let kind = checksum.as_ref().map(|checksum| match checksum {
        ChecksumAlgorithm::Crc64Nvme => ChecksumType::FullObject,
        _ => ChecksumType::Composite,
    });
    let upload = client.create_multipart_upload().bucket(bucket).key(key);
    let upload = upload.set_checksum_algorithm(checksum.clone()).set_checksum_type(kind.clone());
    let upload = upload.send().await.unwrap_or_else(|error| failed(&error));
    let upload = upload.upload_id().expect("an upload has an id");
    let mut parts = Vec::new();
    for (number, bytes) in (1..).zip(bytes.chunks(part_size)) {
        let part = client.upload_part().bucket(bucket).key(key).upload_id(upload).part_number(number);
        let part = part.set_checksum_algorithm(checksum.clone()).body(ByteStream::from(bytes.to_vec()));
        let part = part.send().await.unwrap_or_else(|error| failed(&error));
        let done = CompletedPart::builder().part_number(number).set_e_tag(part.e_tag);
        let done = done.set_checksum_sha256(part.checksum_sha256).set_checksum_crc32_c(part.checksum_crc32_c);
        parts.push(done.set_checksum_crc64_nvme(part.checksum_crc64_nvme).build());
    }
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let done = client.complete_multipart_upload().bucket(bucket).key(key).upload_id(upload);
    let done = done.multipart_upload(parts).set_checksum_type(kind);
    done.send().await.unwrap_or_else(|error| failed(&error));
}
