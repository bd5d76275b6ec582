//! As whom a cloud is asked, and what it says to others.

use crate::node::{SOON, assert_current, bytes, list, said};
use crate::parts::{Agent, Fault, ForwardProxy, Nginx, Rule};

use super::{BUCKET, Bed, Cloud};

/// A key that is one, but nobody's.
const WRONG_KEY: &str = "aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnRlcjI=";

/// Writes a mounted Secret.
fn secret(agent: &Agent, name: &str, values: &[(&str, String)]) {
    for (key, value) in values {
        agent.scratch().file(format!("secrets/{name}/{key}"), format!("{value}\n"));
    }
}

/// The line of an entry in the table at the end of a run.
fn row<'a>(told: &'a str, id: &str) -> &'a str {
    told.lines().find(|line| line.starts_with(&format!("{id} "))).unwrap_or_default()
}

#[tokio::test]
async fn azure_tells_wrong_missing_and_narrow_credentials_apart() {
    let bed = Bed::start().await;
    bed.put(Cloud::Azure, "m/w.bin", b"weights").await;
    let right = bed.azurite.env(&bed.azure.host());
    let [endpoint, account, _] = right.clone();
    let sas = bed.azurite.sas(BUCKET, "m/w.bin").await;
    let signature = sas.split("sig=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let sas = ("AZURE_STORAGE_SAS_TOKEN", sas);
    secret(&bed.agent, "right", &right);
    secret(&bed.agent, "sas", &[endpoint.clone(), account.clone(), sas.clone()]);
    secret(&bed.agent, "narrow", &[endpoint.clone(), account.clone(), sas]);
    let wrong = ("AZURE_STORAGE_ACCOUNT_KEY", WRONG_KEY.to_owned());
    secret(&bed.agent, "wrong", &[endpoint.clone(), account.clone(), wrong]);
    secret(
        &bed.agent,
        "nobody",
        &[endpoint.clone(), account.clone(), ("AZURE_STORAGE_ANONYMOUS", String::new())],
    );
    secret(&bed.agent, "partial", &[endpoint, account]);
    let secrets = bed.agent.scratch().join("secrets");
    let agent = bed.agent.arg("--credentials-dir").arg(&secrets).arg("--log=debug");
    let entry = |id: &str, key: &str| format!("id: {id}, weights: az://{BUCKET}/{key}, credentials: {id}");
    let entries = [
        entry("right", "m/"),
        entry("sas", "m/w.bin"),
        entry("narrow", "m/"),
        entry("wrong", "m/"),
        entry("nobody", "m/"),
        entry("partial", "m/"),
        entry("absent", "m/"),
    ];
    agent.write_list(&list(&entries.each_ref().map(String::as_str)));
    let run = agent.once(SOON).await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("2 of 7 entries are warm."), "{told}");
    assert_current(&agent, "right", &[("w.bin", b"weights")]);
    assert_current(&agent, "sas", &[("w.bin", b"weights")]);
    // Azure itself says AuthenticationFailed.
    let wrong = row(&told, "wrong");
    assert!(wrong.contains("Denied") && wrong.contains("failed to authenticate"), "{told}");
    assert!(row(&told, "partial").contains("AZURE_STORAGE_ACCOUNT_KEY"), "{told}");
    assert!(row(&told, "absent").contains("is the Secret mounted?"), "{told}");
    assert!(row(&told, "narrow").contains("Denied"), "{told}");
    // Whoever has no credentials isn't told that a private container is there.
    assert!(row(&told, "nobody").contains("NotFound") || row(&told, "nobody").contains("Denied"), "{told}");
    let log = agent.log();
    for hidden in [WRONG_KEY, &signature, "Eby8vdM02"] {
        assert!(!told.contains(hidden) && !log.contains(hidden), "{hidden} is shown: {told}");
    }
}

#[tokio::test]
async fn google_tells_wrong_and_missing_credentials_apart() {
    let bed = Bed::start().await;
    for key in ["named/w.bin", "denied/w.bin", "unknown/w.bin"] {
        bed.put(Cloud::Google, key, b"weights").await;
    }
    let base = ("GOOGLE_BASE_URL", bed.google.url());
    secret(&bed.agent, "named", &[base.clone(), ("GOOGLE_ANONYMOUS", String::new())]);
    secret(&bed.agent, "keyless", std::slice::from_ref(&base));
    let broken = r#"{"type":"service_account","private_key":"hunter2hunter2"}"#.to_owned();
    secret(&bed.agent, "broken", &[base, ("key.json", broken)]);
    // The server lets everybody in; what Google would answer comes from the proxy.
    let status = |code| Fault::Status { code, retry_after: None };
    bed.google.add(Rule::get("prefix=denied", status(403)).always());
    bed.google.add(Rule::get("prefix=unknown", status(401)).always());
    let secrets = bed.agent.scratch().join("secrets");
    let agent = bed.agent.arg("--credentials-dir").arg(&secrets).arg("--log=debug");
    let bare = |id: &str| format!("id: {id}, weights: gs://{BUCKET}/{id}/");
    let entry = |id: &str| format!("{}, credentials: {id}", bare(id));
    let entries = [
        entry("named"),
        entry("keyless"),
        entry("broken"),
        entry("absent"),
        bare("denied"),
        bare("unknown"),
        bare("nothing"),
        "id: nobucket, weights: gs://no-such-bucket/m/".to_owned(),
    ];
    agent.write_list(&list(&entries.each_ref().map(String::as_str)));
    let run = agent.once(SOON).await;
    let told = said(&run);
    assert!(told.contains("1 of 8 entries are warm."), "{told}");
    assert_current(&agent, "named", &[("w.bin", b"weights")]);
    assert!(row(&told, "keyless").contains("no file key.json"), "{told}");
    assert!(row(&told, "broken").contains("download it again"), "{told}");
    assert!(row(&told, "absent").contains("is the Secret mounted?"), "{told}");
    assert!(row(&told, "denied").contains("roles/storage.objectViewer"), "{told}");
    assert!(row(&told, "unknown").contains("answered 401"), "{told}");
    assert!(row(&told, "nothing").contains("there are no files"), "{told}");
    assert!(row(&told, "nobucket").contains("NotFound"), "{told}");
    assert!(!told.contains("hunter2") && !agent.log().contains("hunter2"), "{told}");
}

#[tokio::test]
async fn the_instances_own_identity_is_used_where_no_other_is_named() {
    let bed = Bed::start().await;
    let weights = bytes(1, 1000);
    bed.put(Cloud::Google, "m/w.bin", &weights).await;
    // A fake of the metadata server: nginx with the one document that is asked for.
    let metadata = Nginx::start().await;
    let path = "computeMetadata/v1/instance/service-accounts/default/token";
    metadata.put(path, r#"{"access_token":"granted","expires_in":3600,"token_type":"Bearer"}"#);
    // The bytes come by a proxy, and it hears nothing of the token's being asked for.
    let proxy = ForwardProxy::start([("127.0.0.1", bed.google.host())]);
    let agent = bed
        .agent
        .env("GOOGLE_ANONYMOUS", "")
        .env("HOME", "/nonexistent")
        .env("GCE_METADATA_HOST", metadata.host())
        .env("GCE_METADATA_IP", metadata.host())
        .env("HTTP_PROXY", proxy.url())
        .env("http_proxy", proxy.url())
        .env("NO_PROXY", "")
        .env("no_proxy", "");
    agent.write_list(&list(&[&Cloud::Google.entry("m/")]));
    let run = agent.once(SOON).await;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    assert_current(&agent, "google", &[("w.bin", &weights)]);
    let asked = metadata.requests();
    assert!(asked.len() == 1 && asked[0].contains(path), "{asked:?}");
    let seen = proxy.seen();
    assert!(!seen.is_empty() && seen.iter().all(|line| line.contains("/storage/v1/b/")), "{seen:?}");
}

#[tokio::test]
async fn without_any_credentials_the_next_step_is_told() {
    let bed = Bed::start().await;
    let [endpoint, account, _] = bed.azurite.env(&bed.azure.host());
    // Nobody listens on port 1.
    let agent = crate::node::agent(&bed.gpus)
        .env("HOME", "/nonexistent")
        .env("GCE_METADATA_HOST", "127.0.0.1:1")
        .env("GCE_METADATA_IP", "127.0.0.1:1")
        .env("AZURE_MSI_ENDPOINT", "http://127.0.0.1:1/")
        .envs([endpoint, account, ("GOOGLE_BASE_URL", bed.google.url())]);
    agent.write_list(&list(&[&Cloud::Google.entry("m/"), &Cloud::Azure.entry("m/")]));
    let run = agent.once(SOON * 3).await;
    let told = said(&run);
    for (id, word) in
        [("google", "GOOGLE_ANONYMOUS for a public bucket"), ("azure", "AZURE_STORAGE_ANONYMOUS")]
    {
        // On a node that has just booted they may come yet.
        assert!(row(&told, id).contains("Unreachable") && row(&told, id).contains(word), "{told}");
    }
    assert!(bed.google.seen().is_empty() && bed.azure.seen().is_empty());
}
