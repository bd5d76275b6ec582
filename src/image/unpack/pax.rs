//! PAX extended headers: records of `length key=value` (POSIX, `pax`, "pax Extended Header").

use std::collections::BTreeMap;

use super::number::decimal;
use super::trouble::Trouble;

/// The records of one extended header; of two with one key the later counts. Values may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

const XATTR: &[u8] = b"SCHILY.xattr.";

/// GNU's sparse files, version 0.0, say their map in repeated records; 0.1 in one.
const OFFSET: &[u8] = b"GNU.sparse.offset";
const LENGTH: &[u8] = b"GNU.sparse.numbytes";
pub(super) const MAP: &str = "GNU.sparse.map";

impl Records {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, Trouble> {
        let mut records = BTreeMap::new();
        let mut map: Vec<&[u8]> = Vec::new();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes)
                .ok_or_else(|| Trouble::malformed("its extended header has a record that isn't one"))?;
            bytes = rest;
            if key == OFFSET || key == LENGTH {
                let wanted = if map.len().is_multiple_of(2) { OFFSET } else { LENGTH };
                if key != wanted || value.contains(&b',') {
                    return Err(Trouble::malformed("its map of a sparse file is out of order"));
                }
                map.push(value);
            } else {
                records.insert(key.to_vec(), value.to_vec());
            }
        }
        if !map.is_empty() {
            records.insert(MAP.into(), map.join(&b','));
        }
        Ok(Self(records))
    }

    /// A value that is there and not empty: an empty one leaves what the header itself says.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    /// The same, as a number.
    pub(super) fn number(&self, key: &str) -> Result<Option<i64>, Trouble> {
        self.get(key).map(decimal).transpose()
    }

    /// Extended attributes by name; their values may be empty. Those of the administrator (`trusted.`), among them what
    /// overlayfs says with, aren't a layer's to set.
    pub(super) fn into_xattrs(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let xattr = |(key, value): (Vec<u8>, _)| {
            let name = key.strip_prefix(XATTR)?;
            (!name.starts_with(b"trusted.")).then(|| (name.to_vec(), value))
        };
        self.0.into_iter().filter_map(xattr).collect()
    }
}

/// The first record, as key, value and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space]).ok()?).ok()?;
    if length < 5 || length <= space + 1 || length > bytes.len() {
        return None;
    }
    let (record, rest) = bytes.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    let text = match key {
        b"path" | b"linkpath" | b"uname" | b"gname" => value,
        _ => key,
    };
    (!key.is_empty() && !text.contains(&0)).then_some((key, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> Option<Vec<(String, String)>> {
        let show = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let records = Records::parse(text).ok()?;
        Some(records.0.into_iter().map(|(key, value)| (show(key), show(value))).collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn records_are_read_and_the_later_of_two_counts() {
        assert_eq!(parsed(b""), pairs(&[]));
        assert_eq!(parsed(b"8 k=a=b\n7 l=\na\n"), pairs(&[("k", "a=b"), ("l", "\na")]));
        assert_eq!(parsed(b"6 k=1\n6 k=2\n5 l=\n"), pairs(&[("k", "2"), ("l", "")]));
        assert_eq!(parsed(b"+6 k=\n"), pairs(&[("k", "")]));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for text in [
            &b"6"[..],
            b"6 ",
            b" k=1\n",
            b"7 k=1\n",
            b"5 k=1\n",
            b"6 k 1\n",
            b"5 =1\n",
            b"0 k=1\n",
            b"-6 k=1\n",
            b"99999999999999999999 k=1\n",
            b"6 k=1x",
            b"6 \0=1\n",
            b"11 path=a\0b\n",
            b"6 k=1\n\0",
        ] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
        assert!(Records::parse(b"8 x=a\0b\n").is_ok(), "only names must be free of NUL");
    }

    #[test]
    fn the_map_of_version_0_0_becomes_that_of_0_1() {
        let text = b"23 GNU.sparse.offset=1\n25 GNU.sparse.numbytes=2\n23 GNU.sparse.offset=5\n25 GNU.sparse.numbytes=1\n";
        assert_eq!(parsed(text), pairs(&[(MAP, "1,2,5,1")]));
        assert_eq!(parsed(b"25 GNU.sparse.numbytes=2\n"), None);
        assert_eq!(parsed(b"23 GNU.sparse.offset=1\n23 GNU.sparse.offset=5\n"), None);
        assert_eq!(parsed(b"25 GNU.sparse.offset=1,2\n"), None);
    }
}
