use std::collections::{BTreeMap, BTreeSet};

use crate::types::ByteRange;

/// Which range of one blob goes next. Pure: no I/O, no clock, no memory of why something failed.
///
/// Every byte is in one state: not yet handed out, travelling (handed out to exactly one worker), completed.
/// Ranges are handed out lowest first, and none reaches further than `window` bytes ahead of the reader who takes
/// the bytes in order. How long they are may change on the way.
#[derive(Debug)]
pub struct Schedule {
    size: u64,
    range: u64,
    window: u64,
    /// The server stores it in parts of so many bytes.
    part: Option<u64>,
    /// Everything from here on was never handed out. It never stands where something kept begins.
    fresh: u64,
    /// What came in an earlier fetch and lies behind `fresh`: end by start.
    kept: BTreeMap<u64, u64>,
    /// What broken ranges left over. All of it lies before `fresh`.
    left: BTreeSet<ByteRange>,
    /// By start.
    travelling: BTreeMap<u64, ByteRange>,
    completed: u64,
    consumed: u64,
}

impl Schedule {
    /// For a blob of `size` bytes, in ranges of `range` bytes. A `window` shorter than a range counts as one
    /// range, or nothing could ever move.
    #[must_use]
    pub fn new(size: u64, range: u64, window: u64) -> Self {
        let range = range.max(1);
        Self {
            size,
            range,
            window: window.max(range),
            part: None,
            fresh: 0,
            kept: BTreeMap::new(),
            left: BTreeSet::new(),
            travelling: BTreeMap::new(),
            completed: 0,
            consumed: 0,
        }
    }

    /// These ranges came in an earlier fetch, and none lies over another: they are completed. Said before the first
    /// range is handed out.
    pub fn keep(&mut self, ranges: &[ByteRange]) {
        for range in ranges {
            self.kept.insert(range.start(), range.end());
            self.completed += range.len();
        }
        self.skip_kept();
    }

    fn skip_kept(&mut self) {
        while let Some(end) = self.kept.remove(&self.fresh) {
            self.fresh = end;
        }
    }

    /// The server stores the blob in parts of so many bytes: no range goes over an end of one, unless it begins and
    /// ends with a part.
    #[must_use]
    pub fn in_parts_of(self, part: Option<u64>) -> Self {
        Self { part: part.filter(|part| *part > 0), ..self }
    }

    /// From now on ranges are as long as this, and go this far ahead of the reader. What was handed out stays.
    pub fn reach(&mut self, range: u64, window: u64) {
        self.range = range.max(1);
        self.window = window.max(self.range);
    }

    /// The range that [`Schedule::hand_out`] would give, or `None` while there is none within the window.
    #[must_use]
    pub fn peek(&self) -> Option<ByteRange> {
        if let Some(range) = self.left.first() {
            return Some(*range);
        }
        let end = self.fresh_end();
        if end > self.consumed.saturating_add(self.window) {
            return None;
        }
        ByteRange::new(self.fresh, end)
    }

    fn fresh_end(&self) -> u64 {
        let gap = self.kept.first_key_value().map_or(self.size, |(start, _)| *start);
        let end = self.fresh.saturating_add(self.range).min(gap);
        let Some(part) = self.part else { return end };
        match self.fresh % part {
            // What is left before a gap's end may be more than a part, but no more than a range.
            0 if end < gap => Some(end / part * part).filter(|end| *end > self.fresh).unwrap_or(end),
            0 => end,
            begun => end.min((self.fresh - begun).saturating_add(part)),
        }
    }

    /// The next range for a worker, which owes a [`Schedule::completed`] or a [`Schedule::failed`] for it.
    pub fn hand_out(&mut self) -> Option<ByteRange> {
        let range = self.peek()?;
        if !self.left.remove(&range) {
            self.fresh = range.end();
            self.skip_kept();
        }
        self.travelling.insert(range.start(), range);
        Some(range)
    }

    /// All of `range`, which was handed out, has come.
    pub fn completed(&mut self, range: ByteRange) {
        self.failed(range, range.len());
    }

    /// Only the first `got` bytes of `range`, which was handed out, have come: the rest goes back, before all that
    /// lies behind it.
    pub fn failed(&mut self, range: ByteRange, got: u64) {
        // A range that isn't travelling has been answered for already.
        if self.travelling.get(&range.start()) != Some(&range) {
            return;
        }
        self.travelling.remove(&range.start());
        self.completed += got.min(range.len());
        self.left.extend(range.after(got));
    }

    /// The reader has taken all bytes before `upto`, so the window moves on.
    pub fn consumed(&mut self, upto: u64) {
        self.consumed = self.consumed.max(upto.min(self.size));
    }

    /// Whether every byte has come.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.completed == self.size
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end).unwrap()
    }

    #[test]
    fn ranges_go_out_in_order_and_the_last_is_short() {
        let mut schedule = Schedule::new(25, 10, 100);
        let handed: Vec<_> = std::iter::from_fn(|| schedule.hand_out()).collect();
        assert_eq!(handed, [range(0, 10), range(10, 20), range(20, 25)]);
    }

    #[test]
    fn only_the_rest_of_a_broken_range_goes_out_again_and_first() {
        let mut schedule = Schedule::new(30, 10, 100);
        let first = schedule.hand_out().unwrap();
        schedule.failed(first, 4);
        assert_eq!(schedule.hand_out(), Some(range(4, 10)));
        assert_eq!(schedule.hand_out(), Some(range(10, 20)));
    }

    #[test]
    fn nothing_starts_beyond_the_window_until_the_reader_moves() {
        let mut schedule = Schedule::new(100, 10, 20);
        assert_eq!(schedule.hand_out(), Some(range(0, 10)));
        assert_eq!(schedule.hand_out(), Some(range(10, 20)));
        assert_eq!(schedule.hand_out(), None);
        schedule.completed(range(0, 10));
        assert_eq!(schedule.hand_out(), None);
        schedule.consumed(10);
        assert_eq!(schedule.hand_out(), Some(range(20, 30)));
    }

    #[test]
    fn what_was_kept_is_stepped_over() {
        let mut schedule = Schedule::new(100, 10, 1000);
        schedule.keep(&[range(0, 15), range(15, 20), range(33, 90)]);
        let handed: Vec<_> = std::iter::from_fn(|| schedule.hand_out()).collect();
        assert_eq!(handed, [range(20, 30), range(30, 33), range(90, 100)]);
        handed.into_iter().for_each(|range| schedule.completed(range));
        assert!(schedule.is_done());
    }

    #[test]
    fn ranges_end_where_stored_parts_end() {
        let handed = |size, range, part| -> Vec<(u64, u64)> {
            let mut schedule = Schedule::new(size, range, 1000).in_parts_of(Some(part));
            std::iter::from_fn(|| schedule.hand_out()).map(|range| (range.start(), range.end())).collect()
        };
        assert_eq!(handed(50, 25, 10), [(0, 20), (20, 40), (40, 50)]);
        assert_eq!(
            handed(45, 7, 10),
            [(0, 7), (7, 10), (10, 17), (17, 20), (20, 27), (27, 30), (30, 37), (37, 40), (40, 45)]
        );
        assert_eq!(handed(25, 10, 10), [(0, 10), (10, 20), (20, 25)]);
        assert_eq!(handed(25, 10, 0), [(0, 10), (10, 20), (20, 25)]);
        let mut schedule = Schedule::new(100, 4, 1000).in_parts_of(Some(10));
        assert_eq!(schedule.hand_out(), Some(range(0, 4)));
        schedule.reach(30, 1000);
        assert_eq!(schedule.hand_out(), Some(range(4, 10)), "the rest of a part");
        assert_eq!(schedule.hand_out(), Some(range(10, 40)));
    }

    #[test]
    fn an_empty_blob_is_done_at_once() {
        let mut schedule = Schedule::new(0, 10, 10);
        assert!(schedule.is_done());
        assert_eq!(schedule.hand_out(), None);
    }

    #[test]
    fn a_second_answer_for_a_range_counts_for_nothing() {
        let mut schedule = Schedule::new(20, 10, 100);
        let first = schedule.hand_out().unwrap();
        schedule.completed(first);
        schedule.completed(first);
        schedule.failed(range(10, 20), 10);
        assert!(!schedule.is_done());
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Byte {
        Waiting,
        Travelling,
        Completed,
    }

    /// The same thing, byte by byte, and too slow to use.
    struct Model {
        bytes: Vec<Byte>,
        consumed: usize,
        /// No byte from here on was ever handed out. What breaks goes out again even if the window was shortened.
        reached: usize,
    }

    impl Model {
        fn of(&mut self, range: ByteRange) -> &mut [Byte] {
            &mut self.bytes[range.start() as usize..range.end() as usize]
        }

        fn consume(&mut self) {
            while self.bytes.get(self.consumed) == Some(&Byte::Completed) {
                self.consumed += 1;
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Act {
        HandOut,
        Complete(usize),
        Fail(usize, u64),
        Consume,
        Reach(u64, u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => Just(Act::HandOut),
            2 => any::<usize>().prop_map(Act::Complete),
            2 => (any::<usize>(), 0_u64..40).prop_map(|(which, got)| Act::Fail(which, got)),
            1 => Just(Act::Consume),
            1 => (0_u64..40, 0_u64..120).prop_map(|(range, window)| Act::Reach(range, window)),
        ]
    }

    /// Hands out one range and holds it against the model.
    fn hand_out(schedule: &mut Schedule, model: &mut Model, window: u64) -> Option<ByteRange> {
        let peeked = schedule.peek();
        let range = schedule.hand_out();
        assert_eq!(peeked, range);
        let range = range?;
        assert!(model.of(range).iter().all(|byte| *byte == Byte::Waiting), "{range:?} went out twice");
        let is_fresh = range.end() as usize > model.reached;
        assert!(!is_fresh || range.end() <= model.consumed as u64 + window, "{range:?} is beyond the window");
        model.reached = model.reached.max(range.end() as usize);
        let before = &model.bytes[..range.start() as usize];
        assert!(!before.contains(&Byte::Waiting), "{range:?} went out before what lies in front of it");
        model.of(range).fill(Byte::Travelling);
        Some(range)
    }

    proptest! {
        #[test]
        fn it_does_what_a_map_of_bytes_does(
            size in 0_u64..300,
            range in 1_u64..40,
            window in 1_u64..120,
            kept in prop::collection::vec((0_u64..60, 1_u64..60), 0..6),
            part in prop::option::of(0_u64..60),
            acts in prop::collection::vec(act(), 0..200),
        ) {
            let mut schedule = Schedule::new(size, range, window).in_parts_of(part);
            let mut window = window.max(range);
            let mut model = Model { bytes: vec![Byte::Waiting; size as usize], consumed: 0, reached: 0 };
            let mut kept_ranges = Vec::new();
            for (gap, len) in kept {
                let start = kept_ranges.last().map_or(0, |last: &ByteRange| last.end()) + gap;
                kept_ranges.extend(ByteRange::new(start, (start + len).min(size)));
            }
            schedule.keep(&kept_ranges);
            kept_ranges.iter().for_each(|range| model.of(*range).fill(Byte::Completed));
            let mut out: Vec<ByteRange> = Vec::new();
            // Whatever happened before, workers that now succeed must bring it to its end.
            let finish = std::iter::repeat_n([Act::HandOut, Act::Complete(0), Act::Consume], 700);
            for act in acts.into_iter().chain(finish.flatten()) {
                match act {
                    Act::HandOut => out.extend(hand_out(&mut schedule, &mut model, window)),
                    Act::Complete(which) if !out.is_empty() => {
                        let range = out.swap_remove(which % out.len());
                        schedule.completed(range);
                        model.of(range).fill(Byte::Completed);
                    }
                    Act::Fail(which, got) if !out.is_empty() => {
                        let range = out.swap_remove(which % out.len());
                        schedule.failed(range, got);
                        let got = got.min(range.len()) as usize;
                        let bytes = model.of(range);
                        bytes[..got].fill(Byte::Completed);
                        bytes[got..].fill(Byte::Waiting);
                    }
                    Act::Consume => {
                        model.consume();
                        schedule.consumed(model.consumed as u64);
                    }
                    Act::Reach(range, ahead) => {
                        schedule.reach(range, ahead);
                        window = ahead.max(range).max(1);
                    }
                    Act::Complete(_) | Act::Fail(..) => {}
                }
                prop_assert_eq!(schedule.is_done(), model.bytes.iter().all(|b| *b == Byte::Completed));
            }
            prop_assert!(schedule.is_done());
            prop_assert_eq!(schedule.hand_out(), None);
        }
    }
}
