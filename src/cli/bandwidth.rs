use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::fetch::Bandwidth;

/// Bytes a second, or no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate(pub Option<NonZeroU64>);

impl FromStr for Rate {
    type Err = String;

    /// A number, with a fraction or without, and k, M or G for thousands, millions and thousand millions; 0 is no limit.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (number, unit) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (text.get(..text.len() - 1), 1e3),
            Some(b'M') => (text.get(..text.len() - 1), 1e6),
            Some(b'G') => (text.get(..text.len() - 1), 1e9),
            _ => (Some(text), 1.0),
        };
        let is_plain = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let rate =
            number.filter(is_plain).and_then(|number| number.parse::<f64>().ok()).map(|rate| rate * unit);
        match rate {
            Some(rate) if rate < 1e15 => Ok(Self(NonZeroU64::new(rate.ceil() as u64))),
            _ => Err("write bytes a second, such as 500M, 1.5G or 250k; 0 is no limit".to_owned()),
        }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(rate) => write!(f, "{rate} bytes/s"),
            None => f.write_str("none"),
        }
    }
}

/// How often the file is looked at without being told: a ConfigMap's volume changes without a signal.
const LOOK: Duration = Duration::from_secs(10);

/// The limit that a file says, or the flag where there is no file.
pub(crate) struct Followed {
    file: Option<PathBuf>,
    flag: Rate,
    bandwidth: Bandwidth,
    now: Rate,
    /// What couldn't be read, so that it's said once.
    told: Option<String>,
}

impl Followed {
    pub(crate) fn new(file: Option<PathBuf>, flag: Rate, bandwidth: Bandwidth) -> Self {
        bandwidth.set(flag.0);
        Self { file, flag, bandwidth, now: flag, told: None }
    }

    /// Follows the file until `stop`: on SIGHUP, and by itself. A file that can't be read leaves the limit as it is.
    ///
    /// # Errors
    /// When the runtime can't install a handler.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup()).context("cannot take over SIGHUP")?;
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangup.recv() => self.told = None,
                _ = looks.tick() => {}
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let Some(file) = self.file.clone() else { return };
        let path = file.clone();
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
        let rate = match read {
            Ok(Ok(text)) if text.trim().is_empty() => Ok(Rate(None)),
            Ok(Ok(text)) => text.parse(),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(self.flag),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match rate {
            Ok(rate) => {
                self.told = None;
                if rate != self.now {
                    tracing::info!(limit = %rate, before = %self.now, file = %file.display(), "another limit of the bandwidth");
                    self.bandwidth.set(rate.0);
                    self.now = rate;
                }
            }
            Err(problem) if self.told.as_ref() != Some(&problem) => {
                tracing::warn!(problem, limit = %self.now, file = %file.display(), "the limit of the bandwidth stays as it is");
                self.told = Some(problem);
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(bytes: u64) -> Rate {
        Rate(NonZeroU64::new(bytes))
    }

    #[test]
    fn rates_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("250k", 250_000),
            ("500M", 500_000_000),
            (" 1.5G\n", 1_500_000_000),
            ("0.0001k", 1),
        ] {
            assert_eq!(text.parse(), Ok(rate(bytes)), "{text}");
        }
        for text in ["", "M", "-1", "1e3", "5m", "5MB", "inf", "NaN", "1 M", "9999999G", "5µ"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn the_file_stands_before_the_flag_and_a_broken_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("max-bandwidth");
        let mut followed = Followed::new(Some(file.clone()), rate(7), Bandwidth::default());
        for (text, now) in [
            (None, 7),
            (Some("5M"), 5_000_000),
            (Some("five"), 5_000_000),
            (Some("0"), 0),
            (Some("3"), 3),
            (Some("\n"), 0),
            (None, 7),
        ] {
            match text {
                Some(text) => std::fs::write(&file, text).unwrap(),
                None => drop(std::fs::remove_file(&file)),
            }
            followed.look().await;
            assert_eq!(followed.now, rate(now), "{text:?}");
        }
    }
}
