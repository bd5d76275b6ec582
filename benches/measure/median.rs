//! The median.

/// The middle one; of an even number the later of the two.
pub(crate) fn median<T: PartialOrd + Copy>(values: &[T]) -> T {
    let mut values = values.to_vec();
    values.sort_by(|a, b| a.partial_cmp(b).expect("they can be compared"));
    values[values.len() / 2]
}
