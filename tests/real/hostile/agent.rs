//! The agent process, with an attack on its list.

use stoker::types::Digest;

use super::forged::{Forged, Image};
use super::{Canary, Item, Tape};
use crate::node::{Node, SOON, label_keys, list};
use crate::parts::{Status, Version};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_entries_fail_with_their_reasons_and_the_others_become_warm() {
    let mut node = Node::start(Version::V2_4).await;
    let canary = Canary::new(&node.containerd.snapshots());
    let good = node.push("team/good", "good").await;
    let outside = canary.dir() + "/file";
    let stolen =
        Image::of([Forged::packed(&Tape::of([Item::hard_link("h", &outside), Item::file("h", "evil")]))]);
    let wrong = Forged { diff: Digest::of(b"another"), ..Forged::packed(&super::innocent()) };
    let bomb = Image::of([Forged::packed(&Tape::of([
        Item::file("f", "x").record("size", (1_u64 << 50).to_string())
    ]))]);
    let configless =
        Image { config: Some(b"evil".to_vec()), ..Image::of([Forged::packed(&super::innocent())]) };
    let attacks = [
        ("stolen", stolen, "BadLayer", "which isn't in the layer"),
        ("wrong", Image::of([wrong]), "BadLayer", "the unpacked layer's digest is"),
        ("bomb", bomb, "BadLayer", "over a limit"),
        ("configless", configless, "BadManifest", "the configuration can't be read"),
    ];
    let mut entries = vec![];
    for (id, image, ..) in &attacks {
        let tag = image.push(&node.registry, &format!("hostile/{id}")).await;
        entries.push(format!("id: {id}, image: \"{tag}\""));
    }
    entries.push(format!("id: good, image: \"{}\"", good.by_tag()));
    node.agent.write_list(&list(&entries.iter().map(String::as_str).collect::<Vec<_>>()));
    node.agent.start().await;
    let settled = |status: &Status| {
        let is = |id: &str, state: &str| status.entry(id).is_some_and(|entry| entry.state == state);
        is("good", "Warm") && attacks.iter().all(|(id, ..)| is(id, "Failed"))
    };
    let status = node.agent.wait_for("a verdict on each", SOON, settled).await;
    for (id, _, code, words) in &attacks {
        let reason = status.entry(id).unwrap().reason.as_ref().unwrap();
        assert_eq!(reason.code, *code, "{id}: {}", reason.message);
        let said = &reason.message;
        assert!(said.contains(words) && said.contains(&format!("hostile/{id}")), "{id}: {said}");
    }
    let labels = label_keys(&status);
    assert!(labels.contains(&"image.stoker.dev/good"), "{labels:?}");
    assert!(!labels.iter().any(|label| attacks.iter().any(|(id, ..)| label.ends_with(id))), "{labels:?}");
    let records = node.containerd.ctr_ok(&["images", "ls", "-q"]).await;
    assert!(records.contains("team/good") && !records.contains("hostile/"), "{records}");
    canary.assert_untouched("the agent");
    assert!(node.agent.running().exit_status().is_none());
    assert!(node.agent.stop(SOON).await.success());
}
