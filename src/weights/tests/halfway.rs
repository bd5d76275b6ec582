use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::super::journal::Journal;
use super::super::marks::Pace;
use super::super::{Reserve, Warmer};
use super::bed::{Bed, Served, sources};
use crate::fetch::{Engine, Limits};
use crate::source::{RangeBody, RangeSource, RemoteFile, SourceError};
use crate::types::ByteRange;

pub(super) const PAGE: u64 = 4096;
/// Short, so that small files have many.
pub(super) const RANGE: u64 = 2 * PAGE;
/// Enough for several files of which each waits for its server.
const LIMITS: Limits = Limits { memory: 64 * PAGE, range: RANGE, per_origin: 8, per_blob: 3 };
/// Marks as often as can be.
pub(super) const PACE: Pace = Pace { least: RANGE, bytes: 1, time: Duration::ZERO };

pub(super) fn engine() -> Engine {
    Engine::new(LIMITS)
}

pub(super) fn warmer(bed: &Bed) -> Warmer {
    let warmer = Warmer::new(bed.cache().clone(), engine(), sources(), false);
    warmer.with_reserve(Reserve { percent: 0, bytes: 0 }).with_pace(PACE)
}

pub(super) fn long(seed: u8, size: usize) -> Vec<u8> {
    (0..size as u32).map(|i| (i % 249) as u8 ^ (i >> 9) as u8 ^ seed).collect()
}

/// Every journal below `partials`, with its directory.
pub(super) fn journals(partials: &Path) -> Vec<(PathBuf, Journal)> {
    let Ok(dirs) = std::fs::read_dir(partials) else { return Vec::new() };
    let dirs = dirs.filter_map(|dir| Some(dir.ok()?.path()));
    dirs.filter_map(|dir| Some((dir.clone(), Journal::read(&std::fs::read(dir.join("journal")).ok()?)?)))
        .collect()
}

/// How far the file of this size is marked, in its journal.
pub(super) fn marked(partials: &Path, size: u64) -> u64 {
    let mut journals = journals(partials).into_iter().map(|(_, journal)| journal);
    journals.find(|journal| journal.origin.size == size).map_or(0, |journal| journal.frontier())
}

/// A server that answers nothing from `upto` on.
#[derive(Debug)]
struct Stalling {
    served: Arc<Served>,
    upto: u64,
    origin: String,
}

impl RangeSource for Stalling {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        if range.start() < self.upto { self.served.get(range) } else { std::future::pending().boxed() }
    }

    fn origin(&self) -> &str {
        &self.origin
    }
}

/// The same file, from a server of its own that answers nothing from `upto` on: it holds connections for ever.
pub(super) fn stalling(file: &RemoteFile, served: &Arc<Served>, upto: u64) -> RemoteFile {
    let stalling = Stalling { served: Arc::clone(served), upto, origin: format!("{}.example", file.path) };
    RemoteFile { bytes: Arc::new(stalling), ..file.clone() }
}
