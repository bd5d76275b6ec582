//! Mirrors that send wrong bytes, before a registry that doesn't.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_always_spoils_layers_keeps_nobody_from_the_registrys() {
    let near = Near::start(Registry::start(), files(), 2).await;
    let [mirror, direct] = &near.proxies[..] else { unreachable!() };
    let spoilt = [near.layer(1), near.layer(2)];
    for layer in &spoilt {
        mirror.add(Rule::get(layer, Fault::FlipByte(1000)).always());
    }
    near.comes("behind a mirror that spoils layers", None).await;
    let from_registry = |seen: &crate::parts::Seen| spoilt.iter().any(|layer| seen.path.contains(layer));
    assert!(!direct.seen().is_empty() && direct.seen().iter().all(from_registry), "{:#?}", direct.seen());
    near.pulling.bench.is_empty_without(&tag(&near.pushed)).await;
    near.pulling.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_spoils_a_layer_once_is_asked_again_where_the_registry_cannot_be_had() {
    let near = Near::start(Registry::start(), vec![("file", b"content".to_vec())], 2).await;
    let [mirror, direct] = &near.proxies[..] else { unreachable!() };
    direct.add(Rule::get("/", Fault::Status { code: 403, retry_after: None }).always());
    mirror.add(Rule::get(&near.layer(0), Fault::FlipByte(30)));
    near.comes("from a mirror that spoils a layer once", None).await;
    assert_eq!((mirror.spoilt().len(), direct.spoilt().len()), (1, 1), "{:#?}", direct.seen());
    near.pulling.end().await;
}
