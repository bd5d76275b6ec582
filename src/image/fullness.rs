//! How full the disk of the images is, and what that means to the kubelet, whose thresholds are ours.

use std::path::Path;

/// A file system's size and what is free of it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) total: u64,
    pub(super) available: u64,
}

impl Use {
    /// Of the file system below `root`.
    pub(super) fn of(root: &Path) -> std::io::Result<Self> {
        let found = rustix::fs::statvfs(root)?;
        Ok(Self {
            total: found.f_blocks.saturating_mul(found.f_frsize),
            available: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }

    /// How full it is, in percent, as the kubelet counts it (`pkg/kubelet/images/image_gc_manager.go`).
    pub(super) fn percent(self) -> u8 {
        let free = u128::from(self.available) * 100 / u128::from(self.total.max(1));
        100_u8.saturating_sub(u8::try_from(free).unwrap_or(100))
    }
}

/// The kubelet's `imageGCHighThresholdPercent`: so full, and it removes images, those first that nobody has used yet. A
/// little fuller, and it ends pods (`imagefs.available`), and no pin gives way by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcThreshold(pub u8);

impl GcThreshold {
    /// The kubelet's default.
    pub const DEFAULT: Self = Self(85);

    /// From here on, in percent, pins give way. `None`: the kubelet never collects.
    #[must_use]
    pub fn pins_give_way(self) -> Option<u8> {
        self.below(1)
    }

    /// From here on they no longer do, and what gave way may come back.
    #[must_use]
    pub fn pins_come_back(self) -> Option<u8> {
        self.below(6)
    }

    /// What no pull of ours may bring the disk to: it would make pins give way.
    #[must_use]
    pub fn pulls_end(self) -> u8 {
        self.below(2).unwrap_or(100)
    }

    fn below(self, percent: u8) -> Option<u8> {
        (self.0 < 100).then(|| self.0.saturating_sub(percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fullness_is_counted_as_the_kubelet_counts_it() {
        let percent = |total, available| Use { total, available }.percent();
        assert_eq!(
            [percent(1000, 1000), percent(1000, 151), percent(1000, 150), percent(1000, 0)],
            [0, 85, 85, 100]
        );
        assert_eq!(percent(1000, 149), 86);
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(u64::MAX, u64::MAX), 0);
    }

    #[test]
    fn our_own_pulls_make_no_pin_give_way() {
        for threshold in (0..100).map(GcThreshold) {
            let (begin, end) = (threshold.pins_give_way().unwrap(), threshold.pins_come_back().unwrap());
            assert!(threshold.pulls_end() <= begin && begin <= threshold.0 && end <= begin);
        }
        let never = GcThreshold(100);
        assert_eq!((never.pins_give_way(), never.pulls_end()), (None, 100));
    }
}
