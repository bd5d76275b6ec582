use crate::image::ImageError;
use crate::image::fullness::{GcThreshold, Use};
use crate::types::ImageRef;

/// How much longer a layer is unpacked than packed. Images of machine learning are about 2; three leaves room.
const UNPACKED: u64 = 3;

/// What an image may take before it's known what it takes: `packed` bytes, kept beside what they unpack to if
/// `is_kept`.
fn estimate(packed: u64, is_kept: bool) -> u64 {
    packed.saturating_mul(UNPACKED + u64::from(is_kept))
}

/// Whether an image of `packed` bytes may be started: it must not bring the file system to where the kubelet begins
/// to remove images, which would take away this one or another, nor to where pins give way.
pub(super) fn admit(
    image: &ImageRef,
    used: Use,
    packed: u64,
    is_kept: bool,
    threshold: GcThreshold,
) -> Result<(), ImageError> {
    let needed = estimate(packed, is_kept);
    let threshold = threshold.pulls_end();
    let kept_free = used.total / 100 * u64::from(100_u8.saturating_sub(threshold));
    if packed == 0 || used.available >= needed.saturating_add(kept_free) {
        return Ok(());
    }
    Err(ImageError::NoSpace { image: image.to_string(), needed, available: used.available, threshold })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn admitted(available: u64, packed: u64, is_kept: bool) -> bool {
        admit(&"a".parse().unwrap(), Use { total: 100 * GIB, available }, packed, is_kept, GcThreshold(85))
            .is_ok()
    }

    #[test]
    fn an_image_that_would_make_the_kubelet_remove_images_is_not_started() {
        assert!(admitted(47 * GIB, 10 * GIB, false));
        assert!(!admitted(47 * GIB - 1, 10 * GIB, false));
        assert!(!admitted(47 * GIB, 10 * GIB, true));
        assert!(admitted(57 * GIB, 10 * GIB, true));
        assert!(!admitted(u64::MAX / 2, u64::MAX / 2, true), "a lie about the size overflows nothing");
    }
}
