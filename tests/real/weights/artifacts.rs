//! Weights from artifacts in a registry: ModelPacks and what ORAS pushes, in the distribution project's own registry.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;
use stoker::types::Digest;

use super::{gets, ranges};
use crate::node::{
    SOON, agent, assert_current, blobs, bytes, code, current, files_below, label_of, leftovers, list,
    once_more, push, said,
};
use crate::parts::{Agent, ArtifactLayer, Fault, FaultProxy, Gpus, Registry, Rule, Stoker, until};
use crate::registry::fakes::Fakes;

const MIB: usize = 1 << 20;
const REPOSITORY: &str = "team/app";

/// An agent that may ask registries for weights.
fn agent_of(gpus: &Gpus) -> Agent {
    agent(gpus).env("STOKER_ALLOW_SCHEMES", "oci")
}

/// The entry of a tag, asked for at `host`.
fn entry(id: &str, host: &str, tag: &str) -> String {
    format!("id: {id}, weights: \"oci://{host}/{REPOSITORY}:{tag}\"")
}

/// The GETs of a layer that a proxy saw.
fn of_layer(proxy: &FaultProxy, bytes: &[u8]) -> Vec<crate::parts::Seen> {
    gets(proxy, &format!("/blobs/{}", Digest::of(bytes)))
}

async fn warm(agent: &Agent, entries: &[&str]) {
    agent.write_list(&list(entries));
    let run = agent.once(SOON).await;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
}

#[tokio::test]
async fn a_model_pack_and_what_oras_pushed_become_warm_and_verified() {
    let (registry, gpus) = (Registry::start().await, Gpus::healthy(1));
    let (model, gguf) = (bytes(1, 40 * MIB), bytes(2, 3 * MIB));
    let pack: [(&str, &[u8]); 3] =
        [("config.json", b"{}"), ("empty.txt", b""), ("shards/model.safetensors", &model)];
    registry.push_model(REPOSITORY, "pack", &pack.map(|(path, bytes)| ArtifactLayer::raw(path, bytes))).await;
    let files: [(&str, &[u8]); 2] = [("config.json", b"{}"), ("model.gguf", &gguf)];
    registry
        .push_files(REPOSITORY, "oras", &files.map(|(path, bytes)| ArtifactLayer::oras(path, bytes)))
        .await;
    let proxy = FaultProxy::start(&registry.host());
    let mut agent = agent_of(&gpus);
    warm(&agent, &[&entry("pack", &proxy.host(), "pack"), &entry("oras", &proxy.host(), "oras")]).await;
    assert_current(&agent, "pack", &pack);
    assert_current(&agent, "oras", &files);
    assert!(ranges(&of_layer(&proxy, &model)).len() >= 3, "{:#?}", proxy.seen());
    assert_eq!(blobs(&agent), 4, "what both have is there once");
    assert_eq!(leftovers(&agent), Vec::<String>::new());

    let before = proxy.seen().iter().filter(|seen| seen.path.contains("/blobs/")).count();
    let status = once_more(&mut agent).await;
    for (id, files) in [("pack", &pack[..]), ("oras", &files)] {
        let entry = status.entry(id).unwrap();
        assert!(entry.verified, "{entry:?}");
        assert_eq!(status.labels[&format!("weights.stoker.dev/{id}")], label_of(files));
    }
    let after = proxy.seen().iter().filter(|seen| seen.path.contains("/blobs/")).count();
    assert_eq!(before, after, "nothing is fetched again");
}

#[tokio::test]
async fn a_pull_puts_chosen_files_into_a_directory() {
    let registry = Registry::start().await;
    let model = bytes(1, 3 * MIB);
    let docs = ArtifactLayer::new(
        "application/vnd.cncf.model.doc.v1.tar",
        b"a tar",
        json!({"org.cncf.model.filepath": "docs"}),
    );
    let layers = [ArtifactLayer::raw("a/model.bin", &model), ArtifactLayer::raw("config.json", b"{}"), docs];
    let digest = registry.push_model(REPOSITORY, "v1", &layers).await;
    let gpus = Gpus::healthy(1);
    let scratch = agent(&gpus);
    let to = scratch.scratch().join("to");
    let pull = async |version: &str, more: &[&str]| {
        let uri = format!("oci://{}/{REPOSITORY}{version}", registry.host());
        Stoker::new(["pull", &uri, "--to"]).args([to.as_os_str()]).args(more).output(SOON).await
    };
    let whole = pull(":v1", &[]).await;
    assert_eq!(whole.status.code(), Some(1), "{}", said(&whole));
    for word in ["(docs, application/vnd.cncf.model.doc.v1.tar) is packed", "`exclude`", ".raw"] {
        assert!(said(&whole).contains(word), "{}", said(&whole));
    }
    assert!(files_below(&to).is_empty(), "nothing half-done");
    let pinned = format!("@{digest}");
    for (version, kept) in [(":v1", "0 files were there"), (pinned.as_str(), "2 files were there")] {
        let run = pull(version, &["--exclude", "docs"]).await;
        assert_eq!(run.status.code(), Some(0), "{}", said(&run));
        assert!(said(&run).contains("every digest checked") && said(&run).contains(kept), "{}", said(&run));
    }
    let found = files_below(&to);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a/model.bin", "config.json"]);
    assert!(found["a/model.bin"] == model);
}

#[tokio::test]
async fn a_tag_that_moves_is_a_new_revision_and_only_what_changed_is_fetched() {
    let (registry, gpus) = (Registry::start().await, Gpus::healthy(1));
    let (base, old, new) = (bytes(1, 3 * MIB), bytes(2, 2 * MIB), bytes(3, 2 * MIB));
    let mut agent = agent_of(&gpus);
    let proxy = FaultProxy::start(&registry.host());
    let mut fetched = Vec::new();
    for adapter in [&old, &new] {
        let layers = [ArtifactLayer::raw("base.bin", &base), ArtifactLayer::raw("adapter.bin", adapter)];
        registry.push_model(REPOSITORY, "v1", &layers).await;
        warm(&agent, &[&entry("m", &proxy.host(), "v1")]).await;
        let files: [(&str, &[u8]); 2] = [("adapter.bin", adapter), ("base.bin", &base)];
        assert_current(&agent, "m", &files);
        let status = once_more(&mut agent).await;
        assert_eq!(status.labels["weights.stoker.dev/m"], label_of(&files));
        fetched.push([&base, &old, &new].map(|bytes| ranges(&of_layer(&proxy, bytes)).len()));
    }
    assert_eq!(fetched, [[1, 1, 0], [1, 1, 1]], "{:#?}", proxy.seen());
    assert!(proxy.body_bytes() < 8 * MIB as u64, "{:#?}", proxy.seen());
}

#[tokio::test]
async fn whoever_may_not_read_is_told_what_to_do() {
    let (registry, gpus) = (Registry::start_with_password().await, Gpus::healthy(1));
    let model = bytes(1, MIB);
    registry.push_model(REPOSITORY, "v1", &[ArtifactLayer::raw("m.bin", &model)]).await;
    let (user, password) = registry.credentials().unwrap();
    let (host, agent) = (registry.host(), agent_of(&gpus));
    let secret = |path: &str, text: &str| drop(agent.scratch().file(format!("secrets/{path}"), text));
    secret("docker/.dockerconfigjson", &Registry::docker_config(&host));
    secret("plain/username", user);
    secret("plain/password", &format!("{password}\n"));
    secret("wrong/username", user);
    secret("wrong/password", "hunter2");
    secret("unfit/.dockerconfigjson", &Registry::docker_config("elsewhere.example"));
    let secrets = agent.scratch().join("secrets");
    let mut agent = agent.arg("--credentials-dir").arg(&secrets).arg("--log=debug");
    let of = |name: &str| format!("{}, credentials: {name}", entry(name, &host, "v1"));
    let (nobody, absent) = (entry("nobody", &host, "v1"), of("absent"));
    agent.write_list(&list(&[&nobody, &of("wrong"), &of("unfit"), &absent, &of("docker"), &of("plain")]));
    agent.start().await;
    for (id, words) in [
        ("nobody", "name a mounted Secret under `credentials`"),
        ("wrong", "with the credentials \"wrong\"; check what their Secret holds"),
        ("unfit", "to its auths"),
        ("absent", "is the Secret mounted?"),
    ] {
        let entry = agent.wait_entry(id, "Failed", SOON).await;
        let told = entry.reason.unwrap();
        assert!(told.code == "Denied" && told.message.contains(words), "{id}: {told:?}");
    }
    for id in ["docker", "plain"] {
        assert!(agent.wait_entry(id, "Warm", SOON).await.verified);
        assert_current(&agent, id, &[("m.bin", &model)]);
    }
    let status = agent.status().await.unwrap();
    let seen = agent.log() + &format!("{status:?}");
    agent.stop(SOON).await;
    for hidden in [password, "hunter2"] {
        assert!(!seen.contains(hidden), "a secret is shown");
    }
}

#[tokio::test]
async fn layers_behind_tokens_and_signed_urls_are_fetched_and_no_token_leaks() {
    let (registry, gpus) = (Registry::start_with_password().await, Gpus::healthy(1));
    let model = bytes(1, 40 * MIB);
    registry.push_model(REPOSITORY, "v1", &[ArtifactLayer::raw("m.bin", &model)]).await;
    let fakes = Fakes::start(&registry).await;
    let host = fakes.registry_url.trim_start_matches("http://").to_owned();
    let agent = agent_of(&gpus);
    agent.scratch().file("secrets/docker/.dockerconfigjson", Registry::docker_config(&host));
    let secrets = agent.scratch().join("secrets");
    let agent = agent.arg("--credentials-dir").arg(&secrets);
    warm(&agent, &[&format!("{}, credentials: docker", entry("m", &host, "v1"))]).await;
    assert_current(&agent, "m", &[("m.bin", &model)]);
    assert_eq!(fakes.told.tokens.load(SeqCst), 1);
    assert_eq!(fakes.told.leaks.load(SeqCst), 0, "the store was shown an Authorization");
}

#[tokio::test]
async fn a_flipped_byte_is_found_and_what_stays_wrong_never_becomes_warm() {
    let (registry, gpus) = (Registry::start().await, Gpus::healthy(1));
    let (once, always) = (bytes(1, 3 * MIB), bytes(2, 100_000));
    registry.push_model(REPOSITORY, "once", &[ArtifactLayer::raw("m.bin", &once)]).await;
    registry.push_model(REPOSITORY, "always", &[ArtifactLayer::raw("m.bin", &always)]).await;
    let proxy = FaultProxy::start(&registry.host());
    let spoil = |bytes: &[u8]| Rule::get(&Digest::of(bytes).to_string(), Fault::FlipByte(50_000));
    proxy.add(spoil(&once));
    proxy.add(spoil(&always).always());
    let agent = agent_of(&gpus);
    warm(&agent, &[&entry("once", &proxy.host(), "once")]).await;
    assert_current(&agent, "once", &[("m.bin", &once)]);
    assert_eq!(proxy.spoilt().len(), 1, "{:#?}", proxy.seen());
    agent.write_list(&list(&[&entry("always", &proxy.host(), "always")]));
    let run = agent.once(SOON).await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("Corrupt") && told.contains("m.bin"), "{told}");
    assert_current(&agent, "always", &[]);
}

#[tokio::test]
async fn a_mirror_that_sends_wrong_bytes_is_gone_past() {
    let (registry, gpus) = (Registry::start().await, Gpus::healthy(1));
    let model = bytes(1, 3 * MIB);
    registry.push_model(REPOSITORY, "v1", &[ArtifactLayer::raw("m.bin", &model)]).await;
    let (mirror, own) = (FaultProxy::start(&registry.host()), FaultProxy::start(&registry.host()));
    mirror.add(Rule::get("/blobs/", Fault::FlipByte(1000)).always());
    let agent = agent_of(&gpus);
    let text = format!("server = \"{}\"\n[host.\"{}\"]\n", own.url(), mirror.url());
    agent.scratch().file("certs.d/models.example/hosts.toml", text);
    let hosts = agent.scratch().join("certs.d");
    let agent = agent.arg("--registry-hosts").arg(&hosts);
    warm(&agent, &[&entry("m", "models.example", "v1")]).await;
    assert_current(&agent, "m", &[("m.bin", &model)]);
    assert_eq!((of_layer(&mirror, &model).len(), of_layer(&own, &model).len()), (1, 1), "{:#?}", own.seen());
    let tag =
        |proxy: &FaultProxy| proxy.seen().iter().filter(|seen| seen.path.contains("/manifests/")).count();
    assert_eq!((tag(&mirror), tag(&own)), (2, 0), "the mirror may say what a tag means");
}

#[tokio::test]
async fn a_large_layer_comes_in_ranges_side_by_side() {
    let (registry, gpus) = (Registry::start().await, Gpus::healthy(1));
    let model = bytes(1, 70 * MIB);
    registry.push_files(REPOSITORY, "v1", &[ArtifactLayer::oras("m.bin", &model)]).await;
    let proxy = FaultProxy::start(&registry.host());
    // All ranges that travel at once stand still, so that they can be counted.
    proxy.add(Rule::get("/blobs/", Fault::Stall(100_000)).times(3));
    let mut agent = agent_of(&gpus);
    agent.write_list(&list(&[&entry("m", &proxy.host(), "v1")]));
    agent.start().await;
    until("ranges side by side", SOON, async || (proxy.stalled() > 1).then_some(())).await;
    proxy.clear();
    agent.wait_entry("m", "Warm", SOON).await;
    assert_current(&agent, "m", &[("m.bin", &model)]);
    assert!(ranges(&of_layer(&proxy, &model)).len() >= 5, "{:#?}", proxy.seen());
}

#[tokio::test]
async fn what_is_no_set_of_files_is_refused_with_the_next_step() {
    let (registry, gpus) = (Registry::start().await, Gpus::healthy(1));
    let image = push(&registry, REPOSITORY, "app").await;
    assert_eq!(image.tag, "v1");
    let mut manifests = Vec::new();
    for text in ["one", "two"] {
        let layers = [ArtifactLayer::raw(text, text.as_bytes())];
        let digest = registry.push_files(REPOSITORY, text, &layers).await;
        // The two differ in names and digests only, which are of one length.
        manifests.push((digest, 0));
    }
    let size = size_of(&registry, "one").await;
    manifests.iter_mut().for_each(|(_, of)| *of = size);
    registry.push_index(REPOSITORY, "both", &manifests).await;
    registry.push_index(REPOSITORY, "only", &manifests[1..]).await;
    registry.push_model(REPOSITORY, "up", &[ArtifactLayer::raw("../../up", b"x")]).await;
    registry
        .push_model(REPOSITORY, "twice", &[ArtifactLayer::raw("a", b"x"), ArtifactLayer::raw("a", b"y")])
        .await;
    let host = registry.host();
    let mut agent = agent_of(&gpus);
    let tags = [("v1", "`image:`"), ("both", "by its digest"), ("up", "../../up"), ("twice", "called a")];
    let entries = tags.map(|(tag, _)| entry(tag, &host, tag));
    let (only, gone) = (entry("only", &host, "only"), entry("gone", &host, "gone"));
    let all: Vec<&str> = entries.iter().chain([&only, &gone]).map(String::as_str).collect();
    agent.write_list(&list(&all));
    agent.start().await;
    for (id, word) in tags {
        let told = agent.wait_entry(id, "Failed", SOON).await.reason.unwrap();
        assert!(told.code == "Invalid" && told.message.contains(word), "{id}: {told:?}");
        assert!(current(&agent, id).is_empty(), "{id}");
    }
    agent.wait_entry("gone", "Failed", SOON).await;
    assert_eq!(code(&agent.status().await.unwrap(), "gone").as_deref(), Some("NotFound"));
    agent.wait_entry("only", "Warm", SOON).await;
    assert_current(&agent, "only", &[("two", b"two")]);
}

async fn size_of(registry: &Registry, tag: &str) -> u64 {
    let url = format!("{}/v2/{REPOSITORY}/manifests/{tag}", registry.url());
    let request = reqwest::Client::builder().no_proxy().build().unwrap().get(url);
    let answer = request.header("accept", "application/vnd.oci.image.manifest.v1+json").send().await.unwrap();
    answer.error_for_status().unwrap().bytes().await.unwrap().len() as u64
}

#[tokio::test]
async fn a_list_is_checked_by_the_same_rules_as_images() {
    let gpus = Gpus::healthy(1);
    let scratch = agent(&gpus);
    let path = scratch.write_list(&list(&[&entry("m", "ghcr.io", "v1")]));
    for (flags, exit) in [
        (&[][..], 0),
        (&["--allow-hosts", "ghcr.io"], 0),
        (&["--allow-hosts", "*.example.com"], 1),
        (&["--allow-schemes", "https"], 1),
    ] {
        let run = Stoker::new(["check"]).args(flags).args([&path]).output(SOON).await;
        assert_eq!(run.status.code(), Some(exit), "{flags:?}: {}", said(&run));
    }
}
