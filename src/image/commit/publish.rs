use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{CommitError, Workplace};
use crate::image::pins::{MARK, PIN, needs_pin};
use crate::types::{Descriptor, Digest, ImageRef};

/// What CRI asks of a record to call it its own (containerd, `internal/cri/labels`).
const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");

/// How long CRI may take to notice. It goes by events, one after the other, and tries again after an error.
const SHOWN: Duration = Duration::from_secs(30);

/// CRI notices in a few milliseconds, mostly.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(500);

impl Workplace {
    /// Gives the image its names, the one that was asked for last: who sees that finds everything. A record that is there
    /// is turned to `target`. With `pin`, they are pinned as ours from the first moment, except those that somebody else
    /// has pinned. Returns when CRI shows it.
    ///
    /// # Errors
    /// When a call fails, and [`CommitError::NotShown`] when CRI doesn't show it in 30 s.
    pub async fn publish(
        &self,
        image: &ImageRef,
        target: &Descriptor,
        config: Digest,
        pin: bool,
    ) -> Result<(), CommitError> {
        let by_digest = format!("{}@{}", image.name(), target.digest);
        let mut names = vec![config.to_string(), by_digest];
        if image.tag().is_some() {
            names.push(image.to_string());
        }
        for name in names {
            let labels = self.record_labels(&name, pin).await?;
            self.containerd.put_record(&self.lease, &name, target, &labels).await?;
        }
        self.wait_until_shown(image, config).await
    }

    async fn record_labels(&self, name: &str, pin: bool) -> Result<BTreeMap<String, String>, CommitError> {
        let there = if pin { self.containerd.record(name).await? } else { None };
        let pins = pin && there.is_none_or(|record| needs_pin(&record));
        let labels = std::iter::once(MANAGED).chain([PIN, MARK].into_iter().filter(|_| pins));
        Ok(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    async fn wait_until_shown(&self, image: &ImageRef, config: Digest) -> Result<(), CommitError> {
        let end = Instant::now() + SHOWN;
        let mut pause = FIRST_LOOK;
        loop {
            let shown = self.containerd.image_status(image).await?.map(|shown| shown.config);
            if shown == Some(config) {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(CommitError::NotShown { image: image.to_string(), shown });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_LOOK);
        }
    }
}
