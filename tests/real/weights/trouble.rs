//! Sets that meet every kind of trouble on the way, at random, on one request in twenty.

use std::path::Path;

use crate::node::{BUCKET, SOON, assert_current, bytes, index, leftovers, list, once_more, said};
use crate::parts::{Namespaces, Nginx, Scratch, Stoker, Trouble};

use super::{Bed, gets};

const MIB: usize = 1 << 20;
const SHARE: f64 = 0.05;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_of_hundreds_of_megabytes_ends_verified() {
    let mut bed = Bed::start().await;
    let shards: Vec<Vec<u8>> = (0..3).map(|number| bytes(number, 100 * MIB + 4321)).collect();
    let small: Vec<Vec<u8>> = (0..40).map(|number| bytes(100 + number, 50_000)).collect();
    let names: Vec<String> = (0..shards.len())
        .map(|number| format!("shard-{number}.safetensors"))
        .chain((0..small.len()).map(|number| format!("small/{number}.json")))
        .collect();
    let files: Vec<(&str, &[u8])> =
        names.iter().map(String::as_str).zip(shards.iter().chain(&small).map(Vec::as_slice)).collect();
    for (path, bytes) in &files {
        bed.nginx.put(&format!("m/{path}"), bytes);
    }
    bed.nginx.put("m/index.json", index(&files));
    bed.http.trouble(Trouble::passing(SHARE, 1));
    bed.agent.write_list(&list(&[&format!("{}, index: true", bed.bare("m", "m/index.json"))]));
    let run = bed.agent.once(SOON * 3).await;
    assert_eq!(run.status.code(), Some(0), "{}\n{:#?}", said(&run), bed.http.spoilt());
    assert_current(&bed.agent, "m", &files);
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
    assert!(bed.http.spoilt().len() >= 3, "{:#?}", bed.http.spoilt());
    // What had come of a range isn't fetched again: only second connections, and bodies that were spoilt as a whole.
    let all: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bed.http.body_bytes() < 2 * all as u64, "{} bytes for {all}", bed.http.body_bytes());
    let status = once_more(&mut bed.agent).await;
    assert!(status.entry("m").unwrap().verified, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_in_parts_end_verified() {
    let bed = Bed::start().await;
    let weights = bytes(1, 150 * MIB + 99);
    bed.s3.put_in_parts(BUCKET, "m/w.bin", &weights, 8 * MIB).await;
    let digest = stoker::types::Digest::of(&weights).hex();
    bed.objects.trouble(Trouble::passing(SHARE, 2).of_signed_requests());
    bed.warm(&[&format!("id: m, weights: s3://{BUCKET}/m/, sha256: {{w.bin: \"{digest}\"}}")]).await;
    assert_current(&bed.agent, "m", &[("w.bin", &weights)]);
    assert!(!bed.objects.spoilt().is_empty());
    for seen in gets(&bed.objects, "w.bin") {
        let (start, end) = seen.range.as_deref().and_then(bounds).unwrap();
        let part = 8 * MIB as u64;
        assert!(
            start / part == end / part || start.is_multiple_of(part),
            "{start}-{end} goes over a part's end"
        );
    }
}

/// One name with two addresses, of which one answers nobody.
#[tokio::test]
async fn a_dead_address_among_good_ones_is_passed_by() {
    let nginx = Nginx::start().await;
    let weights = bytes(1, 60 * MIB);
    nginx.put("m.bin", &weights);
    let scratch = Scratch::new("addresses");
    let hosts = scratch.file("hosts", "127.0.0.1 models.test\n127.0.0.2 models.test\n");
    let inside = Namespaces::hold(&scratch, &format!("mount --bind {} /etc/hosts", hosts.display())).await;
    let port = nginx.host().rsplit(':').next().unwrap().to_owned();
    for run in 0..3 {
        let dir = scratch.dir(format!("pulled-{run}"));
        let url = format!("http://models.test:{port}/m.bin");
        let stoker =
            Stoker::new(["pull", &url, "--to", dir.to_str().unwrap()]).env("NO_PROXY", "*").command();
        let mut command = inside.enter(Path::new(stoker.get_program()));
        command.args(stoker.get_args()).env("NO_PROXY", "*").env("no_proxy", "*");
        let run = tokio::process::Command::from(command).kill_on_drop(true).output();
        let run = tokio::time::timeout(SOON, run).await.unwrap().unwrap();
        assert_eq!(run.status.code(), Some(0), "{}", said(&run));
        assert!(std::fs::read(dir.join("m.bin")).unwrap() == weights);
    }
}

fn bounds(range: &str) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}
