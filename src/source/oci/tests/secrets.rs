use base64::Engine as _;

use super::*;
use crate::types::ErrorKind;

fn basic(user: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:hunter2"))
}

/// A registry that wants to see `me:hunter2`, with one model under v1.
async fn guarded() -> Registry {
    let registry = Registry::start_with(|request| {
        let wanted = format!("Basic {}", basic("me"));
        (request.header("authorization") != Some(&wanted))
            .then(|| Answer::new(401).header("WWW-Authenticate", "Basic realm=x"))
    })
    .await;
    registry.put(b"abc");
    registry.tag("v1", MANIFEST, &model(&[noted(RAW, b"abc", [(PATH, "a")])]));
    registry
}

fn docker(host: &str, user: &str) -> String {
    json!({"auths": {host: {"auth": basic(user)}}}).to_string()
}

async fn resolve(registry: &Registry, files: &[(&str, &str)]) -> Result<Vec<RemoteFile>, SourceError> {
    let dir = secret(files);
    let sources = sources(dir.path(), Vec::new());
    let listing = sources.resolve(&goods(&registry.uri(":v1"), false), Some("registry")).await;
    listing.map(|listing| listing.files)
}

#[tokio::test]
async fn every_kind_of_secret_opens_a_registry() {
    let registry = guarded().await;
    let host = registry.host();
    let old = json!({&host: {"auth": basic("me")}}).to_string();
    for files in [
        &[(".dockerconfigjson", docker(&host, "me").as_str())][..],
        &[("config.json", docker(&host, "me").as_str())],
        &[(".dockercfg", old.as_str())],
        &[("username", "me\n"), ("password", "hunter2\n")],
    ] {
        let found = resolve(&registry, files).await.unwrap();
        assert_eq!(read(&*found[0].bytes, 0, 3).await.unwrap(), b"abc");
        assert!(!format!("{found:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn whoever_is_refused_is_told_what_to_do_and_no_secret_is_shown() {
    let registry = guarded().await;
    let host = registry.host();
    for (files, word) in [
        (&[(".dockerconfigjson", docker(&host, "you").as_str())][..], "401"),
        (&[(".dockerconfigjson", docker("elsewhere.example", "me").as_str())], "to its auths"),
        (&[(".dockerconfigjson", "hunter2")], "not a docker configuration"),
        (&[("username", "you"), ("password", "hunter2")], "401"),
        (&[("username", "me")], "username and password"),
        (&[("token", "hunter2")], ".dockerconfigjson"),
        (&[], "empty"),
    ] {
        let error = resolve(&registry, files).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let text = crate::rt::chain(&error);
        assert!(text.contains(word) && !text.contains("hunter2") && !text.contains(&basic("you")), "{text}");
    }
    let anonymous = registry.files(":v1").await.unwrap_err();
    assert_eq!(anonymous.kind(), ErrorKind::Denied, "{anonymous}");
    let none = Sources::new(config()).unwrap();
    let error = none.resolve(&goods(&registry.uri(":v1"), false), Some("registry")).await.unwrap_err();
    assert!(error.to_string().contains("--credentials-dir"), "{error}");
}

#[tokio::test]
async fn a_token_is_fetched_once_for_the_manifest_and_the_layers() {
    let tokens = Server::start(|_| Answer::new(200).body(r#"{"token":"let-me-in"}"#)).await;
    let realm = tokens.url("/token");
    let registry = Registry::start_with(move |request| {
        let challenge = format!("Bearer realm=\"{realm}\",service=here");
        (request.header("authorization") != Some("Bearer let-me-in"))
            .then(|| Answer::new(401).header("WWW-Authenticate", challenge))
    })
    .await;
    registry.put(b"abc");
    registry.tag("v1", MANIFEST, &model(&[noted(RAW, b"abc", [(PATH, "a")])]));
    let found = resolve(&registry, &[("username", "me"), ("password", "hunter2")]).await.unwrap();
    assert_eq!(read(&*found[0].bytes, 0, 3).await.unwrap(), b"abc");
    let asked = tokens.seen();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].body.contains("scope=repository%3Ateam%2Fmodel%3Apull"), "{}", asked[0].body);
}

#[tokio::test]
async fn an_unfit_secret_does_no_harm_where_nobody_asks() {
    let registry = Registry::start().await;
    registry.tag("v1", MANIFEST, &model(&[noted(RAW, b"abc", [(PATH, "a")])]));
    let elsewhere = docker("elsewhere.example", "me");
    assert_eq!(resolve(&registry, &[(".dockerconfigjson", &elsewhere)]).await.unwrap().len(), 1);
    assert!(registry.server.seen().iter().all(|request| request.header("authorization").is_none()));
}
