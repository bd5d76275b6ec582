//! Weights from servers that fail, change and refuse: what ends in the cache is right, or isn't there.

mod artifacts;
mod cache;
mod capacity;
mod clouds;
mod faults;
mod files;
mod hub;
mod hub_clients;
mod identities;
mod in_use;
mod looked_after;
mod manners;
mod minio;
mod payer;
mod refusals;
mod resume;
mod told;
mod trouble;

use std::collections::BTreeSet;

use stoker::types::{ByteRange, Digest};

use super::node::{BUCKET, SOON, agent, list, said};
use super::parts::{Agent, FaultProxy, Gpus, Nginx, S3, Seen};

/// The servers of weights, each with a fault proxy in front, and an agent that reaches them through the proxies.
struct Bed {
    agent: Agent,
    nginx: Nginx,
    s3: S3,
    http: FaultProxy,
    objects: FaultProxy,
    gpus: Gpus,
}

impl Bed {
    async fn start() -> Self {
        let gpus = Gpus::healthy(1);
        let (nginx, s3) = tokio::join!(Nginx::start(), S3::start());
        s3.make_bucket(BUCKET).await;
        let http = FaultProxy::start(&nginx.host());
        let objects = FaultProxy::start(s3.endpoint().trim_start_matches("http://"));
        let agent = agent(&gpus).envs(s3.env()).env("AWS_ENDPOINT_URL", objects.url());
        Self { agent, nginx, s3, http, objects, gpus }
    }

    /// The entry of one file at nginx, with its digest.
    fn with_digest(&self, id: &str, path: &str, bytes: &[u8]) -> String {
        let name = path.rsplit('/').next().unwrap();
        format!("{}, sha256: {{\"{name}\": \"{}\"}}", self.bare(id, path), Digest::of(bytes).hex())
    }

    /// The entry of one file at nginx, for which nobody publishes a digest.
    fn bare(&self, id: &str, path: &str) -> String {
        format!("id: {id}, weights: \"{}/{path}\"", self.http.url())
    }

    /// Runs the agent until these entries are warm.
    async fn warm(&self, entries: &[&str]) {
        self.agent.write_list(&list(entries));
        let run = self.agent.once(SOON).await;
        assert_eq!(
            run.status.code(),
            Some(0),
            "{}\n{:#?}\n{:#?}",
            said(&run),
            self.http.seen(),
            self.objects.seen()
        );
    }
}

/// The GETs of a file's bytes that a proxy saw; the one byte that tells a file's version isn't among them.
fn gets(proxy: &FaultProxy, path: &str) -> Vec<Seen> {
    let is_get = |seen: &Seen| {
        seen.method == "GET" && seen.path.contains(path) && seen.range.as_deref() != Some("bytes=0-0")
    };
    proxy.seen().into_iter().filter(is_get).collect()
}

/// The range that a request asked for.
fn asked(seen: &Seen) -> ByteRange {
    let range = seen.range.as_deref().unwrap_or_default().trim_start_matches("bytes=");
    let (first, last) = range.split_once('-').unwrap_or_else(|| panic!("{seen:?} asks for no range"));
    ByteRange::new(first.parse().unwrap(), last.parse::<u64>().unwrap() + 1).unwrap()
}

/// The different `Range` headers among them.
fn ranges(seen: &[Seen]) -> BTreeSet<String> {
    seen.iter().filter_map(|seen| seen.range.clone()).collect()
}
