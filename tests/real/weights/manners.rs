//! How an agent behaves towards its network, and one entry towards another.

use std::time::Duration;

use crate::node::{SOON, assert_current, bytes};
use crate::parts::{Status, until};

use super::{Bed, gets};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn the_bandwidth_is_limited_until_the_file_says_otherwise() {
    let mut bed = Bed::start().await;
    let file = bed.agent.scratch().file("max-bandwidth", "1M\n");
    bed.agent = bed.agent.env("STOKER_MAX_BANDWIDTH_FILE", file.to_str().unwrap());
    let weights = bytes(1, 60 * MIB);
    bed.nginx.put("m.bin", &weights);
    bed.agent.start().await;
    bed.agent.write_list(&crate::node::list(&[&bed.with_digest("m", "m.bin", &weights)]));
    // At this pace it would take a minute.
    until("bytes", SOON, async || (bed.http.body_bytes() > 0).then_some(())).await;
    assert!(!bed.agent.status().await.unwrap().all_warm());

    std::fs::write(&file, "10M").unwrap();
    bed.agent.hang_up();
    let begun = tokio::time::Instant::now();
    bed.agent.wait_for("all", Duration::from_secs(30), Status::all_warm).await;
    assert!(begun.elapsed() > Duration::from_secs(4), "{:?} for 60 MiB at 10 MB/s", begun.elapsed());
    assert_current(&bed.agent, "m", &[("m.bin", &weights)]);
}

#[tokio::test]
async fn what_is_required_comes_first_and_the_others_go_on_after_it() {
    let mut bed = Bed::start().await;
    let first: Vec<Vec<u8>> = (0..3).map(|number| bytes(number, 120 * MIB)).collect();
    let urgent = bytes(9, 60 * MIB);
    let mut entries = Vec::new();
    for (number, weights) in first.iter().enumerate() {
        bed.nginx.put(&format!("other-{number}.bin"), weights);
        entries.push(bed.with_digest(&format!("other-{number}"), &format!("other-{number}.bin"), weights));
    }
    bed.nginx.put("urgent.bin", &urgent);
    bed.http.throttle(Some(30_000_000));
    let all = |entries: &[String]| crate::node::list(&entries.iter().map(String::as_str).collect::<Vec<_>>());
    bed.agent.write_list(&all(&entries));
    bed.agent.start().await;
    // As many as there are jobs for, all under way.
    let under_way = async || (0..3).all(|number| !gets(&bed.http, &format!("other-{number}")).is_empty());
    until("the others", SOON, async || under_way().await.then_some(())).await;

    entries.push(format!("{}, required: true", bed.with_digest("urgent", "urgent.bin", &urgent)));
    bed.agent.write_list(&all(&entries));
    let is_warm = |id: &str, status: &Status| status.entry(id).is_some_and(|entry| entry.state == "Warm");
    bed.agent.wait_for("urgent", SOON, |status| is_warm("urgent", status)).await;
    let status = bed.agent.status().await.unwrap();
    assert!((0..3).any(|number| !is_warm(&format!("other-{number}"), &status)), "{status:?}");
    let seen = bed.http.seen();
    let urgent_range = |path: &str| path.contains("urgent.bin");
    let from = seen.iter().position(|seen| urgent_range(&seen.path)).unwrap();
    let to = seen.iter().rposition(|seen| urgent_range(&seen.path)).unwrap();
    // Those that had their memory already may still begin.
    let others = seen[from..to].iter().filter(|seen| !urgent_range(&seen.path)).count();
    assert!(others <= 14, "{others} of the others began among {}: {seen:#?}", to - from);

    bed.http.throttle(None);
    bed.agent.wait_for("all", SOON, Status::all_warm).await;
    for (number, weights) in first.iter().enumerate() {
        assert_current(&bed.agent, &format!("other-{number}"), &[(&format!("other-{number}.bin"), weights)]);
    }
}
