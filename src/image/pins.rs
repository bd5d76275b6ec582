//! Pins: labels on image records. CRI's own keeps kubelet's garbage collection off; ours beside it says who set it.

use std::collections::BTreeSet;

use super::Pin;
use crate::containerd::ImageRecord;
use crate::types::Digest;

/// What CRI reads (containerd, `internal/cri/labels`).
pub(super) const PIN: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

/// What tells our pins from anybody else's.
pub(super) const MARK: (&str, &str) = ("stoker.dev/pinned", "true");

pub(super) fn is_pinned(record: &ImageRecord) -> bool {
    record.labels.get(PIN.0).is_some_and(|value| value == PIN.1)
}

pub(super) fn is_ours(record: &ImageRecord) -> bool {
    record.labels.contains_key(MARK.0)
}

/// Whether pinning has something to do at this record: a pin without our mark is somebody else's and stays theirs.
pub(super) fn needs_pin(record: &ImageRecord) -> bool {
    !is_pinned(record)
}

/// All records with our mark, by name.
pub(super) fn ours(records: &[ImageRecord]) -> Vec<Pin> {
    let mut pins: Vec<Pin> = records
        .iter()
        .filter(|record| is_ours(record))
        .map(|record| Pin { name: record.name.clone(), target: record.target })
        .collect();
    pins.sort();
    pins
}

/// Which of our pins are to be taken off, when only the images with the targets in `wanted` are to be kept: the names
/// for [`super::Puller::unpin`].
#[must_use]
pub fn to_unpin(our_pins: &[Pin], wanted: &BTreeSet<Digest>) -> Vec<String> {
    our_pins.iter().filter(|pin| !wanted.contains(&pin.target)).map(|pin| pin.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pins_of_unwanted_targets_go() {
        let pin =
            |name: &str, target: &str| Pin { name: name.to_owned(), target: Digest::of(target.as_bytes()) };
        let pins = [pin("h/a:1", "old"), pin("h/a:1-new", "new"), pin("sha256:x", "old")];
        let unpinned = |wanted: &[&str]| {
            to_unpin(&pins, &wanted.iter().map(|target| Digest::of(target.as_bytes())).collect())
        };
        assert_eq!(unpinned(&["new"]), ["h/a:1", "sha256:x"]);
        assert_eq!(unpinned(&["old", "new", "absent"]), Vec::<String>::new());
        assert_eq!(unpinned(&[]).len(), 3);
    }

    #[test]
    fn a_foreign_pin_is_neither_ours_nor_touched() {
        let foreign = ImageRecord::made_up("a", Digest::of(b"t"), &[PIN]);
        assert!(!needs_pin(&foreign) && !is_ours(&foreign));
        assert_eq!(ours(&[foreign]), []);
    }
}
