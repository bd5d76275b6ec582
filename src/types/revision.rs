use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Digest, Hasher, RelPath};

/// Which version of an entry's bytes: of weights, SHA-256 over the sorted lines `path<TAB>size<TAB>sha256`
/// (hex), each ended by a newline; of an image, the digest that its reference points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(Digest);

impl Revision {
    /// The revision of an image whose reference points at `target` (the index's digest, where there is one).
    #[must_use]
    pub fn of_image(target: Digest) -> Self {
        Self(target)
    }

    /// The revision of these files, in whatever order they come.
    #[must_use]
    pub fn of_weights<'a>(files: impl IntoIterator<Item = (&'a RelPath, u64, Digest)>) -> Self {
        let mut lines: Vec<String> = files
            .into_iter()
            .map(|(path, size, digest)| format!("{path}\t{size}\t{}\n", digest.hex()))
            .collect();
        lines.sort_unstable();
        let mut hasher = Hasher::new();
        lines.iter().for_each(|line| hasher.update(line.as_bytes()));
        Self(hasher.finish())
    }

    /// What the node label says, and what the directory is called: the first 12 hex digits.
    #[must_use]
    pub fn short(&self) -> String {
        let mut hex = self.0.hex();
        hex.truncate(12);
        hex
    }

    /// All 64 hex digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.hex()
    }

    /// The digest behind it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_the_lines_are_as_documented() {
        let (a, b): (RelPath, RelPath) = ("a".parse().unwrap(), "b/c".parse().unwrap());
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let revision = Revision::of_weights([(&b, 2, two), (&a, 1, one)]);
        assert_eq!(revision, Revision::of_weights([(&a, 1, one), (&b, 2, two)]));
        let lines = format!("a\t1\t{}\nb/c\t2\t{}\n", one.hex(), two.hex());
        assert_eq!(revision.digest(), Digest::of(lines.as_bytes()));
        assert_eq!(revision.short(), &revision.hex()[..12]);
    }
}
