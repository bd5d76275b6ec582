use std::fmt;
use std::time::Duration;

/// A part of a pull. They overlap, so their times add up to more than the pull took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Tag, manifests and configuration.
    Resolve,
    /// Compressed bytes from the registry, and hashing them. Its time is what layers waited for bytes.
    Fetch,
    /// Inflating.
    Inflate,
    /// Hashing the tar stream and writing files.
    Unpack,
    /// Writing it all to the disk: one syncfs.
    Sync,
    /// Snapshots, documents and names.
    Commit,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 6] =
        [Self::Resolve, Self::Fetch, Self::Inflate, Self::Unpack, Self::Sync, Self::Commit];

    /// The word for it in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Fetch => "fetch",
            Self::Inflate => "inflate",
            Self::Unpack => "unpack",
            Self::Sync => "sync",
            Self::Commit => "commit",
        }
    }
}

/// Where the time of one pull went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phases {
    times: [Duration; Phase::ALL.len()],
    bytes: [u64; Phase::ALL.len()],
    /// Layers that were fetched.
    pub fetched: u32,
    /// Layers that were there already, or that another pull brought meanwhile.
    pub reused: u32,
}

impl Phases {
    /// Adds to a phase: how long it was at work, and how many bytes it made.
    pub fn add(&mut self, phase: Phase, time: Duration, bytes: u64) {
        if let Some(sum) = self.times.get_mut(phase as usize) {
            *sum = sum.saturating_add(time);
        }
        if let Some(sum) = self.bytes.get_mut(phase as usize) {
            *sum = sum.saturating_add(bytes);
        }
    }

    /// How long a phase was at work, over all layers.
    #[must_use]
    pub fn time(&self, phase: Phase) -> Duration {
        self.times.get(phase as usize).copied().unwrap_or_default()
    }

    /// The bytes that came out of a phase.
    #[must_use]
    pub fn bytes(&self, phase: Phase) -> u64 {
        self.bytes.get(phase as usize).copied().unwrap_or_default()
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for phase in Phase::ALL {
            write!(f, "{} {:.2}s ", phase.label(), self.time(phase).as_secs_f64())?;
        }
        write!(f, "fetched {} layers, reused {}", self.fetched, self.reused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_its_own_sum() {
        let mut phases = Phases::default();
        for phase in Phase::ALL {
            phases.add(phase, Duration::from_secs(1), 10);
        }
        phases.add(Phase::Unpack, Duration::from_secs(2), 5);
        assert_eq!(phases.time(Phase::Unpack), Duration::from_secs(3));
        assert_eq!((phases.bytes(Phase::Unpack), phases.bytes(Phase::Commit)), (15, 10));
        assert!(phases.to_string().starts_with("resolve 1.00s fetch 1.00s inflate 1.00s unpack 3.00s"));
    }
}
