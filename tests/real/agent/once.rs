//! `stoker agent --once`: all that a list can name, and what an entry that can't be fetched does to the others.

use stoker::types::Digest;

use crate::node::{
    BUCKET, Node, SOON, assert_current, bytes, code, index, label_of, leftovers, list, our_pins, said,
};
use crate::parts::{PushedImage, Seen, Version};

/// What the servers have, and what the agent is to make of it.
struct Goods {
    app: PushedImage,
    tool: PushedImage,
    shard: Vec<u8>,
    config: Vec<u8>,
    single: Vec<u8>,
}

impl Goods {
    async fn publish(node: &Node) -> Self {
        let goods = Self {
            app: node.push("team/app", "app").await,
            tool: node.push("team/tool", "tool").await,
            shard: bytes(1, 300_000),
            config: b"{\"layers\": 2}".to_vec(),
            single: bytes(2, 70_000),
        };
        for (key, bytes) in [
            ("m/a/shard.safetensors", &*goods.shard),
            ("m/config.json", &goods.config),
            ("m/README.md", b"no"),
        ] {
            node.s3.put(BUCKET, key, bytes).await;
        }
        node.s3.put(BUCKET, "m/old.json", b"{}".to_vec()).await;
        let indexed = goods.indexed();
        node.nginx.put("idx/index.json", index(&indexed));
        for (path, bytes) in indexed {
            node.nginx.put(&format!("idx/{path}"), bytes);
        }
        node.nginx.put("one/single.bin", &goods.single);
        goods
    }

    fn prefix(&self) -> [(&str, &[u8]); 2] {
        [("a/shard.safetensors", &self.shard), ("config.json", &self.config)]
    }

    fn indexed(&self) -> [(&str, &[u8]); 2] {
        [("deep/er/w.bin", &self.shard[..1000]), ("tokens.json", &self.config)]
    }

    fn one(&self) -> [(&str, &[u8]); 1] {
        [("single.bin", &self.single)]
    }

    fn entries(&self, node: &Node) -> [String; 5] {
        let digest = Digest::of(&self.single).hex();
        let url = node.http.url();
        [
            format!("id: app, image: \"{}\", required: true", self.app.by_tag()),
            format!("id: tool, image: \"{}\"", self.tool.by_digest()),
            format!(
                "id: prefix, weights: s3://{BUCKET}/m/, include: [\"*.safetensors\", \"*.json\"], exclude: [old.json]"
            ),
            format!("id: indexed, weights: \"{url}/idx/index.json\", index: true"),
            format!("id: one, weights: \"{url}/one/single.bin\", sha256: {{single.bin: \"{digest}\"}}"),
        ]
    }

    fn labels(&self) -> Vec<(String, String)> {
        let image = |image: &PushedImage| image.digest.hex()[..12].to_owned();
        let labels = [
            ("image.stoker.dev/app", image(&self.app)),
            ("image.stoker.dev/tool", image(&self.tool)),
            ("stoker.dev/gpu", "ready".to_owned()),
            ("stoker.dev/ready", "true".to_owned()),
            ("weights.stoker.dev/indexed", label_of(&self.indexed())),
            ("weights.stoker.dev/one", label_of(&self.one())),
            ("weights.stoker.dev/prefix", label_of(&self.prefix())),
        ];
        labels.map(|(key, value)| (key.to_owned(), value)).to_vec()
    }

    fn assert_on_disk(&self, node: &Node) {
        assert_current(&node.agent, "prefix", &self.prefix());
        assert_current(&node.agent, "indexed", &self.indexed());
        assert_current(&node.agent, "one", &self.one());
        assert_eq!(leftovers(&node.agent), Vec::<String>::new());
    }
}

/// GETs of what weights consist of: not of listings, an index, or the one byte that tells a file's version.
fn object_gets(node: &Node) -> Vec<String> {
    let s3 = node.s3.requests().into_iter().filter(|request| request.starts_with("GET /models/m/"));
    let is_object = |seen: &Seen| {
        seen.method == "GET"
            && !seen.path.ends_with("index.json")
            && seen.range.as_deref() != Some("bytes=0-0")
    };
    let http = node
        .http
        .seen()
        .into_iter()
        .filter(is_object)
        .map(|seen| format!("GET {} {:?}", seen.path, seen.range));
    s3.chain(http).collect()
}

fn blob_gets(node: &Node) -> Vec<String> {
    node.registry
        .pulls()
        .into_iter()
        .filter(|request| request.starts_with("GET ") && request.contains("/blobs/"))
        .collect()
}

async fn a_list_of_everything(version: Version) {
    let node = Node::start(version).await;
    let goods = Goods::publish(&node).await;
    let entries = goods.entries(&node);
    node.agent.write_list(&list(&entries.each_ref().map(String::as_str)));

    let first = node.agent.once(SOON).await;
    let told = said(&first);
    assert_eq!(first.status.code(), Some(0), "{told}");
    assert!(told.contains("5 of 5 entries are warm."), "{told}");
    for (key, value) in goods.labels() {
        assert!(told.contains(&format!("  {key}={value}\n")), "{key}={value}: {told}");
    }
    goods.assert_on_disk(&node);
    let pins = our_pins(&node.containerd).await;
    for name in [goods.app.by_tag(), goods.app.by_digest(), goods.tool.by_digest()] {
        assert!(pins.contains(&name), "{name} in {pins:?}");
    }
    let snapshots = node.containerd.ctr_ok(&["snapshots", "ls"]).await;
    for image in [&goods.app, &goods.tool] {
        assert!(snapshots.contains(&image.chain_id.to_string()), "{snapshots}");
    }

    let (objects, blobs) = (object_gets(&node), blob_gets(&node));
    assert!(!objects.is_empty() && !blobs.is_empty(), "{objects:?} {blobs:?}");
    let second = node.agent.once(SOON).await;
    assert_eq!(second.status.code(), Some(0), "{}", said(&second));
    assert!(said(&second).contains("5 of 5 entries are warm."), "{}", said(&second));
    assert_eq!(object_gets(&node), objects, "nothing is fetched again");
    assert_eq!(blob_gets(&node), blobs, "nothing is pulled again");
    goods.assert_on_disk(&node);
}

#[tokio::test]
async fn once_warms_a_list_of_everything_and_then_fetches_nothing_on_2_4() {
    a_list_of_everything(Version::V2_4).await;
}

#[tokio::test]
async fn once_warms_a_list_of_everything_and_then_fetches_nothing_on_1_7() {
    a_list_of_everything(Version::V1_7).await;
}

#[tokio::test]
async fn entries_that_fail_hold_no_other_and_say_why() {
    let mut node = Node::start(Version::V2_4).await;
    let app = node.push("team/app", "app").await;
    node.nginx.put("good.bin", b"good");
    let host = node.registry.host();
    let entries = [
        "id: nobucket, weights: s3://no-such-bucket/m/, priority: 1000".to_owned(),
        format!("id: nofile, weights: \"{}\", priority: 1000", node.nginx.url("missing.bin")),
        format!("id: notag, image: \"{host}/team/app:v9\", priority: 1000"),
        "id: typo, image: \"a b\"".to_owned(),
        format!("id: app, image: \"{}\"", app.by_tag()),
        format!("id: good, weights: \"{}\"", node.nginx.url("good.bin")),
    ];
    node.agent.write_list(&list(&entries.each_ref().map(String::as_str)));
    let run = node.agent.once(SOON).await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("2 of 6 entries are warm."), "{told}");
    for (id, code) in
        [("nobucket", "NotFound"), ("nofile", "NotFound"), ("notag", "NotFound"), ("typo", "Invalid")]
    {
        let row = told.lines().find(|line| line.starts_with(id) && line.contains(code));
        assert!(row.is_some(), "{id} {code}: {told}");
    }

    node.agent.start().await;
    for id in ["nobucket", "nofile", "notag"] {
        node.agent.wait_entry(id, "Failed", SOON).await;
        let status = node.agent.status().await.unwrap();
        assert_eq!(code(&status, id).as_deref(), Some("NotFound"));
        let reason = status.entry(id).unwrap().reason.clone().unwrap();
        let named = if id == "notag" {
            "team/app:v9"
        } else if id == "nofile" {
            "missing.bin"
        } else {
            "no-such-bucket"
        };
        assert!(reason.message.contains(named), "{id}: {}", reason.message);
    }
    for id in ["app", "good"] {
        node.agent.wait_entry(id, "Warm", SOON).await;
    }
    assert_current(&node.agent, "good", &[("good.bin", b"good")]);
}
