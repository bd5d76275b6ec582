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
    let near = Near::start(Registry::start_with_password(), files(), 1).await;
    let proxy = &near.proxies[0];
    let credentials = near.pulling.password(&near.pushed.host);
    for (fault, times) in faults() {
        let before = proxy.spoilt().len();
        proxy.add(Rule::get(&near.layer(1), fault.clone()).after(MIDDLE).times(times));
        near.comes(&format!("{fault:?}"), Some(credentials)).await;
        let met = proxy.spoilt().split_off(before);
        assert_eq!(met.len(), times, "{fault:?}: {met:#?}");
        near.pulling.bench.is_empty_without(&tag(&near.pushed)).await;
        proxy.clear();
    }
    near.pulling.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_had_come_of_a_range_is_not_fetched_again() {
    let near = Near::start(Registry::start(), files(), 1).await;
    let proxy = &near.proxies[0];
    proxy.add(Rule::get("/blobs/", Fault::HalfBody).after(3).times(20));
    near.comes("in halves", None).await;
    assert_eq!(proxy.spoilt().len(), 20);
    // The documents and the heads of answers come on top.
    let (sent, all) = (proxy.body_bytes(), near.image.compressed_size());
    assert!(sent < all + 20_000, "{sent} bytes travelled for {all}");
    near.pulling.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_came_wrong_once_are_asked_for_again() {
    let near = Near::start(Registry::start(), vec![("file", b"content".to_vec())], 1).await;
    let (proxy, pushed) = (&near.proxies[0], &near.pushed);
    for document in [pushed.digest, pushed.manifest, pushed.config] {
        proxy.add(Rule::get(&document.to_string(), Fault::FlipByte(20)));
        proxy.add(Rule::get(&document.to_string(), Fault::HalfBody));
    }
    near.comes("with documents that came wrong", None).await;
    assert_eq!(proxy.spoilt().len(), 6, "{:#?}", proxy.seen());
    near.pulling.end().await;
}
