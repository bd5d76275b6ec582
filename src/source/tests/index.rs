use super::http::{config, goods, read, resolve};
use super::server::{Answer, Server};
use crate::source::Sources;
use crate::types::{Digest, ErrorKind, Globs};

async fn serving(index: serde_json::Value) -> Server {
    Server::start(move |request| match request.target.as_str() {
        "/m/index.json" | "/m/index.json?sig=secret" => Answer::new(200).body(index.to_string()),
        "/m/a.bin" => Answer::of(request, b"aaaa", "a1"),
        "/m/sub/b%20b.bin" => Answer::of(request, b"bb", "b1"),
        "/base/c" => Answer::of(request, b"ccc", "c1"),
        _ => Answer::new(404),
    })
    .await
}

fn files() -> serde_json::Value {
    serde_json::json!({"files": [
        {"path": "sub/b b.bin", "size": 2, "sha256": Digest::of(b"bb").hex()},
        {"path": "c.json", "size": 3, "url": "../base/c"},
        {"path": "a.bin", "size": 4, "sha256": Digest::of(b"aaaa").to_string()},
    ]})
}

#[tokio::test]
async fn an_index_names_files_beside_it() {
    let server = serving(files()).await;
    let files = resolve(&server.url("/m/index.json"), true).await.unwrap();
    let shown: Vec<_> =
        files.iter().map(|file| (file.path.as_str(), file.size, file.digest.is_some())).collect();
    assert_eq!(shown, [("a.bin", 4, true), ("c.json", 3, false), ("sub/b b.bin", 2, true)]);
    assert_eq!(files[1].version.as_deref(), Some("c1"), "without a digest the version is asked for");
    assert_eq!(server.seen().len(), 2);
    assert_eq!(read(&*files[2].bytes, 0, 2).await.unwrap(), b"bb");
    assert_eq!(read(&*files[1].bytes, 1, 3).await.unwrap(), b"cc");
    read(&*files[0].bytes, 0, 2).await.unwrap();
    read(&*files[0].bytes, 2, 4).await.unwrap();
    let last = server.seen().pop().unwrap();
    assert_eq!(last.header("if-match"), Some("\"a1\""), "the first answer's version is kept to");
}

#[tokio::test]
async fn globs_choose_and_an_empty_choice_is_an_error() {
    let server = serving(files()).await;
    let mut wanted = goods(&server.url("/m/index.json"), true);
    wanted.globs = Globs::new(&["*.bin".to_owned()], &["sub/".to_owned()]).unwrap();
    let sources = Sources::new(config()).unwrap();
    let found = sources.resolve(&wanted, None).await.unwrap().files;
    assert_eq!(found.len(), 1);
    assert_eq!(server.seen().len(), 1, "what is not wanted is not asked for");
    wanted.globs = Globs::new(&["*.gguf".to_owned()], &[]).unwrap();
    let error = sources.resolve(&wanted, None).await.unwrap_err();
    assert!(error.to_string().contains("*.gguf"), "{error}");
    wanted.globs = Globs::all();
    wanted.sha256.insert("a.bin".parse().unwrap(), Digest::of(b"other"));
    let error = sources.resolve(&wanted, None).await.unwrap_err();
    assert!(error.to_string().contains("a.bin"), "{error}");
}

#[tokio::test]
async fn a_bad_index_is_invalid_and_says_why() {
    let twice = serde_json::json!([
        {"path": "a.bin", "size": 4, "sha256": Digest::of(b"x").hex()},
        {"path": "a.bin", "size": 4, "sha256": Digest::of(b"x").hex()},
    ]);
    let wrong_size = serde_json::json!([{"path": "a.bin", "size": 5}]);
    let escape = serde_json::json!([{"path": "../a.bin", "size": 4}]);
    for (index, word) in [(twice, "two files"), (wrong_size, "4 bytes"), (escape, "../a.bin")] {
        let server = serving(index).await;
        let error = resolve(&server.url("/m/index.json?sig=secret"), true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_page_or_a_flood_instead_of_an_index_is_refused() {
    let page = Server::start(|_| Answer::new(200).body("<html>log in</html>")).await;
    assert_eq!(resolve(&page.url("/index.json"), true).await.unwrap_err().kind(), ErrorKind::Invalid);
    let flood = Server::start(|_| Answer::new(200).body(vec![b' '; (8 << 20) + 1])).await;
    let error = resolve(&flood.url("/index.json"), true).await.unwrap_err();
    assert!(error.to_string().contains("8 MiB"), "{error}");
}
