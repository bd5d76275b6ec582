//! Weights from MinIO, which tells the checksums of parts and of wholes: what of them is compared, and what is said.

use aws_sdk_s3::types::ChecksumAlgorithm;
use futures::{StreamExt as _, stream};

use crate::node::{BUCKET, SOON, agent, assert_current, bytes, leftovers, list, once_more, said};
use crate::parts::{Agent, Fault, FaultProxy, Gpus, Minio, Rule};

use super::gets;

const MIB: usize = 1 << 20;

/// Of the parts here, in bytes.
const PART: usize = 5 * MIB;

const SHA256: Option<ChecksumAlgorithm> = Some(ChecksumAlgorithm::Sha256);

struct Bed {
    agent: Agent,
    minio: Minio,
    objects: FaultProxy,
    _gpus: Gpus,
}

impl Bed {
    async fn start() -> Self {
        let gpus = Gpus::healthy(1);
        let minio = Minio::start().await;
        minio.make_bucket(BUCKET).await;
        let objects = FaultProxy::start(&minio.host());
        let agent = agent(&gpus).envs(minio.keys()).env("AWS_ENDPOINT_URL", objects.url());
        Self { agent, minio, objects, _gpus: gpus }
    }

    async fn warm(&self, entries: &[&str]) {
        self.agent.write_list(&list(entries));
        let run = self.agent.once(SOON).await;
        assert_eq!(run.status.code(), Some(0), "{}\n{:#?}", said(&run), self.objects.seen());
    }
}

fn entry(id: &str) -> String {
    format!("id: {id}, weights: s3://{BUCKET}/{id}/")
}

#[tokio::test]
async fn objects_of_several_pages_become_warm_and_are_verified() {
    let mut bed = Bed::start().await;
    let files: Vec<(String, Vec<u8>)> =
        (0..1_100_u64).map(|n| (format!("d{}/f{n:04}.bin", n % 7), bytes(n, 20 + n as usize % 50))).collect();
    let puts = files.iter().map(|(name, bytes)| {
        let minio = &bed.minio;
        async move { minio.put((BUCKET, &format!("m/{name}")), bytes, SHA256).await }
    });
    stream::iter(puts).buffer_unordered(16).collect::<()>().await;
    bed.warm(&[&entry("m")]).await;
    let expected: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    assert_current(&bed.agent, "m", &expected);
    let pages = bed.objects.seen().iter().filter(|seen| seen.path.contains("list-type=2")).count();
    assert_eq!(pages, 2);
    // At an endpoint of its own a bucket is a part of the path.
    let in_path = format!("/{BUCKET}");
    assert!(bed.objects.seen().iter().all(|seen| seen.path.starts_with(&in_path)));
    let status = once_more(&mut bed.agent).await;
    assert!(status.entry("m").unwrap().verified, "{status:?}");
}

/// A flipped byte in the second part, once and then always: what is published finds it.
async fn finds_a_flipped_byte(checksum: ChecksumAlgorithm, verified: bool, word: &str) {
    let mut bed = Bed::start().await;
    let weights = bytes(1, 3 * PART + 4321);
    for key in ["m/w.bin", "never/w.bin"] {
        bed.minio.put_in_parts((BUCKET, key), &weights, PART, Some(checksum.clone())).await;
    }
    bed.objects.add(Rule::get("/m/w.bin", Fault::FlipByte(1_000_000)).after(1));
    bed.warm(&[&entry("m")]).await;
    assert_current(&bed.agent, "m", &[("w.bin", &weights)]);
    let spoilt = gets(&bed.objects, "/m/w.bin").iter().filter(|seen| seen.fault.is_some()).count();
    assert_eq!(spoilt, 1, "the fault was met: {:#?}", bed.objects.seen());
    let status = once_more(&mut bed.agent).await;
    assert_eq!(status.entry("m").unwrap().verified, verified, "{status:?}");

    bed.objects.add(Rule::get("/never/w.bin", Fault::FlipByte(2_000_000)).always());
    bed.agent.write_list(&list(&[&entry("m"), &entry("never")]));
    let run = bed.agent.once(SOON).await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("Corrupt") && told.contains(word), "{told}");
    assert_current(&bed.agent, "never", &[]);
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
}

#[tokio::test]
async fn a_flipped_byte_is_found_by_the_sha256_of_its_part_and_the_whole_is_verified() {
    finds_a_flipped_byte(ChecksumAlgorithm::Sha256, true, "part ").await;
}

#[tokio::test]
async fn a_flipped_byte_is_found_by_the_crc64_of_the_whole_and_that_is_no_proof() {
    finds_a_flipped_byte(ChecksumAlgorithm::Crc64Nvme, false, "crc64nvme:").await;
}

#[tokio::test]
async fn a_flipped_byte_is_found_by_the_crc32c_of_its_parts_and_that_is_no_proof() {
    finds_a_flipped_byte(ChecksumAlgorithm::Crc32C, false, "crc32c:").await;
}

#[tokio::test]
async fn what_nobody_published_a_proof_of_is_recorded_and_refused_where_proof_is_asked_for() {
    let mut bed = Bed::start().await;
    let weights = bytes(1, 2 * PART + 77);
    bed.minio.put((BUCKET, "bare/w.bin"), &weights, None).await;
    bed.minio.put_in_parts((BUCKET, "parts/w.bin"), &weights, PART, None).await;
    bed.minio.put_in_parts((BUCKET, "crc/w.bin"), &weights, PART, Some(ChecksumAlgorithm::Crc64Nvme)).await;
    bed.minio.put_in_parts((BUCKET, "sha/w.bin"), &weights, PART, SHA256).await;
    let entries = ["bare", "parts", "crc", "sha"].map(entry);
    bed.warm(&entries.each_ref().map(String::as_str)).await;
    let status = once_more(&mut bed.agent).await;
    for (id, verified) in [("bare", false), ("parts", false), ("crc", false), ("sha", true)] {
        assert_current(&bed.agent, id, &[("w.bin", &weights)]);
        assert_eq!(status.entry(id).unwrap().verified, verified, "{id}: {status:?}");
    }

    let strict = Agent::new();
    let strict =
        strict.args(bed._gpus.args()).envs(bed.minio.keys()).env("AWS_ENDPOINT_URL", bed.objects.url());
    let at = strict.write_list(&list(&entries.each_ref().map(String::as_str)));
    let strict = strict.arg("--list").arg(at).arg("--verified-only");
    let run = strict.once(SOON).await;
    let told = said(&run);
    assert!(told.contains("1 of 4 entries are warm."), "{told}");
    assert_current(&strict, "sha", &[("w.bin", &weights)]);
}

#[tokio::test]
async fn a_public_bucket_is_read_by_nobody_in_particular_and_a_private_one_is_not() {
    let bed = Bed::start().await;
    bed.minio.make_bucket("public").await;
    bed.minio.make_public("public").await;
    for bucket in ["public", BUCKET] {
        bed.minio.put((bucket, "m/w.bin"), b"weights", SHA256).await;
    }
    let secret = [("AWS_ANONYMOUS", String::new()), ("AWS_ENDPOINT_URL", bed.objects.url())];
    for (key, value) in secret {
        bed.agent.scratch().file(format!("secrets/nobody/{key}"), value);
    }
    let secrets = bed.agent.scratch().join("secrets");
    let agent = bed.agent.arg("--credentials-dir").arg(&secrets);
    agent.write_list(&list(&[
        "id: public, weights: s3://public/m/, credentials: nobody",
        &format!("id: private, weights: s3://{BUCKET}/m/, credentials: nobody"),
    ]));
    let run = agent.once(SOON).await;
    let told = said(&run);
    assert!(told.contains("1 of 2 entries are warm."), "{told}");
    assert!(told.contains("Denied") && told.contains("\"nobody\""), "{told}");
    assert_current(&agent, "public", &[("w.bin", b"weights")]);
    assert!(bed.objects.seen().iter().all(|seen| seen.headers.get("authorization").is_none()));
}

#[tokio::test]
async fn a_profile_of_mounted_files_says_who_asks_and_whom() {
    let bed = Bed::start().await;
    bed.minio.put((BUCKET, "m/w.bin"), b"weights", SHA256).await;
    let [(_, id), (_, secret), (_, region)] = bed.minio.keys();
    let endpoint = bed.objects.url();
    let config = format!(
        "[default]\nregion = eu-west-1\n\n[profile gpu]\nregion = {region}\nendpoint_url = {endpoint}\n"
    );
    let credentials = format!("[gpu]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    // The keys of the bed's own environment would come first.
    let agent = agent(&bed._gpus);
    let [config, credentials] = [("aws/config", config), ("aws/credentials", credentials)]
        .map(|(name, text)| agent.scratch().file(name, text).to_str().expect("a path in text").to_owned());
    let agent = agent
        .env("AWS_CONFIG_FILE", config)
        .env("AWS_SHARED_CREDENTIALS_FILE", credentials)
        .env("AWS_PROFILE", "gpu");
    agent.write_list(&list(&[&entry("m")]));
    let run = agent.once(SOON).await;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    assert_current(&agent, "m", &[("w.bin", b"weights")]);
}
