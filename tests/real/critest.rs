//! CRI's own validation of images (critest), while the agent brings images and loses them again.

use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;

use crate::commit::bench::Bench;
use crate::node::{SOON, agent, list, our_pins, said};
use crate::parts::{
    Agent, BuiltImage, Containerd, Gpus, ImageBuilder, Layer, Registry, Version, part, until,
};

/// All specs together, once.
const DEADLINE: Duration = Duration::from_secs(300);

/// Where the images are that it asks for.
const HOSTS: [&str; 3] = ["gcr.io", "registry.k8s.io", "k8s.gcr.io"];

fn image(name: &str) -> ImageBuilder {
    ImageBuilder::new().layer(Layer::new().file("name", name, 0o644)).layer(Layer::new().file(
        "bytes",
        vec![7; 200_000],
        0o644,
    ))
}

/// What it asks for, of our own making. One is left out: an image whose digest it knows.
async fn publish(registry: &Registry) {
    let push = async |image: BuiltImage, repository: &str, tag: &str| {
        registry.push(&image, repository, tag).await;
    };
    let repository = |name: &str| format!("k8s-staging-cri-tools/{name}");
    for name in ["test-image-latest", "test-image-1", "test-image-2", "test-image-3"] {
        push(image(name).build(), &repository(name), "latest").await;
    }
    for tag in ["test", "all"] {
        push(image(tag).with_index().build(), &repository("test-image-tag"), tag).await;
    }
    for tag in ["1", "2", "3"] {
        push(image("the same").build(), &repository("test-image-tags"), tag).await;
    }
    for (name, user) in [
        ("uid", "1002"),
        ("username", "www-data"),
        ("uid-group", "1003:50000"),
        ("username-group", "www-data:50000"),
    ] {
        let image = image(name).with("User", json!(user)).build();
        push(image, &repository(&format!("test-image-user-{name}")), "latest").await;
    }
    push(image("pause").build(), "pause", "3.9").await;
}

async fn critest(containerd: &Containerd) -> Output {
    let socket = format!("unix://{}", containerd.address().display());
    let mut critest = tokio::process::Command::new(part("critest-1.36.0", "critest"));
    critest
        .current_dir(containerd.directory())
        .args(["-runtime-endpoint", &socket, "-image-endpoint", &socket])
        .args(["-ginkgo.no-color", "-ginkgo.focus", "Image Manager", "-ginkgo.skip", "with digest"])
        .kill_on_drop(true);
    tokio::time::timeout(DEADLINE, critest.output()).await.expect("it ends").expect("critest can be run")
}

/// Has the agent bring both images, and then takes them off the list and away, for ever. Counts the rounds.
async fn fill_and_empty(agent: &Agent, containerd: &Containerd, entries: &[&str], rounds: &AtomicU32) {
    loop {
        agent.write_list(&list(entries));
        let warm = |status: &crate::parts::Status| status.all_warm() && status.done;
        agent.wait_for("warmth", SOON, warm).await;
        let names = our_pins(containerd).await;
        assert_eq!(names.len(), 6, "{names:?}");
        agent.write_list(&list(&[]));
        until("their pins to be off", SOON, async || our_pins(containerd).await.is_empty().then_some(()))
            .await;
        let mut remove = vec!["images", "rm", "--sync"];
        remove.extend(names.iter().map(String::as_str));
        containerd.ctr_ok(&remove).await;
        rounds.fetch_add(1, Relaxed);
    }
}

async fn passes(version: Version) {
    let (gpus, bench, registry) = (Gpus::healthy(1), Bench::start(version).await, Registry::start().await);
    let containerd = &bench.containerd;
    publish(&registry).await;
    for host in HOSTS.into_iter().chain([&*registry.host()]) {
        containerd.trust(host, &registry.url());
    }
    let ours = [image("one").with_index().build(), image("two").build()];
    let mut entries = Vec::new();
    for (number, image) in ours.iter().enumerate() {
        let pushed = registry.push(image, &format!("team/app-{number}"), "v1").await;
        entries.push(format!("id: app-{number}, image: \"{}\"", pushed.by_tag()));
    }
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let mut agent = agent(&gpus).env("STOKER_CONTAINERD_ADDRESS", containerd.address().to_str().unwrap());
    agent.start().await;
    let rounds = AtomicU32::new(0);
    let mut runs = 0;
    let all = async {
        // All specs take as long as one round of the agent's.
        while rounds.load(Relaxed) < 3 {
            let run = critest(containerd).await;
            let told = said(&run);
            assert!(run.status.success(), "{told}");
            let passed = told.lines().find(|line| line.contains(" Passed")).unwrap_or_default();
            assert!(passed.contains("9 Passed") && passed.contains("0 Failed"), "{told}");
            runs += 1;
        }
    };
    tokio::select! {
        () = all => {}
        () = fill_and_empty(&agent, containerd, &entries, &rounds) => unreachable!("it never ends"),
    }
    println!("{runs} runs passed; meanwhile the agent filled and emptied it 3 times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_image_manager_passes_while_the_agent_is_at_work_on_the_newer() {
    passes(Version::newer()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_image_manager_passes_while_the_agent_is_at_work_on_the_older() {
    passes(Version::older()).await;
}
