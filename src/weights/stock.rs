//! What the cache holds, and what of it no entry shows. Looks and decides; takes nothing away.
//!
//! A blob that is shown has more than one name: its own, and one for each place in a tree. The moment at which it lost
//! the last of those is its inode's change time, which the disk keeps: so nothing else has to be written down to know,
//! also after a restart, for how long nobody has needed it.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::Stat;

use super::error::OpError;
use super::layout;
use super::ops::{self, Dir};
use crate::types::Digest;

/// A blob that no entry shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spare {
    pub(super) digest: Digest,
    /// What comes back to the disk with it.
    pub(super) bytes: u64,
    /// Since when.
    pub(super) since: Timestamp,
}

/// All that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stock {
    /// Bytes of all blobs, and of the files on their way.
    pub(super) bytes: u64,
    pub(super) spare: Vec<Spare>,
}

/// Counts. What comes or goes meanwhile may be in it or not.
pub(super) fn take_stock(root: &Dir) -> Result<Stock, OpError> {
    let mut stock = Stock::default();
    for_each_blob(root, |digest, stat| {
        stock.bytes = stock.bytes.saturating_add(allocated(stat));
        if stat.st_nlink == 1 {
            stock.spare.push(Spare { digest, bytes: allocated(stat), since: changed(stat) });
        }
    })?;
    if let Some(partial) = root.find(layout::PARTIAL)? {
        let files = partial.walk()?;
        // One that has its blob's name already is counted there.
        let coming = files.iter().filter(|found| ops::is_file(&found.stat) && found.stat.st_nlink == 1);
        stock.bytes = coming.map(|found| allocated(&found.stat)).fold(stock.bytes, u64::saturating_add);
    }
    Ok(stock)
}

/// Every file that is named as a blob is.
pub(super) fn for_each_blob(root: &Dir, mut look: impl FnMut(Digest, &Stat)) -> Result<(), OpError> {
    let Some(blobs) = root.find(layout::BLOBS)? else { return Ok(()) };
    for fan in blobs.list()? {
        let Some(dir) = blobs.find(Path::new(&fan)).ok().flatten() else { continue };
        for name in dir.list()? {
            let digest = name.to_str().and_then(|name| layout::digest_of_blob(&fan, name));
            let stat = dir.stat(&name)?.filter(ops::is_file);
            if let (Some(digest), Some(stat)) = (digest, stat) {
                look(digest, &stat);
            }
        }
    }
    Ok(())
}

/// What a file takes of the disk.
pub(super) fn allocated(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

pub(super) fn changed(stat: &Stat) -> Timestamp {
    let nanoseconds = i32::try_from(stat.st_ctime_nsec).unwrap_or(0);
    Timestamp::new(stat.st_ctime, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// How much is to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// So many bytes, or nothing goes at all: nothing is given up in vain.
    Enough(u64),
    /// So many bytes, or as many as there are.
    UpTo(u64),
}

/// What may be given up, and what may be soon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// These go, in this order: the longest unneeded first, and no more than are wanted.
    pub(super) go: Vec<Spare>,
    /// Bytes that may go now.
    pub(super) may_go: u64,
    /// Bytes that may go when their time of grace is over.
    pub(super) young: u64,
}

/// Chooses what goes. What was needed less than `grace` ago stays: its list may have been a slip.
pub(super) fn choose(spare: &[Spare], want: Want, now: Timestamp, grace: Duration) -> Choice {
    // A clock that was set back makes nothing young for ever: what is from the future counts as old.
    let is_young = |spare: &&Spare| {
        let age = now.duration_since(spare.since);
        Duration::try_from(age).is_ok_and(|age| age < grace)
    };
    let (young, mut old): (Vec<Spare>, Vec<Spare>) = spare.iter().partition(is_young);
    old.sort_by_key(|spare| (spare.since, spare.digest));
    let (may_go, young) = (sum(&old), sum(&young));
    let (Want::Enough(bytes) | Want::UpTo(bytes)) = want;
    let mut back = 0_u64;
    // The one with which it's enough, and all before it.
    let enough = old.iter().position(|spare| {
        back = back.saturating_add(spare.bytes);
        back >= bytes
    });
    match (enough, want) {
        _ if bytes == 0 => old.clear(),
        (Some(last), _) => old.truncate(last + 1),
        (None, Want::Enough(_)) => old.clear(),
        (None, Want::UpTo(_)) => {}
    }
    Choice { go: old, may_go, young }
}

fn sum(spare: &[Spare]) -> u64 {
    spare.iter().map(|spare| spare.bytes).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_000_000;
    const GRACE: Duration = Duration::from_secs(60);

    fn spare(name: u64, bytes: u64, age: i64) -> Spare {
        let since = Timestamp::from_second(NOW - age).unwrap();
        Spare { digest: Digest::of(&name.to_le_bytes()), bytes, since }
    }

    fn chosen(spare: &[Spare], want: Want) -> Choice {
        choose(spare, want, Timestamp::from_second(NOW).unwrap(), GRACE)
    }

    #[test]
    fn the_longest_unneeded_goes_first_and_no_more_than_needed() {
        let all = [spare(1, 10, 100), spare(2, 10, 300), spare(3, 10, 200), spare(4, 10, 5)];
        assert_eq!(chosen(&all, Want::Enough(15)).go, [all[1], all[2]]);
        assert_eq!(chosen(&all, Want::Enough(0)).go, []);
        let too_much = chosen(&all, Want::Enough(31));
        assert_eq!((too_much.go, too_much.may_go, too_much.young), (vec![], 30, 10));
        assert_eq!(chosen(&all, Want::UpTo(31)).go, [all[1], all[2], all[0]]);
    }

    #[test]
    fn a_clock_set_back_keeps_nothing_for_ever() {
        let future = spare(1, 10, -86_400);
        assert_eq!(chosen(&[future], Want::Enough(10)).go, [future]);
    }

    proptest! {
        #[test]
        fn what_goes_is_old_enough_oldest_first_and_just_enough(
            made in prop::collection::vec((0_u64..50, -10_i64..200), 0..12),
            short in 0_u64..300,
        ) {
            let all: Vec<Spare> =
                made.iter().enumerate().map(|(n, (bytes, age))| spare(n as u64, *bytes, *age)).collect();
            let choice = chosen(&all, Want::Enough(short));
            let age = |spare: &Spare| NOW - spare.since.as_second();
            prop_assert!(choice.go.iter().all(|spare| age(spare) >= 60 || age(spare) < 0));
            prop_assert!(choice.go.windows(2).all(|pair| pair[0].since <= pair[1].since));
            let back: u64 = choice.go.iter().map(|spare| spare.bytes).sum();
            let may: u64 = all.iter().filter(|it| age(it) >= 60 || age(it) < 0).map(|it| it.bytes).sum();
            prop_assert_eq!(choice.may_go, may);
            prop_assert_eq!(choice.may_go + choice.young, all.iter().map(|it| it.bytes).sum::<u64>());
            if may >= short && short > 0 {
                prop_assert!(back >= short);
                // Without the last one it would not be enough.
                prop_assert!(back - choice.go.last().unwrap().bytes < short);
                // Nothing older was left out.
                let youngest = choice.go.last().unwrap().since;
                let left = all.iter().filter(|it| (age(it) >= 60 || age(it) < 0) && it.since < youngest);
                prop_assert!(left.into_iter().all(|it| choice.go.contains(it)));
            } else {
                prop_assert!(choice.go.is_empty());
            }
            let in_part = chosen(&all, Want::UpTo(short));
            if may >= short {
                prop_assert_eq!(in_part, choice);
            } else {
                prop_assert_eq!(in_part.go.iter().map(|spare| spare.bytes).sum::<u64>(), may);
            }
        }
    }
}
