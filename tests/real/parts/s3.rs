//! versitygw: an S3 server over a directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};

use super::free_port::FreePort;
use super::http;
use super::process::Process;
use super::programs::part;
use super::scratch::Scratch;
use super::wait::START;

const ACCESS_KEY: &str = "stoker";
const SECRET_KEY: &str = "furnace-furnace";
const REGION: &str = "us-east-1";

/// An S3 server on loopback, over plain HTTP, with one user.
#[derive(Debug)]
pub(crate) struct S3 {
    process: Process,
    port: FreePort,
    buckets: PathBuf,
    scratch: Scratch,
}

impl S3 {
    /// Starts one without a bucket.
    pub(crate) async fn start() -> Self {
        let scratch = Scratch::new("s3");
        let buckets = scratch.dir("buckets");
        Self::serve(scratch, buckets).await
    }

    /// Starts one over a directory that exists, with a bucket for each directory in it.
    pub(crate) async fn start_over(buckets: &Path) -> Self {
        Self::serve(Scratch::new("s3"), buckets.to_owned()).await
    }

    async fn serve(scratch: Scratch, buckets: PathBuf) -> Self {
        let port = FreePort::find();
        let mut command = Command::new(part("versitygw-1.8.0", "versitygw"));
        command
            .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION])
            .args(["--port", &port.address(), "posix"])
            .arg(&buckets);
        let process = Process::start("versitygw", &command, &scratch.join("versitygw.log"));
        let s3 = Self { process, port, buckets, scratch };
        let client = s3.client();
        let answer = async || client.list_buckets().send().await.ok().map(drop);
        s3.process.wait_ready("an answer", START, answer).await;
        s3
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// What a client finds in its environment to reach this server.
    pub(crate) fn env(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_REGION", REGION.to_owned()),
        ]
    }

    /// A client of the AWS SDK for it.
    pub(crate) fn client(&self) -> aws_sdk_s3::Client {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(aws_smithy_http_client::tls::Provider::Rustls(
                aws_smithy_http_client::tls::rustls_provider::CryptoMode::AwsLc,
            ))
            .build_https();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(http)
            .endpoint_url(self.endpoint())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "fixture"))
            .force_path_style(true)
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }

    /// Makes a bucket.
    pub(crate) async fn make_bucket(&self, bucket: &str) {
        let made = self.client().create_bucket().bucket(bucket).send().await;
        made.unwrap_or_else(|error| panic!("bucket {bucket}: {error:?}"));
    }

    /// Puts an object, whose SHA-256 the server keeps and tells.
    pub(crate) async fn put(&self, bucket: &str, key: &str, bytes: impl Into<Vec<u8>>) {
        self.put_stream(bucket, key, ByteStream::from(bytes.into())).await;
    }

    /// The same, from a file.
    pub(crate) async fn put_file(&self, bucket: &str, key: &str, file: &Path) {
        let bytes =
            ByteStream::from_path(file).await.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.put_stream(bucket, key, bytes).await;
    }

    async fn put_stream(&self, bucket: &str, key: &str, bytes: ByteStream) {
        let put = self.client().put_object().bucket(bucket).key(key).body(bytes);
        let put = put.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await;
        put.unwrap_or_else(|error| panic!("s3://{bucket}/{key}: {error:?}"));
    }

    /// Puts an object in parts of `part_size` bytes (5 MiB at least, except the last): its ETag ends in `-N`, and
    /// the server has no SHA-256 of the whole.
    pub(crate) async fn put_in_parts(&self, bucket: &str, key: &str, bytes: &[u8], part_size: usize) {
        let client = self.client();
        let failed = |error: &dyn std::fmt::Debug| -> ! { panic!("s3://{bucket}/{key}: {error:?}") };
        let upload = client.create_multipart_upload().bucket(bucket).key(key).send().await;
        let upload = upload.unwrap_or_else(|error| failed(&error));
        let upload = upload.upload_id().expect("an upload has an id");
        let mut parts = Vec::new();
        for (number, bytes) in (1..).zip(bytes.chunks(part_size)) {
            let part = client.upload_part().bucket(bucket).key(key).upload_id(upload).part_number(number);
            let part = part.body(ByteStream::from(bytes.to_vec())).send().await;
            let part = part.unwrap_or_else(|error| failed(&error));
            parts.push(CompletedPart::builder().part_number(number).set_e_tag(part.e_tag).build());
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let done = client.complete_multipart_upload().bucket(bucket).key(key).upload_id(upload);
        done.multipart_upload(parts).send().await.unwrap_or_else(|error| failed(&error));
    }

    /// Removes an object.
    pub(crate) async fn delete(&self, bucket: &str, key: &str) {
        let deleted = self.client().delete_object().bucket(bucket).key(key).send().await;
        deleted.unwrap_or_else(|error| panic!("s3://{bucket}/{key}: {error:?}"));
    }

    /// The directory of a bucket: the objects are the files below it.
    pub(crate) fn directory(&self, bucket: &str) -> PathBuf {
        self.buckets.join(bucket)
    }

    /// `METHOD /BUCKET/KEY` of each request since the start, in order.
    pub(crate) fn requests(&self) -> Vec<String> {
        // 00:02:41 | vgw | 200 | 318.283µs | 127.0.0.1 | GET | /models/key | - | query
        let request = |line: &str| {
            let mut words = line.split(" | ").skip(5);
            Some(format!("{} {}", words.next()?, words.next()?))
        };
        http::settled_log(&self.port.address(), "/", &self.scratch.join("versitygw.log"))
            .lines()
            .filter_map(request)
            .collect()
    }
}
