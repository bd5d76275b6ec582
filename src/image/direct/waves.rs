/// So many waves at most, unless they'd be larger than [`LARGE`]. Each ends with a sync, which takes from the unpacking of
/// the next one.
const WAVES: u64 = 3;

/// Packed bytes that are worth a wave of their own, so that a pull of hours that dies has lost minutes.
const LARGE: u64 = 1 << 30;

/// Where the layers of an image are cut into waves, each of which is committed while the next ones are under way: how many
/// layers each has. `sizes` are their packed bytes, from the bottom up.
///
/// Layers begin in the order of their waves, and within one the largest first. A wave is at least twice the largest layer, or
/// that one, begun late, would end alone.
pub(super) fn cut(sizes: &[u64]) -> Vec<usize> {
    let total = sizes.iter().fold(0_u64, |sum, size| sum.saturating_add(*size));
    let largest = sizes.iter().copied().max().unwrap_or_default();
    let enough = total.div_ceil(WAVES).min(LARGE).max(largest.saturating_mul(2));
    if enough > total / 2 {
        return vec![sizes.len()];
    }
    let mut waves = Vec::new();
    let (mut layers, mut bytes) = (0, 0_u64);
    for size in sizes {
        layers += 1;
        bytes = bytes.saturating_add(*size);
        if bytes >= enough {
            waves.push(layers);
            (layers, bytes) = (0, 0);
        }
    }
    if layers > 0 {
        waves.push(layers);
    }
    waves
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn many_small_layers_are_three_waves_and_a_large_one_makes_one() {
        assert_eq!(cut(&[10; 12]), [4, 4, 4]);
        assert_eq!(cut(&[10; 13]), [5, 5, 3]);
        assert_eq!(cut(&[35, 20, 20, 20, 20, 20, 30]), [3, 4]);
        assert_eq!(cut(&[719, 500, 400, 236]), [4]);
        assert_eq!(cut(&[5; 3]), [3]);
        assert_eq!(cut(&[7]), [1]);
        assert!(cut(&[]).is_empty());
    }

    #[test]
    fn an_image_of_many_gigabytes_has_more_waves() {
        assert_eq!(cut(&[LARGE / 4; 40]), vec![4; 10]);
    }

    proptest! {
        #[test]
        fn every_layer_is_in_one_wave(sizes in prop::collection::vec(0..u64::MAX, 0..200)) {
            prop_assert_eq!(cut(&sizes).iter().sum::<usize>(), sizes.len());
        }
    }
}
