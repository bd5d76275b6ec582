//! `hub/`: what the Hub's own clients find, whatever comes and goes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::super::WeightsError;
use super::bed::{Bed, Served, file, id, large, mode, served};
use super::crash::{Child, see_changes};
use crate::source::{HubCommit, HubFile, Listing, RemoteFile};
use crate::types::{Digest, GitHasher, GitOid, Published};

pub(super) const REPOSITORY: &str = "hub/models--org--name";

pub(super) fn commit(digit: char) -> GitOid {
    digit.to_string().repeat(40).parse().unwrap()
}

fn git_oid(bytes: &[u8]) -> GitOid {
    let mut hasher = GitHasher::new(bytes.len() as u64);
    hasher.update(bytes);
    hasher.finish()
}

/// Files of a commit, as the Hub lists them; the commit has a README beside them that nobody wants.
pub(super) fn listing(digit: char, revision: &str, files: &[RemoteFile]) -> Listing {
    let line = |file: &RemoteFile| {
        let lfs = file.digest.as_ref().and_then(Published::sha256);
        (file.path.clone(), HubFile { size: file.size, oid: git_oid(b"pointer"), lfs, xet: None })
    };
    let readme = HubFile { size: 9, oid: git_oid(b"read me!!"), lfs: None, xet: None };
    let tree = files.iter().map(line).chain([("README.md".parse().unwrap(), readme)]).collect();
    let (repo, revision) = ("org/name".parse().unwrap(), revision.parse().unwrap());
    let commit = Arc::new(HubCommit { repo, revision, commit: commit(digit), tree });
    Listing { files: files.to_vec(), commit: Some(commit) }
}

/// All below `hub/`, directories with a slash at the end, without the marks.
fn names(bed: &Bed) -> BTreeSet<String> {
    let mut names = bed.below("hub");
    names.retain(|name| !name.ends_with("/.stoker"));
    names
}

fn snapshot(bed: &Bed, digit: char) -> Vec<String> {
    let prefix = format!("models--org--name/snapshots/{}/", commit(digit));
    let of = |name: &String| Some(name.strip_prefix(&prefix)?.to_owned()).filter(|rest| !rest.is_empty());
    names(bed).iter().filter_map(of).collect()
}

fn reference(bed: &Bed, name: &str) -> Option<String> {
    std::fs::read_to_string(bed.path(&format!("{REPOSITORY}/refs/{name}"))).ok()
}

#[tokio::test]
async fn the_layout_is_the_clients() {
    let bed = Bed::new();
    let files = [served(large(1)).listed("onnx/model"), file("config.json", "{}")];
    bed.ensure_listing("llama", listing('a', "refs/pr/1", &files)).await.unwrap();
    let at = |rest: &str| format!("models--org--name/{rest}");
    let a = commit('a');
    let expected = [
        at(""),
        at("refs/"),
        at("refs/refs/"),
        at("refs/refs/pr/"),
        at("refs/refs/pr/1"),
        at("snapshots/"),
        at(&format!("snapshots/{a}/")),
        at(&format!("snapshots/{a}/config.json")),
        at(&format!("snapshots/{a}/onnx/")),
        at(&format!("snapshots/{a}/onnx/model")),
        at("trees/"),
        at(&format!("trees/{a}.json")),
    ];
    assert_eq!(names(&bed), BTreeSet::from(expected));
    assert_eq!(reference(&bed, "refs/pr/1").unwrap(), a.hex(), "without a newline");
    let model = format!("{REPOSITORY}/snapshots/{a}/onnx/model");
    assert_eq!(bed.inode(&model), bed.inode("weights/llama/current/onnx/model"));
    for name in names(&bed) {
        let is_linked = name.contains(&format!("snapshots/{a}/"));
        let expected = if name.ends_with('/') {
            0o755
        } else if is_linked {
            0o444
        } else {
            0o644
        };
        assert_eq!(mode(bed.path("hub").join(&name)), expected, "{name}");
    }
    let tree: serde_json::Value =
        serde_json::from_slice(&bed.read(&format!("{REPOSITORY}/trees/{a}.json"))).unwrap();
    assert_eq!(tree["files"].as_object().unwrap().len(), 3, "all files of the commit: {tree}");
    bed.assert_tidy();
}

#[tokio::test]
async fn a_commit_that_was_named_needs_no_ref() {
    let bed = Bed::new();
    bed.ensure_listing("llama", listing('a', &commit('a').hex(), &[file("x", "x")])).await.unwrap();
    assert_eq!(snapshot(&bed, 'a'), ["x"]);
    assert!(std::fs::read_dir(bed.path(&format!("{REPOSITORY}/refs"))).unwrap().next().is_none());
    assert!(bed.current("llama").is_some());
}

#[tokio::test]
async fn entries_of_one_repository_do_not_take_each_others_names_away() {
    let bed = Bed::new();
    let (shared, one, two) = (file("config.json", "{}"), file("deep/one", "1"), file("deep/two", "2"));
    bed.ensure_listing("one", listing('a', "main", &[shared.clone(), one])).await.unwrap();
    bed.ensure_listing("two", listing('a', "main", &[shared, two])).await.unwrap();
    bed.ensure_listing("other", listing('b', "v1", &[file("x", "x")])).await.unwrap();
    assert_eq!(snapshot(&bed, 'a'), ["config.json", "deep/", "deep/one", "deep/two"]);
    for name in ["one", "two", "other"] {
        assert!(bed.current(name).is_some(), "{:?}", bed.named(name));
    }
    bed.cache().retire(&id("one")).unwrap();
    assert_eq!(snapshot(&bed, 'a'), ["config.json", "deep/", "deep/two"]);
    assert_eq!(reference(&bed, "main").unwrap(), commit('a').hex());
    assert!(bed.current("two").is_some() && bed.current("other").is_some());
    bed.cache().retire(&id("two")).unwrap();
    assert_eq!((snapshot(&bed, 'a').len(), reference(&bed, "main")), (0, None));
    assert_eq!(snapshot(&bed, 'b'), ["x"]);
    bed.cache().retire(&id("other")).unwrap();
    assert_eq!(names(&bed), BTreeSet::new());
    bed.assert_tidy();
}

#[tokio::test]
async fn a_branch_that_moves_keeps_the_commit_before_until_the_next() {
    let bed = Bed::new();
    for (digit, text) in [('1', "one"), ('2', "two"), ('3', "three")] {
        bed.ensure_listing("llama", listing(digit, "main", &[file("x", text)])).await.unwrap();
        assert_eq!(reference(&bed, "main").unwrap(), commit(digit).hex());
        assert_eq!(bed.read(&format!("{REPOSITORY}/snapshots/{}/x", commit(digit))), text.as_bytes());
    }
    assert_eq!([snapshot(&bed, '1').len(), snapshot(&bed, '2').len(), snapshot(&bed, '3').len()], [0, 1, 1]);
    assert!(!bed.path(&format!("{REPOSITORY}/trees/{}.json", commit('1'))).exists());
    bed.cache().drop_old(&id("llama")).unwrap();
    assert_eq!([snapshot(&bed, '2').len(), snapshot(&bed, '3').len()], [0, 1]);
    bed.assert_tidy();
}

#[tokio::test]
async fn a_new_commit_of_the_same_files_is_shown_without_a_transfer() {
    let bed = Bed::new();
    let model = served(large(1));
    for digit in ['1', '2', '2', '3'] {
        bed.ensure_listing("llama", listing(digit, "main", &[model.listed("model")])).await.unwrap();
        assert_eq!(reference(&bed, "main").unwrap(), commit(digit).hex());
        assert!(bed.current("llama").is_some());
    }
    assert_eq!(model.gets(), 1);
    assert_eq!([snapshot(&bed, '1').len(), snapshot(&bed, '2').len(), snapshot(&bed, '3').len()], [0, 1, 1]);
}

#[tokio::test]
async fn an_entry_that_comes_from_elsewhere_leaves_no_ref_behind() {
    let bed = Bed::new();
    bed.ensure_listing("llama", listing('1', "main", &[file("x", "1")])).await.unwrap();
    bed.ensure("llama", &[file("x", "2")]).await.unwrap();
    assert_eq!((reference(&bed, "main"), snapshot(&bed, '1').len()), (None, 1));
    bed.ensure("llama", &[file("x", "3")]).await.unwrap();
    assert_eq!(names(&bed), BTreeSet::new());
}

#[tokio::test]
async fn the_newest_word_on_a_branch_counts_and_the_older_comes_back() {
    let bed = Bed::new();
    bed.ensure_listing("one", listing('1', "main", &[file("x", "1")])).await.unwrap();
    bed.ensure_listing("two", listing('2', "main", &[file("x", "2")])).await.unwrap();
    assert_eq!(reference(&bed, "main").unwrap(), commit('2').hex());
    assert!(bed.current("one").is_some(), "{:?}", bed.named("one"));
    bed.cache().retire(&id("two")).unwrap();
    assert_eq!(reference(&bed, "main").unwrap(), commit('1').hex());
}

#[tokio::test]
async fn what_somebody_spoils_is_seen_and_mended() {
    let bed = Bed::new();
    let files = listing('a', "main", &[file("deep/x", "x"), file("y", "y")]);
    bed.ensure_listing("llama", files.clone()).await.unwrap();
    let a = commit('a');
    type Spoil = fn(&Path);
    let spoil: [(&str, Spoil); 6] = [
        ("refs/main", |path| std::fs::remove_file(path).unwrap()),
        ("refs/main", |path| std::fs::write(path, format!("{}\n", commit('a'))).unwrap()),
        ("refs/main", |path| std::fs::write(path, commit('f').hex()).unwrap()),
        ("snapshots/A/deep/x", |path| std::fs::remove_file(path).unwrap()),
        ("snapshots/A/y", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::write(path, "z").unwrap();
        }),
        ("trees/A.json", |path| std::fs::remove_file(path).unwrap()),
    ];
    for (name, spoil) in spoil {
        let path = bed.path(&format!("{REPOSITORY}/{}", name.replace('A', &a.hex())));
        spoil(&path);
        let named = bed.named("llama").unwrap();
        assert!(
            named.current.is_none() && named.problem.unwrap().contains("hub/models--org--name"),
            "{name}"
        );
        let again = bed.ensure_listing("llama", files.clone()).await.unwrap();
        assert_eq!(again.fetched_bytes, 0);
        assert!(bed.current("llama").is_some(), "{name}: {:?}", bed.named("llama"));
        assert_eq!(reference(&bed, "main").unwrap(), a.hex());
    }
    bed.assert_tidy();
}

#[tokio::test]
async fn what_a_killed_run_left_is_settled_at_the_start() {
    let mut bed = Bed::new();
    bed.ensure_listing("llama", listing('1', "main", &[file("x", "1")])).await.unwrap();
    bed.ensure_listing("llama", listing('2', "main", &[file("x", "2")])).await.unwrap();
    // The switch was done, and the ref not yet; a snapshot was made, and its entry never shown.
    std::fs::write(bed.path(&format!("{REPOSITORY}/refs/main")), commit('1').hex()).unwrap();
    for stray in ["snapshots/F", "refs/deep/er"] {
        let stray = stray.replace('F', &commit('f').hex());
        std::fs::create_dir_all(bed.path(&format!("{REPOSITORY}/{stray}"))).unwrap();
    }
    std::fs::write(bed.path(&format!("{REPOSITORY}/refs/deep/er/v1")), commit('f').hex()).unwrap();
    std::fs::write(bed.path(&format!("{REPOSITORY}/trees/{}.json", commit('f'))), "{}").unwrap();
    let before = bed.current("llama").unwrap();
    bed.reopen();
    assert_eq!(bed.current("llama").unwrap(), before);
    assert_eq!(reference(&bed, "main").unwrap(), commit('2').hex());
    assert!(!names(&bed).iter().any(|name| name.contains(&commit('f').hex()) || name.contains("deep")));
    // An entry that was being retired when its agent was killed.
    std::fs::remove_file(bed.path("weights/llama/current")).unwrap();
    bed.reopen();
    assert_eq!(names(&bed), BTreeSet::new());
    bed.assert_tidy();
}

#[tokio::test]
async fn what_others_keep_under_hub_is_left_alone() {
    let mut bed = Bed::new();
    for foreign in ["models--org--name/blobs", "datasets--a--b", "models--c--d/snapshots"] {
        std::fs::create_dir_all(bed.path("hub").join(foreign)).unwrap();
    }
    let error = bed.ensure_listing("llama", listing('a', "main", &[file("x", "x")])).await.unwrap_err();
    assert!(
        error.to_string().contains("models--org--name") && error.to_string().contains("move it"),
        "{error}"
    );
    bed.reopen();
    assert_eq!(names(&bed).len(), 5);
    std::fs::remove_dir_all(bed.path(REPOSITORY)).unwrap();
    bed.ensure_listing("llama", listing('a', "main", &[file("x", "x")])).await.unwrap();
    std::fs::write(bed.path(&format!("{REPOSITORY}/precious")), "stays").unwrap();
    bed.cache().retire(&id("llama")).unwrap();
    assert_eq!(bed.read(&format!("{REPOSITORY}/precious")), b"stays");
    assert_eq!(reference(&bed, "main"), None);
    // A link in the place of a repository leads nowhere.
    let outside = tempfile::tempdir().unwrap();
    std::fs::remove_dir_all(bed.path(REPOSITORY)).unwrap();
    std::os::unix::fs::symlink(outside.path(), bed.path(REPOSITORY)).unwrap();
    assert!(bed.ensure_listing("llama", listing('a', "main", &[file("x", "x")])).await.is_err());
    assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none());
}

#[tokio::test]
async fn a_ref_below_another_is_refused_and_harms_nobody() {
    let bed = Bed::new();
    bed.ensure_listing("one", listing('1', "main", &[file("x", "1")])).await.unwrap();
    bed.ensure_listing("two", listing('2', "main/x", &[file("x", "2")])).await.unwrap();
    assert!(bed.current("one").is_some());
    assert!(bed.named("two").unwrap().problem.unwrap().contains("refs/main/x"));
}

/// A small file, as the Hub lists it.
fn small(served: &Arc<Served>, path: &str) -> RemoteFile {
    let oid = git_oid(&served.bytes);
    RemoteFile { digest: Some(Published::Git(oid)), ..served.recorded(path, Some(&oid.hex())) }
}

#[tokio::test]
async fn small_files_are_verified_by_gits_name_and_known_again() {
    let bed = Bed::new();
    let config = served("{}");
    let first =
        bed.ensure_listing("one", listing('1', "main", &[small(&config, "config.json")])).await.unwrap();
    assert!(first.verified && bed.current("one").unwrap().verified);
    // Another commit has it unchanged.
    let files = [small(&config, "config.json"), file("new", "new")];
    assert_eq!(bed.ensure_listing("one", listing('2', "main", &files)).await.unwrap().fetched_bytes, 3);
    assert_eq!(config.gets(), 1);
    assert!(bed.blob(Digest::of(b"{}")).is_file());
    // An empty file has a name, too.
    bed.ensure_listing("one", listing('3', "main", &[small(&served(""), "empty")])).await.unwrap();
}

#[tokio::test]
async fn a_small_file_with_other_bytes_than_gits_name_says_never_gets_in() {
    let bed = Bed::new();
    let config = served("{\"a\": 1}");
    config.flips.store(1, SeqCst);
    let files = listing('1', "main", &[small(&config, "config.json")]);
    bed.ensure_listing("one", files).await.unwrap();
    assert_eq!((config.gets(), bed.read("weights/one/current/config.json").len()), (2, 8));
    let lie = served("{\"b\": 2}");
    lie.flips.store(100, SeqCst);
    let error =
        bed.ensure_listing("two", listing('2', "main", &[small(&lie, "config.json")])).await.unwrap_err();
    assert!(matches!(&error, WeightsError::Corrupt { tries: 3, .. }), "{error}");
    assert!(error.to_string().contains("git:"), "{error}");
    assert_eq!(snapshot(&bed, '2').len(), 0);
    bed.assert_tidy();
}

const CHILD: &str = "STOKER_TEST_HUB";

/// Moves a branch of two entries to and fro between two commits, and takes one of them away in between.
async fn move_to_and_fro(bed: &Bed, times: usize) {
    let bytes = &large(1)[..100_000];
    for n in 0..times {
        let digit = if n % 2 == 0 { '1' } else { '2' };
        let model = served([bytes, digit.to_string().as_bytes()].concat());
        let which = file("which", &digit.to_string());
        let one = listing(digit, "main", &[model.listed("deep/model"), which.clone()]);
        bed.ensure_listing("one", one).await.unwrap();
        bed.ensure_listing("two", listing(digit, "main", &[which, file("own", "own")])).await.unwrap();
        bed.cache().retire(&id("two")).unwrap();
    }
}

/// The other half of the test below, in a process of its own; by itself it's a short run of the same.
#[tokio::test]
async fn child_that_moves_a_branch_until_it_is_killed() {
    match std::env::var_os(CHILD) {
        None => {
            let bed = Bed::new();
            move_to_and_fro(&bed, 2).await;
            assert_eq!(reference(&bed, "main").unwrap(), commit('2').hex());
        }
        Some(home) => move_to_and_fro(&Bed::at(home.into()), 20_000).await,
    }
}

/// What a client relies on, at any instant: a ref means a snapshot, a snapshot has all files of the entries that it's
/// for, and a tree beside it.
fn assert_whole(bed: &Bed) {
    let refs = bed.path(&format!("{REPOSITORY}/refs"));
    for name in std::fs::read_dir(refs).into_iter().flatten().flatten() {
        let commit: GitOid = std::fs::read_to_string(name.path()).unwrap().parse().unwrap();
        assert!(bed.path(&format!("{REPOSITORY}/snapshots/{commit}/which")).is_file(), "{commit}");
    }
    for digit in ['1', '2'] {
        let found = snapshot(bed, digit);
        let sets: [&[&str]; 4] = [
            &[],
            &["deep/", "deep/model", "which"],
            &["own", "which"],
            &["deep/", "deep/model", "own", "which"],
        ];
        assert!(sets.iter().any(|set| found == *set), "{found:?}");
        if found.is_empty() {
            continue;
        }
        let at = format!("{REPOSITORY}/snapshots/{}", commit(digit));
        assert_eq!(bed.read(&format!("{at}/which")), digit.to_string().as_bytes());
        assert!(bed.path(&format!("{REPOSITORY}/trees/{}.json", commit(digit))).is_file());
        if found.len() > 2 {
            assert!(bed.read(&format!("{at}/deep/model")).ends_with(digit.to_string().as_bytes()));
        }
    }
}

#[tokio::test]
async fn kill_minus_nine_leaves_nothing_half_visible() {
    let mut bed = Bed::under(Path::new("/dev/shm"));
    move_to_and_fro(&bed, 1).await;
    for round in 0..12 {
        bed.close();
        let test = "weights::tests::hub::child_that_moves_a_branch_until_it_is_killed";
        let mut child = Child::start(test, CHILD, &bed.home);
        see_changes(&bed.path("v1"), 1 + round);
        assert_eq!(child.kill().code(), None, "it ended by itself");
        assert_whole(&bed);
        bed.reopen();
        bed.assert_tidy();
        assert_whole(&bed);
        let named = bed.named("one").unwrap();
        assert!(named.current.is_some(), "{:?}", named.problem);
        let which = bed.read("weights/one/current/which");
        let digit = char::from(which[0]);
        // The ref means what the newest entry shows: `two` may be one switch ahead or behind.
        let two = bed.current("two").map(|_| char::from(bed.read("weights/two/current/which")[0]));
        let means = reference(&bed, "main").unwrap();
        assert!(
            [Some(digit), two].into_iter().flatten().any(|digit| commit(digit).hex() == means),
            "{means}"
        );
    }
    move_to_and_fro(&bed, 2).await;
    bed.cache().retire(&id("one")).unwrap();
    assert_eq!(names(&bed), BTreeSet::new());
}
