//! Layers for every rule.

mod formats;

use super::super::parts::Version;
use super::tape::{Item, Magic, Tape};

/// An image's layers, the lowest first.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) layers: Vec<Vec<u8>>,
    /// What differs, on one line of containerd or on both.
    pub(super) differs: Vec<(Option<Version>, Differs)>,
}

/// A deliberate difference, and its reason.
#[derive(Debug, Clone, Copy)]
pub(super) enum Differs {
    /// containerd takes it.
    WeRefuse(&'static str),
    /// containerd refuses it.
    OnlyWeTake(&'static str),
    /// containerd may refuse it with these words, and then we don't.
    MayOnlyWeTake(&'static str, &'static str),
    /// Both take it, and at these places (`LAYER:PATH`) the trees differ.
    At(&'static [&'static str], &'static str),
}

impl Differs {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::WeRefuse(reason) | Self::OnlyWeTake(reason) => reason,
            Self::MayOnlyWeTake(_, reason) | Self::At(_, reason) => reason,
        }
    }
}

impl Case {
    pub(super) fn new(name: &str, layers: impl Into<Vec<Vec<u8>>>) -> Self {
        Self { name: name.to_owned(), layers: layers.into(), differs: Vec::new() }
    }

    pub(super) fn but(self, differs: Differs) -> Self {
        Self { differs: vec![(None, differs)], ..self }
    }

    fn but_on(mut self, version: Version, differs: Differs) -> Self {
        self.differs.push((Some(version), differs));
        self
    }
}

/// One layer above an empty one: whiteouts mean something there.
fn above(name: &str, stream: Vec<u8>) -> Case {
    Case::new(name, [Tape::of([Item::file("below", "x")]), stream])
}

fn layer(items: impl IntoIterator<Item = Item>) -> Vec<u8> {
    Tape::of(items)
}

pub(super) fn cases() -> Vec<Case> {
    [
        plain(),
        names(),
        replaced(),
        whiteouts(),
        links(),
        attributes(),
        parents(),
        formats::sparse(),
        formats::devices(),
        formats::broken(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn plain() -> Vec<Case> {
    let everything = || {
        Tape::new()
            .item(Item::dir("usr/").mode(0o1777).owner(7, 8).mtime(1_000))
            .item(Item::file("usr/data", vec![7; 70_000]).owner(1, 2).mode(0o600).mtime(2_000))
            .item(Item::file("usr/big", vec![9; (3 << 20) + 17]))
            .item(Item::file("usr/suid", "x").owner(3, 4).mode(0o6755))
            .item(Item::symlink("link", "usr/data").owner(5, 6).mtime(3_000))
            .item(Item::hard_link("usr/again", "usr/suid").owner(3, 4).mode(0o6755))
            .item(Item::new(0, "old/").magic(Magic::V7).mode(0o700))
            .item(Item::new(0, "old/file").magic(Magic::V7))
            .item(Item::file("old/gnu", "x").magic(Magic::Gnu))
            .item(Item::file(format!("usr/{}", "n".repeat(150)), "long"))
            .long(b'L', format!("usr/{}", "g".repeat(200)))
            .long(b'K', "t".repeat(200))
            .item(Item::new(b'2', "cut").link("cut").magic(Magic::Gnu))
    };
    let stack = [
        layer([Item::dir("d"), Item::file("d/one", "1")]),
        layer([Item::dir("d").mode(0o700), Item::file("d/two", "2")]),
        layer([Item::dir("d").owner(5, 5), Item::file("d/one", "3"), Item::file("d/.wh.two", "")]),
    ];
    let modes = [0o777, 0o666, 0, 0o4755, 0o2755, 0o1777, 0o7777, 0o400, 0o17_7777, 0o100_644, 0o40_755];
    let modes = modes.into_iter().flat_map(|mode| {
        let dir = Item::dir(format!("dir{mode:o}")).mode(mode);
        let fifo = Item::new(b'6', format!("fifo{mode:o}")).mode(mode);
        [Item::file(format!("file{mode:o}"), "x").mode(mode), dir, fifo]
    });
    let setgid = [
        Item::dir("setgid").mode(0o2755).owner(0, 50),
        Item::dir("setgid/dir"),
        Item::file("setgid/file", "x"),
        Item::file("setgid/implied/file", "x"),
        Item::symlink("setgid/link", "x"),
        Item::file("setgid/.wh.gone", "").owner(1, 1),
        Item::dir("grouped").owner(0, 50),
        Item::file("grouped/file", "x"),
        Item::dir("later"),
        Item::file("later/before", "x"),
        Item::dir("later").mode(0o2755).owner(0, 60),
        Item::file("later/after", "x"),
        Item::dir("later/dir"),
    ];
    vec![
        Case::new("everything", [everything().end()]),
        above("everything above", everything().end()),
        Case::new("without an end", [everything().cut()]),
        Case::new("half an end", [everything().raw([0; 512]).cut()]),
        Case::new("garbage after the end", [everything().raw([0; 1024]).raw([7; 700]).cut()]),
        Case::new("an end in padding", [Tape::new().item(Item::file("f", "x")).cut()[..600].to_vec()]),
        Case::new("nothing at all", [Vec::new()]),
        Case::new("only an end", [Tape::new().end()]),
        Case::new("three layers", stack),
        above("modes", layer(modes)),
        above("setgid directories", layer(setgid)),
        above(
            "global records",
            Tape::new()
                .item(Item::file("records", "goes"))
                .records(b'g', &[(b"uid".to_vec(), b"5".to_vec()), (b"mtime".to_vec(), b"7".to_vec())])
                .item(Item::file("f", "x"))
                .records(b'g', &[(b"path".to_vec(), b"implied/by/global".to_vec())])
                .item(Item::file("g", "x"))
                .records(b'x', &[(b"uid".to_vec(), b"5".to_vec())])
                .records(b'g', &[])
                .item(Item::file("without", "x"))
                .end(),
        ),
        above(
            "sizes of what has no content",
            Tape::new()
                .item(Item::dir("d").size(700))
                .item(Item::symlink("s", "d").size(1 << 40))
                .item(Item::new(b'6', "p").size(-5))
                .item(Item::file("f", "x"))
                .end(),
        ),
        above(
            "records of records",
            Tape::new()
                .records(b'x', &[(b"uid".to_vec(), b"5".to_vec()), (b"path".to_vec(), b"first".to_vec())])
                .records(b'x', &[(b"gid".to_vec(), b"6".to_vec())])
                .long(b'L', "long")
                .item(Item::file("f", "x"))
                .long(b'L', "longer")
                .records(b'x', &[(b"path".to_vec(), b"shorter".to_vec())])
                .item(Item::file("g", "x"))
                .end(),
        ),
    ]
}

fn names() -> Vec<Case> {
    let said = |name: &str| Item::file(name, "x");
    let long = vec!["d".repeat(200); 15].join("/");
    vec![
        above(
            "names that climb",
            layer([said("../up"), said("/abs"), said("a/../../b"), said("./c//./d"), said("x/..")]),
        ),
        above(
            "the root",
            layer([Item::dir("./").mode(0o700), Item::dir("/").owner(1, 1), said("."), said(".."), said("")]),
        ),
        above(
            "bytes that are no text",
            layer([Item::file(b"caf\xe9\xff", "x"), said("new\nline"), said("*? \\")]),
        ),
        above(
            "a trailing slash on a file",
            layer([said("f/"), Item::new(0, "d/"), Item::symlink("s/", "f")]),
        ),
        above("255 bytes", layer([said(&"n".repeat(255))])),
        above("256 bytes", layer([said(&"n".repeat(256))])),
        above("a long path", layer([said(&long), Item::symlink("s", &long)])),
        above("a prefix", layer([said("f").bytes_at(345, b"some/dir\0")])),
        above(
            "a prefix in a GNU header of old Go",
            layer([said("f").magic(Magic::Gnu).bytes_at(345, b"some/dir\0")]),
        ),
        above("a file on the way", layer([said("f"), said("f/below")])),
        above(
            "a file behind a link on the way",
            layer([said("f"), Item::symlink("l", "f"), said("l/below")]),
        ),
        above("names of a whiteout on the way", layer([said(".wh.dir/file")])),
        above("a record's empty path", layer([said("own").record("path", "")])),
        above("deeper than 256", layer([said(&vec!["d"; 300].join("/"))]))
            .but(Differs::WeRefuse("no image has such paths, and each part costs a directory")),
    ]
}

fn replaced() -> Vec<Case> {
    let file = |name: &str| Item::file(name, "x");
    vec![
        above(
            "what was there gives way",
            layer([
                file("a"),
                Item::file("a", "another").mode(0o600),
                Item::dir("d").mode(0o700).mtime(5).xattr("user.a", "1"),
                file("d/kept"),
                Item::dir("d").mode(0o750).owner(1, 1).mtime(6).xattr("user.b", "2"),
                file("gone/deep/er/file"),
                file("gone"),
                Item::symlink("s", "d"),
                Item::dir("s"),
                file("s/in"),
                file("implied/file"),
                Item::symlink("implied", "d"),
                file("implied/through"),
                file("l"),
                Item::symlink("l", "a"),
                Item::hard_link("l", "a"),
            ]),
        ),
        above("a directory becomes a file and keeps its time", layer([Item::dir("d").mtime(77), file("d")])),
        above(
            "a directory becomes a link",
            layer([Item::dir("d").mtime(77), Item::dir("e").mtime(88), Item::symlink("d", "e")]),
        ),
        above(
            "a directory becomes a link to nowhere",
            layer([Item::dir("d"), Item::symlink("d", "nowhere")]),
        ),
        above("a directory below becomes nothing", layer([Item::dir("d/e"), file("d")])),
        above(
            "a directory becomes a link to the root",
            layer([Item::dir("d").mtime(77), Item::symlink("d", "/")]),
        ),
        above(
            "through a link that turns",
            layer([
                Item::dir("one"),
                Item::dir("two"),
                Item::symlink("l", "one"),
                file("l/a"),
                Item::symlink("l", "two"),
                file("l/b"),
                Item::dir("l"),
                file("l/c"),
            ]),
        ),
        above(
            "implied, then described",
            layer([file("a/b/c/f"), Item::dir("a/b").mode(0o700).mtime(9), Item::dir("a").mtime(8)]),
        ),
        above(
            "implied again",
            layer([file("a/f"), file("a"), file("b"), Item::dir("b/"), Item::dir("a"), file("a/g")]),
        ),
    ]
}

fn whiteouts() -> Vec<Case> {
    let file = |name: &str| Item::file(name, "x");
    let mut cases = vec![
        above(
            "whiteouts",
            layer([
                file("dir/.wh.gone").owner(3, 4).mode(0o777),
                file("opaque/.wh..wh..opq"),
                file(".wh.below"),
                Item::dir("dir/.wh.a-dir/"),
                Item::symlink("dir/.wh.a-link", "x"),
                Item::new(b'Z', "dir/.wh.any"),
                file(".wh..wh.plnk"),
                file(".wh.back"),
                file("back"),
                file("dir/.wh.kept-owner").owner(-1, -1),
                file("dir/.wh...."),
                file("opaque/.wh..wh..opq"),
                file("opaque/.wh..opq"),
            ]),
        ),
        above("an opaque root", layer([file("./.wh..wh..opq"), file("f")])),
        above(
            "an opaque directory behind a link",
            layer([Item::dir("d"), Item::symlink("l", "d"), file("l/.wh..wh..opq")]),
        ),
        above("a whiteout of what the layer has", layer([file("f"), file(".wh.f")])),
        above("a whiteout twice", layer([file(".wh.f"), file(".wh.f")])),
        Case::new(
            "whiteouts in the lowest layer",
            [layer([
                file("f"),
                file(".wh.f"),
                file(".wh.absent"),
                file("a/b/c"),
                file("a/.wh.b"),
                file("d/kept"),
                Item::dir("d/e"),
                file("d/.wh..wh..opq"),
                file("d/new"),
            ])],
        ),
        Case::new(
            "a described directory removed in the lowest layer",
            [layer([Item::dir("d"), file(".wh.d")])],
        ),
        Case::new(
            "an opaque directory in the lowest layer, with one that is implied",
            [layer([file("a/b/file"), file("a/.wh..wh..opq")])],
        )
        .but(Differs::At(
            &["0:a/b", "0:a/b/file"],
            "containerd takes the directory that nobody described for one from below, and its file with it",
        )),
    ];
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh..."] {
        cases.push(above(name, layer([Item::dir("d"), file(name)])));
        cases.push(Case::new(&format!("{name} in the lowest"), [layer([Item::dir("d"), file(name)])]));
    }
    cases
}

fn links() -> Vec<Case> {
    let file = |name: &str| Item::file(name, "x");
    let to = |target: &str| {
        layer([Item::dir("d"), file("d/f"), Item::symlink("s", "d/f"), Item::hard_link("h", target)])
    };
    let mut cases = vec![
        above(
            "links that lead out, and don't",
            layer([
                Item::symlink("abs", "/etc"),
                file("abs/passwd"),
                Item::symlink("up", "../../../../.."),
                file("up/f"),
                Item::symlink("chain", "up/abs"),
                file("chain/g"),
                Item::symlink("d/deep/l", "../../../..//x/./y"),
                file("d/deep/l/h"),
                Item::hard_link("hard", "/../../abs/passwd"),
                Item::symlink("dangling", "no/where"),
                file("dangling"),
            ]),
        ),
        above("a loop", layer([Item::symlink("a", "b"), Item::symlink("b", "a"), file("a/f")])),
        above(
            "up after a link in a link's text",
            layer([Item::dir("x/y"), Item::symlink("s", "x/y"), Item::symlink("d/t", "../s/../z"), file("d/t/f")]),
        )
        .but(Differs::At(
            &["1:x/z", "1:x/z/f", "1:z", "1:z/f"],
            "a container sees it as the kernel does, which goes up from where the link leads; containerd goes by name",
        )),
        above("a link to itself", layer([Item::symlink("a", "a"), file("a/f")])),
        above(
            "a dangling chain",
            layer([Item::symlink("a", "b"), Item::symlink("b", "c/d"), file("a/f"), file("c/d/g")]),
        ),
        above("an empty link", layer([Item::symlink("a", "")])),
        above("a link of 4095 bytes", layer([Item::symlink("a", "x".repeat(4095))])),
        above("a link of 4096 bytes", layer([Item::symlink("a", "x".repeat(4096))])),
        above(
            "hard links take their entry's attributes",
            layer([
                file("f").owner(1, 1).mode(0o600).mtime(5),
                Item::hard_link("g", "f").owner(2, 2).mode(0o4711).mtime(6),
                Item::hard_link("h", "g").owner(-1, 3).mode(0o640).mtime(7).xattr("user.note", "n"),
                Item::symlink("s", "f"),
                Item::hard_link("t", "s").owner(4, 4).mode(0o600).mtime(8),
                Item::new(b'6', "p"),
                Item::hard_link("q", "p").mode(0o600),
            ]),
        ),
        above("a hard link to the layer below", layer([Item::hard_link("h", "below")])),
        above("a hard link to what comes later", layer([Item::hard_link("h", "f"), file("f")])),
        above("a hard link to itself", layer([file("f"), Item::hard_link("f", "f")])),
        above("a hard link over what it is in", layer([file("d/f"), Item::hard_link("d", "d/f")])),
        above(
            "a hard link with content",
            Tape::new().item(file("f")).item(Item::hard_link("h", "f").size(512)).end(),
        ),
        above(
            "256 links in one path",
            layer(
                (0..256).map(|i| Item::symlink(format!("l{i}"), format!("l{}", i + 1))).chain([file("l0/f")]),
            ),
        ),
        above(
            "200 links in one path",
            layer(
                (0..200).map(|i| Item::symlink(format!("l{i}"), format!("l{}", i + 1))).chain([file("l0/f")]),
            ),
        ),
    ];
    for target in [
        "d/f",
        "/d/f",
        "./d/../d/f",
        "d//f",
        "d",
        "d/",
        "",
        "/",
        ".",
        "..",
        "d/f/",
        "s",
        "s/",
        "d/..",
        "nowhere",
        "no/where",
        "d/f/x",
        "../../d/f",
    ] {
        cases.push(above(&format!("a hard link to {target:?}"), to(target)));
    }
    cases
}

fn attributes() -> Vec<Case> {
    let file = |name: &str| Item::file(name, "x");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let acl = acl();
    vec![
        above(
            "extended attributes",
            layer([
                file("f")
                    .owner(1, 1)
                    .mode(0o4755)
                    .xattr("security.capability", capability)
                    .xattr("user.note", "n"),
                Item::dir("d").xattr("user.empty", "").xattr("user.zero", [0, 1, 0]),
                file("t")
                    .xattr("trusted.overlay.opaque", "y")
                    .xattr("nonsense", "y")
                    .xattr("system.none", "y"),
                Item::symlink("s", "f").xattr("user.ignored", "y").xattr("security.note", "s"),
                Item::new(b'6', "p").xattr("user.ignored", "y").xattr("security.note", "s"),
                file("g").xattr("security.capability", capability),
                Item::hard_link("stripped", "f").owner(1, 1).mode(0o755),
                Item::hard_link("kept", "g").xattr("security.capability", capability),
                Item::dir("opaque").xattr("trusted.overlay.opaque", "y"),
                file("dup").record("SCHILY.xattr.user.a", "1").record("SCHILY.xattr.user.a", "2"),
            ]),
        ),
        above(
            "access control lists",
            layer([
                file("f").mode(0o640).xattr("system.posix_acl_access", &acl),
                Item::dir("d").mode(0o750).xattr("system.posix_acl_default", &acl),
                file("d/f").mode(0o664),
                Item::dir("d/e").mode(0o711),
                file("d/e/f").mode(0o600),
                file("d/implied/f"),
                Item::symlink("d/s", "f"),
                Item::new(b'6', "d/p").mode(0o622),
                file("d/.wh.gone"),
            ]),
        ),
        above("a broken access control list", layer([file("f").xattr("system.posix_acl_access", "x")])),
        above("an attribute without a name", layer([file("f").xattr("", "x")])),
        above(
            "an attribute of a long name",
            layer([file("f").xattr(&format!("user.{}", "n".repeat(251)), "x")]),
        ),
        above("an attribute of 65537 bytes", layer([file("f").xattr("user.big", vec![1; 65_537])])),
        above(
            "records",
            layer([
                file("wrong")
                    .size(1)
                    .record("path", "right")
                    .record("uid", "70000")
                    .record("gid", "4294967296"),
                file("time").record("mtime", "1500000000.123456789").record("atime", "1600000000.5"),
                file("negative").record("mtime", "-5.5"),
                Item::dir("negative-dir").mtime(-7),
                file("late").record("mtime", "9223372037"),
                file("later").record("mtime", "9223372036854775807"),
                Item::symlink("link", "wrong").record("linkpath", "right"),
                file("minus-one").owner(-1, -1),
                file("large").owner(4_294_967_294, 1 << 40),
                file("plus").record("uid", "+7"),
                file("unknown").record("VENDOR.thing", "x").record("uname", "root").record("comment", ""),
                Item::file("own-size", "12345").size(3).record("size", "5"),
            ]),
        ),
        above(
            "a size that shrinks",
            Tape::new().item(Item::file("f", "12345").record("size", "2")).item(file("g")).end(),
        ),
        above("no number", layer([file("f").record("uid", "root")])),
        above("no time", layer([file("f").record("ctime", "soon")])),
        above("a negative size", layer([file("f").record("size", "-1")])),
    ]
}

fn parents() -> Vec<Case> {
    let below = || {
        layer([
            Item::dir("a").mode(0o2750).owner(1, 2).mtime(77).xattr("user.note", "a"),
            Item::dir("a/b").mode(0o711).owner(3, 4).mtime(78),
            Item::dir("real").mode(0o701),
            Item::dir("real/b").mode(0o702).owner(5, 5),
            Item::symlink("link", "real"),
            Item::symlink("abs", "/real"),
            Item::symlink("dangling", "nowhere"),
            Item::file("file", ""),
            Item::dir("opaque/b").mode(0o703),
            Item::dir("gone").mode(0o704),
        ])
    };
    let file = |name: &str| Item::file(name, "x");
    let near = layer([Item::dir("a").mode(0o700), file("opaque/.wh..wh..opq"), file(".wh.gone")]);
    let above = || {
        layer([
            file("a/b/c/f"),
            file("link/b/f"),
            file("abs/b/f"),
            file("dangling/f"),
            file("file/f"),
            file("opaque/b/f"),
            file("gone/f"),
            file("new/f"),
            file("a/.wh.x"),
            file("a/b/.wh..wh..opq"),
        ])
    };
    vec![
        Case::new(
            "implied below one with a default access control list",
            [layer([Item::dir("d").xattr("system.posix_acl_default", acl())]), layer([file("d/f")])],
        )
        .but(Differs::At(
            &["1:d/f"],
            "the lower's attributes come when all is unpacked, and no image that anybody builds has such lists",
        )),
        Case::new("implied directories take after the lower", [below(), above()]),
        Case::new("and after the nearest of two", [below(), near.clone(), above()]),
        Case::new(
            "implied below something that was taken away",
            [layer([Item::dir("gone/b").mode(0o700)]), layer([file(".wh.gone")]), layer([file("gone/b/f")])],
        )
        .but(Differs::OnlyWeTake("overlayfs shows no such directory, so there is nothing to take after; containerd fails")),
        Case::new(
            "implied, then described, over a lower with attributes",
            [
                layer([Item::dir("d").mode(0o700).xattr("user.note", "lower")]),
                layer([file("d/f"), Item::dir("d").mode(0o750)]),
            ],
        )
        .but(Differs::At(&["1:d"], "what a layer describes is as described; containerd leaves the lower's attributes where the file comes first")),
    ]
}

/// An access control list of five entries.
fn acl() -> Vec<u8> {
    // Version 2; user rwx, group r-x, a named user r--, mask rwx, other ---.
    let entry = |tag: u16, perm: u16, id: u32| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let entries =
        [entry(1, 7, none), entry(2, 4, 9), entry(4, 5, none), entry(16, 7, none), entry(32, 0, none)];
    [vec![2, 0, 0, 0], entries.concat()].concat()
}
