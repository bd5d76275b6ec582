//! What an object store tells of small objects with their bytes: no request is made to hear it, and it's heeded.

use std::path::Path;
use std::process::Output;

use crate::node::{BUCKET, SOON, assert_current, blobs, bytes, files_below, list, once_more, said};
use crate::parts::{Fault, FaultProxy, Rule, Stoker, until};

use super::{Bed, gets};

/// Small files, with the SHA-256 of each at the store, which doesn't list it.
struct Files(Vec<(String, Vec<u8>)>);

impl Files {
    async fn put(bed: &Bed, number: u64) -> Self {
        let file = |n: u64| (format!("d{}/f{n:02}.bin", n % 3), bytes(n, 5_000 + n as usize));
        let files: Vec<_> = (0..number).map(file).collect();
        for (name, bytes) in &files {
            bed.s3.put(BUCKET, &format!("m/{name}"), &**bytes).await;
        }
        Self(files)
    }

    fn assert_current(&self, bed: &Bed) {
        let files: Vec<(&str, &[u8])> = self.0.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
        assert_current(&bed.agent, "m", &files);
    }
}

fn entry() -> String {
    format!("id: m, weights: s3://{BUCKET}/m/")
}

fn heads(proxy: &FaultProxy) -> usize {
    proxy.seen().iter().filter(|seen| seen.method == "HEAD").count()
}

#[tokio::test]
async fn small_objects_are_verified_by_what_comes_with_them() {
    let mut bed = Bed::start().await;
    let files = Files::put(&bed, 20).await;
    bed.objects.add(Rule::get("/f07.bin", Fault::FlipByte(4_000)));
    bed.warm(&[&entry()]).await;
    files.assert_current(&bed);
    assert_eq!(heads(&bed.objects), 0, "{:#?}", bed.objects.seen());
    assert_eq!(gets(&bed.objects, ".bin").len(), 21, "the flipped byte was found");
    let seen = bed.objects.seen().len();
    let status = once_more(&mut bed.agent).await;
    assert!(status.entry("m").unwrap().verified, "{status:?}");
    let again: Vec<_> = bed.objects.seen().split_off(seen);
    assert!(again.iter().all(|seen| seen.path.contains("list-type=2")), "{again:#?}");
}

#[tokio::test]
async fn small_objects_that_stay_wrong_never_become_warm() {
    let bed = Bed::start().await;
    Files::put(&bed, 3).await;
    bed.objects.add(Rule::get("/f01.bin", Fault::FlipByte(4_000)).always());
    bed.agent.write_list(&list(&[&entry()]));
    let run = bed.agent.once(SOON).await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("Corrupt") && told.contains("f01.bin"), "{told}");
    assert_current(&bed.agent, "m", &[]);
}

#[tokio::test]
async fn where_only_verified_files_may_be_all_are_asked_about_first() {
    let bed = Bed::start().await;
    let files = Files::put(&bed, 5).await;
    let bed = Bed { agent: bed.agent.arg("--verified-only"), ..bed };
    bed.warm(&[&entry()]).await;
    files.assert_current(&bed);
    assert_eq!(heads(&bed.objects), 5);
    bed.objects.clear();
    bed.warm(&[&entry()]).await;
    assert_eq!(heads(&bed.objects), 5, "they aren't asked about again");
}

/// Whoever is killed in the middle has verified files that no manifest names yet: the next run hears of them without
/// fetching them again.
#[tokio::test]
async fn what_a_killed_run_brought_is_verified_and_not_fetched_again() {
    let mut bed = Bed::start().await;
    let files = Files::put(&bed, 12).await;
    bed.objects.add(Rule::get("/f00.bin", Fault::Stall(100)).always());
    bed.agent.write_list(&list(&[&entry()]));
    bed.agent.start().await;
    until("the others", SOON, async || (blobs(&bed.agent) == 11).then_some(())).await;
    bed.agent.kill9();
    bed.objects.clear();
    let before = gets(&bed.objects, ".bin").len();
    bed.warm(&[&entry()]).await;
    files.assert_current(&bed);
    let again = gets(&bed.objects, ".bin").split_off(before);
    assert_eq!(again.len(), 1, "{again:#?}");
    let status = once_more(&mut bed.agent).await;
    assert!(status.entry("m").unwrap().verified, "{status:?}");
}

async fn pull(bed: &Bed, to: &Path) -> Output {
    let uri = format!("s3://{BUCKET}/m/");
    let endpoint = ("AWS_ENDPOINT_URL", bed.objects.url());
    let stoker = Stoker::new(["pull", &uri, "--to"]).args([to]);
    let stoker = bed.s3.env().into_iter().fold(stoker, |stoker, (key, value)| stoker.env(key, value));
    stoker.env(endpoint.0, endpoint.1).output(SOON).await
}

#[tokio::test]
async fn a_pull_keeps_small_files_that_are_right_and_fetches_those_that_are_not() {
    let bed = Bed::start().await;
    let files = Files::put(&bed, 6).await;
    let to = bed.agent.scratch().join("to");
    let run = pull(&bed, &to).await;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    assert!(said(&run).contains("every digest checked"), "{}", said(&run));
    assert_eq!((heads(&bed.objects), gets(&bed.objects, ".bin").len()), (0, 6));
    let mut wrong = files.0[1].1.clone();
    wrong[17] ^= 1;
    std::fs::write(to.join(&files.0[1].0), &wrong).unwrap();
    std::fs::remove_file(to.join(&files.0[2].0)).unwrap();
    let run = pull(&bed, &to).await;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    assert!(said(&run).contains("4 files were there"), "{}", said(&run));
    assert_eq!((heads(&bed.objects), gets(&bed.objects, ".bin").len()), (5, 8));
    let found = files_below(&to);
    assert!(files.0.iter().all(|(name, bytes)| found[name] == *bytes));
}
