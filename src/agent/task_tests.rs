//! The loop's own part: what it makes of outcomes, and when it turns.

use super::*;
use crate::containerd::Containerd;
use crate::fetch::{Engine, Limits};
use crate::image::{self, Puller};
use crate::list::{NodeFacts, WeightsGoods};
use crate::source::{SourceConfig, Sources};
use crate::types::{Digest, Globs, GpuPhase, GpuReason, Revision};
use crate::weights::{Cache, RootFsPolicy, Warmer};

/// An agent with an empty cache and without containerd, and the list's end of the wire.
struct Bed {
    agent: Agent,
    list: watch::Sender<Option<Arc<List>>>,
    _dir: tempfile::TempDir,
}

fn bed(entries: Vec<Entry>) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(&dir.path().join("cache"), &RootFsPolicy::Allow).unwrap();
    let containerd = Containerd::new(std::path::Path::new("/nonexistent/containerd.sock"));
    let (watched, watch_images) = watch::channel(BTreeSet::new());
    let (images_handle, _, _) = image::spawn(containerd.clone(), watch_images, CancellationToken::new());
    let sources = Sources::new(SourceConfig::default()).unwrap();
    let engine = Engine::new(Limits::default());
    let rooms = Rooms {
        puller: Puller::new(containerd, images_handle, None),
        warmer: Warmer::new(Arc::clone(&cache), engine, sources, false),
        cache,
    };
    let entries = entries.into_iter().map(|entry| Listed::Good(Arc::new(entry))).collect();
    let list = List { entries, content: Some(Digest::of(b"list")), ..List::empty() };
    let gpu = GpuState {
        phase: GpuPhase::Ready,
        reason: GpuReason::DriverReady,
        open: true,
        ..GpuState::unknown()
    };
    let images = Images { connected: true, ..Images::default() };
    let (list, lists) = watch::channel(Some(Arc::new(list)));
    let inputs = Inputs {
        list: lists,
        gpu: watch::channel(gpu).1,
        images: watch::channel(Some(Arc::new(images))).1,
        facts: watch::channel(Some(Arc::new(NodeFacts {
            name: "node-a".to_owned(),
            labels: BTreeMap::new(),
        })))
        .1,
        applied: watch::channel(Some(Applied::default())).1,
        requested: watch::channel(BTreeSet::new()).1,
    };
    let settings = Settings::new("node-a");
    let nothing = plan(&World::new(settings.clone()), "boot", Now::read()).report;
    let mut agent = Agent::new(
        settings,
        BootState { boot_id: "boot".to_owned(), ..BootState::default() },
        dir.path().join("state"),
        inputs,
        rooms,
        (watch::channel(Arc::new(nothing)).0, watched),
        (Liveness::new(), Arc::new(Metrics::new())),
    );
    agent.inputs.list.mark_changed();
    agent.take_inputs();
    Bed { agent, list, _dir: dir }
}

fn weights(id: &str) -> Entry {
    let goods = WeightsGoods {
        uri: format!("https://127.0.0.1:9/{id}").parse().unwrap(),
        index: false,
        globs: Globs::all(),
        sha256: BTreeMap::new(),
    };
    Entry {
        id: id.parse().unwrap(),
        goods: Goods::Weights(goods),
        required: false,
        priority: 500,
        needed_by: None,
        expires_at: None,
        nodes: None,
        credentials: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ends_well_and_shows_nothing_is_not_started_again_at_once() {
    let mut bed = bed(vec![weights("a")]);
    bed.agent.world.weights = Some(BTreeMap::new());
    bed.agent.act();
    let entry = Arc::clone(&bed.agent.world.jobs.values().next().unwrap().entry);
    let problem = Some("a has a wrong length, owner or mode".to_owned());
    let named = Named { current: None, problem, other: Vec::new() };
    let revision = Revision::of_image(Digest::of(b"r"));
    let warmed = Warmed::Weights { named, revision, fetched: 0 };
    bed.agent.apply(Event::Ended(Outcome::Warmed { entry, warmed }));
    let next = bed.agent.act();
    assert!(bed.agent.world.jobs.is_empty() && next > Instant::now() + Duration::from_secs(1));
    let failure = bed.agent.world.failures.values().next().unwrap();
    assert!(failure.reason.message.contains("wrong length") && failure.content.is_some(), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn a_read_of_the_cache_that_hangs_does_not_keep_the_loop_turning() {
    let mut bed = bed(Vec::new());
    bed.agent.act();
    assert!(bed.agent.scanning.is_some());
    tokio::time::advance(RESCAN * 2).await;
    assert!(bed.agent.act() >= Instant::now() + HEARTBEAT);
    bed.agent.apply(Event::Ended(Outcome::Scanned(Ok(BTreeMap::new()))));
    assert!(bed.agent.act() >= Instant::now() + HEARTBEAT, "the next one has begun");
    assert!(bed.agent.scanning.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_list_that_comes_while_the_loop_waits_is_taken() {
    let mut bed = bed(Vec::new());
    let newer = List { content: Some(Digest::of(b"newer")), ..List::empty() };
    bed.list.send_replace(Some(Arc::new(newer)));
    let event = bed.agent.select(Instant::now() + HEARTBEAT, &CancellationToken::new()).await;
    bed.agent.apply(event);
    assert_eq!(bed.agent.world.list.as_ref().unwrap().content, Some(Digest::of(b"newer")));
}
