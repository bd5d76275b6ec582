//! Power cuts while commits come into `hub/`, a branch moves on, and what nobody needs leaves. Whatever is left, a client
//! finds a commit whole or not at all, and the next run ends right.

use std::path::Path;

use super::bed::{Bed, large, served};
use super::cuts::Run;
use super::hub::{REPOSITORY, commit, listing};
use super::trace::Trace;
use crate::source::{Listing, RemoteFile};

/// What the branch meant, one after the other. The first leaves when the third comes.
const COMMITS: [char; 3] = ['a', 'b', 'c'];

/// The files of one commit, and their bytes.
fn files(digit: char) -> Vec<(RemoteFile, Vec<u8>)> {
    let file = |path: &str, bytes: Vec<u8>| (served(bytes.clone()).listed(path), bytes);
    let own = large(digit as u8)[..70_000].to_vec();
    vec![file("onnx/model", own), file("config.json", b"{}".to_vec()), file("which", vec![digit as u8])]
}

fn listed(digit: char) -> Listing {
    let files: Vec<RemoteFile> = files(digit).into_iter().map(|(file, _)| file).collect();
    listing(digit, "main", &files)
}

async fn record() -> Run {
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let trace = Trace::of(home.path());
    let mut bed = Bed::at(home.path().to_owned());
    let mut begins = Vec::new();
    for digit in COMMITS {
        begins.push(if begins.is_empty() { 0 } else { trace.ops().len() });
        bed.ensure_listing("llama", listed(digit)).await.unwrap();
    }
    assert_honest(home.path());
    assert_eq!(shown(home.path()), Some('c'));
    bed.close();
    Run { ops: trace.ops(), begins }
}

/// What the branch means to a client.
fn shown(home: &Path) -> Option<char> {
    let text = std::fs::read_to_string(home.join(REPOSITORY).join("refs/main")).ok()?;
    let found = COMMITS.into_iter().find(|digit| commit(*digit).hex() == text);
    assert!(found.is_some(), "the ref says {text:?}");
    found
}

/// Every commit that a client could find is whole, with the tree by which it knows that; the branch means one of them.
fn assert_honest(home: &Path) {
    let repository = home.join(REPOSITORY);
    let is_there = |digit: char| repository.join("snapshots").join(commit(digit).hex()).exists();
    for digit in COMMITS.into_iter().filter(|digit| is_there(*digit)) {
        let hex = commit(digit).hex();
        for (file, bytes) in files(digit) {
            let seen = std::fs::read(repository.join("snapshots").join(&hex).join(file.path.as_path()));
            assert!(seen.unwrap_or_default() == bytes, "{digit}: {} is visible and not whole", file.path);
        }
        let tree = std::fs::read(repository.join(format!("trees/{hex}.json"))).unwrap();
        let tree: serde_json::Value = serde_json::from_slice(&tree).unwrap();
        assert_eq!(tree["files"].as_object().unwrap().len(), 4, "{digit}: all files of the commit");
    }
    if let Some(digit) = shown(home) {
        assert!(is_there(digit), "the branch means {digit}, which isn't there");
    }
}

#[tokio::test]
async fn whatever_a_power_cut_leaves_a_client_finds_whole_commits_only() {
    let run = record().await;
    let mut met = [0; 3];
    let seen = run
        .each_disk(
            1,
            |_, _| (),
            async |home, phase, ()| {
                assert_honest(home);
                if shown(home).is_some() {
                    met[phase] += 1;
                }
                let mut bed = Bed::at(home.to_owned());
                bed.ensure_listing("llama", listed(COMMITS[phase])).await.unwrap();
                assert_honest(home);
                assert_eq!(shown(home), Some(COMMITS[phase]));
                bed.assert_tidy();
                bed.close();
            },
        )
        .await;
    assert!(met.iter().all(|times| *times > 0), "{met:?} of {seen} showed a commit");
}
