use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::*;
use crate::types::{ErrorKind, Globs, Published};

#[tokio::test]
async fn a_revision_is_resolved_once_and_its_files_come_with_what_the_hub_publishes() {
    let server = Server::start(served).await;
    let listing = resolve(&server, "hf://org/name").await.unwrap();
    let shown: Vec<_> =
        listing.files.iter().map(|file| (file.path.as_str(), file.size, file.digest.clone())).collect();
    let (git, sha256) = (git_oid(SMALL).parse().unwrap(), Digest::of(LARGE));
    assert_eq!(
        shown,
        [("config.json", 2, Some(Published::Git(git))), ("onnx/model", 36, Some(Published::Sha256(sha256))),]
    );
    assert_eq!(listing.files[0].version, Some(git_oid(SMALL)));
    let commit = listing.commit.unwrap();
    assert_eq!((commit.revision.as_str(), commit.commit.hex().as_str()), ("main", COMMIT));
    assert_eq!(commit.tree.len(), 2);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_commit_needs_no_resolving_and_a_branch_may_have_slashes() {
    let server = Server::start(|request| match request.target.as_str() {
        "/api/models/org/name/revision/refs%2Fpr%2F1" => {
            Answer::new(200).body(json!({"sha": COMMIT}).to_string())
        }
        _ => served(request),
    })
    .await;
    let pinned = resolve(&server, &format!("hf://org/name@{COMMIT}")).await.unwrap();
    assert_eq!(targets(&server), [format!("{TREE}{COMMIT}?recursive=true&expand=false")]);
    assert_eq!(pinned.commit.unwrap().commit.hex(), COMMIT);
    let branch = resolve(&server, "hf://org/name@refs/pr/1").await.unwrap();
    assert_eq!(branch.commit.unwrap().revision.as_str(), "refs/pr/1");
}

#[tokio::test]
async fn globs_choose_files_and_the_tree_stays_whole() {
    let server = Server::start(served).await;
    let mut wanted = goods("hf://org/name", false);
    wanted.globs = Globs::new(&["*model".to_owned()], &[]).unwrap();
    wanted.sha256.insert("onnx/model".parse().unwrap(), Digest::of(LARGE));
    let listing = sources(&server, None).resolve(&wanted, None).await.unwrap();
    assert_eq!(listing.files.len(), 1);
    assert_eq!(listing.commit.unwrap().tree.len(), 2);
    wanted.sha256.insert("onnx/model".parse().unwrap(), Digest::of(b"other"));
    let error = sources(&server, None).resolve(&wanted, None).await.unwrap_err();
    assert!(error.to_string().contains("disagree"), "{error}");
    wanted.sha256.insert("misspelt".parse().unwrap(), Digest::of(LARGE));
    let error = sources(&server, None).resolve(&wanted, None).await.unwrap_err();
    assert!(error.to_string().contains("misspelt"), "{error}");
}

#[tokio::test]
async fn a_digest_in_the_list_counts_more_than_gits() {
    let server = Server::start(served).await;
    let mut wanted = goods("hf://org/name", false);
    wanted.sha256.insert("config.json".parse().unwrap(), Digest::of(SMALL));
    let listing = sources(&server, None).resolve(&wanted, None).await.unwrap();
    assert_eq!(listing.files[0].digest, Some(Digest::of(SMALL).into()));
}

/// A Hub whose tree comes in pages: the file and the link of each.
async fn paged(pages: &'static [(&'static str, &'static str)]) -> Server {
    let asked = AtomicUsize::new(0);
    Server::start(move |request| {
        if !request.target.starts_with(TREE) {
            return served(request);
        }
        let (path, link) = pages[asked.fetch_add(1, Relaxed) % pages.len()];
        let answer = Answer::new(200).body(json!([small(path)]).to_string());
        if link.is_empty() { answer } else { answer.header("Link", format!("<{link}>; rel=\"next\"")) }
    })
    .await
}

#[tokio::test]
async fn all_pages_are_read_from_the_same_place() {
    let server =
        paged(&[("a", "https://elsewhere.example/x?cursor=1"), ("b", "/y?cursor=2&limit=9"), ("c", "")])
            .await;
    let listing = resolve(&server, "hf://org/name").await.unwrap();
    assert_eq!(listing.files.len(), 3);
    let query = |query: &str| format!("{TREE}{COMMIT}?{query}");
    let pages = [query("recursive=true&expand=false"), query("cursor=1"), query("cursor=2&limit=9")];
    assert_eq!(targets(&server)[1..], pages);
}

#[tokio::test]
async fn trees_that_lie_end_in_a_clear_error() {
    let circle = paged(&[("a", "?cursor=1"), ("b", "?cursor=2"), ("c", "?cursor=1")]).await;
    let twice = paged(&[("a", "?cursor=1"), ("a", "?cursor=2")]).await;
    let outside = paged(&[("../a", "")]).await;
    let both = paged(&[("a", "?cursor=1"), ("a/b", "")]).await;
    for (server, word) in [(circle, "circle"), (twice, "twice"), (outside, "../a"), (both, "a directory")] {
        let error = resolve(&server, "hf://org/name").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(
            error.to_string().starts_with("hf://org/name@main") && error.to_string().contains(word),
            "{error}"
        );
    }
}

#[tokio::test]
async fn floods_and_nonsense_end_in_a_clear_error() {
    for (body, word) in [
        (vec![b' '; (8 << 20) + 1], "8 MiB"),
        (b"[{]".to_vec(), "understood"),
        (b"{\"error\":\"x\"}".to_vec(), "understood"),
        (b"[]".to_vec(), "no files"),
    ] {
        let server = Server::start(move |request| match request.target.starts_with(TREE) {
            true => Answer::new(200).body(body.clone()),
            false => served(request),
        })
        .await;
        let error = resolve(&server, "hf://org/name").await.unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let server = Server::start(|_| Answer::new(200).body(json!({"sha": "main"}).to_string())).await;
    let error = resolve(&server, "hf://org/name").await.unwrap_err();
    assert!(error.to_string().contains("no commit"), "{error}");
}

#[tokio::test]
async fn refusals_are_told_apart_with_the_next_step() {
    for (status, code, kind, next) in [
        (401, "RepoNotFound", ErrorKind::Denied, "check its name, or give a token"),
        (401, "GatedRepo", ErrorKind::Denied, "/org/name, and give a token"),
        (404, "RevisionNotFound", ErrorKind::NotFound, "name a branch"),
    ] {
        let server = Server::start(move |_| Answer::new(status).header("X-Error-Code", code)).await;
        let error = resolve(&server, "hf://org/name").await.unwrap_err();
        assert!(error.to_string().contains(next), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(server.seen().len(), 1, "nothing that time mends");
    }
}

#[tokio::test]
async fn a_hub_that_asks_for_patience_is_asked_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |request| match asked.fetch_add(1, Relaxed) {
        0 => Answer::new(429).header("Retry-After", "0"),
        1 => Answer::new(429).header("RateLimit", "\"api\";r=0;t=0"),
        _ => served(request),
    })
    .await;
    resolve(&server, "hf://org/name").await.unwrap();
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn the_token_of_a_secret_is_sent_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    for (name, key) in [("reader", "HF_TOKEN"), ("other", "token")] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join(key), "hf_hush\n").unwrap();
    }
    let server = Server::start(|request| match request.header("authorization") {
        Some("Bearer hf_hush") => served(request),
        _ => Answer::new(401),
    })
    .await;
    let (sources, goods) = (sources(&server, Some(dir.path())), goods("hf://org/name", false));
    sources.resolve(&goods, Some("reader")).await.unwrap();
    let error = sources.resolve(&goods, Some("other")).await.unwrap_err();
    assert!(error.to_string().contains("HF_TOKEN") && !error.to_string().contains("hush"), "{error}");
    assert!(sources.resolve(&goods, None).await.is_err());
    assert!(!format!("{sources:?}").contains("hush"));
}
