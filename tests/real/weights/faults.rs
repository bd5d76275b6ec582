//! What goes wrong on the way: found, fetched again, right at the end.

use crate::node::{BUCKET, SOON, assert_current, bytes, index, leftovers, list, said};
use crate::parts::{Fault, Rule, until};

use super::{Bed, asked, gets, ranges};

const MIB: usize = 1 << 20;

/// The first GET of a file that is named by its own URL asks for one byte, to learn its size and version.
const PROBE: usize = 1;

#[tokio::test]
async fn a_flipped_byte_is_found_by_the_digest_in_the_list() {
    let bed = Bed::start().await;
    let weights = bytes(1, 3 * MIB);
    bed.nginx.put("m.bin", &weights);
    bed.http.add(Rule::get("m.bin", Fault::FlipByte(1_000_000)).after(PROBE));
    bed.warm(&[&bed.with_digest("m", "m.bin", &weights)]).await;
    assert_current(&bed.agent, "m", &[("m.bin", &weights)]);
    let spoilt = gets(&bed.http, "m.bin").iter().filter(|seen| seen.fault.is_some()).count();
    assert_eq!(spoilt, 1, "the fault was met: {:#?}", bed.http.seen());
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
}

#[tokio::test]
async fn a_flipped_byte_is_found_by_the_digest_in_the_index() {
    let mut bed = Bed::start().await;
    let (one, two) = (bytes(1, 2 * MIB), bytes(2, 1000));
    let files: [(&str, &[u8]); 2] = [("a/one.bin", &one), ("two.bin", &two)];
    for (path, bytes) in files {
        bed.nginx.put(&format!("m/{path}"), bytes);
    }
    bed.nginx.put("m/index.json", index(&files));
    bed.http.add(Rule::get("one.bin", Fault::FlipByte(500_000)));
    bed.http.add(Rule::get("two.bin", Fault::FlipByte(0)));
    bed.warm(&[&format!("{}, index: true", bed.bare("m", "m/index.json"))]).await;
    assert_current(&bed.agent, "m", &files);
    for path in ["one.bin", "two.bin"] {
        assert!(gets(&bed.http, path).iter().any(|seen| seen.fault.is_some()), "{:#?}", bed.http.seen());
    }
    let status = crate::node::once_more(&mut bed.agent).await;
    assert!(status.entry("m").unwrap().verified, "{status:?}");
}

#[tokio::test]
async fn a_flipped_byte_is_found_by_the_stores_own_sha256() {
    let mut bed = Bed::start().await;
    let weights = bytes(1, 3 * MIB);
    bed.s3.put(BUCKET, "m/w.bin", &*weights).await;
    bed.objects.add(Rule::get("/m/w.bin", Fault::FlipByte(2_000_000)));
    bed.warm(&[&format!("id: m, weights: s3://{BUCKET}/m/")]).await;
    assert_current(&bed.agent, "m", &[("w.bin", &weights)]);
    assert!(gets(&bed.objects, "w.bin").iter().any(|seen| seen.fault.is_some()), "{:#?}", bed.objects.seen());
    let status = crate::node::once_more(&mut bed.agent).await;
    assert!(status.entry("m").unwrap().verified, "{status:?}");
}

#[tokio::test]
async fn bytes_that_stay_wrong_never_become_warm() {
    let bed = Bed::start().await;
    let weights = bytes(1, 100_000);
    bed.nginx.put("m.bin", &weights);
    bed.nginx.put("good.bin", b"good");
    bed.http.add(Rule::get("m.bin", Fault::FlipByte(50_000)).always());
    let entries = [bed.with_digest("m", "m.bin", &weights), bed.bare("good", "good.bin")];
    bed.agent.write_list(&list(&entries.each_ref().map(String::as_str)));
    let run = bed.agent.once(SOON).await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("Corrupt") && told.contains("m.bin"), "{told}");
    assert_current(&bed.agent, "m", &[]);
    assert_current(&bed.agent, "good", &[("good.bin", b"good")]);
    assert_eq!(crate::node::blobs(&bed.agent), 1, "only what is right is kept");
    assert!(gets(&bed.http, "m.bin").len() < 20, "tries are limited: {:#?}", bed.http.seen());
}

/// Warms one file of weights whose GETs meet this fault.
async fn survives(fault: Fault, times: usize) -> Bed {
    let bed = Bed::start().await;
    let weights = bytes(1, 3 * MIB);
    bed.nginx.put("m.bin", &weights);
    bed.http.add(Rule::get("m.bin", fault.clone()).after(PROBE).times(times));
    bed.warm(&[&bed.with_digest("m", "m.bin", &weights)]).await;
    assert_current(&bed.agent, "m", &[("m.bin", &weights)]);
    let met = gets(&bed.http, "m.bin").iter().filter(|seen| seen.fault.as_ref() == Some(&fault)).count();
    assert_eq!(met, times, "{:#?}", bed.http.seen());
    bed
}

#[tokio::test]
async fn a_body_that_breaks_off_is_finished() {
    let bed = survives(Fault::CutBody(1_000_000), 2).await;
    // What had come isn't fetched again: three million bytes, and little more.
    let sent = bed.http.body_bytes();
    assert!(sent < 3 * MIB as u64 + 400_000, "{sent} bytes travelled; {:#?}", bed.http.seen());
}

#[tokio::test]
async fn a_connection_that_is_closed_without_an_answer_is_made_again() {
    survives(Fault::Close, 2).await;
}

#[tokio::test]
async fn a_server_that_asks_for_patience_is_given_it() {
    let begun = tokio::time::Instant::now();
    let bed = survives(Fault::Status { code: 503, retry_after: Some(2) }, 1).await;
    assert!(begun.elapsed().as_secs_f64() >= 2.0, "{:?}", begun.elapsed());
    drop(bed);
}

#[tokio::test]
async fn a_server_that_fails_for_a_while_is_tried_again() {
    survives(Fault::Status { code: 500, retry_after: None }, 2).await;
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_read_as_one_stream() {
    let bed = Bed::start().await;
    let weights = bytes(1, 40 * MIB);
    bed.nginx.put("m.bin", &weights);
    bed.http.add(Rule::get("m.bin", Fault::IgnoreRange).after(PROBE).always());
    bed.warm(&[&bed.with_digest("m", "m.bin", &weights)]).await;
    assert_current(&bed.agent, "m", &[("m.bin", &weights)]);
    let sent = bed.http.body_bytes();
    assert!(sent < 3 * weights.len() as u64, "{sent} bytes travelled; {:#?}", bed.http.seen());
}

/// One machine of several behind a name, or a cache on the way: the rest isn't read as one stream for it.
#[tokio::test]
async fn one_answer_without_the_range_is_asked_for_again() {
    let bed = Bed::start().await;
    let weights = bytes(1, 60 * MIB);
    bed.nginx.put("m.bin", &weights);
    // The third is asked for when one before it has come.
    bed.http.add(Rule::get("m.bin", Fault::IgnoreRange).after(PROBE + 2));
    let bed = Bed { agent: bed.agent.args(["--max-connections", "2"]), ..bed };
    bed.warm(&[&bed.with_digest("m", "m.bin", &weights)]).await;
    assert_current(&bed.agent, "m", &[("m.bin", &weights)]);
    let gets = gets(&bed.http, "m.bin");
    assert_eq!(gets.iter().filter(|seen| seen.fault.is_some()).count(), 1, "the fault was met: {gets:#?}");
    let longest = gets.iter().map(|seen| asked(seen).len()).max();
    assert!(longest.is_some_and(|longest| longest < weights.len() as u64 / 2), "{gets:#?}");
}

#[tokio::test]
async fn an_answer_about_other_bytes_is_not_taken() {
    survives(Fault::Header("content-range", "bytes 5-3145727/3145728".to_owned()), 1).await;
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up_and_asked_for_again() {
    survives(Fault::Stall(700_000), 1).await;
}

#[tokio::test]
async fn a_file_that_is_replaced_in_mid_download_ends_as_one_version() {
    let bed = Bed::start().await;
    let (old, new) = (bytes(1, 40 * MIB), bytes(2, 41 * MIB));
    bed.nginx.put("m.bin", &old);
    bed.http.add(Rule::get("m.bin", Fault::Stall(MIB as u64)).after(PROBE).times(3));
    bed.agent.write_list(&list(&[&bed.bare("m", "m.bin")]));
    let replace = async {
        until("a download", SOON, async || (bed.http.stalled() > 0).then_some(())).await;
        // The stall lasts until the agent gives up on it and asks for the rest.
        bed.nginx.put("m.bin", &new);
    };
    let (run, ()) = tokio::join!(bed.agent.once(SOON), replace);
    assert_eq!(run.status.code(), Some(0), "{}\n{:#?}", said(&run), bed.http.seen());
    assert_current(&bed.agent, "m", &[("m.bin", &new)]);
    assert!(gets(&bed.http, "m.bin").iter().any(|seen| seen.if_match.is_some()), "{:#?}", bed.http.seen());
}

#[tokio::test]
async fn an_object_that_is_replaced_in_mid_download_ends_as_one_version() {
    let bed = Bed::start().await;
    let (old, new) = (bytes(1, 40 * MIB), bytes(2, 40 * MIB));
    bed.s3.put(BUCKET, "m/w.bin", &*old).await;
    bed.objects.add(Rule::get("/m/w.bin", Fault::Stall(MIB as u64)).times(3));
    bed.agent.write_list(&list(&[&format!("id: m, weights: s3://{BUCKET}/m/w.bin")]));
    let replace = async {
        until("a download", SOON, async || (bed.objects.stalled() > 0).then_some(())).await;
        bed.s3.put(BUCKET, "m/w.bin", &*new).await;
    };
    let (run, ()) = tokio::join!(bed.agent.once(SOON), replace);
    assert_eq!(run.status.code(), Some(0), "{}\n{:#?}", said(&run), bed.objects.seen());
    assert_current(&bed.agent, "m", &[("w.bin", &new)]);
}

#[tokio::test]
async fn a_large_file_comes_in_parallel_ranges() {
    let mut bed = Bed::start().await;
    let weights = bytes(1, 70 * MIB);
    bed.nginx.put("m.bin", &weights);
    bed.s3.put_in_parts(BUCKET, "m/w.bin", &weights, 20 * MIB).await;
    // All ranges that travel at once stand still, so that they can be counted.
    bed.http.add(Rule::get("m.bin", Fault::Stall(100_000)).after(PROBE).times(3));
    let digest = stoker::types::Digest::of(&weights).hex();
    let http = bed.with_digest("http", "m.bin", &weights);
    bed.agent.write_list(&list(&[&http]));
    bed.agent.start().await;
    until("ranges side by side", SOON, async || (bed.http.stalled() > 1).then_some(())).await;
    // Not sooner: the two are the same bytes, and who comes first may bring them for both.
    let s3 = format!("id: s3, weights: s3://{BUCKET}/m/, sha256: {{w.bin: \"{digest}\"}}");
    bed.agent.write_list(&list(&[&http, &s3]));
    bed.http.release();
    bed.http.clear();
    // By name: until the new list is read, one is all.
    bed.agent.wait_entry("s3", "Warm", SOON).await;
    bed.agent.wait_entry("http", "Warm", SOON).await;
    assert_current(&bed.agent, "http", &[("m.bin", &weights)]);
    assert_current(&bed.agent, "s3", &[("w.bin", &weights)]);
    // One of the two may have found the bytes that the other one had fetched already.
    let (http, s3) = (ranges(&gets(&bed.http, "m.bin")), ranges(&gets(&bed.objects, "w.bin")));
    assert!(http.len().max(s3.len()) >= 5, "{http:?} {s3:?}");
    assert_eq!(crate::node::blobs(&bed.agent), 1);
}
