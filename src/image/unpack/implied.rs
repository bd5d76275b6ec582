use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use super::ImpliedDir;
use super::trouble::Trouble;

/// Bytes of paths that are remembered until the layer's end. A layer of a million directories has less.
const REMEMBERED: usize = 64 << 20;

/// Directories that were made because something lies in them, and that the layer hasn't described since.
#[derive(Debug, Default)]
pub(super) struct Implied {
    in_order: Vec<Vec<u8>>,
    still: HashSet<Vec<u8>>,
    remembered: usize,
}

impl Implied {
    pub(super) fn add(&mut self, path: &[u8]) -> Result<(), Trouble> {
        self.remember(path)?;
        self.in_order.push(path.to_vec());
        self.still.insert(path.to_vec());
        Ok(())
    }

    /// Counts a path that is kept until the end.
    pub(super) fn remember(&mut self, path: &[u8]) -> Result<(), Trouble> {
        self.remembered += path.len() + 64;
        if self.remembered > REMEMBERED {
            return Err(Trouble::OverLimit("more directories than can be remembered".to_owned()));
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.still.is_empty()
    }

    /// The layer describes it after all.
    pub(super) fn described(&mut self, path: &[u8]) {
        self.still.remove(path);
    }

    /// It's gone, and all below it.
    pub(super) fn removed(&mut self, path: &[u8]) {
        self.still.retain(|implied| {
            implied.strip_prefix(path).is_none_or(|rest| !rest.is_empty() && rest[0] != b'/')
        });
    }

    /// Those that are left, parents first.
    pub(super) fn take(&mut self) -> Vec<ImpliedDir> {
        let mut still = std::mem::take(&mut self.still);
        // One that was removed and implied again stands twice: the last time counts.
        let mut left = std::mem::take(&mut self.in_order);
        left.reverse();
        left.retain(|path| still.remove(path));
        left.reverse();
        left.into_iter().map(|path| ImpliedDir(PathBuf::from(OsString::from_vec(path)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_described_or_removed_is_implied_no_more() {
        let mut implied = Implied::default();
        for path in ["a", "a/b", "a/b/c", "ab", "d", "e"] {
            implied.add(path.as_bytes()).unwrap();
        }
        implied.described(b"d");
        implied.removed(b"a/b");
        implied.removed(b"e");
        implied.add(b"e").unwrap();
        let left: Vec<PathBuf> = implied.take().into_iter().map(|dir| dir.0).collect();
        assert_eq!(left, ["a", "ab", "e"].map(PathBuf::from));
    }

    #[test]
    fn paths_do_not_fill_the_memory() {
        let mut implied = Implied::default();
        let long = vec![b'a'; 4000];
        let added = (0..).take_while(|_| implied.remember(&long).is_ok()).count();
        assert!((10_000..20_000).contains(&added), "{added}");
    }
}
