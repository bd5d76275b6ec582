//! Layers whose bytes are not what they should be.

use stoker::types::{Digest, ErrorKind};

use super::*;
use crate::node::bytes;
use crate::parts::{Fault, FaultProxy, Rule};
use forged::gzip;

const CORRUPT: ErrorKind = ErrorKind::Corrupt;

fn bad(words: &'static str) -> Refusal {
    Refusal(CORRUPT, "BadLayer", words)
}

/// Some files that don't compress.
fn tar() -> Vec<u8> {
    Tape::of((0..4).map(|seed| Item::file(format!("file-{seed}"), bytes(seed, 50_000))))
}

/// These bytes with one of them changed.
fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_is_broken_is_refused() {
    let bed = Bed::start().await;
    let (tar, packed) = (tar(), gzip(&tar()));
    let half = tar.len() / 2;
    let end = packed.len();
    let blob = |blob: &[u8]| Forged { diff: Digest::of(&tar), ..Forged::blob(blob.to_vec()) };
    let wrong_diff = Forged { diff: Digest::of(b"another"), ..Forged::packed(&tar) };
    for (name, layer, refusal) in [
        ("gzip cut in its middle", blob(&packed[..end / 2]), bad("can't be inflated")),
        ("gzip cut in its trailer", blob(&packed[..end - 4]), bad("can't be inflated")),
        ("gzip cut in its header", blob(&packed[..5]), bad("can't be inflated")),
        ("gzip with a wrong byte", blob(&flipped(&packed, end / 2)), bad("layer")),
        ("gzip with a wrong sum", blob(&flipped(&packed, end - 8)), bad("can't be inflated")),
        ("gzip with a wrong length", blob(&flipped(&packed, end - 1)), bad("can't be inflated")),
        (
            "no gzip",
            Forged { diff: Digest::of(&bytes(9, 10_000)), ..blob(&bytes(9, 10_000)) },
            bad("malformed"),
        ),
        ("tar cut in a file", Forged::packed(&tar[..half]), bad("malformed")),
        ("tar cut in a header", Forged::packed(&tar[..300]), bad("malformed")),
        ("tar with a wrong sum", Forged::packed(&flipped(&tar, 149)), bad("malformed")),
        (
            "tar with a negative size",
            Forged::packed(&Tape::of([Item::file("f", "x").size(-1)])),
            bad("malformed"),
        ),
        ("no tar", Forged::packed(&bytes(8, 10_000)), bad("malformed")),
        (
            "a wrong diff ID",
            wrong_diff,
            Refusal(ErrorKind::Invalid, "BadLayer", "the unpacked layer's digest is"),
        ),
    ] {
        bed.refuses(name, &Image::above(layer), refusal).await;
    }
    bed.pulling.end().await;
}

/// An image at a registry that has other bytes for its layer.
async fn instead(bed: &Bed, image: &Image, blob: &[u8]) -> Liar {
    let lies = Lies::default().image(image);
    bed.lying(image.layers.iter().fold(lies, |lies, layer| lies.blob(layer.digest(), blob))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_bytes_than_promised_are_refused() {
    let bed = Bed::start().await;
    let image = Image::of([Forged::packed(&tar())]);
    // Just as long, and a good layer by itself; but not the one that was asked for.
    let other = Tape::of((0..4).map(|seed| Item::file(format!("file-{seed}"), bytes(seed + 10, 50_000))));
    let other = gzip(&other);
    let mut same = other.clone();
    same.resize(image.layers[0].blob.len(), 0);
    let liar = instead(&bed, &image, &same).await;
    bed.refuses_from(&liar, "a wrong digest", bad("the blob's digest is")).await;

    // The manifest says another size than the blob has.
    let size = image.layers[0].size;
    for (name, said, refusal) in [
        ("a size that is too small", size - 1, Refusal(ErrorKind::Transient, "PullFailed", "bytes long")),
        ("a size that is too large", size + 1, Refusal(ErrorKind::Transient, "PullFailed", "bytes long")),
        ("no size", 0, bad("layer")),
        ("a size that nothing has", 1 << 50, Refusal(ErrorKind::Invalid, "BadManifest", "bytes together")),
    ] {
        let layer = Forged { size: said, ..image.layers[0].clone() };
        let liar = instead(&bed, &Image::of([layer.clone()]), &layer.blob).await;
        bed.refuses_from(&liar, name, refusal).await;
    }
    bed.pulling.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lie_about_which_bytes_come_is_not_believed() {
    let bed = Bed::start().await;
    let image = Image::of([Forged::packed(&tar())]);
    let tag = image.push(&bed.registry, "hostile/range").await;
    let proxy = FaultProxy::start(&bed.registry.host());
    bed.pulling.hosts(&bed.registry.host(), &[&proxy.url()]);
    for (name, fault) in [
        ("another range", Fault::OtherRange),
        ("another total", Fault::OtherTotal),
        (
            "a range of numbers too large",
            Fault::Header("content-range", format!("bytes 0-{0}/{0}", u64::MAX)),
        ),
    ] {
        proxy.add(Rule::get(&format!("/blobs/{}", image.layers[0].digest()), fault).always());
        let pulled = bed.pulling.pull(&tag).await.map(drop);
        bed.refused(name, &tag, pulled, Refusal(ErrorKind::Transient, "PullFailed", "did not come")).await;
        proxy.clear();
    }
    // The image itself was good.
    bed.pulling.pull(&tag).await.unwrap();
    bed.pulling.end().await;
}
