//! Weights from a Hugging Face Hub: a fake of its API, in which what can go wrong does.

use std::sync::Arc;

use crate::node::{
    SOON, agent, assert_current, bytes, code, current, files_below, leftovers, list, once_more, said,
};
use crate::parts::{Agent, FakeHub, Gpus, HubFile, Stoker};

const MIB: usize = 1 << 20;
const TOKEN: &str = "hf_hunter2hunter2";

/// An agent of a node whose Hub is `hub`.
fn agent_of(hub: &FakeHub, gpus: &Gpus) -> Agent {
    agent(gpus).env("STOKER_ALLOW_SCHEMES", "hf").env("HF_ENDPOINT", hub.url())
}

fn model(seed: u64, size: usize) -> Arc<[u8]> {
    bytes(seed, size).into()
}

/// Three files, of which one is large.
fn files(model: &Arc<[u8]>) -> [HubFile; 3] {
    let large = HubFile::large("onnx/model.bin", Arc::clone(model));
    [HubFile::small("config.json", *b"{}"), large, HubFile::small("tokenizer.json", *b"[]")]
}

const ALL: &str = "id: m, weights: \"hf://org/name\"";

#[tokio::test]
async fn a_model_is_fetched_verified_and_shown_in_both_layouts() {
    let (hub, gpus) = (FakeHub::start().await, Gpus::healthy(1));
    let model = model(1, 40 * MIB);
    let commit = hub.push(&files(&model));
    // Each range finds its way anew, since each way is good for one request only.
    hub.told().signatures_expire = true;
    let mut agent = agent_of(&hub, &gpus);
    agent.write_list(&list(&[ALL]));
    let run = agent.once(SOON).await;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    assert_current(
        &agent,
        "m",
        &[("config.json", b"{}"), ("onnx/model.bin", &model), ("tokenizer.json", b"[]")],
    );
    let repository = agent.cache().join("hub/models--org--name");
    assert_eq!(files_below(&repository.join("snapshots").join(&commit)), current(&agent, "m"));
    assert_eq!(std::fs::read_to_string(repository.join("refs/main")).unwrap(), commit);
    assert_eq!(leftovers(&agent), Vec::<String>::new());
    assert!(!said(&run).contains("hush"), "{}", said(&run));

    let before = hub.told().store_asked.len();
    let status = once_more(&mut agent).await;
    assert!(status.entry("m").unwrap().verified, "{status:?}");
    assert_eq!(hub.told().store_asked.len(), before, "nothing is fetched again");
    assert!(before >= 3, "the model came in ranges");

    agent.write_list(&list(&[]));
    agent.start().await;
    let gone = async || (!repository.exists()).then_some(());
    crate::parts::until("the names' end", SOON, gone).await;
    assert_eq!(files_below(&agent.cache().join("hub")).len(), 0);
}

#[tokio::test]
async fn a_pull_puts_chosen_files_into_a_directory() {
    let hub = FakeHub::start().await;
    let weights = model(1, MIB);
    let commit = hub.push(&files(&weights));
    hub.push(&[HubFile::small("config.json", *b"{\"newer\": 1}")]);
    let gpus = Gpus::healthy(1);
    let scratch = agent(&gpus);
    let to = scratch.scratch().join("to");
    for kept in ["0 files were there", "2 files were there"] {
        let run = Stoker::new([
            "pull",
            &format!("hf://org/name@{commit}"),
            "--include",
            "*o*.json",
            "--include",
            "onnx/",
        ])
        .args(["--to".as_ref(), to.as_os_str(), "--exclude".as_ref(), "config*".as_ref()])
        .env("HF_ENDPOINT", hub.url())
        .output(SOON)
        .await;
        assert_eq!(run.status.code(), Some(0), "{}", said(&run));
        assert!(said(&run).contains("every digest checked") && said(&run).contains(kept), "{}", said(&run));
    }
    let found = files_below(&to);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["onnx/model.bin", "tokenizer.json"]);
    assert!(found["onnx/model.bin"] == *weights);
    let check = Stoker::new(["check"]).args([scratch.write_list(&list(&[ALL]))]).output(SOON).await;
    assert_eq!(check.status.code(), Some(0), "{}", said(&check));
}

#[tokio::test]
async fn whoever_may_not_read_is_told_what_to_do() {
    let (hub, gpus) = (FakeHub::start().await, Gpus::healthy(1));
    hub.push(&files(&model(1, 1000)));
    hub.told().token = Some(TOKEN);
    let agent = agent_of(&hub, &gpus);
    agent.scratch().file("secrets/right/HF_TOKEN", format!("{TOKEN}\n"));
    agent.scratch().file("secrets/wrong/HF_TOKEN", "hf_secretive\n");
    let secrets = agent.scratch().join("secrets");
    let mut agent = agent.arg("--credentials-dir").arg(&secrets).arg("--log=debug");
    let entry = |id: &str| format!("id: {id}, weights: \"hf://org/name\", credentials: {id}");
    let missing = "id: missing, weights: \"hf://org/name@v9\", credentials: right".to_owned();
    for (gated, none, wrong) in
        [(false, "or it's private", "make a new one"), (true, "accept its conditions at", "ask for it at")]
    {
        hub.told().gated = gated;
        agent.write_list(&list(&[ALL, &entry("wrong"), &missing]));
        agent.start().await;
        for (id, reason, words) in [
            ("m", "Denied", none),
            ("wrong", "Denied", wrong),
            ("missing", "NotFound", "name a branch, a tag"),
        ] {
            let entry = agent.wait_entry(id, "Failed", SOON).await;
            let told = entry.reason.unwrap();
            assert!(told.code == reason && told.message.contains(words), "{id}: {told:?}");
        }
        agent.stop(SOON).await;
    }
    agent.write_list(&list(&[&entry("right")]));
    let run = agent.once(SOON).await;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    let log = agent.log() + &said(&run);
    assert!(
        !log.contains("hunter2") && !log.contains("secretive") && !log.contains("hush"),
        "a secret is in the log"
    );
    assert_eq!(hub.told().leaks, 0, "the token went to another host");
    assert_eq!(hub.told().store_asked.len(), 1);
}

#[tokio::test]
async fn a_branch_that_moves_in_mid_pull_is_not_mixed() {
    let (hub, gpus) = (FakeHub::start().await, Gpus::healthy(1));
    let (old, new) = (model(1, 3 * MIB), model(2, 3 * MIB));
    let first = hub.push(&files(&old));
    let second = hub.commit(&files(&new));
    hub.told().moves_to = Some(second.clone());
    let agent = agent_of(&hub, &gpus);
    agent.write_list(&list(&[ALL]));
    for (commit, model) in [(&first, &old), (&second, &new)] {
        let run = agent.once(SOON).await;
        assert_eq!(run.status.code(), Some(0), "{}", said(&run));
        assert_current(
            &agent,
            "m",
            &[("config.json", b"{}"), ("onnx/model.bin", model), ("tokenizer.json", b"[]")],
        );
        let main = agent.cache().join("hub/models--org--name/refs/main");
        assert_eq!(std::fs::read_to_string(main).unwrap(), *commit);
    }
    let snapshots = std::fs::read_dir(agent.cache().join("hub/models--org--name/snapshots")).unwrap();
    assert_eq!(snapshots.count(), 2, "a pod may still be reading the first");
    let config = hub.told().asked.iter().filter(|asked| asked.ends_with("config.json")).count();
    assert_eq!(config, 1, "what didn't change is known again");
}

#[tokio::test]
async fn bytes_that_the_tree_does_not_promise_never_get_in() {
    let (hub, gpus) = (FakeHub::start().await, Gpus::healthy(1));
    let (large, small) = (HubFile::large("large.bin", model(1, 1000)), HubFile::small("small.json", *b"{}"));
    for (files, bad) in
        [([large.clone().wrong(), small.clone()], "large.bin"), ([large, small.wrong()], "small.json")]
    {
        hub.push(&files);
        let agent = agent_of(&hub, &gpus);
        agent.write_list(&list(&[ALL]));
        let run = agent.once(SOON).await;
        let told = said(&run);
        assert_eq!(run.status.code(), Some(1), "{told}");
        assert!(told.contains("Corrupt") && told.contains(bad), "{told}");
        assert_current(&agent, "m", &[]);
        assert_eq!(files_below(&agent.cache().join("hub")).len(), 0);
        // What was found out of the other file is kept for the next run.
        let left = leftovers(&agent);
        assert!(left.iter().all(|path| path.ends_with("/m.found")), "{left:?}");
    }
}

#[tokio::test]
async fn a_tree_without_an_end_is_an_error_that_says_so() {
    let (hub, gpus) = (FakeHub::start().await, Gpus::healthy(1));
    hub.push(&files(&model(1, 1000)));
    hub.told().pages_in_a_circle = true;
    let mut agent = agent_of(&hub, &gpus);
    agent.write_list(&list(&[ALL]));
    agent.start().await;
    let entry = agent.wait_entry("m", "Failed", SOON).await;
    assert!(entry.reason.as_ref().unwrap().message.contains("circle"), "{entry:?}");
    let status = agent.status().await.unwrap();
    assert_eq!(code(&status, "m").as_deref(), Some("Invalid"));
    assert!(hub.told().asked.len() < 10, "{:?}", hub.told().asked);
}
