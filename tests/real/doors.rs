//! The commands beside the agent, as people and scripts use them.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use stoker::types::Digest;

use crate::node::{
    BUCKET, SOON, agent, bytes, files_below, index, label_of, list, our_pins, push, said, tree,
};
use crate::parts::{
    Containerd, Gpus, Nginx, Process, Registry, S3, Scratch, Status, Stoker, Version, system,
};

async fn stoker<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Stoker::new(args).output(SOON).await
}

#[track_caller]
fn assert_code(run: &Output, code: i32) {
    assert_eq!(run.status.code(), Some(code), "{}", said(run));
}

fn out(run: &Output) -> String {
    String::from_utf8_lossy(&run.stdout).into_owned()
}

fn err(run: &Output) -> String {
    String::from_utf8_lossy(&run.stderr).into_owned()
}

#[tokio::test]
async fn pull_brings_an_image_into_containerd_once_and_pins_nothing() {
    for version in Version::ALL {
        let (containerd, registry) = tokio::join!(Containerd::start(version), Registry::start());
        containerd.trust(&registry.host(), &registry.url());
        let app = push(&registry, "team/app", "app").await;
        let pull = async || {
            let run =
                Stoker::new(["pull", &app.by_tag(), "--containerd-address"]).args([containerd.address()]);
            run.output(SOON).await
        };
        let first = pull().await;
        assert_code(&first, 0);
        assert!(out(&first).contains(&format!("pulled, sha256:{}", app.digest.hex())), "{}", said(&first));
        let blobs = || registry.pulls().iter().filter(|request| request.contains("/blobs/")).count();
        let fetched = blobs();
        let second = pull().await;
        assert_code(&second, 0);
        assert!(out(&second).contains("was there already"), "{}", said(&second));
        assert_eq!(blobs(), fetched, "{:?}", registry.pulls());
        assert_eq!(our_pins(&containerd).await, Vec::<String>::new(), "a pull is no listing");
        let snapshots = containerd.ctr_ok(&["snapshots", "ls"]).await;
        assert!(snapshots.contains(&app.chain_id.to_string()), "{snapshots}");
    }
}

#[tokio::test]
async fn pull_brings_weights_into_a_directory_once() {
    let (s3, nginx) = tokio::join!(S3::start(), Nginx::start());
    s3.make_bucket(BUCKET).await;
    let (one, two) = (bytes(1, 200_000), bytes(2, 1000));
    let files: [(&str, &[u8]); 2] = [("a/one.bin", &one), ("two.json", &two)];
    for (path, bytes) in files {
        s3.put(BUCKET, &format!("m/{path}"), bytes).await;
        nginx.put(&format!("m/{path}"), bytes);
    }
    nginx.put("m/index.json", index(&files));
    let to = Scratch::new("to");
    let pull = async |args: &[&str], dir: &str| {
        let run = Stoker::new(["pull"]).args(args).args(["--to".as_ref(), to.join(dir).as_os_str()]);
        run.envs(s3.env()).output(SOON).await
    };
    let gets = || {
        let s3 = s3.requests().into_iter().filter(|request| request.starts_with("GET /models/m/"));
        let nginx = nginx.requests().into_iter().filter(|request| !request.contains("index.json"));
        s3.chain(nginx.filter(|request| request.starts_with("GET "))).collect::<Vec<_>>()
    };
    let index = nginx.url("m/index.json");
    for (args, dir) in [(&["s3://models/m/"][..], "s3"), (&[&*index, "--index"], "index")] {
        let first = pull(args, dir).await;
        assert_code(&first, 0);
        assert!(
            out(&first).contains("2 files") && out(&first).contains(&label_of(&files)),
            "{}",
            said(&first)
        );
        assert!(out(&first).contains("every digest checked"), "{}", said(&first));
        assert_eq!(files_below(&to.join(dir)), tree(&files));
        let fetched = gets();
        let second = pull(args, dir).await;
        assert_code(&second, 0);
        assert!(out(&second).contains("2 files were there already"), "{}", said(&second));
        assert_eq!(gets(), fetched, "nothing is fetched again");
        assert_eq!(files_below(&to.join(dir)), tree(&files));
    }
    // What was spoilt meanwhile is mended.
    std::fs::remove_file(to.join("s3/two.json")).unwrap();
    assert_code(&pull(&["s3://models/m/"], "s3").await, 0);
    assert_eq!(files_below(&to.join("s3")), tree(&files));
    let filtered = pull(&["s3://models/m/", "--include", "*.json"], "filtered").await;
    assert_code(&filtered, 0);
    assert_eq!(files_below(&to.join("filtered")), tree(&files[1..]));
}

#[tokio::test]
async fn pull_says_what_is_missing() {
    let nginx = Nginx::start().await;
    nginx.put("a.bin", b"first");
    let weights = stoker(["pull", &nginx.url("a.bin")]).await;
    assert_code(&weights, 4);
    assert!(err(&weights).contains("--to DIR"), "{}", said(&weights));
    assert_code(&stoker(["pull"]).await, 2);
    let to = Scratch::new("to");
    let missing = nginx.url("missing.bin");
    let both =
        Stoker::new(["pull", &missing, &nginx.url("a.bin"), "--to"]).args([to.path()]).output(SOON).await;
    assert_code(&both, 1);
    assert!(err(&both).contains("missing.bin") && err(&both).contains("404"), "{}", said(&both));
    assert_eq!(
        files_below(to.path()).get("a.bin").map(Vec::as_slice),
        Some(&b"first"[..]),
        "the other one is there"
    );
    let nobody = to.join("no.sock");
    let image =
        Stoker::new(["pull", "127.0.0.1:1/a:1", "--containerd-address"]).args([&nobody]).output(SOON).await;
    assert_ne!(image.status.code(), Some(0));
    assert!(err(&image).contains(nobody.to_str().unwrap()), "{}", said(&image));
}

#[tokio::test]
async fn several_weights_go_into_one_directory_without_getting_in_each_others_way() {
    let nginx = Nginx::start().await;
    let files: [(&str, &[u8]); 3] = [("a.bin", b"first"), ("b.bin", b"second"), ("c.bin", b"third")];
    let urls = files.map(|(path, bytes)| {
        nginx.put(path, bytes);
        nginx.url(path)
    });
    let to = Scratch::new("to");
    let run = Stoker::new(["pull", "--to"]).args([to.path()]).args(urls).output(SOON).await;
    assert_code(&run, 0);
    assert_eq!(files_below(to.path()), tree(&files));
    assert!(!err(&run).contains("another"), "{}", said(&run));
}

#[tokio::test]
async fn the_cache_is_listed_and_its_paths_are_told() {
    let gpus = Gpus::healthy(1);
    let nginx = Nginx::start().await;
    let weights = bytes(3, 50_000);
    nginx.put("a.bin", &weights);
    let digest = Digest::of(&weights).hex();
    let agent = agent(&gpus);
    let url = nginx.url("a.bin");
    agent.write_list(&list(&[
        &format!("id: checked, weights: \"{url}\", sha256: {{a.bin: \"{digest}\"}}"),
        &format!("id: recorded, weights: \"{url}\""),
    ]));
    assert_code(&agent.once(SOON).await, 0);
    let cache = agent.cache();
    let cache = async |args: &[&str]| {
        Stoker::new(["cache", "--cache-dir"]).args([&cache]).args(args).output(SOON).await
    };

    let ls = cache(&["ls"]).await;
    assert_code(&ls, 0);
    let label = label_of(&[("a.bin", &weights)]);
    for (id, word) in [("checked", "verified"), ("recorded", "recorded")] {
        let row =
            out(&ls).lines().any(|line| line.starts_with(id) && line.contains(&label) && line.contains(word));
        assert!(row, "{}", said(&ls));
    }
    let json: Value = serde_json::from_slice(&cache(&["ls", "--json"]).await.stdout).unwrap();
    let rows = json["weights"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0]["id"], &rows[0]["verified"], &rows[0]["bytes"]),
        (&"checked".into(), &true.into(), &50_000.into())
    );
    assert_eq!((&rows[1]["id"], &rows[1]["verified"]), (&"recorded".into(), &false.into()));

    let path = cache(&["path", "checked"]).await;
    assert_code(&path, 0);
    assert_eq!(std::fs::read(std::path::Path::new(out(&path).trim()).join("a.bin")).unwrap(), weights);
    let unknown = cache(&["path", "nothing"]).await;
    assert_code(&unknown, 1);
    assert!(err(&unknown).contains("checked, recorded") && out(&unknown).is_empty(), "{}", said(&unknown));
    assert_code(&cache(&["path", "not an id"]).await, 2);
    let absent = stoker(["cache", "--cache-dir", "/nonexistent/cache", "ls"]).await;
    assert_code(&absent, 4);
    assert!(err(&absent).contains("--cache-dir"), "{}", said(&absent));
}

#[tokio::test]
async fn check_tells_file_line_entry_field_and_fix() {
    let scratch = Scratch::new("check");
    let good = scratch.file("good.yaml", list(&["id: a, image: \"nginx:1\""]));
    let bad = scratch
        .file("bad.yaml", list(&["id: a, image: \"nginx:1\"", "id: b, image: \"nginx:1\", priority: 2000"]));
    let warned = scratch.file("warned.yaml", list(&["id: a, image: \"nginx:1\", prioritty: 5"]));
    let check = async |args: &[&OsStr]| Stoker::new(["check"]).args(args).output(SOON).await;
    let run = check(&[good.as_os_str()]).await;
    assert_code(&run, 0);
    assert!(out(&run).contains("1 entry, all good"), "{}", said(&run));
    let run = check(&[good.as_os_str(), bad.as_os_str()]).await;
    assert_code(&run, 1);
    let place = format!("{}:5:", bad.display());
    let line = out(&run).lines().find(|line| line.starts_with(&place)).unwrap_or_default().to_owned();
    assert!(line.contains("error: entry \"b\", field \"priority\""), "{}", said(&run));
    assert!(out(&run).contains("  fix: "), "{}", said(&run));
    assert_code(&check(&[warned.as_os_str()]).await, 0);
    let strict = check(&["--strict".as_ref(), warned.as_os_str()]).await;
    assert_code(&strict, 1);
    assert!(out(&strict).contains("did you mean \"priority\"?"), "{}", said(&strict));
    let missing = check(&[scratch.join("none.yaml").as_os_str()]).await;
    assert_code(&missing, 1);
    assert!(out(&missing).contains("none.yaml: error: it can't be read"), "{}", said(&missing));
    let schema = check(&["--schema".as_ref()]).await;
    assert_code(&schema, 0);
    let shipped =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prefetchlist.schema.json")).unwrap();
    let [printed, shipped] =
        [&schema.stdout, &shipped].map(|text| serde_json::from_slice::<Value>(text).unwrap());
    assert_eq!(printed, shipped, "the shipped schema is the printed one");
    assert_code(&check(&[]).await, 2);
}

#[tokio::test]
async fn gpu_answers_in_json_and_by_its_exit_code() {
    let gpus = Gpus::healthy(4);
    let gpu = async |more: &[&str]| Stoker::new(["gpu"]).args(gpus.args()).args(more).output(SOON).await;
    let run = gpu(&["--json"]).await;
    assert_code(&run, 0);
    let answer: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&answer["phase"], &answer["devices"]), (&"Ready".into(), &4.into()), "{answer}");
    let run = gpu(&["--expected", "8"]).await;
    assert_code(&run, 1);
    assert!(out(&run).contains("GpuCountMismatch") && out(&run).contains("4 of 8"), "{}", said(&run));
    gpus.unload_driver();
    let run = gpu(&["--json"]).await;
    assert_code(&run, 1);
    let answer: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(answer["reason"], "DriverNotLoaded", "{answer}");
    let none = Stoker::new(["gpu"]).args(Gpus::none().args()).output(SOON).await;
    assert_code(&none, 0);
    assert!(out(&none).contains("NotApplicable"), "{}", said(&none));
}

#[tokio::test]
async fn status_is_one_complete_document_and_nobody_at_the_socket_is_code_3() {
    let gpus = Gpus::healthy(2);
    let nginx = Nginx::start().await;
    nginx.put("a.bin", b"first");
    let mut agent = agent(&gpus);
    agent.write_list(&list(&[&format!(
        "id: a, weights: \"{}?sig=hush\", required: true",
        nginx.url("a.bin")
    )]));
    agent.start().await;
    agent.wait_for("warmth", SOON, |status: &Status| status.all_warm() && status.ready).await;
    let status = async |args: &[&str]| {
        Stoker::new(["status", "--socket"]).args([agent.socket()]).args(args).output(SOON).await
    };
    let run = status(&["--json"]).await;
    assert_code(&run, 0);
    assert!(!out(&run).contains("hush") && !agent.log().contains("hush"), "a query may be a signature");
    let json: Value = serde_json::from_slice(&run.stdout).unwrap();
    for key in [
        "version",
        "boot_id",
        "ready",
        "settled",
        "done",
        "gpu",
        "list",
        "ready_by",
        "labels",
        "unconfirmed_labels",
        "entries",
    ] {
        assert!(json.get(key).is_some(), "{key}: {json}");
    }
    let entry = &json["entries"][0];
    for key in [
        "id",
        "kind",
        "required",
        "state",
        "reason",
        "bytes_done",
        "bytes_total",
        "revision",
        "source",
        "verified",
        "requested",
    ] {
        assert!(entry.get(key).is_some(), "{key}: {json}");
    }
    assert_eq!(json["boot_id"], std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim());
    assert_eq!((&entry["kind"], &entry["verified"]), (&"weights".into(), &false.into()), "{entry}");
    assert_eq!(json["list"]["content"].as_str().map(str::len), Some(64));
    let table = status(&[]).await;
    assert_code(&table, 0);
    assert!(
        out(&table).contains("recorded") && out(&table).contains("weights.stoker.dev/a="),
        "{}",
        said(&table)
    );

    agent.stop(SOON).await;
    let nobody = Stoker::new(["status", "--json", "--socket"]).args([agent.socket()]).output(SOON).await;
    assert_code(&nobody, 3);
    assert!(out(&nobody).is_empty() && err(&nobody).contains("is the agent running?"), "{}", said(&nobody));
}

/// `stoker ARGS…` as an init container runs it: as a user without any right, in a mount namespace of its own that has
/// `dir`, read-only, at /mnt/run.
async fn in_init_container(dir: &Path, args: &[&str]) -> Output {
    let script = "mount -t tmpfs -o mode=755 tmpfs /mnt && mkdir /mnt/run && touch /mnt/stoker && \
                  mount --bind \"$1\" /mnt/run && mount -o remount,bind,ro /mnt/run && \
                  mount --bind \"$2\" /mnt/stoker && ! touch /mnt/run/written && shift 2 && \
                  exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs -- /mnt/stoker \"$@\"";
    let stoker = Stoker::new(args).command();
    let mut command = tokio::process::Command::new(system("unshare"));
    command
        .args(["--mount", "--propagation", "private", "--", "sh", "-c", script, "sh"])
        .arg(dir)
        .arg(stoker.get_program())
        .args(stoker.get_args())
        .env_remove("STOKER_SOCKET")
        .kill_on_drop(true);
    tokio::time::timeout(SOON, command.output()).await.expect("it ends").expect("unshare can be run")
}

#[tokio::test]
async fn an_init_container_waits_for_warmth_without_any_right() {
    let gpus = Gpus::without_driver(2);
    let nginx = Nginx::start().await;
    nginx.put("a.bin", b"first");
    let mut agent = agent(&gpus);
    let entry = |id: &str, more: &str| format!("id: {id}, weights: \"{}\"{more}", nginx.url("a.bin"));
    agent.write_list(&list(&[&entry("here", ""), &entry("elsewhere", ", nodes: {matchLabels: {a: b}}")]));
    agent.start().await;
    agent.wait_entry("here", "Pending", SOON).await;
    let dir = agent.scratch().path().to_owned();
    let wait = async |args: &[&str]| {
        in_init_container(&dir, &[&["wait", "--socket", "/mnt/run/agent.sock"], args].concat()).await
    };

    // At once, with the reason.
    let refused = wait(&["elsewhere"]).await;
    assert_code(&refused, 1);
    assert!(
        err(&refused).contains("NotForThisNode") && err(&refused).contains("--fetch"),
        "{}",
        said(&refused)
    );
    let unlisted = wait(&["here", "nowhere"]).await;
    assert_code(&unlisted, 1);
    assert!(err(&unlisted).contains("nowhere is not in this node's list"), "{}", said(&unlisted));
    let late = wait(&["here", "--timeout", "300ms"]).await;
    assert_code(&late, 124);
    assert!(err(&late).contains("here: Pending (GateClosed)"), "{}", said(&late));

    // Through a restart of the agent, until the driver is there.
    let restart = async {
        agent.kill9();
        gpus.load_driver();
        agent.start().await;
    };
    let (warm, ()) = tokio::join!(wait(&["here"]), restart);
    assert_code(&warm, 0);
    assert!(err(&warm).contains("here: Warm, revision"), "{}", said(&warm));
    assert!(warm.stdout.is_empty(), "{}", said(&warm));

    // What was left out here comes when it's asked for, and stays asked for over a restart.
    let fetched = wait(&["elsewhere", "here", "--fetch"]).await;
    assert_code(&fetched, 0);
    assert!(err(&fetched).contains("elsewhere: Warm, revision"), "{}", said(&fetched));
    agent.kill9();
    agent.start().await;
    // What is on the disk is known before the gate was asked, and before that no label is said.
    let labelled = |status: &Status| status.labels.contains_key("weights.stoker.dev/elsewhere");
    agent.wait_for("its label", SOON, labelled).await;
    let table = Stoker::new(["status", "--socket"]).args([agent.socket()]).output(SOON).await;
    let row = out(&table).lines().find(|line| line.starts_with("elsewhere")).unwrap_or_default().to_owned();
    assert!(row.contains("asked for"), "{}", said(&table));

    agent.stop(SOON).await;
    let gone = wait(&["here", "--agent-timeout", "300ms"]).await;
    assert_code(&gone, 3);
    assert!(err(&gone).contains("is the agent running?"), "{}", said(&gone));
    assert_code(&wait(&["not an id"]).await, 2);
    assert_code(&wait(&[]).await, 2);
}

#[tokio::test]
async fn a_wait_takes_a_signal_as_the_first_process_of_a_container_must() {
    let scratch = Scratch::new("wait");
    let socket = scratch.join("none.sock");
    let stoker = Stoker::new(["wait", "a", "--agent-timeout", "1h", "--socket"]).args([&socket]);
    let log = scratch.join("log");
    let process = Process::start("stoker wait", &stoker.command(), &log);
    let tries = async || process.log().contains("trying again").then_some(());
    process.wait_ready("a try", SOON, tries).await;
    process.terminate();
    assert_eq!(process.wait(SOON).await.code(), Some(130));
}

#[tokio::test]
async fn affinity_is_printed_for_a_list_for_an_agent_and_for_what_is_written() {
    let scratch = Scratch::new("affinity");
    let file = scratch
        .file("list.yaml", list(&["id: vllm, image: \"nginx:1\"", "id: llama, weights: \"s3://m/l/\""]));
    let written = stoker(["affinity", "image/vllm", "weights/llama"]).await;
    assert_code(&written, 0);
    let of_list = Stoker::new(["affinity", "vllm", "llama", "--list"]).args([&file]).output(SOON).await;
    assert_code(&of_list, 0);
    assert_eq!(out(&of_list), out(&written));
    assert!(out(&written).contains("key: image.stoker.dev/vllm"), "{}", said(&written));

    let gpus = Gpus::healthy(1);
    let mut agent = agent(&gpus);
    agent.write_list(&std::fs::read_to_string(&file).unwrap());
    agent.start().await;
    agent.wait_for("the list", SOON, |status: &Status| status.entries.len() == 2).await;
    let of_agent =
        Stoker::new(["affinity", "vllm", "llama", "--socket"]).args([agent.socket()]).output(SOON).await;
    assert_code(&of_agent, 0);
    assert_eq!(out(&of_agent), out(&written));
    agent.stop(SOON).await;

    let unclear = Stoker::new(["affinity", "vllm", "--socket"]).args([agent.socket()]).output(SOON).await;
    assert_code(&unclear, 1);
    assert!(err(&unclear).contains("image/vllm or weights/vllm"), "{}", said(&unclear));
    assert!(unclear.stdout.is_empty());
    assert_code(&stoker(["affinity", "images/vllm"]).await, 2);
}

#[tokio::test]
async fn flags_that_make_no_sense_are_told_before_anything_is_done() {
    for (args, part) in [
        (&["agent"][..], "--list"),
        (&["agent", "--list", "x", "--list-configmap", "n/x"], "--list-configmap"),
        (&["agent", "--list-configmap", "n/x"], "spec.nodeName"),
        (&["agent", "--list-configmap", "n/x", "--node-name", "n", "--once"], "--once"),
        (&["agent", "--list", "x", "--taint", "node.kubernetes.io/not-ready"], "of your own"),
        (&["agent", "--list", "x", "--gpu-interval", "0"], "--gpu-interval"),
        (&["agent", "--list", "x", "--http", "localhost"], "127.0.0.1:9808"),
        (&["agent", "--list", "x", "--gate", "never"], "--gate"),
        (&["agent", "--list", "x", "--memory", "1"], "--memory"),
        (&["agent", "--list", "x", "--node-labels", "x"], "KEY=VALUE"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let run = Stoker::new(args).output(Duration::from_secs(20)).await;
        assert_code(&run, 2);
        assert!(err(&run).contains(part), "{part}: {}", said(&run));
    }
    let help = stoker(["--help"]).await;
    assert_code(&help, 0);
    assert!(out(&help).contains("Exit codes:"), "{}", said(&help));
}
