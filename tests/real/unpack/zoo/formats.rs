//! How a stream says things, rightly and wrongly.

use super::super::super::parts::Version;
use super::super::tape::{Item, Magic, Tape};
use super::{Case, Differs, above, layer};

pub(super) fn sparse() -> Vec<Case> {
    let v00 = |name: &str, records: &[(&str, &str)], content: &[u8]| {
        let records: Vec<(Vec<u8>, Vec<u8>)> =
            records.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Tape::new().records(b'x', &records).item(Item::file(name, content))
    };
    let two = [
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "1"),
        ("GNU.sparse.numbytes", "2"),
        ("GNU.sparse.offset", "1000"),
        ("GNU.sparse.numbytes", "3"),
        ("GNU.sparse.size", "2000"),
    ];
    let v01 = |map: &str, count: &str, size: &str, content: &str| {
        layer([Item::file("f", content)
            .record("GNU.sparse.numblocks", count)
            .record("GNU.sparse.map", map)
            .record("GNU.sparse.size", size)])
    };
    let v10 = |map: &[u8], size: &str, content: &[u8]| {
        let map = [map, &vec![0; map.len().next_multiple_of(512) - map.len()], content].concat();
        layer([
            Item::file("placeholder", map)
                .record("GNU.sparse.major", "1")
                .record("GNU.sparse.minor", "0")
                .record("GNU.sparse.name", "real/name")
                .record("GNU.sparse.realsize", size),
            Item::file("after", "x"),
        ])
    };
    let many: String =
        std::iter::once("300\n".to_owned()).chain((0..300).map(|i| format!("{}\n1\n", i * 7))).collect();
    vec![
        above("sparse 0.0", v00("f", &two, b"abcde").item(Item::file("g", "x")).end()),
        above("sparse 0.0 out of order", v00("f", &[two[0], two[2], two[1], two[5]], b"ab").end()),
        above("sparse 0.1", v01("0,2,7,3", "2", "10", "abcde")),
        above("sparse 0.1 with a hole at the end", v01("1,2", "1", "1000", "ab")),
        above("sparse 0.1 with too little data", v01("0,2,7,3", "2", "10", "abcd")),
        above("sparse 0.1 with too much data", v01("0,2,7,3", "2", "10", "abcdef")),
        above("sparse 0.1 with overlaps", v01("0,5,4,1", "2", "10", "abcdef")),
        above("sparse 0.1 beyond its size", v01("0,2,9,3", "2", "10", "abcde")),
        above("sparse 0.1 of another count", v01("0,2,7,3", "3", "10", "abcde")),
        above("sparse 0.1 of no count", v01("0,2,7,3", "", "10", "abcde")),
        above("sparse 1.0", v10(b"2\n600\n2\n5000\n3\n", "6000", b"abcde")),
        above("sparse 1.0 with a long map", v10(many.as_bytes(), "3000", &[7; 300])),
        above("sparse 1.0 without data", v10(b"0\n", "6000", b"")),
        above("sparse 1.0 with a broken map", v10(b"x\n", "6000", b"")),
        above("sparse 1.0 without its map", v10(b"", "6000", b"")),
        above(
            "sparse 1.0 that is a directory",
            layer([Item::dir("d").record("GNU.sparse.major", "1").record("GNU.sparse.minor", "0")]),
        ),
        above(
            "sparse of a version to come",
            layer([Item::file("f", "x").record("GNU.sparse.major", "2").record("GNU.sparse.minor", "0")]),
        ),
        above(
            "old GNU sparse",
            layer([Item::new(b'S', "f").magic(Magic::Gnu).bytes_at(483, b"00000000000\0")]),
        ),
    ]
}

pub(super) fn devices() -> Vec<Case> {
    let char = |major, minor| layer([Item::new(b'3', "c").device(major, minor).mode(0o620).owner(1, 5)]);
    vec![
        above(
            "devices",
            layer([
                Item::new(b'3', "null").device(1, 3).mode(0o666),
                Item::new(b'4', "disk").device(259, 70_000).mode(0o660).owner(0, 6),
                Item::new(b'6', "pipe").mode(0o622).owner(1, 1),
                Item::new(b'3', "whiteout").device(0, 0).mode(0o600),
                Item::new(b'4', "suid").device(1, 1).mode(0o7777).owner(1, 1),
            ]),
        ),
        above("the largest device", char(4095, 1_048_575)),
        above("a device of 2^33", char(1 << 33, 1))
            .but_on(Version::V1_7, Differs::WeRefuse("1.7 cuts the number and makes another device"))
            .but_on(Version::V2_2, Differs::WeRefuse("2.2 cuts the number and makes another device"))
            .but_on(Version::V1_6, Differs::WeRefuse("1.6 cuts the number and makes another device")),
        above("a negative device", char(-1, 1))
            .but_on(Version::V1_7, Differs::WeRefuse("1.7 cuts the number and makes another device"))
            .but_on(Version::V2_2, Differs::WeRefuse("2.2 cuts the number and makes another device"))
            .but_on(Version::V1_6, Differs::WeRefuse("1.6 cuts the number and makes another device")),
        above("a major number of 4096", char(4096, 1))
            .but(Differs::WeRefuse("Linux cuts it to 0 and makes another device")),
        above("a minor number of 2^20", char(1, 1 << 20))
            .but(Differs::WeRefuse("Linux cuts it to 0 and makes another device")),
    ]
}

pub(super) fn broken() -> Vec<Case> {
    let file = || Item::file("f", "content");
    let mut cases = vec![
        above("cut in a header", Tape::new().item(file()).cut()[..300].to_vec()),
        above("cut in content", Tape::new().item(file()).cut()[..515].to_vec()),
        above(
            "cut in records",
            Tape::new().records(b'x', &[(b"a".to_vec(), vec![b'x'; 600])]).cut()[..900].to_vec(),
        ),
        above("records and no entry", Tape::new().records(b'x', &[(b"path".to_vec(), b"x".to_vec())]).end()),
        above("a block of zeros between", Tape::new().item(file()).raw([0; 512]).item(file()).end()),
        above("a wrong checksum", Tape::new().item(file()).raw([b'x'; 512]).end()),
        above("broken records", Tape::new().item(Item::file("r", "9 a=b\n").kind(b'x')).item(file()).end()),
        above("a name with NUL in records", layer([file().record("path", "a\0b")])),
        above("content that lies about its size", Tape::new().item(file().size(600)).item(file()).end()),
        above(
            "a size in base 256",
            Tape::new().item(file().bytes_at(124, [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7])).end(),
        ),
        above("a huge size", layer([file().size(i64::MAX)])),
        above("no octal", layer([file().bytes_at(100, b"99999999")])),
        above("spaces and NULs in numbers", layer([file().bytes_at(100, b"  644 \0 ")])),
        above("a number that is too large", layer([file().bytes_at(124, [0x81; 12])])),
        above("ustar of another version", layer([file().bytes_at(263, b"  ").bytes_at(345, b"prefix\0")])),
        above(
            "a megabyte of records",
            Tape::new().records(b'x', &[(b"a".to_vec(), vec![b'x'; (1 << 20) - 20])]).item(file()).end(),
        ),
        above(
            "more than a megabyte of records",
            Tape::new().records(b'x', &[(b"a".to_vec(), vec![b'x'; 1 << 20])]).item(file()).end(),
        ),
    ];
    for kind in *b"7DMNVZS" {
        cases.push(above(&format!("type {:?}", char::from(kind)), layer([Item::new(kind, "f")])));
    }
    cases
}
