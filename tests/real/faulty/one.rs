//! One fault at a time, in the middle of a layer.

use super::*;

/// After the request that found the blob, and a range.
const MIDDLE: usize = 2;

/// Every fault that passes, and how many requests in a row meet it.
fn faults() -> Vec<(Fault, usize)> {
    let status = |code, retry_after| Fault::Status { code, retry_after };
    vec![
        (status(429, Some(1)), 2),
        (status(503, Some(1)), 2),
        (status(500, None), 2),
        (Fault::Unauthorized, 1),
        (Fault::IgnoreRange, 1),
        (Fault::HalfBody, 3),
        (Fault::CutBody(1000), 3),
        (Fault::Reset(1000), 3),
        (Fault::Close, 3),
        (Fault::Stall(1000), 1),
        (Fault::SlowStart { bytes: 20_000, per_second: 40_000 }, 2),
        (Fault::FlipByte(1000), 1),
        (Fault::OtherRange, 2),
        (Fault::OtherTotal, 2),
        (Fault::Header("etag", "\"another\"".to_owned()), 2),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_in_the_middle_of_a_layer_is_overcome() {
    let (registry, pulling) = tokio::join!(Registry::start_with_password(), Pulling::start());
    let files = files();
    let image = image(&files);
    let pushed = registry.push(&image, "team/app", "v1").await;
    let proxy = FaultProxy::start(&registry.host());
    pulling.hosts(&pushed.host, &[&proxy.url()]);
    let credentials = pulling.password(&pushed.host);
    let layer = format!("/blobs/{}", image.layers[1].digest);
    for (fault, times) in faults() {
        let before = proxy.spoilt().len();
        proxy.add(Rule::get(&layer, fault.clone()).after(MIDDLE).times(times));
        let pulled = pulling.pull_as(&tag(&pushed), Some(credentials)).await;
        let told = pulled.map_err(|error| stoker::rt::chain(&error));
        assert!(told.is_ok(), "{fault:?}: {told:?}");
        let met = proxy.spoilt().split_off(before);
        assert_eq!(met.len(), times, "{fault:?}: {met:#?}");
        pulling.assert_holds(&image, &refs(&files)).await;
        pulling.bench.is_empty_without(&tag(&pushed)).await;
        proxy.clear();
    }
    pulling.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_had_come_of_a_range_is_not_fetched_again() {
    let (registry, pulling) = tokio::join!(Registry::start(), Pulling::start());
    let files = files();
    let image = image(&files);
    let pushed = registry.push(&image, "team/app", "v1").await;
    let proxy = FaultProxy::start(&registry.host());
    pulling.hosts(&pushed.host, &[&proxy.url()]);
    proxy.add(Rule::get("/blobs/", Fault::HalfBody).after(3).times(20));
    pulling.pull(&tag(&pushed)).await.unwrap();
    pulling.assert_holds(&image, &refs(&files)).await;
    assert_eq!(proxy.spoilt().len(), 20);
    // The documents and the heads of answers come on top.
    let (sent, all) = (proxy.body_bytes(), image.compressed_size());
    assert!(sent < all + 20_000, "{sent} bytes travelled for {all}");
    pulling.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_came_wrong_once_are_asked_for_again() {
    let (registry, pulling) = tokio::join!(Registry::start(), Pulling::start());
    let files = [("file", b"content".to_vec())];
    let image = image(&files);
    let pushed = registry.push(&image, "team/app", "v1").await;
    let proxy = FaultProxy::start(&registry.host());
    pulling.hosts(&pushed.host, &[&proxy.url()]);
    for document in [pushed.digest, pushed.manifest, pushed.config] {
        proxy.add(Rule::get(&document.to_string(), Fault::FlipByte(20)));
        proxy.add(Rule::get(&document.to_string(), Fault::HalfBody));
    }
    let pulled = pulling.pull(&tag(&pushed)).await;
    assert!(pulled.is_ok(), "{:?}", pulled.map_err(|error| stoker::rt::chain(&error)));
    assert_eq!(proxy.spoilt().len(), 6, "{:#?}", proxy.seen());
    pulling.end().await;
}
