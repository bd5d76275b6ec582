//! As whom S3 is asked where no Secret is named: identities that a pod or an instance is given. A fake gives the keys
//! (STS, the Pod Identity Agent and instance metadata can't run here), and the real server has the account.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::{BUCKET, SOON, agent, assert_current, bytes, list, said};
use crate::parts::{
    Agent, Entry, FakeAwsIdentity, Fault, FaultProxy, ForwardProxy, Gpus, Mood, POD_TOKEN, ROLE_ARN, Rule,
    S3, Seen, Status, until,
};

use super::gets;

/// Of the account that the identities are of.
const KEYS: (&str, &str) = ("reader-one", "reader-one-secret");

/// A server with that account and no other that anybody is told of, and a fake that gives its keys.
struct Bed {
    agent: Agent,
    s3: S3,
    objects: FaultProxy,
    fake: FakeAwsIdentity,
    _gpus: Gpus,
}

/// The three ways to be somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    Web,
    Pod,
    Instance,
}

const ALL: [Identity; 3] = [Identity::Web, Identity::Pod, Identity::Instance];

impl Identity {
    /// How an error names it.
    fn name(self) -> &'static str {
        match self {
            Self::Web => "the web identity (AWS_ROLE_ARN arn:aws:iam::123456789012:role/reader",
            Self::Pod => "EKS Pod Identity at http://127.0.0.1:",
            Self::Instance => "the instance metadata at http://127.0.0.1:",
        }
    }

    /// A word of what it says to do.
    fn advice(self) -> &'static str {
        match self {
            Self::Web => "the role's trust policy",
            Self::Pod => "the association of the agent's service account",
            Self::Instance => "give the instance a role",
        }
    }
}

impl Bed {
    async fn start() -> Self {
        let gpus = Gpus::healthy(1);
        let s3 = S3::start_with_accounts().await;
        s3.make_bucket(BUCKET).await;
        s3.add_account(KEYS.0, KEYS.1);
        let objects = FaultProxy::start(s3.endpoint().trim_start_matches("http://"));
        let fake = FakeAwsIdentity::start(KEYS.0, KEYS.1);
        let agent = agent(&gpus)
            .env("AWS_ENDPOINT_URL_S3", objects.url())
            .env("AWS_REGION", "us-east-1")
            .env("HOME", "/nonexistent");
        Self { agent, s3, objects, fake, _gpus: gpus }
    }

    /// The same, with an agent that is somebody.
    fn with(self, identity: Identity) -> Self {
        let url = self.fake.url();
        let token = self.agent.scratch().file("pod/token", POD_TOKEN);
        let token = token.to_str().expect("a path in text").to_owned();
        let agent = match identity {
            Identity::Web => self
                .agent
                .env("AWS_WEB_IDENTITY_TOKEN_FILE", token)
                .env("AWS_ROLE_ARN", ROLE_ARN)
                .env("AWS_ENDPOINT_URL_STS", url),
            Identity::Pod => self
                .agent
                .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{url}/v1/credentials"))
                .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token),
            Identity::Instance => self
                .agent
                .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
                .env("AWS_EC2_METADATA_DISABLED", "false"),
        };
        Self { agent, ..self }
    }

    fn list(&self) {
        self.agent.write_list(&list(&[&format!("id: m, weights: s3://{BUCKET}/m/")]));
    }

    /// Whose keys have signed what was asked of the server, in order.
    fn signers(&self) -> Vec<String> {
        self.objects.seen().iter().filter_map(signer).collect()
    }

    /// How many of the files were last asked for with these keys.
    fn asked_for_as(&self, key: &str) -> usize {
        let gets = gets(&self.objects, "/m/w").into_iter();
        let last: BTreeMap<_, _> =
            gets.map(|seen| (seen.path.split('?').next().map(str::to_owned), signer(&seen))).collect();
        last.values().filter(|last| last.as_deref() == Some(key)).count()
    }
}

/// Whose keys a request was signed with.
fn signer(seen: &Seen) -> Option<String> {
    let key = seen.headers.get("authorization")?.split("Credential=").nth(1)?.split('/').next()?;
    Some(key.to_owned())
}

#[tokio::test]
async fn an_entry_becomes_warm_by_each_identity_and_no_proxy_hears_of_it() {
    for identity in ALL {
        let bed = Bed::start().await.with(identity);
        let weights = bytes(1, 20 << 20);
        bed.s3.put(BUCKET, "m/w.bin", &*weights).await;
        // It knows nobody, so that whatever comes by it fails.
        let proxy = ForwardProxy::start([]);
        let mut agent = bed.agent.env("NO_PROXY", "").env("no_proxy", "");
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            agent = agent.env(name, proxy.url());
        }
        let bed = Bed { agent, ..bed };
        bed.list();
        let run = bed.agent.once(SOON).await;
        assert_eq!(run.status.code(), Some(0), "{identity:?}: {}\n{:?}", said(&run), bed.fake.asked());
        assert_current(&bed.agent, "m", &[("w.bin", &weights)]);
        assert_eq!(proxy.seen(), Vec::<String>::new(), "{identity:?}");
        assert!(bed.signers().iter().all(|key| key == KEYS.0), "{identity:?}: {:?}", bed.signers());
        // Keys that are good for an hour are had once.
        assert_eq!(bed.fake.asked_for_keys(), 1, "{identity:?}: {:?}", bed.fake.asked());
    }
}

#[tokio::test]
async fn keys_that_expire_in_the_middle_of_a_pull_are_had_anew() {
    for identity in ALL {
        let bed = Bed::start().await.with(identity);
        let files: Vec<(String, Vec<u8>)> =
            (0..12_u64).map(|n| (format!("w{n:02}.bin"), bytes(n, 100_000))).collect();
        for (name, bytes) in &files {
            bed.s3.put(BUCKET, &format!("m/{name}"), &**bytes).await;
        }
        bed.s3.add_account("reader-two", "reader-two-secret");
        bed.fake.gives_for(Duration::from_secs(4));
        let busy = Fault::Status { code: 503, retry_after: Some(1) };
        bed.objects.add(Rule::get("/m/w", busy).always());
        bed.list();
        let changed = async {
            let asked = async || (!gets(&bed.objects, "/m/w").is_empty()).then_some(());
            until("files on their way", SOON, asked).await;
            bed.fake.gives("reader-two", "reader-two-secret");
            // Whatever still came with the old keys would be refused, and that would be right.
            let renewed = async || (bed.asked_for_as("reader-two") == files.len()).then_some(());
            until("every file asked for with the new keys", SOON, renewed).await;
            bed.s3.remove_account(KEYS.0);
            bed.objects.clear();
        };
        let (run, ()) = tokio::join!(bed.agent.once(SOON), changed);
        assert_eq!(run.status.code(), Some(0), "{identity:?}: {}\n{:?}", said(&run), bed.fake.asked());
        let expected: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
        assert_current(&bed.agent, "m", &expected);
        let signers = bed.signers();
        assert_eq!(signers.first().map(String::as_str), Some(KEYS.0), "{identity:?}");
        assert_eq!(signers.last().map(String::as_str), Some("reader-two"), "{identity:?}");
        assert!(gets(&bed.objects, "/m/w").len() >= 12);
    }
}

/// The reason that an entry has while nobody gives keys.
async fn reason(mut bed: Bed, identity: Identity, mood: Mood) {
    bed.fake.is_in(mood);
    bed.list();
    bed.agent.start().await;
    let named =
        |entry: &Entry| entry.reason.as_ref().is_some_and(|reason| reason.message.contains(identity.name()));
    let is_named = |status: &Status| status.entry("m").is_some_and(named);
    let status = bed.agent.wait_for("a reason that names the identity", SOON, is_named).await;
    let reason = status.entry("m").and_then(|entry| entry.reason.clone()).expect("there's one");
    let code = if mood == Mood::Hangs { "Unreachable" } else { "Denied" };
    assert_eq!(reason.code, code, "{identity:?}: {reason:?}");
    assert!(reason.message.contains(identity.advice()), "{identity:?}: {reason:?}");
    assert!(reason.message.len() < 700 && !reason.message.contains("Response {"), "{reason:?}");
    for secret in [POD_TOKEN, KEYS.1] {
        assert!(!reason.message.contains(secret) && !bed.agent.log().contains(secret), "{identity:?}");
    }
    assert_eq!(bed.objects.seen(), [], "nobody is asked as nobody");

    bed.fake.is_in(Mood::Gives);
    // Read again: an entry that was denied waits for a reason to try.
    bed.agent.write_list(&list(&[&format!("id: m, weights: s3://{BUCKET}/m/, priority: 900")]));
    bed.agent.wait_entry("m", "Warm", SOON * 2).await;
}

#[tokio::test]
async fn an_identity_that_refuses_or_hangs_is_named_with_the_next_step_and_may_come_back() {
    for mood in [Mood::Refuses, Mood::Hangs] {
        let mut beds = Vec::new();
        for identity in ALL {
            let bed = Bed::start().await.with(identity);
            bed.s3.put(BUCKET, "m/w.bin", b"weights".to_vec()).await;
            beds.push((identity, bed));
        }
        // Side by side: one that hangs is asked several times before anybody hears of it.
        let reasons = beds.into_iter().map(|(identity, bed)| reason(bed, identity, mood));
        futures::future::join_all(reasons).await;
    }
}

#[tokio::test]
async fn keys_are_asked_of_this_node_or_by_https_only() {
    let bed = Bed::start().await;
    // An address for documentation (RFC 5737).
    let agent = bed.agent.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/v1/credentials");
    agent.write_list(&list(&[&format!("id: m, weights: s3://{BUCKET}/m/")]));
    let run = agent.once(SOON).await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("Denied") && told.contains("allowed IP address"), "{told}");
    assert!(told.contains("the container's identity at http://192.0.2.1/v1/credentials"), "{told}");
}
