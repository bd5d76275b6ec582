/// The length of the parts in which an object was uploaded, where its ETag tells their number: 32 hex digits, `-`, and
/// how many there were, which is what S3 and its kin give objects that came by multipart upload. Pure.
///
/// The number alone leaves some lengths open. Uploaders choose powers of two, or whole MiB; where none of those fits,
/// nobody knows.
pub(super) fn stored_part(etag: &str, size: u64) -> Option<u64> {
    let (hash, parts) = etag.rsplit_once('-')?;
    let is_hash = hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: u64 = parts.parse().ok().filter(|parts| is_hash && (2..=MOST_PARTS).contains(parts))?;
    // All but the last are as long as the first, and the last isn't empty.
    let (least, most) = (size.div_ceil(parts), size.checked_sub(1)? / (parts - 1));
    let fits = |part: u64| (least..=most).contains(&part);
    let power = least.checked_next_power_of_two().filter(|part| *part >= MIB && fits(*part));
    power.or_else(|| least.checked_next_multiple_of(MIB).filter(|part| fits(*part)))
}

const MIB: u64 = 1 << 20;

/// S3's own limit.
const MOST_PARTS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "0123456789abcdef0123456789ABCDEF";

    fn of(parts: u64, size: u64) -> Option<u64> {
        stored_part(&format!("{HASH}-{parts}"), size)
    }

    #[test]
    fn the_usual_lengths_are_found() {
        assert_eq!(of(2, 16 * MIB), Some(8 * MIB));
        assert_eq!(of(2, 9 * MIB), Some(8 * MIB));
        assert_eq!(of(100, 499 * MIB + 1), Some(5 * MIB));
        assert_eq!(of(1000, 16 * 1000 * MIB - 5), Some(16 * MIB));
    }

    #[test]
    fn what_is_no_number_of_parts_says_nothing() {
        let size = 100 * MIB;
        for tag in [
            HASH.to_owned(),
            format!("{HASH}-1"),
            format!("{HASH}-0"),
            format!("{HASH}-x"),
            format!("{HASH}-10001"),
            // nginx: the time and the size.
            "6560a1b2-3200000".to_owned(),
            "abc-12".to_owned(),
        ] {
            assert_eq!(stored_part(&tag, size), None, "{tag}");
        }
        assert_eq!(of(2, 0), None);
        assert_eq!(of(5, 3), None);
        assert_eq!(of(3, 1000), None, "no whole MiB");
    }

    proptest! {
        #[test]
        fn it_is_a_length_that_gives_so_many_parts(part in 1_u64..1 << 34, parts in 0_u64..20_000, last in any::<u64>()) {
            let size = part.saturating_mul(parts.saturating_sub(1)).saturating_add(last % part + 1);
            if let Some(found) = of(parts, size) {
                prop_assert_eq!(size.div_ceil(found), parts);
            }
            if part.is_power_of_two() && part >= MIB && parts > 2 && parts <= MOST_PARTS {
                prop_assert!(of(parts, size).is_some());
            }
        }

        #[test]
        fn no_tag_panics(tag in "[0-9a-f]{32}-[0-9]{0,25}|.{0,50}", size in any::<u64>()) {
            let _ = stored_part(&tag, size);
        }
    }
}
