use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::SourceError;
use super::body::Cut;
use super::ranged::Sent;
use crate::types::ByteRange;

/// Answers in a row without the range that was asked for, after which a server that has served ranges is believed not to.
const BELIEVED: u32 = 3;

/// Whether a server answers a range of one blob with that range, as far as its answers have shown. One that has, and then
/// sends all of the blob, may be another machine behind the same name, or a cache on the way: it's asked again, rather
/// than that all the rest be read as one stream.
#[derive(Debug)]
pub(super) struct ServesRanges {
    serves: AtomicBool,
    has_served: AtomicBool,
    ignored: AtomicU32,
}

impl ServesRanges {
    /// `serves` is what is believed before the first answer.
    pub(super) fn new(serves: bool) -> Self {
        Self {
            serves: AtomicBool::new(serves),
            has_served: AtomicBool::new(false),
            ignored: AtomicU32::new(0),
        }
    }

    pub(super) fn get(&self) -> bool {
        self.serves.load(Relaxed)
    }

    /// What of an answer's body `range` is, of a blob of `size` bytes.
    ///
    /// # Errors
    /// When it's all of the blob, and the server is to be asked again.
    pub(super) fn cut(
        &self,
        sent: Sent,
        range: ByteRange,
        size: u64,
        origin: &str,
    ) -> Result<Cut, SourceError> {
        match sent {
            _ if range.len() == size => Ok(Cut::NONE),
            Sent::Part => {
                self.has_served.store(true, Relaxed);
                self.ignored.store(0, Relaxed);
                Ok(Cut::NONE)
            }
            Sent::Whole => {
                let ignored = self.ignored.fetch_add(1, Relaxed) + 1;
                if self.has_served.load(Relaxed) && ignored < BELIEVED {
                    let cause =
                        "it sent all of a file where a range was asked for, as it has sent before".into();
                    return Err(SourceError::Broken { origin: origin.to_owned(), cause });
                }
                self.serves.store(false, Relaxed);
                Ok(Cut::of(range))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(server: &ServesRanges, sent: Sent) -> bool {
        server.cut(sent, ByteRange::new(2, 4).unwrap(), 10, "h:1").is_ok()
    }

    #[test]
    fn a_server_that_never_served_a_range_is_believed_at_once() {
        let server = ServesRanges::new(true);
        assert!(ask(&server, Sent::Whole) && !server.get());
    }

    #[test]
    fn one_that_has_is_asked_again_unless_it_has_changed() {
        let server = ServesRanges::new(true);
        for _ in 0..4 {
            assert!(ask(&server, Sent::Part));
            assert!(!ask(&server, Sent::Whole) && !ask(&server, Sent::Whole));
            assert!(server.get());
        }
        assert!(ask(&server, Sent::Whole) && !server.get());
    }

    #[test]
    fn all_of_it_where_all_was_asked_for_says_nothing() {
        let server = ServesRanges::new(true);
        let all = ByteRange::new(0, 10).unwrap();
        assert!(server.cut(Sent::Whole, all, 10, "h:1").is_ok() && server.get());
    }
}
