//! When `stoker.dev/ready` is reached: pure.

use std::time::Duration;

use super::world::{NoGpu, Now, World};
use crate::node::{EntryState, ReadyBy, Report};
use crate::types::GpuPhase;

pub(super) fn gate_is_open(world: &World) -> bool {
    match world.gpu.phase {
        GpuPhase::NotApplicable => world.settings.no_gpu == NoGpu::Proceed,
        _ => world.gpu.open,
    }
}

/// Whether `stoker.dev/ready` is reached now, by this report, and why.
///
/// It holds for the whole boot, so a list that was stored before that isn't enough: what is required now must be known.
/// `--max-wait` bounds how long entries keep a node closed, whatever the reason: they fail, the list is paused or past
/// its `validUntil`, or there never was one that can be read. It never overrules the gate.
#[must_use]
pub(super) fn ready_by(world: &World, report: &Report, now: Now) -> Option<ReadyBy> {
    if !report.settled || !gate_is_open(world) {
        return None;
    }
    let mut required =
        report.entries.iter().filter(|entry| entry.required && entry.state != EntryState::Skipped);
    let knows_the_list = report.list.known && world.list.as_ref().is_some_and(|list| list.current);
    if knows_the_list && required.all(|entry| entry.state == EntryState::Warm) {
        Some(ReadyBy::AllWarm)
    } else if max_wait_left(world, now) == Some(Duration::ZERO) {
        Some(ReadyBy::MaxWaitPassed)
    } else {
        None
    }
}

/// How much of `--max-wait` is left; `None` without one, and before the gate has opened.
pub(super) fn max_wait_left(world: &World, now: Now) -> Option<Duration> {
    let passed = now.since_boot.saturating_sub(world.gate_opened_at?);
    Some(world.settings.max_wait?.saturating_sub(passed))
}
