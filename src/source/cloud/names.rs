//! Names of objects in URLs. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but what RFC 3986 reserves for nothing (2.3).
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a name keeps its slashes.
const IN_PATH: AsciiSet = RESERVED.remove(b'/');

/// As one part of a path.
pub(super) fn as_part(name: &str) -> String {
    utf8_percent_encode(name, &RESERVED).to_string()
}

/// As the rest of a path.
pub(super) fn as_path(name: &str) -> String {
    utf8_percent_encode(name, &IN_PATH).to_string()
}

/// Whether a URL can hold it: every reader of URLs takes `.` and `..` for steps, also when they're encoded, and would
/// arrive at another object.
pub(super) fn fits_a_url(name: &str) -> bool {
    !name.split('/').any(|part| matches!(part, "." | ".."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    #[test]
    fn steps_are_no_names() {
        for name in ["..", "a/../b", "./a", "a/."] {
            assert!(!fits_a_url(name), "{name}");
        }
        for name in ["a", "a//b", "...", "a/..b", ".a", "%2e%2e/a", "", "a/"] {
            assert!(fits_a_url(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_comes_out_of_a_url_as_it_went_in(name in "[ -~é模/.%]{0,40}") {
            prop_assume!(fits_a_url(&name));
            let read = |path: &str| percent_encoding::percent_decode_str(path).decode_utf8().unwrap().into_owned();
            let url: Url = format!("http://host/root/{}", as_path(&name)).parse().unwrap();
            prop_assert_eq!(read(url.path().strip_prefix("/root/").unwrap()), &*name);
            let url: Url = format!("http://host/o/{}", as_part(&name)).parse().unwrap();
            prop_assert_eq!(url.path_segments().unwrap().count(), 2);
            prop_assert_eq!(read(url.path().strip_prefix("/o/").unwrap()), name);
        }
    }
}
