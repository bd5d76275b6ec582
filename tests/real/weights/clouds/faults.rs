//! What goes wrong on the way from a cloud.

use crate::node::{SOON, assert_current, bytes, leftovers, list, said};
use crate::parts::{Fault, Rule, Trouble, until};

use super::{BOTH, Bed, Cloud, MIB};

/// Warms one file from each cloud, whose GETs meet this fault.
async fn survives(fault: Fault, times: usize) -> Bed {
    let bed = Bed::start().await;
    let weights = bytes(1, 3 * MIB);
    for cloud in BOTH {
        bed.put(cloud, "m/w.bin", &weights).await;
        bed.proxy(cloud).add(Rule::get("w.bin", fault.clone()).times(times));
    }
    bed.warm(&BOTH.map(|cloud| cloud.entry("m/")).each_ref().map(String::as_str)).await;
    for cloud in BOTH {
        assert_current(&bed.agent, cloud.id(), &[("w.bin", &weights)]);
        let met = bed.proxy(cloud).spoilt().len();
        assert_eq!(met, times, "{cloud:?} {:#?}", bed.proxy(cloud).seen());
    }
    bed
}

#[tokio::test]
async fn a_body_that_breaks_off_is_finished() {
    let bed = survives(Fault::CutBody(1_000_000), 2).await;
    for cloud in BOTH {
        // What had come isn't fetched again: three million bytes, a listing, and little more.
        let sent = bed.proxy(cloud).body_bytes();
        assert!(sent < 3 * MIB as u64 + 400_000, "{sent} bytes travelled; {:#?}", bed.proxy(cloud).seen());
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up_and_asked_for_again() {
    survives(Fault::Stall(700_000), 1).await;
}

#[tokio::test]
async fn a_store_that_asks_for_patience_is_given_it() {
    let begun = tokio::time::Instant::now();
    survives(Fault::Status { code: 503, retry_after: Some(2) }, 1).await;
    assert!(begun.elapsed().as_secs_f64() >= 2.0, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_listing_that_fails_for_a_while_is_asked_for_again() {
    let bed = Bed::start().await;
    for cloud in BOTH {
        bed.put(cloud, "m/w.bin", b"weights").await;
        bed.proxy(cloud).add(Rule::get("prefix=", Fault::Status { code: 500, retry_after: None }));
        bed.proxy(cloud).add(Rule::get("prefix=", Fault::Close));
    }
    bed.warm(&BOTH.map(|cloud| cloud.entry("m/")).each_ref().map(String::as_str)).await;
    for cloud in BOTH {
        assert_current(&bed.agent, cloud.id(), &[("w.bin", b"weights")]);
        assert_eq!(bed.proxy(cloud).spoilt().len(), 2, "{cloud:?}");
    }
}

#[tokio::test]
async fn trouble_at_random_ends_in_the_right_bytes() {
    let bed = Bed::start().await;
    let files: Vec<(String, Vec<u8>)> = (0..24).map(|n| (format!("f{n}.bin"), bytes(n, MIB / 2))).collect();
    for cloud in BOTH {
        for (name, bytes) in &files {
            bed.put(cloud, &format!("m/{name}"), bytes).await;
        }
        // Another ETag or another total is a changed object, of which three end the run.
        let passes =
            |fault: &Fault| !matches!(fault, Fault::Header(..) | Fault::OtherTotal | Fault::Unauthorized);
        bed.proxy(cloud).trouble(Trouble::new(0.2, 5).on("bin").without(|fault| !passes(fault)));
    }
    bed.warm(&BOTH.map(|cloud| cloud.entry("m/")).each_ref().map(String::as_str)).await;
    let expected: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    for cloud in BOTH {
        assert_current(&bed.agent, cloud.id(), &expected);
        assert!(bed.proxy(cloud).spoilt().len() >= 3, "{cloud:?} {:#?}", bed.proxy(cloud).spoilt());
    }
}

async fn replaced_in_mid_download(cloud: Cloud) {
    let bed = Bed::start().await;
    let (old, new, same) = (bytes(1, 40 * MIB), bytes(2, 40 * MIB), bytes(3, MIB));
    bed.put(cloud, "m/same.bin", &same).await;
    bed.put(cloud, "m/w.bin", &old).await;
    bed.proxy(cloud).add(Rule::get("w.bin", Fault::Stall(MIB as u64)).times(6));
    bed.agent.write_list(&list(&[&cloud.entry("m/")]));
    let replace = async {
        // The other file is there by then: it must not be fetched again.
        let both = async || {
            (bed.proxy(cloud).stalled() > 0 && !bed.gets(cloud, "same.bin").is_empty()).then_some(())
        };
        until("a download", SOON, both).await;
        bed.put(cloud, "m/w.bin", &new).await;
    };
    let (run, ()) = tokio::join!(bed.agent.once(SOON), replace);
    assert_eq!(run.status.code(), Some(0), "{}\n{:#?}", said(&run), bed.proxy(cloud).seen());
    assert_current(&bed.agent, cloud.id(), &[("same.bin", &same), ("w.bin", &new)]);
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
    let refused = bed.gets(cloud, "w.bin").iter().any(|seen| matches!(seen.status, Some(404 | 412)));
    assert!(refused, "{:#?}", bed.proxy(cloud).seen());
}

#[tokio::test]
async fn an_object_of_google_that_is_replaced_in_mid_download_ends_as_one_version() {
    replaced_in_mid_download(Cloud::Google).await;
}

#[tokio::test]
async fn a_blob_of_azure_that_is_replaced_in_mid_download_ends_as_one_version() {
    replaced_in_mid_download(Cloud::Azure).await;
}

#[tokio::test]
async fn what_changes_between_two_runs_is_all_that_is_fetched_again() {
    let bed = Bed::start().await;
    for cloud in BOTH {
        bed.put(cloud, "m/same.bin", &bytes(1, 100_000)).await;
        bed.put(cloud, "m/changes.bin", b"before").await;
    }
    let entries = BOTH.map(|cloud| cloud.entry("m/"));
    bed.warm(&entries.each_ref().map(String::as_str)).await;
    for cloud in BOTH {
        bed.put(cloud, "m/changes.bin", b"after!").await;
    }
    bed.warm(&entries.each_ref().map(String::as_str)).await;
    for cloud in BOTH {
        assert_current(
            &bed.agent,
            cloud.id(),
            &[("changes.bin", b"after!"), ("same.bin", &bytes(1, 100_000))],
        );
        assert_eq!(bed.gets(cloud, "same.bin").len(), 1, "{cloud:?}");
        assert_eq!(bed.gets(cloud, "changes.bin").len(), 2, "{cloud:?}");
    }
}
