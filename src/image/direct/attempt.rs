use crate::image::ImageError;
use crate::types::ErrorKind;

/// A layer that didn't come right is fetched this often in all.
const MOST: u32 = 3;

/// One try to fetch a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    number: u32,
    pub(super) from: Whence,
}

/// Which hosts a layer is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whence {
    /// Whichever answers, mirrors first.
    AnyHost,
    /// No mirror.
    RegistryItself,
}

impl Attempt {
    pub(super) const FIRST: Self = Self { number: 1, from: Whence::AnyHost };

    /// The next try after one that ended with `error`; `None` where another is of no use.
    ///
    /// Wrong bytes are mostly a mirror's, which would send them again, so the registry itself is asked next. Where that
    /// can't be had, the mirror's next answer is the best there is.
    pub(super) fn after(self, error: &ImageError, has_mirrors: bool) -> Option<Self> {
        if self.number == MOST {
            return None;
        }
        let from = match (error.kind(), self.from) {
            (ErrorKind::Corrupt, _) if has_mirrors => Whence::RegistryItself,
            (ErrorKind::Corrupt, from) => from,
            (_, Whence::RegistryItself) if matches!(error, ImageError::Fetch { .. }) => Whence::AnyHost,
            _ => return None,
        };
        Some(Self { number: self.number + 1, from })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::FetchError;
    use crate::image::layer::LayerError;
    use crate::source::SourceError;
    use crate::types::Digest;

    fn corrupt() -> ImageError {
        let [wanted, found] = [Digest::of(b"wanted"), Digest::of(b"found")];
        let cause = Box::new(LayerError::BlobDigest { wanted, found });
        ImageError::Layer { image: "app".to_owned(), layer: wanted, cause }
    }

    fn away() -> ImageError {
        let refused = SourceError::Protocol { what: "registry".to_owned(), problem: "nonsense".to_owned() };
        let cause = Box::new(FetchError::Source(refused));
        ImageError::Fetch { image: "app".to_owned(), layer: Digest::of(b"wanted"), cause }
    }

    fn whences(errors: &[ImageError], has_mirrors: bool) -> Vec<Whence> {
        let next = |at: &Attempt, error| at.after(error, has_mirrors);
        let tries = errors.iter().scan(Attempt::FIRST, |at, error| {
            *at = next(at, error)?;
            Some(at.from)
        });
        tries.collect()
    }

    #[test]
    fn wrong_bytes_are_not_asked_of_the_mirror_again_while_the_registry_answers() {
        use Whence::{AnyHost, RegistryItself};
        assert_eq!(whences(&[corrupt(), corrupt(), corrupt()], true), [RegistryItself, RegistryItself]);
        assert_eq!(whences(&[corrupt(), away(), corrupt()], true), [RegistryItself, AnyHost]);
        assert_eq!(whences(&[corrupt(), corrupt(), corrupt()], false), [AnyHost, AnyHost]);
    }

    #[test]
    fn what_isnt_mended_by_other_bytes_is_not_tried_again() {
        assert_eq!(whences(&[away()], true), []);
        assert_eq!(whences(&[corrupt(), ImageError::Stopped], true).len(), 1);
    }
}
