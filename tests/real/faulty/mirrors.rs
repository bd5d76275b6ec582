//! Mirrors that send wrong bytes, before a registry that doesn't.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_always_spoils_layers_keeps_nobody_from_the_registrys() {
    let (registry, pulling) = tokio::join!(Registry::start(), Pulling::start());
    let files = files();
    let image = image(&files);
    let pushed = registry.push(&image, "team/app", "v1").await;
    let (mirror, direct) = (FaultProxy::start(&registry.host()), FaultProxy::start(&registry.host()));
    pulling.hosts(&pushed.host, &[&mirror.url(), &direct.url()]);
    let spoilt: Vec<String> =
        image.layers[1..3].iter().map(|layer| format!("/blobs/{}", layer.digest)).collect();
    for layer in &spoilt {
        mirror.add(Rule::get(layer, Fault::FlipByte(1000)).always());
    }
    let pulled = pulling.pull(&tag(&pushed)).await;
    assert!(pulled.is_ok(), "{:?}", pulled.map_err(|error| stoker::rt::chain(&error)));
    pulling.assert_holds(&image, &refs(&files)).await;
    let from_registry = |seen: &crate::parts::Seen| spoilt.iter().any(|layer| seen.path.contains(layer));
    assert!(!direct.seen().is_empty() && direct.seen().iter().all(from_registry), "{:#?}", direct.seen());
    pulling.bench.is_empty_without(&tag(&pushed)).await;
    pulling.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_spoils_a_layer_once_is_asked_again_where_the_registry_cannot_be_had() {
    let (registry, pulling) = tokio::join!(Registry::start(), Pulling::start());
    let files = [("file", b"content".to_vec())];
    let image = image(&files);
    let pushed = registry.push(&image, "team/app", "v1").await;
    let (mirror, direct) = (FaultProxy::start(&registry.host()), FaultProxy::start(&registry.host()));
    pulling.hosts(&pushed.host, &[&mirror.url(), &direct.url()]);
    direct.add(Rule::get("/", Fault::Status { code: 403, retry_after: None }).always());
    mirror.add(Rule::get(&format!("/blobs/{}", image.layers[0].digest), Fault::FlipByte(30)));
    let pulled = pulling.pull(&tag(&pushed)).await;
    assert!(pulled.is_ok(), "{:?}", pulled.map_err(|error| stoker::rt::chain(&error)));
    pulling.assert_holds(&image, &refs(&files)).await;
    assert_eq!((mirror.spoilt().len(), direct.spoilt().len()), (1, 1), "{:#?}", direct.seen());
    pulling.end().await;
}
