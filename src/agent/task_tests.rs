//! The loop's own part: what it makes of outcomes, and when it turns.

use super::*;
use crate::agent::step::{Stays, Warmed};
use crate::containerd::Containerd;
use crate::fetch::{Engine, Limits};
use crate::image::{self, Presence, PullSettings, Puller};
use crate::list::{Entry, ImageGoods, NodeFacts, WeightsGoods};
use crate::source::{SourceConfig, Sources};
use crate::types::{Digest, Globs, GpuPhase, GpuReason, Revision};
use crate::weights::{Cache, Named, RootFsPolicy, Users, Warmer};
use std::collections::BTreeMap;

/// An agent with an empty cache and without containerd, and the list's end of the wire.
struct Bed {
    agent: Agent,
    list: watch::Sender<Option<Arc<List>>>,
    gpu: watch::Sender<GpuState>,
    images: watch::Sender<Option<Arc<Images>>>,
    requested: watch::Sender<BTreeSet<EntryId>>,
    reports: watch::Receiver<Arc<Report>>,
    dir: tempfile::TempDir,
}

impl Bed {
    /// Turns the loop until it has nothing left to write.
    async fn turn(&mut self) {
        self.agent.act();
        while self.agent.memory.is_writing() {
            let outcome = self.agent.jobs.next().await;
            self.agent.apply(Event::Ended(outcome));
            self.agent.act();
        }
    }

    fn state_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    fn kept(&self) -> BootState {
        BootState::load(&self.state_dir(), "boot")
    }
}

fn ready_gpus() -> GpuState {
    let reason = GpuReason::DriverReady;
    GpuState { phase: GpuPhase::Ready, reason, open: true, ..GpuState::unknown() }
}

fn bed(entries: Vec<Entry>) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(&dir.path().join("cache"), &RootFsPolicy::Allow).unwrap();
    let containerd = Containerd::new(std::path::Path::new("/nonexistent/containerd.sock"));
    let (watched, watch_images) = watch::channel(BTreeSet::new());
    let (images_handle, _, _) = image::spawn(containerd.clone(), watch_images, CancellationToken::new());
    let sources = Sources::new(SourceConfig::default()).unwrap();
    let engine = Engine::new(Limits::default());
    let users = Users::new(containerd.clone(), "/".into());
    let rooms = Rooms {
        puller: Puller::new(
            containerd,
            images_handle,
            engine.clone(),
            Arc::default(),
            PullSettings::default(),
        )
        .unwrap(),
        warmer: Warmer::new(Arc::clone(&cache), engine, sources, false),
        cache,
        users,
    };
    let entries = entries.into_iter().map(|entry| Listed::Good(Arc::new(entry))).collect();
    let list = List { entries, content: Some(Digest::of(b"list")), ..List::empty() };
    let images = Images { connected: true, ..Images::default() };
    let (list, lists) = watch::channel(Some(Arc::new(list)));
    let (images, images_seen) = watch::channel(Some(Arc::new(images)));
    let (gpu, gpus) = watch::channel(ready_gpus());
    let (requested, requests) = watch::channel(BTreeSet::new());
    let inputs = Inputs {
        list: lists,
        gpu: gpus,
        images: images_seen,
        facts: watch::channel(Some(Arc::new(NodeFacts {
            name: "node-a".to_owned(),
            labels: BTreeMap::new(),
        })))
        .1,
        applied: watch::channel(Some(Applied { labels_version: u64::MAX, ..Applied::default() })).1,
        requested: requests,
    };
    let settings = Settings::new("node-a");
    let nothing = plan(&World::new(settings.clone()), "boot", Now::read()).report;
    let (reports_out, reports) = watch::channel(Arc::new(nothing));
    let mut agent = Agent::new(
        settings,
        BootState { boot_id: "boot".to_owned(), ..BootState::default() },
        dir.path().join("state"),
        inputs,
        rooms,
        (reports_out, watched),
        (Liveness::new(), Arc::new(Metrics::new())),
    );
    agent.inputs.list.mark_changed();
    agent.take_inputs();
    Bed { agent, list, gpu, images, requested, reports, dir }
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

#[tokio::test]
async fn what_a_restart_must_not_take_back_is_kept_before_it_is_said() {
    let mut bed = bed(Vec::new());
    bed.agent.world.weights = Some(BTreeMap::new());
    bed.agent.act();
    let said = bed.reports.borrow_and_update().clone();
    assert!(!said.settled && !said.ready, "nothing was said yet");
    bed.turn().await;
    let said = bed.reports.borrow_and_update().clone();
    assert!(said.settled && said.gate_passed && said.ready);
    let kept = bed.kept();
    assert!(kept.gate_opened && kept.ready_reached && kept.gate_opened_at.is_some());

    // A gate that closes takes something back: that is said at once.
    bed.gpu.send_replace(GpuState { open: false, phase: GpuPhase::Failed, ..ready_gpus() });
    bed.agent.apply(Event::Changed);
    bed.agent.act();
    assert!(!bed.reports.borrow().ready);
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_keeps_no_node_closed() {
    let mut bed = bed(Vec::new());
    bed.agent.world.weights = Some(BTreeMap::new());
    std::fs::write(bed.state_dir(), "in the way").unwrap();
    bed.turn().await;
    assert!(bed.reports.borrow().ready);
}

#[tokio::test]
async fn a_request_holds_as_long_as_its_entry_is_listed_also_over_a_restart() {
    let mut bed = bed(vec![weights("a")]);
    bed.agent.world.weights = Some(BTreeMap::new());
    bed.requested.send_replace(["a", "unlisted"].map(|id| id.parse().unwrap()).into());
    bed.agent.apply(Event::Changed);
    bed.turn().await;
    let a: EntryId = "a".parse().unwrap();
    assert_eq!(bed.agent.world.requested, [a.clone()].into());
    assert_eq!(bed.kept().requested, [a.clone()].into());
    bed.requested.send_replace(BTreeSet::new());

    let held = List { removals_held: true, content: Some(Digest::of(b"held")), ..List::empty() };
    let gone = List { content: Some(Digest::of(b"gone")), ..List::empty() };
    for (list, kept) in [(held, true), (gone, false)] {
        bed.list.send_replace(Some(Arc::new(list)));
        bed.agent.apply(Event::Changed);
        bed.turn().await;
        assert_eq!((bed.agent.world.requested.contains(&a), bed.kept().requested.contains(&a)), (kept, kept));
    }
}

#[tokio::test(start_paused = true)]
async fn names_that_cannot_be_removed_are_tried_again_later_and_later() {
    let mut bed = bed(Vec::new());
    let id: EntryId = "gone".parse().unwrap();
    let scanned = || Outcome::Scanned(Ok([(id.clone(), Named::default())].into()));
    let mut waits = Vec::new();
    for _ in 0..3 {
        bed.agent.act();
        bed.agent.scanning = Some(Scan { outdated: false });
        bed.agent.apply(Event::Ended(scanned()));
        bed.agent.act();
        assert!(bed.agent.world.removing.contains(&id));
        let stays = Err(Stays::Stuck("something in /cache/weights/gone stays".to_owned()));
        bed.agent.apply(Event::Ended(Outcome::Retired { id: id.clone(), result: stays }));
        let stuck = &bed.agent.world.stuck[&id];
        assert!(stuck.problem.contains("/cache/weights/gone"), "{stuck:?}");
        let wait = stuck.retry_at - Instant::now();
        waits.push(wait);
        bed.agent.scanning = Some(Scan { outdated: false });
        bed.agent.apply(Event::Ended(scanned()));
        bed.agent.act();
        assert!(!bed.agent.world.removing.contains(&id), "not again at once");
        tokio::time::advance(wait).await;
    }
    assert!(waits.windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");

    bed.agent.scanning = Some(Scan { outdated: false });
    bed.agent.apply(Event::Ended(Outcome::Scanned(Ok(BTreeMap::new()))));
    assert!(bed.agent.world.stuck.is_empty(), "somebody has cleared it away");
}

#[tokio::test(start_paused = true)]
async fn pins_that_cannot_be_taken_off_are_not_tried_without_a_pause() {
    let mut bed = bed(Vec::new());
    for _ in 0..2 {
        bed.agent.world.unpinning = true;
        bed.agent.apply(Event::Ended(Outcome::Unpinned(Err("read-only".to_owned()))));
    }
    let stuck = bed.agent.world.stuck_pins.as_ref().unwrap();
    assert!(stuck.retry_at > Instant::now() + std::time::Duration::from_secs(55), "{stuck:?}");
    bed.agent.apply(Event::Ended(Outcome::Unpinned(Ok(()))));
    assert!(bed.agent.world.stuck_pins.is_none());
}

#[tokio::test]
async fn what_is_not_kept_yet_is_kept_at_the_end() {
    let bed = bed(vec![weights("a")]);
    let (stop, state_dir) = (CancellationToken::new(), bed.state_dir());
    bed.requested.send_replace([weights("a").id].into());
    stop.cancel();
    bed.agent.run(stop).await.unwrap();
    assert_eq!(BootState::load(&state_dir, "boot").requested, [weights("a").id].into());
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_taken_away_again_is_not_pulled_again_at_once() {
    let reference: ImageRef = "nginx:1".parse().unwrap();
    let goods = Goods::Image(ImageGoods { reference: reference.clone(), pin: true });
    let mut bed = bed(vec![Entry { goods, ..weights("i") }]);
    let digest = Digest::of(b"image");
    let presence =
        Presence { target: digest, config: digest, unpacked: true, pinned_by_us: true, pinned: true };
    for pulled_again in [true, false] {
        for there in [true, false] {
            let by_ref = there.then(|| (reference.clone(), presence)).into_iter().collect();
            let asked = [reference.clone()].into();
            let seen = Images { connected: true, asked, by_ref, ..Images::default() };
            bed.images.send_replace(Some(Arc::new(seen)));
            bed.agent.world.jobs.clear();
            bed.agent.apply(Event::Changed);
            bed.agent.act();
        }
        assert_eq!(bed.agent.world.jobs.len(), usize::from(pulled_again));
    }
}
