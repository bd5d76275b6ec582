//! The file by which an agent asks the probe container not to probe. It counts only while the agent renews it: what
//! a dead agent left behind must not hold for ever.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::hold::Hold;

/// How long one renewal counts: long enough for an agent that is being replaced.
const GOOD_FOR: Duration = Duration::from_secs(180);
/// How often it's renewed.
const RENEWED_EVERY: Duration = Duration::from_secs(20);
/// How often the probe container looks.
const LOOKED_AT_EVERY: Duration = Duration::from_millis(250);

/// The agent's end.
#[derive(Debug)]
pub(super) struct HoldFile {
    path: PathBuf,
    /// What it says, and since when; `None` when it isn't there.
    said: Option<(Hold, Instant)>,
    failed: bool,
}

impl HoldFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, said: None, failed: false }
    }

    /// Whether this agent has put it there.
    pub(super) fn is_there(&self) -> bool {
        self.said.is_some()
    }

    /// Puts it there, or renews it when it's time.
    pub(super) async fn keep(&mut self, hold: Hold) {
        if self.said.is_some_and(|(said, at)| said == hold && at.elapsed() < RENEWED_EVERY) {
            return;
        }
        let path = self.path.clone();
        let text = format!("{}\n", hold.name());
        if self.did("write", move || fs::write(path, text)).await {
            self.said = Some((hold, Instant::now()));
        }
    }

    /// Takes it away, whoever put it there.
    pub(super) async fn lift(&mut self) {
        let path = self.path.clone();
        let removed = move || match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        if self.did("remove", removed).await {
            self.said = None;
        }
    }

    /// Warns of the first failure of a row.
    async fn did(&mut self, verb: &str, act: impl FnOnce() -> io::Result<()> + Send + 'static) -> bool {
        let done = spawn_blocking(act).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(error) = &done
            && !self.failed
        {
            tracing::warn!(
                path = %self.path.display(), %error,
                "cannot {verb} the file that holds the probe; the directory must be writable for the agent"
            );
        }
        self.failed = done.is_err();
        done.is_ok()
    }
}

/// The probe container's end: publishes for ever whether the file at `path` asks it to hold.
pub(super) async fn heed(path: &Path, holds: &watch::Sender<Hold>) {
    let mut freshness = Freshness::default();
    loop {
        let hold = match fs::metadata(path).and_then(|about| about.modified()) {
            Ok(renewed) if freshness.is_fresh(renewed, SystemTime::now()) => asked_for(path),
            _ => Hold::No,
        };
        holds.send_if_modified(|last| std::mem::replace(last, hold) != hold);
        sleep(LOOKED_AT_EVERY).await;
    }
}

/// A file in words of another version holds as well.
fn asked_for(path: &Path) -> Hold {
    let text = fs::read_to_string(path).unwrap_or_default();
    if text.trim() == Hold::MigReconfiguration.name() {
        Hold::MigReconfiguration
    } else {
        Hold::DriverUpgrade
    }
}

/// Whether a file is still renewed. The clock that stamps it may be set meanwhile: a stamp that doesn't change for
/// long is old, whatever it says.
#[derive(Debug, Default)]
struct Freshness {
    seen: Option<(SystemTime, Instant)>,
}

impl Freshness {
    fn is_fresh(&mut self, renewed: SystemTime, now: SystemTime) -> bool {
        let since = match self.seen {
            Some((stamp, since)) if stamp == renewed => since,
            _ => Instant::now(),
        };
        self.seen = Some((renewed, since));
        let is_old = now.duration_since(renewed).is_ok_and(|age| age > GOOD_FOR);
        !is_old && since.elapsed() <= GOOD_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stamp_that_does_not_change_grows_old_whatever_the_clock_says() {
        let mut freshness = Freshness::default();
        let now = SystemTime::now();
        assert!(freshness.is_fresh(now, now));
        assert!(!freshness.is_fresh(now - Duration::from_secs(3600), now), "left over from long ago");
        let ahead = now + Duration::from_secs(86_400);
        assert!(freshness.is_fresh(ahead, now), "the clock was set back");
        tokio::time::advance(GOOD_FOR + Duration::from_secs(1)).await;
        assert!(!freshness.is_fresh(ahead, now));
        assert!(freshness.is_fresh(ahead + Duration::from_secs(20), now), "renewed");
    }

    #[tokio::test]
    async fn it_is_put_there_renewed_and_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gpu.json.hold");
        let mut file = HoldFile::new(path.clone());
        file.lift().await;
        file.keep(Hold::DriverUpgrade).await;
        assert_eq!((asked_for(&path), file.is_there()), (Hold::DriverUpgrade, true));
        file.keep(Hold::MigReconfiguration).await;
        assert_eq!(asked_for(&path), Hold::MigReconfiguration);

        fs::remove_file(&path).unwrap();
        file.keep(Hold::MigReconfiguration).await;
        assert!(!path.exists(), "it is not time to renew it");
        tokio::time::pause();
        tokio::time::advance(RENEWED_EVERY).await;
        file.keep(Hold::MigReconfiguration).await;
        assert!(path.exists());
        file.lift().await;
        assert!(!path.exists() && !file.is_there());
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_written_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = HoldFile::new(dir.path().join("missing/gpu.json.hold"));
        file.keep(Hold::DriverUpgrade).await;
        assert!(!file.is_there() && file.failed);
    }

    #[tokio::test]
    async fn the_probe_container_hears_of_it_and_of_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gpu.json.hold");
        let (sender, mut holds) = watch::channel(Hold::No);
        let heeding = tokio::spawn({
            let path = path.clone();
            async move { heed(&path, &sender).await }
        });
        fs::write(&path, "something newer\n").unwrap();
        holds.wait_for(|hold| *hold == Hold::DriverUpgrade).await.unwrap();
        fs::remove_file(&path).unwrap();
        holds.wait_for(|hold| *hold == Hold::No).await.unwrap();
        heeding.abort();
    }
}
