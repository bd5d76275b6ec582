//! What a journal says, and how it's written down. Pure.
//!
//! A journal stands beside a file that is being fetched, and tells which of its ranges are on the disk. It's a magic
//! word and records, each with its length and a CRC-64 of length and body. The first names the file and its version;
//! every further one is a mark: ranges with the CRC-64 of their bytes, and how far the SHA-256 was. What lies behind
//! the first record that isn't whole counts for nothing. Numbers are little-endian.

use std::collections::BTreeMap;

use super::layout::PartialKey;
use crate::fetch::ALIGNMENT;
use crate::types::{ByteRange, Digest, EntryId, HASHER_STATE, Hasher};

/// Its last character is the version: of these records, and of the hash's state.
const MAGIC: &[u8; 16] = b"stoker journal 1";
const ORIGIN: u8 = 1;
const MARK: u8 = 2;
const FOUND: u8 = 3;
/// Length and CRC.
const HEAD: usize = 12;

/// A journal isn't read beyond this, nor written. At 16 MiB a range it's enough for 8 TiB.
pub(super) const LONGEST: u64 = 16 << 20;

/// Which file it is, and at which version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) key: PartialKey,
    pub(super) size: u64,
    pub(super) version: Option<String>,
    /// The entry that it was begun for; `stoker pull` has none.
    pub(super) owner: Option<EntryId>,
}

impl Origin {
    /// Whether what was begun for this may be gone on with for `other`.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (&self.key, self.size, &self.version) == (&other.key, other.size, &other.version)
    }
}

/// A range that is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) range: ByteRange,
    pub(super) crc: u64,
}

/// How far the file's SHA-256 was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hashed {
    pub(super) upto: u64,
    pub(super) state: [u8; HASHER_STATE],
}

/// What is on the disk of one file that is being fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    pub(super) origin: Origin,
    /// By start; none lies over another.
    ranges: BTreeMap<u64, Checked>,
    /// In the order in which they were written.
    states: Vec<Hashed>,
    /// All bytes before this one are on the disk.
    frontier: u64,
}

const CRC: crc_fast::CrcAlgorithm = crc_fast::CrcAlgorithm::Crc64Nvme;

/// Of the bytes of a range, and of a record.
pub(super) fn crc(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CRC, bytes)
}

/// The same, of bytes that come one after the other.
pub(super) struct Crc(crc_fast::Digest);

impl Default for Crc {
    fn default() -> Self {
        Self(crc_fast::Digest::new(CRC))
    }
}

impl Crc {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> u64 {
        self.0.finalize()
    }
}

/// Whether a range of a file of `size` bytes can be marked: only those that can be gone on with.
pub(super) fn is_markable(range: ByteRange, size: u64) -> bool {
    let aligned = |offset: u64| offset.is_multiple_of(ALIGNMENT as u64) || offset == size;
    range.end() <= size && aligned(range.start()) && aligned(range.end())
}

impl Journal {
    /// Of a file of which nothing is on the disk.
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin, ranges: BTreeMap::new(), states: Vec::new(), frontier: 0 }
    }

    /// Of which file a journal is, from its beginning alone.
    pub(super) fn read_origin(mut bytes: &[u8]) -> Option<Origin> {
        bytes = bytes.strip_prefix(MAGIC)?;
        decode_origin(next_record(&mut bytes)?)
    }

    /// Reads one; `None` where it isn't a journal, or of another version.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let mut journal = Self::new(decode_origin(next_record(&mut rest)?)?);
        while let Some(body) = next_record(&mut rest) {
            let Some((ranges, hashed)) = decode_mark(body, journal.origin.size) else { break };
            journal.add(&ranges);
            journal.states.extend(hashed);
        }
        Some(journal)
    }

    /// These ranges are on the disk. What was said of any part of them before no longer holds.
    pub(super) fn add(&mut self, ranges: &[Checked]) {
        for new in ranges {
            let before = self.ranges.range(..new.range.end()).rev();
            let over = before.take_while(|(_, old)| old.range.end() > new.range.start());
            let over: Vec<u64> = over.map(|(start, _)| *start).collect();
            for start in &over {
                self.ranges.remove(start);
            }
            if let Some(first) = over.last() {
                self.frontier = self.frontier.min(*first);
            }
            self.ranges.insert(new.range.start(), *new);
        }
        self.advance();
    }

    /// Forgets the ranges that `is_right` doesn't vouch for, and the states of the hash that took them in: what comes
    /// in their place must be hashed too.
    pub(super) fn keep_only(&mut self, mut is_right: impl FnMut(&Checked) -> bool) {
        let before = self.ranges.len();
        self.ranges.retain(|_, checked| is_right(checked));
        if self.ranges.len() < before {
            self.frontier = 0;
            self.advance();
        }
        let frontier = self.frontier;
        self.states.retain(|hashed| hashed.upto <= frontier);
    }

    fn advance(&mut self) {
        while let Some(next) = self.ranges.get(&self.frontier) {
            self.frontier = next.range.end();
        }
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = &Checked> {
        self.ranges.values()
    }

    /// The hash is so far, and all that it took in is on the disk.
    pub(super) fn reached(&mut self, hashed: Hashed) {
        self.states = vec![hashed];
    }

    /// All bytes before this one are on the disk.
    pub(super) fn frontier(&self) -> u64 {
        self.frontier
    }

    /// The hash that has taken in the most, of bytes that are all on the disk.
    pub(super) fn hashed(&self) -> (u64, Hasher) {
        let usable = self.states.iter().filter(|hashed| hashed.upto <= self.frontier);
        let best = usable.max_by_key(|hashed| hashed.upto);
        best.and_then(|best| Some((best.upto, Hasher::from_state(&best.state)?))).unwrap_or_default()
    }

    /// How many bytes the whole file has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.origin.size
    }

    /// What of it is on the disk, in order.
    pub fn marked(&self) -> impl Iterator<Item = ByteRange> {
        self.ranges.values().map(|checked| checked.range)
    }

    /// All of it anew, as the beginning of a file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = framed([&encode_origin(&self.origin)[..]]);
        let ranges: Vec<Checked> = self.ranges.values().copied().collect();
        let (upto, hasher) = self.hashed();
        let hashed = (upto > 0).then(|| Hashed { upto, state: hasher.state() });
        bytes.extend(encode_mark(&ranges, hashed.as_ref()));
        bytes
    }
}

/// One more mark, to be appended.
pub(super) fn encode_mark(ranges: &[Checked], hashed: Option<&Hashed>) -> Vec<u8> {
    let mut body = vec![MARK, u8::from(hashed.is_some())];
    if let Some(hashed) = hashed {
        body.extend(hashed.upto.to_le_bytes());
        body.extend(hashed.state);
    }
    for checked in ranges {
        body.extend(checked.range.start().to_le_bytes());
        body.extend(checked.range.end().to_le_bytes());
        body.extend(checked.crc.to_le_bytes());
    }
    let mut bytes = Vec::with_capacity(body.len() + HEAD);
    record(&mut bytes, &body);
    bytes
}

/// A journal of these records, whatever they say.
#[must_use]
pub fn framed<'a>(bodies: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bodies.into_iter().for_each(|body| record(&mut bytes, body));
    bytes
}

/// A digest that was found, to be appended to others, or as the `first` of a file of them.
pub(super) fn encode_found(first: bool, key: &PartialKey, digest: Digest) -> Vec<u8> {
    let mut body = vec![FOUND];
    body.extend(key.as_str().as_bytes());
    body.extend(digest.hex().as_bytes());
    let mut bytes = if first { MAGIC.to_vec() } else { Vec::new() };
    record(&mut bytes, &body);
    bytes
}

/// The digests in a file of them, and where the last that is whole ends; 0 where it's no such file.
pub(super) fn read_found(bytes: &[u8]) -> (Vec<(PartialKey, Digest)>, u64) {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return (Vec::new(), 0) };
    let mut found = Vec::new();
    let mut end = rest.len();
    while let Some(body) = next_record(&mut rest) {
        let Some(text) = body.strip_prefix(&[FOUND]).and_then(|text| str::from_utf8(text).ok()) else {
            break;
        };
        let Some((key, digest)) = text.split_at_checked(64) else { break };
        let (Some(key), Ok(digest)) = (PartialKey::read(key), digest.parse()) else { break };
        found.push((key, digest));
        end = rest.len();
    }
    (found, (bytes.len() - end) as u64)
}

fn decode_mark(body: &[u8], size: u64) -> Option<(Vec<Checked>, Option<Hashed>)> {
    let mut rest = body.strip_prefix(&[MARK])?;
    let hashed = match take::<1>(&mut rest)? {
        [0] => None,
        [1] => Some(Hashed {
            upto: u64::from_le_bytes(*take(&mut rest)?),
            state: *take::<HASHER_STATE>(&mut rest)?,
        }),
        _ => return None,
    };
    let mut ranges = Vec::with_capacity(rest.len() / 24);
    while !rest.is_empty() {
        let mut number = || Some(u64::from_le_bytes(*take(&mut rest)?));
        let (start, end, crc) = (number()?, number()?, number()?);
        let range = ByteRange::new(start, end).filter(|range| is_markable(*range, size))?;
        ranges.push(Checked { range, crc });
    }
    hashed.as_ref().is_none_or(|hashed| hashed.upto <= size).then_some((ranges, hashed))
}

fn encode_origin(origin: &Origin) -> Vec<u8> {
    let mut body = vec![ORIGIN];
    body.extend(origin.size.to_le_bytes());
    let owner = origin.owner.as_ref().map(EntryId::as_str);
    for text in [Some(origin.key.as_str()), origin.version.as_deref(), owner] {
        // 0 is none, so that none and an empty text are two things.
        let length = text.map_or(0, |text| u32::try_from(text.len()).unwrap_or(u32::MAX).saturating_add(1));
        body.extend(length.to_le_bytes());
        body.extend(text.unwrap_or_default().as_bytes());
    }
    body
}

fn decode_origin(body: &[u8]) -> Option<Origin> {
    let mut rest = body.strip_prefix(&[ORIGIN])?;
    let size = u64::from_le_bytes(*take(&mut rest)?);
    let mut text = || -> Option<Option<String>> {
        let Some(length) = u32::from_le_bytes(*take(&mut rest)?).checked_sub(1) else { return Some(None) };
        let (text, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        rest = after;
        Some(Some(str::from_utf8(text).ok()?.to_owned()))
    };
    let (key, version, owner) = (text()??, text()?, text()?);
    let owner = owner.map(|owner| owner.parse()).transpose().ok()?;
    let origin = Origin { key: PartialKey::read(&key)?, size, version, owner };
    rest.is_empty().then_some(origin)
}

fn record(bytes: &mut Vec<u8>, body: &[u8]) {
    // No body comes near 4 GiB: a journal ends before that.
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let checked = [&length[..], body].concat();
    bytes.extend(length);
    bytes.extend(crc(&checked).to_le_bytes());
    bytes.extend(body);
}

/// The body of the next record, if it's whole.
fn next_record<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut after = *rest;
    let length = take::<4>(&mut after)?;
    let promised = u64::from_le_bytes(*take(&mut after)?);
    let (body, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    if crc(&[&length[..], body].concat()) != promised {
        return None;
    }
    *rest = after;
    Some(body)
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
