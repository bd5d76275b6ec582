use serde::Deserialize;

use super::manifest::chain_ids;
use super::pins;
use crate::containerd::ImageRecord;
use crate::types::Digest;

/// What containerd has of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// What the reference points at: the index, where there is one. It's the image's revision.
    pub target: Digest,
    /// The configuration for this platform: CRI's id of the image.
    pub config: Digest,
    /// Whether the unpacked top snapshot is there and has been written to the disk. Only then a pod starts from it at
    /// once; without it the image is a name that kubelet believes in.
    pub unpacked: bool,
    /// Whether one of its records carries our mark.
    pub pinned_by_us: bool,
    /// Whether one of its records is pinned, by whomever: that keeps kubelet's garbage collection off.
    pub pinned: bool,
}

impl Presence {
    /// Whether a pod could use it now.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        self.unpacked
    }

    /// Puts together what was found: the pins are those of all records with the same target.
    pub(super) fn new(target: Digest, config: Digest, unpacked: bool, records: &[ImageRecord]) -> Self {
        let of_target = || records.iter().filter(|record| record.target == target);
        Self {
            target,
            config,
            unpacked,
            pinned_by_us: of_target().any(pins::is_ours),
            pinned: of_target().any(pins::is_pinned),
        }
    }
}

/// The name of the snapshot in which the layers with these diff ids are unpacked on top of each other (OCI image spec,
/// config.md, "Layer ChainID"). `None` for an image without layers, which needs none.
#[must_use]
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    chain_ids(diff_ids).pop()
}

/// The diff ids in an image's configuration.
pub(super) fn diff_ids(config: &[u8]) -> Result<Vec<Digest>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Config {
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        // Go writes an empty list as null.
        diff_ids: Option<Vec<Digest>>,
    }
    serde_json::from_slice::<Config>(config).map(|config| config.rootfs.diff_ids.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_as_the_specification_has_them() {
        let layer = |name: &str| Digest::of(name.as_bytes());
        let (a, b, c) = (layer("a"), layer("b"), layer("c"));
        let ab = Digest::of(format!("{a} {b}").as_bytes());
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(&[a]), Some(a));
        assert_eq!(chain_id(&[a, b]), Some(ab));
        assert_eq!(chain_id(&[a, b, c]), Some(Digest::of(format!("{ab} {c}").as_bytes())));
    }

    #[test]
    fn diff_ids_are_read_from_a_configuration() {
        let a = Digest::of(b"a");
        let config = format!(r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":["{a}"]}}}}"#);
        assert_eq!(diff_ids(config.as_bytes()).unwrap(), [a]);
        assert_eq!(diff_ids(br#"{"rootfs":{"diff_ids":null}}"#).unwrap(), []);
        for bad in ["{}", "[]", "", r#"{"rootfs":{"diff_ids":["sha512:00"]}}"#] {
            assert!(diff_ids(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn pins_of_any_record_of_the_target_count_and_of_no_other() {
        let (target, other, config) = (Digest::of(b"t"), Digest::of(b"o"), Digest::of(b"c"));
        let ours = [(pins::PIN.0, pins::PIN.1), (pins::MARK.0, pins::MARK.1)];
        let pins_of = |records: &[ImageRecord]| {
            let presence = Presence::new(target, config, true, records);
            (presence.pinned, presence.pinned_by_us)
        };
        let plain = ImageRecord::made_up("h/a:1", target, &[]);
        assert_eq!(pins_of(std::slice::from_ref(&plain)), (false, false));
        assert_eq!(
            pins_of(&[plain.clone(), ImageRecord::made_up("id", target, &[pins::PIN])]),
            (true, false)
        );
        assert_eq!(pins_of(&[plain.clone(), ImageRecord::made_up("id", target, &ours)]), (true, true));
        assert_eq!(pins_of(&[plain, ImageRecord::made_up("id", other, &ours)]), (false, false));
    }
}
