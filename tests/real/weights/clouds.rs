//! Weights from Google Cloud Storage and Azure Blob Storage.

mod credentials;
mod faults;

use crate::node::{SOON, agent, assert_current, bytes, leftovers, list, once_more, said};
use crate::parts::{Agent, Azurite, FaultProxy, Gcs, Gpus, Seen};

const BUCKET: &str = "models";
const MIB: usize = 1 << 20;

/// Both stores, each with a fault proxy in front, and an agent that reaches them through the proxies.
struct Bed {
    agent: Agent,
    gcs: Gcs,
    azurite: Azurite,
    google: FaultProxy,
    azure: FaultProxy,
    gpus: Gpus,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cloud {
    Google,
    Azure,
}

const BOTH: [Cloud; 2] = [Cloud::Google, Cloud::Azure];

impl Bed {
    async fn start() -> Self {
        let gpus = Gpus::healthy(1);
        let (gcs, azurite) = tokio::join!(Gcs::start(), Azurite::start());
        tokio::join!(gcs.make_bucket(BUCKET), azurite.make_container(BUCKET));
        let (google, azure) = (FaultProxy::start(&gcs.host()), FaultProxy::start(&azurite.host()));
        let agent = agent(&gpus)
            .env("GOOGLE_BASE_URL", google.url())
            .env("GOOGLE_ANONYMOUS", "1")
            .envs(azurite.env(&azure.host()));
        Self { agent, gcs, azurite, google, azure, gpus }
    }

    async fn put(&self, cloud: Cloud, key: &str, bytes: &[u8]) {
        match cloud {
            Cloud::Google => self.gcs.put(BUCKET, key, bytes).await,
            Cloud::Azure => self.azurite.put(BUCKET, key, bytes).await,
        }
    }

    fn proxy(&self, cloud: Cloud) -> &FaultProxy {
        match cloud {
            Cloud::Google => &self.google,
            Cloud::Azure => &self.azure,
        }
    }

    /// The GETs of the bytes of an object.
    fn gets(&self, cloud: Cloud, name: &str) -> Vec<Seen> {
        let seen = self.proxy(cloud).seen().into_iter();
        seen.filter(|seen| seen.method == "GET" && seen.range.is_some() && seen.path.contains(name)).collect()
    }

    async fn warm(&self, entries: &[&str]) {
        self.agent.write_list(&list(entries));
        let run = self.agent.once(SOON).await;
        assert_eq!(
            run.status.code(),
            Some(0),
            "{}\n{:#?}\n{:#?}",
            said(&run),
            self.google.seen(),
            self.azure.seen()
        );
    }
}

impl Cloud {
    fn id(self) -> &'static str {
        match self {
            Self::Google => "google",
            Self::Azure => "azure",
        }
    }

    fn entry(self, key: &str) -> String {
        let scheme = if self == Self::Google { "gs" } else { "az" };
        format!("id: {}, weights: \"{scheme}://{BUCKET}/{key}\"", self.id())
    }
}

#[tokio::test]
async fn sets_of_odd_names_and_empty_files_become_warm() {
    let bed = Bed::start().await;
    let names = [
        "empty.bin",
        "with space.bin",
        "prozent 100%.bin",
        "ünïcödé/模型.bin",
        "a+b&c=d.bin",
        "%41.bin",
        "q?.bin",
    ];
    let files: Vec<(&str, Vec<u8>)> =
        names.iter().enumerate().map(|(seed, name)| (*name, bytes(seed as u64, seed * 1000))).collect();
    for cloud in BOTH {
        for (name, bytes) in &files {
            bed.put(cloud, &format!("odd/{name}"), bytes).await;
        }
        bed.put(cloud, "oddity", b"not below the prefix").await;
    }
    bed.warm(&BOTH.map(|cloud| cloud.entry("odd/")).each_ref().map(String::as_str)).await;
    let expected: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, &**bytes)).collect();
    for cloud in BOTH {
        assert_current(&bed.agent, cloud.id(), &expected);
    }
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
}

#[tokio::test]
async fn one_object_becomes_warm_and_is_verified_by_its_own_metadata_only() {
    let mut bed = Bed::start().await;
    let weights = bytes(1, 3 * MIB);
    let digest = stoker::types::Digest::of(&weights).hex();
    for cloud in BOTH {
        bed.put(cloud, "m/bare.bin", &weights).await;
    }
    bed.gcs.put(BUCKET, "m/said.bin", &*weights).await;
    bed.gcs.describe(BUCKET, "m/said.bin", "sha256", &digest).await;
    bed.azurite.put_described(BUCKET, "m/said.bin", &*weights, ("sha256", digest)).await;
    let entries = [
        Cloud::Google.entry("m/bare.bin").replace("google", "google-bare"),
        Cloud::Google.entry("m/said.bin"),
        Cloud::Azure.entry("m/bare.bin").replace("azure", "azure-bare"),
        Cloud::Azure.entry("m/said.bin").replace("az://models/", "az://models@devstoreaccount1/"),
    ];
    bed.warm(&entries.each_ref().map(String::as_str)).await;
    assert_current(&bed.agent, "google", &[("said.bin", &weights)]);
    assert_current(&bed.agent, "azure-bare", &[("bare.bin", &weights)]);
    let status = once_more(&mut bed.agent).await;
    for cloud in BOTH {
        assert!(status.entry(cloud.id()).unwrap().verified, "{status:?}");
        assert!(!status.entry(&format!("{}-bare", cloud.id())).unwrap().verified, "{status:?}");
    }
}

#[tokio::test]
async fn a_prefix_of_several_pages_is_listed_to_its_end() {
    let bed = Bed::start().await;
    let files: Vec<(String, Vec<u8>)> =
        (0..1_100).map(|n| (format!("d{}/f{n:04}.bin", n % 7), bytes(n, 20 + n as usize % 50))).collect();
    for (name, bytes) in &files {
        let key = format!("many/{name}");
        tokio::join!(bed.put(Cloud::Google, &key, bytes), bed.put(Cloud::Azure, &key, bytes));
    }
    bed.warm(&BOTH.map(|cloud| cloud.entry("many/")).each_ref().map(String::as_str)).await;
    let expected: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    for cloud in BOTH {
        assert_current(&bed.agent, cloud.id(), &expected);
        let pages = bed.proxy(cloud).seen().iter().filter(|seen| seen.path.contains("prefix=")).count();
        assert_eq!(pages, 2, "{cloud:?}");
    }
}
