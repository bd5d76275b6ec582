//! The journal against a model: what is read is what was written, up to the first record that isn't whole.

use proptest::prelude::*;

use super::*;
use crate::types::Digest;

const PAGE: u64 = ALIGNMENT as u64;
/// A file that ends in the middle of a page.
const SIZE: u64 = 40 * PAGE + 17;

fn origin() -> Origin {
    Origin {
        key: PartialKey::of_digest(Digest::of(b"model")),
        size: SIZE,
        version: Some("\"e1\"".to_owned()),
        owner: Some("llama".parse().unwrap()),
    }
}

fn pages(start: u64, end: u64) -> Option<ByteRange> {
    ByteRange::new(start * PAGE, (end * PAGE).min(SIZE))
}

/// Marks as a thread makes them: their ranges in any order, also over each other.
fn marks() -> impl Strategy<Value = Vec<(Vec<Checked>, Option<Hashed>)>> {
    let checked = (0_u64..41, 1_u64..8, any::<u64>())
        .prop_filter_map("lies in the file", |(start, len, crc)| {
            Some(Checked { range: pages(start, start + len)?, crc })
        });
    let hashed = prop::option::of((0..=SIZE, any::<u8>()))
        .prop_map(|hashed| hashed.map(|(upto, byte)| Hashed { upto, state: [byte; HASHER_STATE] }));
    prop::collection::vec((prop::collection::vec(checked, 0..5), hashed), 0..8)
}

/// Which CRC each page was last marked with, if the range that marked it still holds: the same, page by page.
fn model(marks: &[(Vec<Checked>, Option<Hashed>)]) -> Vec<Option<Checked>> {
    let mut pages: Vec<Option<Checked>> = vec![None; 41];
    for new in marks.iter().flat_map(|(ranges, _)| ranges) {
        let touched =
            |page: usize| new.range.start() <= page as u64 * PAGE && (page as u64 * PAGE) < new.range.end();
        let broken: Vec<Checked> =
            (0..41).filter(|page| touched(*page)).filter_map(|page| pages[page]).collect();
        for (page, marked) in pages.iter_mut().enumerate() {
            *marked = marked.filter(|old| !broken.contains(old));
            if touched(page) {
                *marked = Some(*new);
            }
        }
    }
    pages
}

fn assert_is(journal: &Journal, marks: &[(Vec<Checked>, Option<Hashed>)]) {
    let wanted = model(marks);
    let mut seen: Vec<Option<Checked>> = vec![None; 41];
    for checked in journal.ranges() {
        for page in checked.range.start() / PAGE..checked.range.end().div_ceil(PAGE) {
            assert_eq!(seen[page as usize].replace(*checked), None, "one over the other");
        }
    }
    assert_eq!(seen, wanted);
    let gapless = wanted.iter().take_while(|page| page.is_some()).count() as u64;
    assert_eq!(journal.frontier(), (gapless * PAGE).min(SIZE));
    let (upto, hasher) = journal.hashed();
    let usable =
        marks.iter().filter_map(|(_, hashed)| *hashed).filter(|hashed| hashed.upto <= journal.frontier());
    assert_eq!(upto, usable.clone().map(|hashed| hashed.upto).max().unwrap_or(0));
    assert!(upto == 0 || usable.clone().any(|hashed| hashed.state == hasher.state()));
}

/// A whole journal, and where each record ends.
fn written(marks: &[(Vec<Checked>, Option<Hashed>)]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Journal::new(origin()).encode();
    let mut ends = vec![bytes.len()];
    for (ranges, hashed) in marks {
        bytes.extend(encode_mark(ranges, hashed.as_ref()));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// Hash states must be ones that a hasher gives.
fn real_states(mut marks: Vec<(Vec<Checked>, Option<Hashed>)>) -> Vec<(Vec<Checked>, Option<Hashed>)> {
    for (_, hashed) in &mut marks {
        if let Some(hashed) = hashed {
            let mut hasher = Hasher::new();
            hasher.update(&hashed.upto.to_le_bytes());
            hashed.state = hasher.state();
        }
    }
    marks
}

proptest! {
    #[test]
    fn what_was_written_is_read(marks in marks()) {
        let marks = real_states(marks);
        let (bytes, _) = written(&marks);
        let journal = Journal::read(&bytes).unwrap();
        assert_eq!(journal.origin, origin());
        assert_is(&journal, &marks);
        assert_eq!(Journal::read_origin(&bytes), Some(origin()));
        // Written anew it says the same of ranges and hash.
        let again = Journal::read(&journal.encode()).unwrap();
        assert!(again.ranges().eq(journal.ranges()));
        assert_eq!(again.hashed().0, journal.hashed().0);
        assert_eq!(again.hashed().1.state(), journal.hashed().1.state());
    }

    #[test]
    fn a_torn_tail_counts_for_nothing_and_what_is_before_it_stands(
        marks in marks(),
        cut in 0.0..1.0_f64,
        behind in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let marks = real_states(marks);
        let (whole, ends) = written(&marks);
        let bytes = &whole[..(whole.len() as f64 * cut) as usize];
        for torn in [bytes.to_vec(), [bytes, &behind].concat(), [bytes, &[0; 4096]].concat()] {
            // What lies behind may happen to be the last bytes that the cut took: then the record is whole.
            let stands = torn.iter().zip(&whole).take_while(|(torn, whole)| torn == whole).count();
            let records = ends.iter().filter(|end| **end <= stands).count();
            match Journal::read(&torn) {
                None => assert_eq!(records, 0),
                Some(journal) => assert_is(&journal, &marks[..records.saturating_sub(1)]),
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_never_believed(marks in marks(), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let marks = real_states(marks);
        let (mut bytes, ends) = written(&marks);
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let before = ends.iter().filter(|end| **end <= at).count();
        match Journal::read(&bytes) {
            None => assert_eq!(before, 0),
            Some(journal) => assert_is(&journal, &marks[..before.saturating_sub(1)]),
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        assert_eq!(Journal::read(&bytes), None);
        assert_eq!(Journal::read(&[&MAGIC[..], &bytes].concat()), None);
    }

    #[test]
    fn what_is_wrong_on_the_disk_takes_the_hash_back_before_it(marks in marks(), wrong in any::<prop::sample::Index>()) {
        let mut journal = Journal::read(&written(&real_states(marks)).0).unwrap();
        let before: Vec<Checked> = journal.ranges().copied().collect();
        prop_assume!(!before.is_empty());
        let wrong = before[wrong.index(before.len())];
        journal.keep_only(|checked| *checked != wrong);
        assert!(journal.ranges().eq(before.iter().filter(|checked| **checked != wrong)));
        assert!(journal.hashed().0 <= journal.frontier());
        assert!(journal.frontier() <= wrong.range.start() || journal.frontier() >= wrong.range.end());
        if wrong.range.start() <= journal.frontier() {
            assert!(journal.frontier() <= wrong.range.start());
        }
    }
}

#[test]
fn another_version_size_or_key_is_another_file_and_another_owner_is_not() {
    let here = origin();
    assert!(here.is_same_file(&Origin { owner: None, ..origin() }));
    let others = [
        Origin { version: Some("\"e2\"".to_owned()), ..origin() },
        Origin { version: None, ..origin() },
        Origin { version: Some(String::new()), ..origin() },
        Origin { size: SIZE + 1, ..origin() },
        Origin { key: PartialKey::of_digest(Digest::of(b"x")), ..origin() },
    ];
    for other in others {
        assert!(!here.is_same_file(&other), "{other:?}");
        let read = Journal::read(&Journal::new(other.clone()).encode()).unwrap();
        assert_eq!(read.origin, other);
    }
}

#[test]
fn ranges_that_no_file_has_end_a_journal() {
    let first = Checked { range: pages(0, 1).unwrap(), crc: 1 };
    let second = Checked { range: pages(1, 2).unwrap(), crc: 2 };
    for (start, end) in [(PAGE + 1, 2 * PAGE), (PAGE, 2 * PAGE - 1), (40 * PAGE, SIZE + 1), (0, u64::MAX)] {
        let odd = Checked { range: ByteRange::new(start, end).unwrap(), crc: 3 };
        let mut bytes = Journal::new(origin()).encode();
        bytes.extend(encode_mark(&[first], None));
        bytes.extend(encode_mark(&[second, odd], None));
        bytes.extend(encode_mark(&[second], None));
        let journal = Journal::read(&bytes).unwrap();
        assert!(journal.ranges().eq([&first]), "{odd:?}");
    }
}

#[test]
fn a_crc_in_pieces_is_the_crc_at_once() {
    let bytes: Vec<u8> = (0..10_000_u32).map(|i| (i % 251) as u8).collect();
    let mut pieces = Crc::default();
    bytes.chunks(77).for_each(|piece| pieces.update(piece));
    assert_eq!(pieces.finish(), crc(&bytes));
    // The check value of CRC-64/NVME.
    assert_eq!(crc(b"123456789"), 0xae8b_1486_0a79_9888);
}
