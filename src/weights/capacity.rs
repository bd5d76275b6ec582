//! How large the cache may get, and how much room it has.

use std::time::Duration;

use super::cache::Cache;
use super::claims::Reserve;
use super::error::{CacheError, OpError};
use super::in_use;
use super::stock::{self, Stock, Want};

/// So many moments at most are waited for bytes that come back late.
const GIVING_BACK: usize = 20;
const A_MOMENT: Duration = Duration::from_millis(50);

/// How large the cache may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// What of the file system stays free.
    pub reserve: Reserve,
    /// The cache never holds more bytes than this.
    pub max: Option<u64>,
    /// How long bytes stay after an entry last needed them, whatever needs their room.
    pub grace: Duration,
}

impl Default for Capacity {
    fn default() -> Self {
        // A list that loses an entry by a slip is mended within a minute, or isn't.
        Self { reserve: Reserve::default(), max: None, grace: Duration::from_secs(60) }
    }
}

/// Room in the cache, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes that may be written now: free on the disk beyond the reserve, and within `--cache-max`.
    pub free: u64,
    /// Bytes that no entry needs, and that would be given up for others.
    pub spare: u64,
    /// How full the file system is, in percent, as the kubelet counts it.
    pub full: u8,
    /// The file system's size.
    pub total: u64,
}

impl Room {
    /// What a newcomer may count on.
    #[must_use]
    pub fn in_all(&self) -> u64 {
        self.free.saturating_add(self.spare)
    }
}

/// What the disk gives, and what of it we take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    /// Bytes that may still be written before the disk, or the cache, is full.
    pub(super) available: u64,
    /// What of them stays free.
    pub(super) reserve: u64,
}

impl Cache {
    /// How much room there is.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn room(&self) -> Result<Room, CacheError> {
        let stock = stock::take_stock(&self.root)?;
        let space = self.space(self.capacity.reserve, &stock)?;
        let now = jiff::Timestamp::now();
        let choice = stock::choose(&stock.spare, Want::UpTo(0), now, self.capacity.grace);
        let (available, total) = self.root.space()?;
        Ok(Room {
            free: space.available.saturating_sub(space.reserve).saturating_sub(self.claimed()),
            spare: choice.may_go,
            full: percent(available, total),
            total,
        })
    }

    /// Bytes that the disk still takes.
    pub(super) fn disk_space(&self) -> Result<u64, OpError> {
        Ok(self.root.space()?.0)
    }

    /// Some file systems give bytes back a moment after the name is gone (xfs does so in the background): without
    /// waiting for that, twice as much would be given up.
    pub(super) fn await_space(&self, before: u64, freed: u64) -> Result<(), OpError> {
        for _ in 0..GIVING_BACK {
            let stock = stock::take_stock(&self.root)?;
            if self.space(self.capacity.reserve, &stock)?.available >= before.saturating_add(freed / 2) {
                break;
            }
            in_use::pause(A_MOMENT);
        }
        Ok(())
    }

    pub(super) fn space(&self, reserve: Reserve, stock: &Stock) -> Result<Space, OpError> {
        let (available, total) = self.root.space()?;
        let reserve = reserve.of(total);
        // With a limit of its own, the cache has what the limit leaves, as long as the disk has that too.
        let within = self.capacity.max.map(|max| max.saturating_sub(stock.bytes).saturating_add(reserve));
        Ok(Space { available: within.map_or(available, |within| within.min(available)), reserve })
    }
}

fn percent(available: u64, total: u64) -> u8 {
    let free = u128::from(available) * 100 / u128::from(total.max(1));
    100_u8.saturating_sub(u8::try_from(free).unwrap_or(100))
}
