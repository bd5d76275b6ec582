//! MinIO: the S3 server that tells the most of what it holds.

use std::process::Command;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;

use super::free_port::FreePort;
use super::process::Process;
use super::programs::part;
use super::s3_objects::{self, REGION};
use super::scratch::Scratch;
use super::wait::START;

const ACCESS_KEY: &str = "minio-stoker";
const SECRET_KEY: &str = "furnace-furnace-furnace";
/// Where bring-parts.sh has it.
const PART: &str = "minio-0.0.0-20260212201848-7aac2a2c5b7c";

/// One over a directory, on loopback, over plain HTTP, with one user.
#[derive(Debug)]
pub(crate) struct Minio {
    process: Process,
    port: FreePort,
    scratch: Scratch,
}

impl Minio {
    /// Starts one without a bucket.
    pub(crate) async fn start() -> Self {
        let scratch = Scratch::new("minio");
        let (port, drive, home) = (FreePort::find(), scratch.dir("drive"), scratch.dir("home"));
        let mut command = Command::new(part(PART, "minio"));
        command
            .args(["server", "--quiet", "--address", &port.address(), "--certs-dir"])
            .arg(scratch.dir("certs"))
            .arg(drive)
            .env("HOME", home)
            .env("MINIO_ROOT_USER", ACCESS_KEY)
            .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
            // Neither a console nor a look for a newer one.
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off");
        let process = Process::start("minio", &command, &scratch.join("minio.log"));
        let minio = Self { process, port, scratch };
        let client = minio.client();
        let answer = async || client.list_buckets().send().await.ok().map(drop);
        minio.process.wait_ready("an answer", START, answer).await;
        minio
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.port.address()
    }

    /// Its own directory.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.scratch.path()
    }

    /// The keys of its user, and its region, as a client finds them in its environment.
    pub(crate) fn keys(&self) -> [(&'static str, String); 3] {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", REGION.to_owned()),
        ]
    }

    /// A client of the AWS SDK for it.
    pub(crate) fn client(&self) -> aws_sdk_s3::Client {
        s3_objects::client(&format!("http://{}", self.port.address()), ACCESS_KEY, SECRET_KEY)
    }

    /// Makes a bucket.
    pub(crate) async fn make_bucket(&self, bucket: &str) {
        s3_objects::make_bucket(&self.client(), bucket).await;
    }

    /// Lets everybody list a bucket and read what is in it.
    pub(crate) async fn make_public(&self, bucket: &str) {
        let statement = |actions: &[&str], resource: &str| {
            serde_json::json!({
                "Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": actions, "Resource": [resource],
            })
        };
        let policy = serde_json::json!({"Version": "2012-10-17", "Statement": [
            statement(&["s3:ListBucket"], &format!("arn:aws:s3:::{bucket}")),
            statement(&["s3:GetObject"], &format!("arn:aws:s3:::{bucket}/*")),
        ]});
        let put = self.client().put_bucket_policy().bucket(bucket).policy(policy.to_string());
        put.send().await.unwrap_or_else(|error| panic!("the policy of {bucket}: {error:?}"));
    }

    /// Puts an object at once, with a checksum of this kind, if any.
    pub(crate) async fn put(&self, at: (&str, &str), bytes: &[u8], checksum: Option<ChecksumAlgorithm>) {
        s3_objects::put(&self.client(), at, ByteStream::from(bytes.to_vec()), checksum).await;
    }

    /// Puts an object in parts of `part_size` bytes (5 MiB at least, except the last), each with such a checksum.
    pub(crate) async fn put_in_parts(
        &self,
        at: (&str, &str),
        bytes: &[u8],
        part_size: usize,
        checksum: Option<ChecksumAlgorithm>,
    ) {
        s3_objects::put_in_parts(&self.client(), at, bytes, part_size, checksum).await;
    }
}
