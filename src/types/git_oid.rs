use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha1::Digest as _;

/// git's name for an object: a commit, or the bytes of a file. 40 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitOid([u8; 20]);

/// Text that is not git's name for anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a git object's name: {0:?} (40 lower-case hex digits)")]
pub struct InvalidGitOid(String);

impl GitOid {
    /// 40 lower-case hex digits.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(40), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// Computes the [`GitOid`] of a file's bytes while they pass, in order: SHA-1 over the word `blob`, a space, the length
/// in decimal, a zero byte, and the bytes (gitformat-pack(5), git-hash-object(1)).
#[derive(Debug, Clone)]
pub struct GitHasher(sha1::Sha1);

impl GitHasher {
    /// For a file of `size` bytes, of which none has been seen yet.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let mut hash = sha1::Sha1::new();
        hash.update(format!("blob {size}\0").as_bytes());
        Self(hash)
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The name of all that was taken in.
    #[must_use]
    pub fn finish(self) -> GitOid {
        GitOid(self.0.finalize().into())
    }
}

impl FromStr for GitOid {
    type Err = InvalidGitOid;

    fn from_str(text: &str) -> Result<Self, InvalidGitOid> {
        let invalid = || InvalidGitOid(text.chars().take(60).collect());
        if text.len() != 40 {
            return Err(invalid());
        }
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 20];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return Err(invalid()) };
            *byte = nibble(*high).zip(nibble(*low)).map(|(high, low)| high << 4 | low).ok_or_else(invalid)?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for GitOid {
    type Error = InvalidGitOid;

    fn try_from(text: String) -> Result<Self, InvalidGitOid> {
        text.parse()
    }
}

impl From<GitOid> for String {
    fn from(oid: GitOid) -> Self {
        oid.hex()
    }
}

impl fmt::Display for GitOid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for GitOid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> String {
        let mut hasher = GitHasher::new(bytes.len() as u64);
        bytes.chunks(3).for_each(|piece| hasher.update(piece));
        hasher.finish().to_string()
    }

    #[test]
    fn files_have_the_names_that_git_gives_them() {
        assert_eq!(of(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(of(b"what is up, doc?"), "bd9dbf5aae1a3862dd1526723246b20206e5fc37");
    }

    #[test]
    fn only_forty_lower_case_digits_are_a_name() {
        let name = "bd9dbf5aae1a3862dd1526723246b20206e5fc37";
        assert_eq!(name.parse::<GitOid>().unwrap().hex(), name);
        for text in
            ["", "main", &name[1..], &format!("{name}0"), &name.to_uppercase(), &name.replace('b', "é")]
        {
            assert!(text.parse::<GitOid>().is_err(), "{text}");
        }
    }
}
