//! The decompressors by themselves, with input and output cut anywhere.

use std::io::Write as _;

use proptest::prelude::*;

use super::*;

/// What no decompressor may touch: the bytes after the output.
const CANARY: [u8; 64] = [0xa5; 64];

fn plain() -> impl Strategy<Value = Vec<u8>> {
    let run = prop_oneof![
        (any::<u8>(), 1..3000_usize).prop_map(|(byte, len)| vec![byte; len]),
        prop::collection::vec(any::<u8>(), 1..300),
        prop::collection::vec(b'a'..b'f', 1..1000),
    ];
    prop::collection::vec(run, 0..30).prop_map(|mut runs| {
        // Something far back to refer to.
        runs.extend(runs.first().cloned());
        runs.concat()
    })
}

fn gzip(plain: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn pack(plain: &[u8], kind: Compression, level: u32) -> Vec<u8> {
    match kind {
        Compression::Plain => plain.to_vec(),
        Compression::Gzip => {
            let (first, second) = plain.split_at(plain.len() / 3);
            [gzip(first, level), gzip(second, level)].concat()
        }
        Compression::Zstd => ::zstd::stream::encode_all(plain, i32::try_from(level).unwrap()).unwrap(),
    }
}

/// Decompresses all of `packed`, so many bytes of input and of output at a time.
fn unpack(
    said: Compression,
    packed: &[u8],
    input: &[usize],
    output: &[usize],
) -> Result<Vec<u8>, InflateError> {
    let (mut inputs, mut outputs) = (input.iter().cycle(), output.iter().cycle());
    let mut inflate = Detect::new(said)?;
    let mut unpacked = Vec::new();
    let mut rest = packed;
    let mut bite = &packed[..0];
    let mut said_no_more = false;
    loop {
        let room = *outputs.next().unwrap();
        let mut block = vec![0; room];
        block.extend_from_slice(&CANARY);
        let step = inflate.step(bite, &mut block[..room])?;
        assert_eq!(block[room..], CANARY);
        assert!(step.read <= bite.len() && step.written <= room);
        unpacked.extend_from_slice(&block[..step.written]);
        bite = &bite[step.read..];
        if step.written == room {
            continue;
        }
        if !bite.is_empty() {
            assert_ne!(step, Step::default(), "it stands still");
        } else if !rest.is_empty() {
            (bite, rest) = rest.split_at((*inputs.next().unwrap()).min(rest.len()));
        } else if said_no_more {
            return inflate.end().map(|()| unpacked);
        } else {
            inflate.no_more()?;
            said_no_more = true;
        }
    }
}

fn kinds() -> impl Strategy<Value = Compression> {
    prop::sample::select(vec![Compression::Plain, Compression::Gzip, Compression::Zstd])
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![3 => 1..20_usize, 3 => 1..5000_usize, 1 => 30_000..100_000_usize], 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn cuts_change_nothing(plain in plain(), kind in kinds(), level in 0..=9_u32, input in cuts(), output in cuts()) {
        let packed = pack(&plain, kind, level);
        prop_assert!(unpack(kind, &packed, &input, &output) == Ok(plain));
    }

    #[test]
    fn damage_is_found_or_harmless_and_stays_within_the_output(
        plain in plain(),
        kind in kinds(),
        level in 0..=9_u32,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        input in cuts(),
        output in cuts(),
    ) {
        let mut packed = pack(&plain, kind, level);
        prop_assume!(!packed.is_empty());
        for (at, byte) in damage {
            let at = at.index(packed.len());
            packed[at] = byte;
        }
        // zstd without a checksum and bytes without compression say nothing of it; the digests do.
        if let Ok(unpacked) = unpack(kind, &packed, &input, &output) {
            let is_gzip = kind == Compression::Gzip && packed.starts_with(&[0x1f, 0x8b, 8]);
            prop_assert!(!is_gzip || plain.starts_with(&unpacked));
        }
    }

    #[test]
    fn any_bytes_after_a_magic_do_no_harm(
        magic in prop::sample::select(vec![&b"\x1f\x8b\x08\0\0\0\0\0\0\0"[..], b"\x28\xb5\x2f\xfd", b"\x5f\x2a\x4d\x18"]),
        rest in prop::collection::vec(any::<u8>(), 0..1000),
        input in cuts(),
        output in cuts(),
    ) {
        // What it makes of them is its own business, as long as it ends.
        let _ = unpack(Compression::Gzip, &[magic, &rest].concat(), &input, &output);
    }
}
