use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use sha2::digest::common::hazmat::SerializableState as _;

/// A SHA-256 digest. Written `sha256:<64 lower-case hex digits>` (OCI image spec, descriptor.md).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Text that is not a SHA-256 digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 digest: {0:?} (write 64 hex digits, with or without \"sha256:\" before them)")]
pub struct InvalidDigest(String);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Wraps the 32 bytes of a digest that was computed elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits, without the `sha256:`.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// Bytes in a [`Hasher::state`].
pub const HASHER_STATE: usize = 104;

/// Computes a [`Digest`] while the bytes pass, in order.
#[derive(Debug, Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// A hasher that has seen no bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// How far it is, to go on from there in another process. Its form is the `sha2` crate's own: a test holds it,
    /// because what was stored must be read again by the next version.
    #[must_use]
    pub fn state(&self) -> [u8; HASHER_STATE] {
        self.0.serialize().into()
    }

    /// A hasher that goes on from a [`state`](Self::state); `None` where it is none.
    #[must_use]
    pub fn from_state(state: &[u8; HASHER_STATE]) -> Option<Self> {
        sha2::Sha256::deserialize(&(*state).into()).ok().map(Self)
    }

    /// The digest of all that was taken in.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Accepts `sha256:<hex>` and bare hex, in either case.
impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest(text.chars().take(100).collect());
        let hex = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        if hex.len() != 64 {
            return Err(invalid());
        }
        let nibble = |digit: u8| (digit as char).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let (high, low) = nibble(pair[0]).zip(nibble(pair[1])).ok_or_else(invalid)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn both_spellings_are_the_same_digest() {
        assert_eq!(EMPTY.parse(), Ok(Digest::of(b"")));
        assert_eq!(format!("sha256:{}", EMPTY.to_uppercase()).parse(), Ok(Digest::of(b"")));
        assert_eq!(Digest::of(b"").to_string(), format!("sha256:{EMPTY}"));
    }

    #[test]
    fn what_is_not_a_digest_is_refused() {
        for text in ["", "sha256:", "sha512:00", &EMPTY[1..], &format!("{EMPTY}0"), &EMPTY.replace('e', "é")]
        {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_stored_state_goes_on_where_it_was() {
        for cut in [0, 1, 3, 63, 64, 65, 150] {
            let bytes: Vec<u8> = (0..150).collect();
            let mut hasher = Hasher::new();
            hasher.update(&bytes[..cut]);
            let mut again = Hasher::from_state(&hasher.state()).unwrap();
            again.update(&bytes[cut..]);
            assert_eq!(again.finish(), Digest::of(&bytes), "cut at {cut}");
        }
    }

    /// Journals on disks hold states. If this fails, the form has changed: raise the journal's version
    /// (`weights/journal.rs`), so that the old ones are begun again and not misread.
    #[test]
    fn the_form_of_a_state_is_the_one_that_is_on_disks() {
        let mut hasher = Hasher::new();
        hasher.update(&[7; 100]);
        assert_eq!(
            Digest::of(&hasher.state()).hex(),
            "acbac54c74113bdccb8f389f4a9101098a601e6606f321474560670f828095de"
        );
    }

    #[test]
    fn hashing_in_pieces_is_hashing_at_once() {
        let mut hasher = Hasher::new();
        hasher.update(b"sto");
        hasher.update(b"ker");
        assert_eq!(hasher.finish(), Digest::of(b"stoker"));
    }
}
