//! The planner, case by case: a world in, steps and states out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::Instant;

use super::plan::{Plan, plan};
use super::step::Step;
use super::world::{Check, Failure, GateMode, Job, NoGpu, Now, Settings, World};
use crate::image::{Images, Pin, Presence};
use crate::list::{Entry, Goods, ImageGoods, List, Listed, NodeFacts, NodeSelector, WeightsGoods};
use crate::node::{Applied, EntryState, Reason};
use crate::rt::{Attempts, RetryPolicy};
use crate::types::{Digest, EntryId, Globs, GpuPhase, GpuReason, GpuState, ImageRef, Progress, Revision};
use crate::weights::{Current, Named};

mod leaving;
mod once;
mod pressure;
mod races;
mod ready;
mod requested;
mod room;
mod starting;
mod unknown;
mod vanishing;

fn id(text: &str) -> EntryId {
    text.parse().unwrap()
}

fn entry(name: &str, goods: Goods) -> Entry {
    Entry {
        id: id(name),
        goods,
        required: false,
        priority: 500,
        needed_by: None,
        expires_at: None,
        nodes: None,
        credentials: None,
    }
}

fn image(name: &str, reference: &str) -> Entry {
    entry(name, Goods::Image(ImageGoods { reference: reference.parse().unwrap(), pin: true }))
}

fn weights(name: &str) -> Entry {
    entry(name, Goods::Weights(weights_goods(name)))
}

fn weights_goods(name: &str) -> WeightsGoods {
    WeightsGoods {
        uri: format!("s3://bucket/{name}/").parse().unwrap(),
        index: false,
        globs: Globs::all(),
        sha256: BTreeMap::new(),
    }
}

fn listed(entries: impl IntoIterator<Item = Entry>) -> List {
    let entries = entries.into_iter().map(|entry| Listed::Good(Arc::new(entry))).collect();
    List { entries, content: Some(Digest::of(b"list")), ..List::empty() }
}

/// A world in which everything has reported and the gate is open.
fn world(list: List) -> World {
    let mut world = World::new(Settings::new("node-a"));
    world.facts = Some(Arc::new(NodeFacts { name: "node-a".to_owned(), labels: BTreeMap::new() }));
    world.applied = Some(standing([]));
    world.list = Some(Arc::new(list));
    world.gpu = GpuState {
        phase: GpuPhase::Ready,
        reason: GpuReason::DriverReady,
        open: true,
        ..GpuState::unknown()
    };
    world.gate_opened = true;
    let asked = world.listed_images().cloned().collect();
    world.images = Some(Arc::new(Images { asked, ..images([]) }));
    world.weights = Some(BTreeMap::new());
    world
}

/// The node task has taken whatever was said, and these labels stand.
fn standing<const N: usize>(labels: [(&str, &str); N]) -> Applied {
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Applied { labels: labels.into(), labels_version: u64::MAX, ..Applied::default() }
}

fn images<const N: usize>(present: [(&str, Presence); N]) -> Images {
    let by_ref: BTreeMap<ImageRef, Presence> =
        present.into_iter().map(|(text, presence)| (text.parse().unwrap(), presence)).collect();
    Images {
        connected: true,
        problem: None,
        asked: by_ref.keys().cloned().collect(),
        by_ref,
        our_pins: Vec::new(),
        fullness: None,
    }
}

fn present(target: &str) -> Presence {
    Presence {
        target: Digest::of(target.as_bytes()),
        config: Digest::of(b"config"),
        unpacked: true,
        pinned_by_us: true,
        pinned: true,
    }
}

fn named(goods: &WeightsGoods) -> Named {
    Named {
        current: Some(Current {
            revision: Revision::of_image(Digest::of(b"revision")),
            fingerprint: goods.fingerprint(),
            verified: true,
            bytes: 1,
            files: 1,
            source: goods.uri.to_string(),
        }),
        ..Named::default()
    }
}

fn check(world: &World, of: &Entry, due_in: Duration) -> Check {
    let at = Instant::now();
    let content = world.list.as_ref().and_then(|list| list.content);
    Check { at, due: at + due_in, mend_at: at + due_in, content, entry: Arc::new(of.clone()) }
}

fn job(of: Entry) -> Job {
    Job { entry: Arc::new(of), progress: Arc::new(Progress::default()), content: None, stopping: false }
}

fn now() -> Now {
    let wall = "2026-11-24T12:00:00Z".parse().unwrap();
    Now { wall, monotonic: Instant::now(), since_boot: Duration::from_secs(1000) }
}

fn planned(world: &World) -> Plan {
    plan(world, "boot", now())
}

/// What the plan starts, by entry, and what it removes.
fn steps(plan: &Plan) -> Vec<String> {
    let said = |step: &Step| match step {
        Step::Ensure { entry, .. } => format!("ensure {}", entry.id),
        Step::Cancel(id) => format!("cancel {id}"),
        Step::Unpin(pins) => {
            format!("unpin {}", pins.join(" "))
        }
        Step::Retire(id) => format!("retire {id}"),
        Step::DropOld(id) => format!("drop old {id}"),
        Step::FindRoom { newcomer, short, candidates } => {
            let from: Vec<&str> = candidates.iter().map(EntryId::as_str).collect();
            format!("find {short} for {newcomer} from {}", from.join(" "))
        }
        Step::Measure => "measure".to_owned(),
        Step::Shrink(bytes) => format!("shrink {bytes}"),
        Step::Rescan => "rescan".to_owned(),
        Step::Remember(_) => "remember".to_owned(),
    };
    plan.steps.iter().map(said).collect()
}

fn state(plan: &Plan, name: &str) -> (EntryState, Option<String>) {
    let entry = plan.report.entries.iter().find(|entry| entry.id == id(name)).unwrap();
    (entry.state, entry.reason.as_ref().map(|reason| reason.code.clone()))
}
