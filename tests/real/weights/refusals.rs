//! Servers and disks that say no.

use std::path::Path;

use rustix::mount::MountFlags;

use crate::node::{BUCKET, SOON, agent, assert_current, bytes, leftovers, list, said};
use crate::parts::{Agent, Fault, FaultProxy, Gpus, Nginx, Rule, S3, Stoker};

const SECRET: &str = "hunter2-hunter2-hunter2";

async fn s3_with_weights() -> S3 {
    let s3 = S3::start().await;
    s3.make_bucket(BUCKET).await;
    s3.put(BUCKET, "m/w.bin", b"weights".to_vec()).await;
    s3
}

/// Writes a mounted Secret.
fn secret(agent: &Agent, name: &str, values: &[(&str, String)]) {
    for (key, value) in values {
        agent.scratch().file(format!("secrets/{name}/{key}"), format!("{value}\n"));
    }
}

#[tokio::test]
async fn credentials_by_name_open_a_bucket_and_wrong_ones_are_told_without_the_secret() {
    let gpus = Gpus::healthy(1);
    let s3 = s3_with_weights().await;
    let agent = agent(&gpus);
    let right = s3.env();
    secret(&agent, "right", &right);
    let wrong = right
        .clone()
        .map(|(key, value)| (key, if key == "AWS_SECRET_ACCESS_KEY" { SECRET.to_owned() } else { value }));
    secret(&agent, "wrong", &wrong);
    let secrets = agent.scratch().join("secrets");
    let mut agent = agent.arg("--credentials-dir").arg(&secrets).arg("--log=debug");
    let entry = |id: &str| format!("id: {id}, weights: s3://{BUCKET}/m/, credentials: {id}");
    agent.write_list(&list(&[&entry("right"), &entry("wrong"), &entry("absent")]));
    let run = agent.once(SOON).await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("1 of 3 entries are warm."), "{told}");
    assert!(!told.contains(SECRET), "{told}");
    assert_current(&agent, "right", &[("w.bin", b"weights")]);

    agent.start().await;
    for id in ["wrong", "absent"] {
        let entry = agent.wait_entry(id, "Failed", SOON).await;
        let reason = entry.reason.unwrap();
        assert_eq!(reason.code, "Denied", "{reason:?}");
        assert!(reason.message.contains(id), "the Secret's name: {reason:?}");
        assert!(!reason.message.contains(SECRET), "{reason:?}");
    }
    assert!(
        !agent.log().contains(SECRET) && !agent.log().contains("furnace-furnace"),
        "a secret is in the log"
    );
    // Read again at each use: a mended Secret is enough, once there's a reason to try.
    secret(&agent, "wrong", &right);
    agent.write_list(&list(&[&entry("right"), &entry("wrong")]));
    agent.wait_entry("wrong", "Warm", SOON).await;
    assert_current(&agent, "wrong", &[("w.bin", b"weights")]);
}

#[tokio::test]
async fn a_bucket_without_credentials_is_refused_with_the_next_step() {
    let gpus = Gpus::healthy(1);
    let s3 = s3_with_weights().await;
    let agent = agent(&gpus).env("AWS_ENDPOINT_URL", s3.endpoint()).env("AWS_REGION", "us-east-1");
    let agent = agent.env("HOME", agent_home().to_str().unwrap());
    agent.write_list(&list(&[&format!("id: m, weights: s3://{BUCKET}/m/")]));
    let run = agent.once(SOON).await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("Denied") && told.contains("name a Secret under `credentials`"), "{told}");
}

#[tokio::test]
async fn a_server_that_refuses_is_told_with_the_credentials_that_were_used() {
    let gpus = Gpus::healthy(1);
    let nginx = Nginx::start().await;
    nginx.put("w.bin", b"weights");
    let proxy = FaultProxy::start(&nginx.host());
    proxy.add(Rule::get("w.bin", Fault::Status { code: 401, retry_after: None }).always());
    let agent = agent(&gpus);
    secret(&agent, "reader", &[("token", SECRET.to_owned())]);
    let secrets = agent.scratch().join("secrets");
    let agent = agent.arg("--credentials-dir").arg(&secrets).arg("--log=debug");
    let weights = format!("weights: \"{}/w.bin\"", proxy.url());
    agent.write_list(&list(&[
        &format!("id: named, {weights}, credentials: reader"),
        &format!("id: nameless, {weights}"),
    ]));
    let run = agent.once(SOON).await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(!told.contains(SECRET), "{told}");
    let row = |id: &str| told.lines().find(|line| line.starts_with(id)).unwrap_or_default().to_owned();
    assert!(row("named ").contains("Denied") && row("named ").contains("\"reader\""), "{told}");
    assert!(row("nameless").contains("name a mounted Secret under `credentials`"), "{told}");
    proxy.clear();
    assert_eq!(agent.once(SOON).await.status.code(), Some(0));
    assert_current(&agent, "named", &[("w.bin", b"weights")]);
}

/// A home without any AWS configuration.
fn agent_home() -> &'static Path {
    Path::new("/nonexistent")
}

/// Makes the agent's cache a small disk of its own; the agent's directory takes the mount down with it.
pub(super) fn small_cache(agent: &Agent, mib: u32) {
    let cache = agent.cache();
    std::fs::create_dir_all(&cache).unwrap();
    let size = std::ffi::CString::new(format!("size={mib}m")).unwrap();
    rustix::mount::mount("tmpfs", &cache, "tmpfs", MountFlags::empty(), Some(&*size)).unwrap();
}

#[tokio::test]
async fn a_disk_that_is_full_refuses_what_does_not_fit_and_takes_the_rest() {
    let gpus = Gpus::healthy(1);
    let nginx = Nginx::start().await;
    let (large, small) = (bytes(1, 80 << 20), bytes(2, 100_000));
    nginx.put("large.bin", &large);
    nginx.put("small.bin", &small);
    let mut agent = agent(&gpus);
    small_cache(&agent, 64);
    agent.write_list(&list(&[
        &format!("id: large, weights: \"{}\", priority: 1000", nginx.url("large.bin")),
        &format!("id: small, weights: \"{}\"", nginx.url("small.bin")),
    ]));
    agent.start().await;
    let entry = agent.wait_entry("large", "Failed", SOON).await;
    let reason = entry.reason.unwrap();
    assert_eq!(reason.code, "NoSpace", "{reason:?}");
    assert!(reason.message.contains(agent.cache().to_str().unwrap()), "{reason:?}");
    agent.wait_entry("small", "Warm", SOON).await;
    assert_current(&agent, "small", &[("small.bin", &small)]);
    assert_current(&agent, "large", &[]);
    assert_eq!(leftovers(&agent), Vec::<String>::new());
    assert!(!agent.cache().join("weights/large").exists(), "nothing half-done is visible");
}

#[tokio::test]
async fn a_disk_of_its_own_needs_no_permission_for_the_root_file_system() {
    let (gpus, agent) = (Gpus::healthy(1), Agent::new());
    small_cache(&agent, 64);
    let run = Stoker::new(["agent", "--once", "--http=off"])
        .args(gpus.args())
        .args(["--list".as_ref(), agent.write_list(&list(&[])).as_os_str()])
        .args(["--cache-dir".as_ref(), agent.cache().as_os_str()])
        .args(["--state-dir".as_ref(), agent.state().as_os_str()])
        .args(["--socket".as_ref(), agent.socket().as_os_str()])
        .args(["--host-root".as_ref(), agent.scratch().path().as_os_str()])
        .output(SOON)
        .await;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
}

#[tokio::test]
async fn a_list_cannot_name_what_the_flags_do_not_allow() {
    let gpus = Gpus::healthy(1);
    let nginx = Nginx::start().await;
    nginx.put("w.bin", b"weights");
    let agent = agent(&gpus).env("STOKER_ALLOW_SCHEMES", "https,s3");
    agent.write_list(&list(&[
        &format!("id: plain, weights: \"{}\"", nginx.url("w.bin")),
        "id: metadata, weights: \"https://169.254.169.254/latest/\"",
        "id: file, weights: \"file:///etc/passwd\"",
    ]));
    let run = agent.once(SOON).await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    for part in ["http:// is not allowed here", "link-local or metadata address", "reads no file:// weights"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(nginx.requests(), Vec::<String>::new());
}
