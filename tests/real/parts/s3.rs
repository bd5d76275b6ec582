//! versitygw: an S3 server over a directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;

use super::free_port::FreePort;
use super::http;
use super::process::Process;
use super::programs::part;
use super::s3_objects::{self, REGION};
use super::scratch::Scratch;
use super::wait::START;

const ACCESS_KEY: &str = "stoker";
const SECRET_KEY: &str = "furnace-furnace";
/// Where bring-parts.sh has it.
const PART: &str = "versitygw-1.8.0";

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
        Self::serve(scratch, buckets, &[]).await
    }

    /// The same, and it may have other accounts than the first.
    pub(crate) async fn start_with_accounts() -> Self {
        let scratch = Scratch::new("s3");
        let (buckets, accounts) = (scratch.dir("buckets"), scratch.dir("accounts"));
        let accounts = accounts.to_str().expect("a path in text").to_owned();
        Self::serve(scratch, buckets, &["--iam-dir", &accounts, "--iam-cache-disable"]).await
    }

    /// Starts one over a directory that exists, with a bucket for each directory in it. It keeps connections, as S3 does:
    /// by itself it closes each after one answer.
    pub(crate) async fn start_over(buckets: &Path) -> Self {
        Self::serve(Scratch::new("s3"), buckets.to_owned(), &["--keep-alive"]).await
    }

    async fn serve(scratch: Scratch, buckets: PathBuf, more: &[&str]) -> Self {
        let port = FreePort::find();
        let mut command = Command::new(part(PART, "versitygw"));
        command
            .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION])
            .args(more)
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
        s3_objects::client(&self.endpoint(), ACCESS_KEY, SECRET_KEY)
    }

    /// Makes a bucket.
    pub(crate) async fn make_bucket(&self, bucket: &str) {
        s3_objects::make_bucket(&self.client(), bucket).await;
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
        s3_objects::put(&self.client(), (bucket, key), bytes, Some(ChecksumAlgorithm::Sha256)).await;
    }

    /// Puts an object in parts of `part_size` bytes (5 MiB at least, except the last): its ETag ends in `-N`, and
    /// the server has no SHA-256 of the whole.
    pub(crate) async fn put_in_parts(&self, bucket: &str, key: &str, bytes: &[u8], part_size: usize) {
        s3_objects::put_in_parts(&self.client(), (bucket, key), bytes, part_size, None).await;
    }

    /// Makes an account that may read everything; the server must have been started with accounts.
    pub(crate) fn add_account(&self, access_key: &str, secret_key: &str) {
        self.admin(&["create-user", "--access", access_key, "--secret", secret_key, "--role", "admin"]);
    }

    /// Takes it away: what it signs from now on is refused.
    pub(crate) fn remove_account(&self, access_key: &str) {
        self.admin(&["delete-user", "--access", access_key]);
    }

    fn admin(&self, args: &[&str]) {
        let mut command = Command::new(part(PART, "versitygw"));
        command.args(["admin", "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION]);
        command.arg("--endpoint-url").arg(self.endpoint()).args(args);
        let run = command.output().expect("versitygw can be run");
        assert!(run.status.success(), "{args:?}: {}", String::from_utf8_lossy(&run.stderr));
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
