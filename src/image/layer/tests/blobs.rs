//! Blobs of all kinds that a registry may hold, and that they come out as they went in.

use std::io::Write as _;

use flate2::{Compression as Level, GzBuilder};
use proptest::prelude::*;

use super::super::blocks::BLOCK;
use super::*;

/// A tar stream (as far as the tests' sink is concerned), and how a registry has it.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub(super) compression: Compression,
    pub(super) packed: Vec<u8>,
    pub(super) plain: Vec<u8>,
}

/// Bytes like a program's: some runs, some repetitions, some noise. Always the same for a seed.
pub(super) fn sample(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = Vec::with_capacity(len + 4096);
    while bytes.len() < len {
        match random.u8(..4) {
            0 => bytes.resize(bytes.len() + random.usize(1..4000), random.u8(..)),
            1 if bytes.len() > 64 => {
                let start = random.usize(..bytes.len() - 32);
                let end = (start + random.usize(32..2000)).min(bytes.len());
                bytes.extend_from_within(start..end);
            }
            2 => bytes.extend((0..random.usize(1..500)).map(|_| random.u8(b'a'..b'i'))),
            _ => bytes.extend((0..random.usize(1..300)).map(|_| random.u8(..))),
        }
    }
    bytes.truncate(len);
    bytes
}

pub(super) fn gzip(plain: &[u8], level: u32) -> Vec<u8> {
    gzip_with(GzBuilder::new(), plain, level)
}

fn gzip_with(header: GzBuilder, plain: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = header.write(Vec::new(), Level::new(level));
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(plain: &[u8], level: i32) -> Vec<u8> {
    ::zstd::stream::encode_all(plain, level).unwrap()
}

/// Members of at most 64 KiB that say their length in an extra field, and an empty one at the end.
fn bgzf(plain: &[u8]) -> Vec<u8> {
    let member = |part: &[u8]| {
        let mut member = gzip_with(GzBuilder::new().extra(*b"BC\x02\x00\x00\x00"), part, 6);
        let length = u16::try_from(member.len() - 1).unwrap().to_le_bytes();
        member[16..18].copy_from_slice(&length);
        member
    };
    plain.chunks(0xff00).map(member).chain([member(&[])]).flatten().collect()
}

pub(super) fn gzip_blob(plain: Vec<u8>) -> Blob {
    Blob { compression: Compression::Gzip, packed: gzip(&plain, 6), plain }
}

fn comes_out(blob: &Blob, lengths: &[usize]) {
    for split in SPLITS {
        let (done, bytes) = run(blob, lengths, split);
        let done = done.unwrap();
        assert!(bytes == blob.plain, "{split:?}: {} bytes, not {}", bytes.len(), blob.plain.len());
        assert_eq!(done.inflated, blob.plain.len() as u64);
        assert_eq!(done.unpacked.entries, 7);
    }
}

fn any_blob() -> impl Strategy<Value = Blob> {
    let parts = prop::collection::vec((0..200_000_usize, any::<u64>()), 1..4);
    (parts, 0..=9_u32, 0..3_u8, any::<bool>()).prop_map(|(parts, level, kind, padded)| {
        let parts: Vec<Vec<u8>> = parts.into_iter().map(|(len, seed)| sample(len, seed)).collect();
        let plain = parts.concat();
        let (compression, mut packed) = match kind {
            0 => (Compression::Plain, plain.clone()),
            1 => (Compression::Gzip, parts.iter().flat_map(|part| gzip(part, level)).collect()),
            _ => {
                let level = i32::try_from(level).unwrap();
                (Compression::Zstd, parts.iter().flat_map(|part| zstd(part, level)).collect())
            }
        };
        if padded && compression == Compression::Gzip {
            packed.resize(packed.len() + 1000, 0);
        }
        Blob { compression, packed, plain }
    })
}

fn any_lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..200_usize, 1..200_000_usize], 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_packed_comes_out_however_it_is_cut(blob in any_blob(), lengths in any_lengths()) {
        comes_out(&blob, &lengths);
    }
}

#[test]
fn single_bytes_are_pieces_too() {
    let plain = sample(3000, 1);
    let whole = |compression, packed| Blob { compression, packed, plain: plain.clone() };
    comes_out(&whole(Compression::Plain, plain.clone()), &[1]);
    comes_out(&whole(Compression::Gzip, gzip(&plain, 9)), &[1]);
    comes_out(&whole(Compression::Zstd, zstd(&plain, 3)), &[1]);
    comes_out(&whole(Compression::Gzip, bgzf(&plain)), &[1]);
}

#[test]
fn every_gzip_header_and_every_member_counts() {
    let header =
        || GzBuilder::new().extra(vec![5; 300]).filename("layer.tar").comment("made up").mtime(1_700_000_000);
    let parts = [sample(70_000, 2), Vec::new(), sample(1, 3), sample(500_000, 4)];
    let packed = parts.iter().flat_map(|part| gzip_with(header(), part, 6)).collect();
    comes_out(&Blob { compression: Compression::Gzip, packed, plain: parts.concat() }, &[37, 90_000]);
}

#[test]
fn blocked_gzip_and_stored_blocks_come_out() {
    let plain = sample(3 << 20, 5);
    for packed in [bgzf(&plain), gzip(&plain, 0)] {
        comes_out(&Blob { compression: Compression::Gzip, packed, plain: plain.clone() }, &[1 << 20]);
    }
}

#[test]
fn streams_that_end_where_a_block_ends_come_out() {
    for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 9 * BLOCK] {
        let plain = sample(len, 6);
        comes_out(&gzip_blob(plain.clone()), &[1 << 20]);
        let (compression, packed) = (Compression::Zstd, zstd(&plain, 3));
        comes_out(&Blob { compression, packed, plain }, &[100_000]);
    }
    // What inflates to far more than it is.
    comes_out(&gzip_blob(vec![0; 20 * BLOCK]), &[1000]);
}

#[test]
fn what_follows_the_last_gzip_member_is_ignored() {
    let plain = sample(100_000, 7);
    let tails: [&[u8]; 6] = [
        &[0; 2000],
        b"garbage that is no member",
        b"\x1f",
        b"\x1f\x8b",
        b"\x1f\x8b\x08\x00\x01",
        b"\x1f\x8b\x07",
    ];
    for tail in tails {
        let packed = [&gzip(&plain, 6), tail].concat();
        comes_out(&Blob { compression: Compression::Gzip, packed, plain: plain.clone() }, &[999]);
    }
}

#[test]
fn zstd_frames_may_be_skipped_and_name_no_length() {
    let parts = [sample(70_000, 8), sample(200_000, 9)];
    let skipped = [&0x184d_2a53_u32.to_le_bytes()[..], &5_u32.to_le_bytes(), b"abcde"].concat();
    let unsized_frame = |part: &[u8]| {
        let mut encoder = ::zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    };
    let packed =
        [skipped.clone(), unsized_frame(&parts[0]), skipped.clone(), zstd(&parts[1], 19), skipped].concat();
    comes_out(&Blob { compression: Compression::Zstd, packed, plain: parts.concat() }, &[3, 10_000]);
}

#[test]
fn a_compressed_type_goes_by_the_first_bytes() {
    let plain = sample(10_000, 10);
    for said in [Compression::Gzip, Compression::Zstd] {
        for packed in [gzip(&plain, 6), zstd(&plain, 3), plain.clone()] {
            comes_out(&Blob { compression: said, packed, plain: plain.clone() }, &[2, 5000]);
        }
        for tiny in [&b""[..], b"\x1f", b"abc"] {
            comes_out(&Blob { compression: said, packed: tiny.to_vec(), plain: tiny.to_vec() }, &[1]);
        }
    }
    // An uncompressed one is what it is.
    let packed = gzip(&plain, 6);
    comes_out(&Blob { compression: Compression::Plain, packed: packed.clone(), plain: packed }, &[100]);
}
