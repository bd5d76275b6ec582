//! Streams that want out, or too much. Each bed checks that nothing beside the root has changed.

use std::os::unix::fs::{MetadataExt as _, symlink};

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::entry::{Entry, Kind};
use super::super::stream::{Layer, Stream};
use super::super::trouble::Trouble;
use super::super::{Limits, UnpackError, Unpacker};
use super::bed::Bed;
use super::tape::{Item, Magic, Tape};
use crate::types::ErrorKind;

fn limited(limits: Limits, stream: &[u8]) -> Result<u64, UnpackError> {
    let bed = Bed::new();
    let mut sink = Unpacker::new(bed.open(), limits).unwrap();
    bed.feed_with(&mut sink, stream, 4096).map(|unpacked| unpacked.bytes)
}

fn over(result: Result<u64, UnpackError>) -> bool {
    matches!(result, Err(UnpackError::OverLimit { .. }))
}

#[test]
fn names_lead_nowhere_outside() {
    let bed = Bed::new();
    let canary = bed.canary().to_str().unwrap().to_owned();
    let outside =
        ["../canary/file", "/../canary/file", "a/../../canary/file", &canary, "../../../../../../etc/x"];
    for name in outside {
        let items = [
            Item::file(name, "mine"),
            Item::dir(name).mode(0o777).owner(9, 9),
            Item::symlink(name, "x"),
            Item::file(name, "mine"),
            Item::hard_link("copy", name),
            Item::file(format!("{name}/../.wh.file"), ""),
            Item::new(b'6', name).mode(0o777),
        ];
        for item in items {
            bed.unpack([item]).ok();
        }
    }
    assert!(!bed.path("copy").exists() || bed.read("copy") == b"mine");
}

#[test]
fn links_lead_nowhere_outside() {
    let canary = Bed::new().canary().to_str().unwrap().to_owned();
    let up = format!("../../../../../../../../../../../..{canary}");
    for target in [&canary[..], &up, "../canary", "/proc/self/root/tmp", "/proc/self/cwd", "/"] {
        let through = [
            Item::file("l/file", "mine"),
            Item::file("l/new", "mine"),
            Item::dir("l/dir").mode(0o777).owner(9, 9).mtime(5),
            Item::file("l/.wh.file", ""),
            Item::file("l/.wh..wh..opq", ""),
            Item::hard_link("stolen", "l/file"),
            Item::dir("l").mode(0o777).owner(9, 9).mtime(5),
            Item::hard_link("l2", "l").mode(0o777).owner(9, 9),
        ];
        for item in through {
            let bed = Bed::new();
            // Links that are there, and links that the layer brings; links to links, and in place of a directory.
            bed.unpack([Item::symlink("l", target), item.clone()]).ok();
            let bed = Bed::new();
            symlink(target, bed.path("l")).unwrap();
            bed.unpack([item.clone()]).ok();
            let bed = Bed::new();
            bed.unpack([Item::symlink("m", target), Item::symlink("l", "m/."), item.clone()]).ok();
            let bed = Bed::new();
            bed.unpack([Item::dir("l"), Item::file("l/f", ""), Item::symlink("l", target), item.clone()])
                .ok();
            let bed = Bed::new();
            bed.unpack([
                Item::file("l/a/f", ""),
                Item::symlink("l/a", target),
                Item::symlink("l", "l/a"),
                item,
            ])
            .ok();
        }
    }
}

#[test]
fn a_link_in_the_place_of_a_directory_does_not_get_its_time_elsewhere() {
    let bed = Bed::new();
    let canary = bed.canary().to_str().unwrap().to_owned();
    let dir = || Item::dir("d").mtime(5).mode(0o777).owner(9, 9);
    bed.unpack([
        dir(),
        Item::symlink("d", &canary),
        Item::dir("e/f").mtime(5),
        Item::symlink("e/f", "../../canary/dir"),
    ])
    .unwrap_err();
    let bed = Bed::new();
    bed.unpack([dir(), Item::symlink("d", "../canary"), dir(), Item::file("d/x", "")]).unwrap();
    assert!(bed.stat("d").is_dir());
}

#[test]
fn a_whiteout_names_only_what_is_in_its_directory() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh...", "d/.wh../x/.wh.."] {
        for lowest in [false, true] {
            let bed = Bed::new();
            std::fs::create_dir(bed.path("d")).unwrap();
            let new = if lowest { Unpacker::lowest } else { Unpacker::new };
            let mut sink = new(bed.open(), Limits::default()).unwrap();
            let result = bed.feed_with(&mut sink, &Tape::of([Item::file(name, "")]), 4096);
            assert!(matches!(result, Err(UnpackError::Malformed { .. })), "{name}: {result:?}");
            assert!(bed.stat("d").is_dir());
        }
    }
}

#[test]
fn bombs_are_over_a_limit_before_they_fill_anything() {
    let limits = Limits { entries: 100, bytes: 1000, depth: 10, ..Limits::default() };
    let many = |count| Tape::of((0..count).map(|i| Item::file(format!("f{i}"), "")));
    assert!(limited(limits, &many(100)).is_ok());
    assert!(over(limited(limits, &many(101))));
    let records = (0..101).fold(Tape::new(), |tape, _| tape.records(b'x', &[])).end();
    assert!(over(limited(limits, &records)));
    let deep = |depth: usize| Tape::of([Item::dir(vec!["d"; depth].join("/"))]);
    assert!(limited(limits, &deep(10)).is_ok());
    assert!(over(limited(limits, &deep(11))));
    let behind =
        [Item::symlink("l", "a/a/a/a/a/a"), Item::symlink("a/a/a/a/a/a/l", "b/b/b/b/b"), Item::dir("l/l/x")];
    assert!(over(limited(limits, &Tape::of(behind))));
    assert_eq!(limited(limits, &Tape::of([Item::file("f", vec![1; 1000])])).unwrap(), 1000);
    assert!(over(limited(limits, &Tape::of([Item::file("f", vec![1; 999]), Item::file("g", "12")]))));
    // Before anything of it came.
    assert!(over(limited(limits, &Tape::new().item(Item::file("f", "").size(1 << 50)).cut())));
    assert!(over(limited(limits, &Tape::of([Item::file("a/".repeat(2048) + "f", "")]))));
    assert!(over(limited(limits, &Tape::of([Item::file("f", "").record("path", "n".repeat(5000))]))));
    assert!(over(limited(limits, &Tape::new().item(Item::new(b'x', "r").size(1 << 40)).cut())));
    assert!(over(limited(limits, &Tape::new().item(Item::new(b'L', "l").size((1 << 20) + 1)).cut())));
    let sparse = Item::file("f", "").record("GNU.sparse.numblocks", "0").record("GNU.sparse.map", "");
    let sparse = |size: &str| {
        let sparse = sparse.clone().record("GNU.sparse.major", "0").record("GNU.sparse.minor", "1");
        Tape::of([sparse.record("GNU.sparse.size", size)])
    };
    assert!(over(limited(limits, &sparse("9223372036854775807"))));
    assert!(limited(limits, &sparse("9223372036854775808")).is_err());
    assert_eq!(limited(limits, &sparse("1000")).unwrap(), 1000);
}

#[test]
fn what_the_disk_has_no_room_for_is_not_the_layers_fault() {
    let limits = Limits { room: 1000, ..Limits::default() };
    let files = |second: &str| Tape::of([Item::file("f", vec![1; 999]), Item::file("g", second)]);
    assert_eq!(limited(limits, &files("1")).unwrap(), 1000);
    let error = limited(limits, &files("12")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
}

#[test]
fn links_of_links_end() {
    // Each link names the one before it twice, so the last one has more steps than there are atoms.
    let mut items = vec![Item::dir("l0")];
    items.extend((1..100).map(|i| Item::symlink(format!("l{i}"), format!("l{}/../l{}", i - 1, i - 1))));
    items.push(Item::file("l99/f", ""));
    assert!(Bed::new().unpack(items).is_err());
    let wide = Item::symlink("w", "./".repeat(2000));
    assert!(Bed::new().unpack([wide, Item::file("w/f", "")]).is_ok());
}

#[test]
fn a_deep_tree_is_replaced_without_a_handle_for_each_level() {
    let limits = Limits { depth: 1000, ..Limits::default() };
    let bed = Bed::new();
    let mut sink = Unpacker::new(bed.open(), limits).unwrap();
    let stream = Tape::of([Item::file("d/".repeat(800) + "f", "x"), Item::file("d", "small")]);
    bed.feed_with(&mut sink, &stream, 1 << 20).unwrap();
    assert_eq!(bed.read("d"), b"small");
}

fn every_kind() -> Vec<u8> {
    Tape::new()
        .item(Item::dir("d").xattr("user.a", "b"))
        .item(Item::file("d/f", vec![3; 700]).record("mtime", "5.5").owner(1, 1))
        .long(b'L', "d/".to_owned() + &"n".repeat(120))
        .item(Item::file("cut", "x").magic(Magic::Gnu))
        .item(Item::symlink("s", "d"))
        .item(Item::file("s/.wh.gone", ""))
        .item(Item::hard_link("h", "d/f"))
        .item(Item::new(b'3', "c").device(1, 3))
        .item(
            Item::file("v10", [&b"1\n600\n2\n"[..], &[0; 504], b"ab"].concat())
                .record("GNU.sparse.major", "1")
                .record("GNU.sparse.minor", "0")
                .record("GNU.sparse.realsize", "6000"),
        )
        .records(b'g', &[(b"a".to_vec(), b"b".to_vec())])
        .end()
}

/// Counts what begins and what ends.
#[derive(Default)]
struct Counts {
    begun: u64,
    ended: u64,
}

impl Layer for Counts {
    fn begin(&mut self, entry: &Entry) -> Result<bool, Trouble> {
        let wanted = entry.kind == Kind::File;
        self.begun += u64::from(wanted);
        Ok(wanted)
    }

    fn content(&mut self, _: u64, _: &[u8]) -> Result<(), Trouble> {
        Ok(())
    }

    fn end(&mut self, _: &Entry) -> Result<(), Trouble> {
        self.ended += 1;
        Ok(())
    }
}

#[test]
fn cut_at_any_byte_it_is_an_error_or_every_file_is_whole() {
    let bytes = every_kind();
    let (mut stream, mut counts, mut whole) = (Stream::new(1000), Counts::default(), 0);
    for (at, byte) in bytes.iter().enumerate() {
        if stream.finish().is_ok() {
            assert_eq!(counts.begun, counts.ended, "cut at {at}");
            whole += 1;
        }
        stream.feed(&[*byte], &mut counts).unwrap();
    }
    assert!(whole < bytes.len() / 3, "{whole} of {}", bytes.len());
    assert_eq!((counts.begun, counts.ended), (4, 4));

    let all = limited(Limits::default(), &bytes).unwrap();
    for cut in (0..bytes.len()).step_by(61) {
        match limited(Limits::default(), &bytes[..cut]) {
            Ok(some) => assert!(some <= all, "{cut}"),
            Err(error) => assert!(matches!(error, UnpackError::Malformed { .. }), "{cut}: {error:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn garbage_is_refused(bytes in vec(any::<u8>(), 512..4096)) {
        prop_assert!(Bed::new().feed(&bytes).is_err());
    }

    /// A stream with a few bytes changed, its checksums right again, is unpacked or refused, and touches nothing else.
    #[test]
    fn changed_streams_stay_inside(changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), piece in 1usize..3000) {
        let mut stream = every_kind();
        for (at, byte) in changes {
            let at = at.index(stream.len());
            stream[at] = byte;
            let block = at / 512 * 512;
            if &stream[block + 257..block + 262] == b"ustar" {
                let header = &mut stream[block..block + 512];
                header[148..156].fill(b' ');
                let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
                header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let bed = Bed::new();
        let limits = Limits { entries: 1000, bytes: 1 << 20, depth: 20, ..Limits::default() };
        let mut sink = Unpacker::new(bed.open(), limits).unwrap();
        bed.feed_with(&mut sink, &stream, piece).ok();
        prop_assert!(std::fs::metadata(bed.root()).unwrap().is_dir());
        prop_assert_eq!(bed.stat("").uid(), 0);
    }
}
