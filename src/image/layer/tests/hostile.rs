//! Damaged, cut and lying blobs: each is an error, and none hangs or kills anything.

use proptest::prelude::*;

use super::blobs::{gzip, gzip_blob, sample, zstd};
use super::*;

fn blob(compression: Compression) -> Blob {
    let plain = sample(60_000, 1);
    let packed = match compression {
        Compression::Plain => plain.clone(),
        Compression::Gzip => [gzip(&plain[..30_000], 6), gzip(&plain[30_000..], 1)].concat(),
        Compression::Zstd => zstd(&plain, 3),
    };
    Blob { compression, packed, plain }
}

const ALL: [Compression; 3] = [Compression::Plain, Compression::Gzip, Compression::Zstd];

/// Runs what isn't the blob that the job wants.
fn run_damaged(blob: &Blob, bytes: &[u8], split: Split) -> LayerError {
    run_job(bytes, &[10_000], split, |sink| job(blob, sink)).0.unwrap_err()
}

/// Runs what is the blob that the job wants, but was made wrong.
fn run_made_wrong(blob: &Blob, bytes: &[u8], split: Split) -> (Result<LayerDone, LayerError>, Vec<u8>) {
    let made = Blob { packed: bytes.to_vec(), ..blob.clone() };
    run(&made, &[10_000], split)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_byte_is_found(at in any::<prop::sample::Index>(), flip in 1..=u8::MAX, kind in 0..3_usize) {
        let blob = blob(ALL[kind]);
        let mut bytes = blob.packed.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        for split in SPLITS {
            let error = run_damaged(&blob, &bytes, split);
            // Never as a stream that isn't the image's: it would be said of the image, and not fetched again.
            let expected = matches!(error, LayerError::BlobDigest { .. } | LayerError::Inflate { .. });
            prop_assert!(expected, "{error}");
            // Where the blob's digest is right, either the stream is broken or what comes out is the same or another.
            let (done, out) = run_made_wrong(&blob, &bytes, split);
            match done {
                Ok(_) => prop_assert!(out == blob.plain),
                Err(LayerError::Inflate { .. } | LayerError::DiffDigest { .. }) => {}
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }

    #[test]
    fn a_blob_cut_short_is_an_error(at in any::<prop::sample::Index>(), kind in 0..3_usize) {
        let blob = blob(ALL[kind]);
        let cut = &blob.packed[..at.index(blob.packed.len())];
        for split in SPLITS {
            let error = run_damaged(&blob, cut, split);
            prop_assert!(matches!(error, LayerError::Cut), "{error}");
            let (done, _) = run_made_wrong(&blob, cut, split);
            let error = done.unwrap_err();
            let expected = matches!(error, LayerError::Inflate { .. } | LayerError::DiffDigest { .. });
            prop_assert!(expected, "{error}");
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_what_they_say(
        magic in prop::sample::select(vec![&b"\x1f\x8b\x08"[..], b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b""]),
        rest in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let packed = [magic, &rest].concat();
        let blob = Blob { compression: Compression::Gzip, packed, plain: rest };
        let _ = run(&blob, &[100], Split::Two);
    }
}

#[test]
fn more_bytes_than_promised_are_an_error() {
    for split in SPLITS {
        let blob = gzip_blob(sample(10_000, 2));
        let more = [&blob.packed[..], &[0]].concat();
        let error = run_damaged(&blob, &more, split);
        assert!(matches!(error, LayerError::TooLong { size } if size == blob.packed.len() as u64), "{error}");
    }
}

#[test]
fn a_wrong_digest_says_both() {
    let blob = gzip_blob(sample(2_000_000, 3));
    let wrong = Digest::of(b"something else");
    for split in SPLITS {
        let as_blob = |sink| LayerJob { blob: wrong, ..job(&blob, sink) };
        let error = run_job(&blob.packed, &[100_000], split, as_blob).0.unwrap_err();
        let LayerError::BlobDigest { wanted, found } = error else { panic!("{error}") };
        assert_eq!((wanted, found), (wrong, Digest::of(&blob.packed)));

        let as_diff = |sink| LayerJob { diff: wrong, ..job(&blob, sink) };
        let error = run_job(&blob.packed, &[100_000], split, as_diff).0.unwrap_err();
        let LayerError::DiffDigest { wanted, found } = error else { panic!("{error}") };
        assert_eq!((wanted, found), (wrong, Digest::of(&blob.plain)));
    }
}

#[test]
fn trailers_and_bodies_that_lie_are_told_apart() {
    let plain = sample(5000, 4);
    let whole = gzip_blob(plain);
    let end = whole.packed.len();
    let problem = |bytes: &[u8]| {
        let (done, _) = run_made_wrong(&whole, bytes, Split::Two);
        let LayerError::Inflate { problem } = done.unwrap_err() else { panic!("another error") };
        problem
    };
    for at in [end - 8, end - 1] {
        let mut bytes = whole.packed.clone();
        bytes[at] ^= 1;
        assert!(problem(&bytes).contains("trailer"));
    }
    assert!(problem(&whole.packed[..end - 1]).contains("cut short"));
    assert!(problem(&whole.packed[..8]).contains("header is cut short"));
    let mut bytes = whole.packed.clone();
    // A block of the type that doesn't exist.
    bytes[10] = 0b111;
    assert!(problem(&bytes).contains("impossible header"), "{}", problem(&bytes));
}

#[test]
fn a_window_of_more_than_128_mib_is_refused() {
    let plain = sample(1000, 5);
    let mut encoder = ::zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    std::io::Write::write_all(&mut encoder, &plain).unwrap();
    let packed = encoder.finish().unwrap();
    let (done, _) = run(&Blob { compression: Compression::Zstd, packed, plain }, &[1000], Split::Two);
    let error = done.unwrap_err();
    assert!(matches!(&error, LayerError::Inflate { problem } if problem.contains("memory")), "{error}");
}

#[test]
fn a_blob_that_never_ends_is_stopped_at_the_limit() {
    let (link, blocks) = std::sync::mpsc::channel();
    let mut outlet = super::super::outlet::Outlet::new(vec![link], 1000);
    let len = outlet.room().len().min(1000);
    outlet.fill(len).unwrap();
    assert!(matches!(outlet.fill(1), Err(LayerError::Inflate { .. })));
    assert!(blocks.try_recv().is_err(), "nothing of it goes out");
}
