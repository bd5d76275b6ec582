use super::*;
use crate::types::{ErrorKind, Globs, Published};

const WEIGHTS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A model of two files under the tag v1.
async fn published() -> Registry {
    let registry = Registry::start().await;
    registry.put(WEIGHTS);
    registry.put(b"{}");
    registry.tag("v1", MANIFEST, &two());
    registry
}

fn two() -> Value {
    model(&[noted(RAW, WEIGHTS, [(PATH, "model.bin")]), noted(RAW, b"{}", [(PATH, "config/config.json")])])
}

fn paths(files: &[RemoteFile]) -> Vec<&str> {
    files.iter().map(|file| file.path.as_str()).collect()
}

#[tokio::test]
async fn a_tag_is_resolved_once_and_each_file_is_its_layers_blob() {
    let registry = published().await;
    let files = registry.files(":v1").await.unwrap();
    assert_eq!(paths(&files), ["config/config.json", "model.bin"]);
    let (weights, digest) = (&files[1], Digest::of(WEIGHTS));
    assert_eq!((weights.size, weights.digest.clone()), (36, Some(Published::Sha256(digest))));
    assert_eq!(weights.version, Some(digest.to_string()));
    let manifest = Digest::of(two().to_string().as_bytes());
    let manifests = "/v2/team/model/manifests";
    assert_eq!(registry.targets(), [format!("HEAD {manifests}/v1"), format!("GET {manifests}/{manifest}")]);
    assert_eq!(read(&*weights.bytes, 3, 7).await.unwrap(), b"3456");
    assert!(weights.bytes.serves_ranges() && weights.bytes.elsewhere().is_none());
    let asked = registry.server.seen().pop().unwrap();
    assert_eq!((asked.range(), asked.target), (Some((3, 6)), format!("/v2/team/model/blobs/{digest}")));
    // What is listed stays what it was, whatever becomes of the tag.
    registry.tag("v1", MANIFEST, &model(&[noted(RAW, b"new", [(PATH, "model.bin")])]));
    assert_eq!(read(&*weights.bytes, 0, 36).await.unwrap(), WEIGHTS);
    assert_eq!(registry.files(":v1").await.unwrap()[0].size, 3);
    let pinned = registry.files(&format!("@{manifest}")).await.unwrap();
    assert_eq!(paths(&pinned), ["config/config.json", "model.bin"]);
}

#[tokio::test]
async fn globs_choose_and_the_list_may_agree_on_digests() {
    let registry = published().await;
    let sources = Sources::new(config()).unwrap();
    let mut wanted = goods(&registry.uri(":v1"), false);
    wanted.globs = Globs::new(&["*.bin".to_owned()], &[]).unwrap();
    wanted.sha256.insert("model.bin".parse().unwrap(), Digest::of(WEIGHTS));
    let files = sources.resolve(&wanted, None).await.unwrap().files;
    assert_eq!(paths(&files), ["model.bin"]);
    for (path, digest, word) in [("model.bin", &b"other"[..], "disagree"), ("misspelt", b"x", "misspelt")] {
        let mut wanted = wanted.clone();
        wanted.sha256.insert(path.parse().unwrap(), Digest::of(digest));
        let error = sources.resolve(&wanted, None).await.unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    wanted.globs = Globs::new(&["*.gguf".to_owned()], &[]).unwrap();
    assert!(sources.resolve(&wanted, None).await.unwrap_err().to_string().contains("*.gguf"));
}

#[tokio::test]
async fn what_cannot_be_placed_is_an_error_unless_it_is_left_out() {
    let registry = Registry::start().await;
    let tar = "application/vnd.cncf.model.doc.v1.tar";
    let layers = [noted(RAW, WEIGHTS, [(PATH, "model.bin")]), noted(tar, b"docs", [(PATH, "docs")])];
    registry.tag("v1", MANIFEST, &model(&layers));
    let sources = Sources::new(config()).unwrap();
    let resolve = async |include: &[&str], exclude: &[&str]| {
        let owned = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut wanted = goods(&registry.uri(":v1"), false);
        wanted.globs = Globs::new(&owned(include), &owned(exclude)).unwrap();
        sources.resolve(&wanted, None).await.map(|listing| listing.files)
    };
    // It may hold a file that is wanted.
    for include in [&[][..], &["*.bin"]] {
        let error = resolve(include, &[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let text = error.to_string();
        assert!(text.starts_with(&registry.uri(":v1")) && text.contains("exclude"), "{text}");
    }
    for exclude in ["docs", "docs/", "d*"] {
        assert_eq!(paths(&resolve(&[], &[exclude]).await.unwrap()), ["model.bin"], "{exclude}");
    }
    // What has no name can't be left out, whatever is.
    registry.tag("v1", MANIFEST, &model(&[of(tar, b"docs"), layers[0].clone()]));
    assert!(resolve(&[], &["*docs*"]).await.unwrap_err().to_string().contains("is packed"));
    registry.tag("v1", MANIFEST, &model(&[of(EMPTY, b"{}")]));
    assert!(resolve(&[], &[]).await.unwrap_err().to_string().contains("there are no files"));
    let both = [noted(RAW, b"1", [(PATH, "a")]), noted(RAW, b"2", [(PATH, "a/b")])];
    registry.tag("v1", MANIFEST, &model(&both));
    assert!(resolve(&[], &[]).await.unwrap_err().to_string().contains("a directory"));
}

#[tokio::test]
async fn an_index_leads_to_its_manifest_and_not_round_in_circles() {
    let registry = published().await;
    let index = |manifests: Value| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifests]});
    let mut offer = registry.document(MANIFEST, &two());
    for depth in 1..=4 {
        let document = index(offer);
        offer = registry.document(INDEX, &document);
        registry.tag("nested", INDEX, &document);
        let files = registry.files(":nested").await;
        match depth {
            4 => assert!(files.unwrap_err().to_string().contains("more than 3 times")),
            _ => assert_eq!(files.unwrap().len(), 2, "{depth}"),
        }
    }
    let two = json!({"mediaType": INDEX, "manifests": [of(MANIFEST, b"1"), of(MANIFEST, b"2")]});
    registry.tag("two", INDEX, &two);
    let error = registry.files(":two").await.unwrap_err().to_string();
    assert!(error.contains(&format!("oci://{}/team/model@sha256:", registry.host())), "{error}");
}

#[tokio::test]
async fn documents_are_believed_only_with_their_digest() {
    let registry = Registry::start_with(|request| {
        let is_tag = request.target.ends_with("/v1") && request.method == "HEAD";
        let answer = Answer::new(200).header("Content-Type", MANIFEST);
        let told = answer.clone().header("Docker-Content-Digest", Digest::of(b"another").to_string());
        is_tag
            .then(|| told.header("Content-Length", two().to_string().len().to_string()))
            .or_else(|| request.target.contains("/manifests/").then(|| answer.body(two().to_string())))
    })
    .await;
    let error = registry.files(":v1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let registry = published().await;
    let error = registry.files(":v9").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    registry.has.lock().unwrap().blobs.clear();
    let files = registry.files(":v1").await.unwrap();
    assert_eq!(read(&*files[0].bytes, 0, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn mirrors_are_asked_first_and_the_registry_itself_once_bytes_came_wrong() {
    let registry = published().await;
    let mirror = Server::start(|request| match request.target.contains("/blobs/") {
        true => Answer::of(request, &[b'x'; 36], "e"),
        false => Answer::new(404),
    })
    .await;
    let hosts = tempfile::tempdir().unwrap();
    let of_registry = hosts.path().join(registry.host());
    std::fs::create_dir(&of_registry).unwrap();
    let text = format!("server = \"{}\"\n[host.\"{}\"]\n", registry.server.url(""), mirror.url(""));
    std::fs::write(of_registry.join("hosts.toml"), text).unwrap();
    let none = tempfile::tempdir().unwrap();
    let sources = sources(none.path(), vec![hosts.path().to_owned()]);
    let wanted = goods(&registry.uri(":v1"), false);
    let files = sources.resolve(&wanted, None).await.unwrap().files;
    assert!(mirror.seen()[0].target.contains("ns=127.0.0.1"), "{:?}", mirror.seen());
    assert_eq!(read(&*files[1].bytes, 0, 3).await.unwrap(), b"xxx");
    let other = files[1].bytes.elsewhere().unwrap();
    assert_eq!(read(&*other, 0, 3).await.unwrap(), b"012");
    assert!(other.elsewhere().is_none());
    std::fs::write(of_registry.join("hosts.toml"), "[host.\n").unwrap();
    let error = sources.resolve(&wanted, None).await.unwrap_err().to_string();
    assert!(error.contains("hosts.toml") && error.contains("--registry-hosts"), "{error}");
}
