//! The bounds of single fields, for whoever reads one: from a document or from the stored list.

/// The priority of an entry that gives none.
pub(super) const DEFAULT_PRIORITY: u16 = 500;

/// The highest priority.
pub(super) const MAX_PRIORITY: u16 = 1000;

/// How many patterns `include` and `exclude` may hold each: every one is compiled, and a folder needs only one.
pub(super) const MAX_PATTERNS: usize = 128;

/// A share of the nodes: more than 0, at most 1. NaN is neither.
pub(super) fn is_fraction(number: f64) -> bool {
    number > 0.0 && number <= 1.0
}

/// The name of a Secret, which is a directory's name, too: one path part, not hidden.
pub(super) fn is_credentials_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// `[prefix/]name` (Kubernetes, "Labels and Selectors", syntax): the prefix a DNS subdomain, the name like a value
/// but not empty. A taint's key is the same.
#[must_use]
pub fn is_label_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let is_dns_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    !name.is_empty()
        && is_label_value(name)
        && prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_dns_label))
}

/// Empty, or at most 63 characters of `[A-Za-z0-9._-]` with an alphanumeric one at both ends.
pub(super) fn is_label_value(value: &str) -> bool {
    value.is_empty() || value.parse::<crate::types::EntryId>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_keys_are_kubernetes() {
        for key in ["nvidia.com/gpu.product", "zone", "a/b", "topology.kubernetes.io/zone"] {
            assert!(is_label_key(key), "{key}");
        }
        for key in ["", "/a", "a/", "a/b/c", "Up.per/a", "-a", "a b", "a..b/c", &"x".repeat(64)] {
            assert!(!is_label_key(key), "{key}");
        }
        assert!(is_label_value("") && is_label_value("NVIDIA-H100-80GB-HBM3") && !is_label_value("a/b"));
    }

    #[test]
    fn credentials_are_one_visible_path_part() {
        assert!(is_credentials_name("s3-readonly") && is_credentials_name("a.b_c"));
        for name in ["", ".", "..", ".hidden", "a/b", "a b", "a\0", "é", &"x".repeat(254)] {
            assert!(!is_credentials_name(name), "{name}");
        }
    }

    #[test]
    fn fractions_are_above_nothing_and_not_above_all() {
        assert!(is_fraction(f64::MIN_POSITIVE) && is_fraction(1.0));
        for number in [0.0, -0.5, 1.000_001, f64::NAN, f64::INFINITY] {
            assert!(!is_fraction(number), "{number}");
        }
    }
}
