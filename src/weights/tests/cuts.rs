//! Every disk that a power cut may leave of a recorded run.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::AssertUnwindSafe;
use std::path::Path;

use futures::FutureExt as _;

use super::disk::{Disk, Fate, durable};
use super::trace::Op;

/// A recorded run in several phases, each of which begins after so many operations; the first after none.
pub(super) struct Run {
    pub(super) ops: Vec<Op>,
    pub(super) begins: Vec<usize>,
}

impl Run {
    /// Has the power go after every operation, or after one in `step`. Shows `visit` each different disk that this left,
    /// with its phase and what `least` says of the disk on which all was lost that could be; says how many there were.
    pub(super) async fn each_disk<T: Copy>(
        &self,
        step: usize,
        least: impl Fn(&Path, usize) -> T,
        mut visit: impl AsyncFnMut(&Path, usize, T),
    ) -> usize {
        let ops = &self.ops;
        let mut random = fastrand::Rng::with_seed(6);
        let mut seen = HashSet::new();
        for cut in (0..=ops.len()).step_by(step) {
            let phase = self.begins.iter().filter(|begin| **begin <= cut).count() - 1;
            let before = &ops[..cut];
            let durable = durable(before);
            let undurable: Vec<usize> = (0..cut).filter(|at| !durable[*at]).collect();
            let mut on_the_least = None;
            for fates in fates(&undurable, &mut random) {
                let fate = |at: usize| fates[undurable.binary_search(&at).unwrap()];
                let disk = Disk::after(before, &durable, fate);
                let mut hash = DefaultHasher::new();
                (&disk, phase).hash(&mut hash);
                let home = tempfile::tempdir_in("/dev/shm").unwrap();
                // The first has lost everything that can be lost.
                let is_first = on_the_least.is_none();
                let is_new = seen.insert(hash.finish());
                if is_first || is_new {
                    disk.make(home.path());
                }
                let on_the_least = *on_the_least.get_or_insert_with(|| least(home.path(), phase));
                if is_new {
                    let visited =
                        AssertUnwindSafe(visit(home.path(), phase, on_the_least)).catch_unwind().await;
                    assert!(
                        visited.is_ok(),
                        "cut after {cut} operations of {ops:#?}, with {fates:?} for {undurable:?}"
                    );
                }
            }
        }
        seen.len()
    }
}

/// Which of the operations up to the cut nothing has made durable, and what becomes of them: all that there are where
/// they are few, and else all lost, all kept, and some at random. The first has all lost.
fn fates(undurable: &[usize], random: &mut fastrand::Rng) -> Vec<Vec<Fate>> {
    let count = undurable.len();
    if count <= 3 {
        let all = 0..3_usize.pow(u32::try_from(count).unwrap());
        let fate = |n: usize| [Fate::Lost, Fate::Kept, Fate::Torn][n % 3];
        return all.map(|n| (0..count).map(|at| fate(n / 3_usize.pow(at as u32))).collect()).collect();
    }
    let mut fates = vec![vec![Fate::Lost; count], vec![Fate::Kept; count]];
    for _ in 0..2 {
        let of =
            |random: &mut fastrand::Rng| *random.choice([Fate::Kept, Fate::Lost, Fate::Torn].iter()).unwrap();
        fates.push((0..count).map(|_| of(random)).collect());
    }
    fates
}
