use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::super::{ImpliedDir, Limits, UnpackError, Unpacker, adopt_from_lowers, copy_root_attributes};
use super::bed::{Bed, mode, xattr};
use super::tape::{Item, MTIME, Magic, Tape};

#[test]
fn a_tree_is_unpacked_whatever_the_pieces() {
    let stream = Tape::new()
        .item(Item::dir("usr/").mode(0o1777).owner(7, 8).mtime(1_000))
        .item(Item::file("usr/data", vec![7; 70_000]).owner(1, 2).mode(0o600).mtime(2_000))
        .item(Item::file("usr/suid", "x").owner(3, 4).mode(0o6755))
        .item(Item::file("usr/empty", ""))
        .item(Item::symlink("link", "usr/data").owner(5, 6).mtime(3_000))
        .item(Item::hard_link("usr/again", "usr/suid").owner(3, 4).mode(0o6755))
        .item(Item::new(b'3', "null").device(1, 3).mode(0o666))
        .item(Item::new(b'4', "disk").device(259, 70_000).mode(0o660).owner(0, 6))
        .item(Item::new(b'6', "pipe").mode(0o622))
        .item(Item::new(0, "old/").magic(Magic::V7).mode(0o700))
        .item(Item::file("old/file", "v7").magic(Magic::V7))
        .item(Item::file(format!("usr/{}", "n".repeat(150)), "long"))
        .long(b'L', format!("usr/{}", "g".repeat(200)))
        .long(b'K', "t".repeat(200))
        .item(Item::new(b'2', "cut").link("cut").magic(Magic::Gnu))
        .end();
    for size in [stream.len(), 1 << 16, 513, 512, 511, 7] {
        let bed = Bed::new();
        let mut sink = Unpacker::new(bed.open(), Limits::default()).unwrap();
        let unpacked = bed.feed_with(&mut sink, &stream, size).unwrap();
        assert_eq!((unpacked.entries, unpacked.bytes, unpacked.implied), (13, 70_007, vec![]));
        let usr = bed.stat("usr");
        assert_eq!((mode(&usr), usr.uid(), usr.gid(), usr.mtime()), (0o1777, 7, 8, 1_000));
        let data = bed.stat("usr/data");
        assert_eq!(
            (mode(&data), data.uid(), data.gid(), data.mtime(), data.mtime_nsec()),
            (0o600, 1, 2, 2_000, 0)
        );
        assert_eq!(bed.read("usr/data"), vec![7; 70_000]);
        let suid = bed.stat("usr/suid");
        assert_eq!((mode(&suid), suid.uid(), suid.nlink()), (0o6755, 3, 2));
        assert_eq!(suid.ino(), bed.stat("usr/again").ino());
        assert_eq!((bed.stat("usr/empty").len(), bed.stat("usr/empty").mtime()), (0, MTIME));
        let link = bed.stat("link");
        assert_eq!((link.uid(), link.gid(), link.mtime()), (5, 6, 3_000));
        assert_eq!(std::fs::read_link(bed.path("link")).unwrap(), Path::new("usr/data"));
        let rdev =
            |path| rustix::fs::statat(rustix::fs::CWD, bed.path(path), rustix::fs::AtFlags::empty()).unwrap();
        assert_eq!(rdev("null").st_rdev, rustix::fs::makedev(1, 3));
        assert_eq!(rdev("disk").st_rdev, rustix::fs::makedev(259, 70_000));
        assert!(
            bed.stat("null").file_type().is_char_device() && bed.stat("disk").file_type().is_block_device()
        );
        assert_eq!(
            (mode(&bed.stat("null")), mode(&bed.stat("disk")), bed.stat("disk").gid()),
            (0o666, 0o660, 6)
        );
        assert!(bed.stat("pipe").file_type().is_fifo());
        assert_eq!((mode(&bed.stat("pipe")), mode(&bed.stat("old"))), (0o622, 0o700));
        assert_eq!(bed.read("old/file"), b"v7");
        assert_eq!(bed.read(&format!("usr/{}", "n".repeat(150))), b"long");
        let long = bed.path(format!("usr/{}", "g".repeat(200)));
        assert_eq!(std::fs::read_link(long).unwrap(), PathBuf::from("t".repeat(200)));
    }
}

#[test]
fn modes_are_right_whatever_the_umask_leaves() {
    let bed = Bed::new();
    let modes = [0o777, 0o666, 0o000, 0o4755, 0o2755, 0o1777, 0o7777, 0o400];
    let of = |make: fn(String) -> Item, prefix: &str| {
        let prefix = prefix.to_owned();
        modes.map(|mode| make(format!("{prefix}{mode:o}")).mode(mode))
    };
    let files = of(|name| Item::file(name, "x"), "file");
    let dirs = of(Item::dir, "dir");
    let below_setgid = [
        Item::dir("setgid").mode(0o2755).owner(0, 50),
        Item::dir("setgid/dir"),
        Item::file("setgid/file", "x"),
        Item::file("setgid/implied/file", "x"),
        Item::symlink("setgid/link", "x"),
    ];
    bed.unpack(files.into_iter().chain(dirs).chain(below_setgid)).unwrap();
    for wanted in modes {
        assert_eq!(u64::from(mode(&bed.stat(&format!("file{wanted:o}")))), wanted);
        assert_eq!(u64::from(mode(&bed.stat(&format!("dir{wanted:o}")))), wanted);
    }
    for (path, wanted, gid) in [
        ("dir", 0o755, 0),
        ("file", 0o644, 0),
        ("implied", 0o755, 50),
        ("implied/file", 0o644, 0),
        ("link", 0o777, 0),
    ] {
        let stat = bed.stat(&format!("setgid/{path}"));
        assert_eq!((mode(&stat), stat.gid()), (wanted, gid), "{path}");
    }
}

#[test]
fn whiteouts_become_what_overlay_takes_for_one() {
    let bed = Bed::new();
    bed.unpack([
        Item::file("dir/.wh.gone", "").owner(3, 4),
        Item::file("opaque/.wh..wh..opq", ""),
        Item::file(".wh.top", "content that nobody wants"),
        Item::dir("dir/.wh.a-dir/"),
        Item::file(".wh.back", ""),
        Item::file("back", "again"),
    ])
    .unwrap();
    for path in ["dir/gone", "top", "dir/a-dir"] {
        let stat = bed.stat(path);
        assert!(stat.file_type().is_char_device() && stat.rdev() == 0, "{path}");
    }
    assert_eq!((bed.stat("dir/gone").uid(), bed.stat("dir/gone").gid()), (3, 4));
    assert_eq!(xattr(&bed.path("opaque"), "trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(bed.read("back"), b"again");
    assert!(!bed.exists("opaque/.wh..wh..opq") && !bed.exists("opaque/.wh..opq"));

    let bed = Bed::new();
    bed.unpack([Item::file(".wh..wh..opq", "")]).unwrap();
    assert_eq!(xattr(&bed.root(), "trusted.overlay.opaque").unwrap(), b"y");
}

#[test]
fn in_the_lowest_layer_a_whiteout_removes() {
    let bed = Bed::new();
    let mut sink = Unpacker::lowest(bed.open(), Limits::default()).unwrap();
    let stream = Tape::of([
        Item::file("implied/gone/file", "x"),
        Item::file("kept", "x"),
        Item::file("implied/.wh.gone", ""),
        Item::file(".wh.absent", ""),
        Item::file("implied/.wh..wh..opq", ""),
    ]);
    let unpacked = bed.feed_with(&mut sink, &stream, 512).unwrap();
    assert!(bed.exists("kept") && !bed.exists("implied/gone") && !bed.exists("absent"));
    assert_eq!(xattr(&bed.path("implied"), "trusted.overlay.opaque"), None);
    assert_eq!(unpacked.implied, [ImpliedDir("implied".into())]);
}

#[test]
fn what_was_there_gives_way_except_directories_to_directories() {
    let bed = Bed::new();
    let unpacked = bed
        .unpack([
            Item::file("a", "one"),
            Item::file("a", "another").mode(0o600),
            Item::dir("d").mode(0o700).mtime(5),
            Item::file("d/kept", "x"),
            Item::dir("d").mode(0o750).owner(1, 1).mtime(6),
            Item::file("gone/deep/er/file", "x"),
            Item::file("gone/deep/file", "x"),
            Item::file("gone", "a file now"),
            Item::symlink("s", "d"),
            Item::dir("s"),
            Item::file("implied/file", "x"),
            Item::symlink("implied", "d"),
            Item::file("implied/through", "x"),
        ])
        .unwrap();
    assert_eq!((bed.read("a"), mode(&bed.stat("a"))), (b"another".to_vec(), 0o600));
    let d = bed.stat("d");
    assert_eq!((mode(&d), d.uid(), d.mtime()), (0o750, 1, 6));
    assert!(bed.exists("d/kept") && bed.exists("d/through"));
    assert_eq!(bed.read("gone"), b"a file now");
    assert!(bed.stat("s").is_dir() && bed.stat("implied").is_symlink());
    assert_eq!(unpacked.implied, []);
}

#[test]
fn attributes_come_after_the_owner_and_before_the_mode() {
    let bed = Bed::new();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bed.unpack([
        Item::file("f", "x")
            .owner(1, 1)
            .mode(0o4755)
            .xattr("security.capability", capability)
            .xattr("user.note", "n"),
        Item::dir("d").xattr("user.empty", "").xattr("user.a=b", "c"),
        Item::file("t", "x")
            .xattr("trusted.overlay.opaque", "y")
            .xattr("nonsense", "y")
            .xattr("system.none", "y"),
        Item::symlink("s", "f").xattr("user.ignored", "y"),
        Item::symlink("t2", "f").xattr("trusted.ignored", "y"),
        Item::hard_link("plain", "f").owner(1, 1).mode(0o4755),
        Item::file("g", "x").xattr("security.capability", capability),
    ])
    .unwrap();
    assert_eq!(mode(&bed.stat("f")), 0o4755);
    assert_eq!(xattr(&bed.path("f"), "user.note").unwrap(), b"n");
    assert_eq!(xattr(&bed.path("f"), "security.capability"), None, "the link's chown took it away");
    assert_eq!(xattr(&bed.path("g"), "security.capability").unwrap(), capability);
    assert_eq!(xattr(&bed.path("d"), "user.empty").unwrap(), b"");
    assert_eq!(xattr(&bed.path("d"), "user.a=b"), None, "a key ends at the first =");
    assert_eq!(xattr(&bed.path("t"), "trusted.overlay.opaque"), None);
}

#[test]
fn pax_records_come_before_the_header() {
    let bed = Bed::new();
    bed.unpack([
        Item::file("wrong", "12345")
            .size(3)
            .record("path", "right")
            .record("size", "5")
            .record("uid", "70000")
            .record("gid", "4294967296")
            .record("mtime", "1500000000.123456789")
            .record("atime", "1600000000.5"),
        Item::file("negative", "").record("mtime", "-5.5"),
        Item::file("late", "").record("mtime", "9223372037"),
        Item::symlink("link", "wrong").record("linkpath", "right").record("path", ""),
        Item::file("kept", "").owner(-1, 9),
    ])
    .unwrap();
    let right = bed.stat("right");
    assert_eq!(
        (right.uid(), right.gid(), right.mtime(), right.mtime_nsec()),
        (70_000, 0, 1_500_000_000, 123_456_789)
    );
    assert_eq!((right.atime(), right.atime_nsec()), (1_600_000_000, 500_000_000));
    assert_eq!(bed.read("right"), b"12345");
    assert_eq!((bed.stat("negative").mtime(), bed.stat("late").mtime()), (0, 0));
    assert_eq!(std::fs::read_link(bed.path("link")).unwrap(), Path::new("right"));
    assert_eq!((bed.stat("kept").uid(), bed.stat("kept").gid()), (0, 9));
}

#[test]
fn sparse_files_have_their_holes() {
    let want = |data: &[(usize, &[u8])], size: usize| {
        let mut file = vec![0; size];
        data.iter().for_each(|(at, bytes)| file[*at..at + bytes.len()].copy_from_slice(bytes));
        file
    };
    let v00 = Tape::new().records(
        b'x',
        &[
            ("GNU.sparse.numblocks", "2"),
            ("GNU.sparse.offset", "1"),
            ("GNU.sparse.numbytes", "2"),
            ("GNU.sparse.offset", "1000"),
            ("GNU.sparse.numbytes", "3"),
            ("GNU.sparse.size", "2000"),
            ("GNU.sparse.name", "v00"),
        ]
        .map(|(key, value)| (key.into(), value.into())),
    );
    let stream = v00
        .item(Item::file("placeholder", "abcde"))
        .item(
            Item::file("v01", "abcde")
                .record("GNU.sparse.numblocks", "2")
                .record("GNU.sparse.map", "0,2,7,3")
                .record("GNU.sparse.size", "10"),
        )
        .item(
            Item::file("v10", [&b"2\n600\n2\n5000\n3\n"[..], &[0; 497], b"abcde"].concat())
                .record("GNU.sparse.major", "1")
                .record("GNU.sparse.minor", "0")
                .record("GNU.sparse.name", "v10")
                .record("GNU.sparse.realsize", "6000"),
        )
        .item(
            Item::file("hole", "")
                .record("GNU.sparse.numblocks", "0")
                .record("GNU.sparse.major", "0")
                .record("GNU.sparse.minor", "1")
                .record("GNU.sparse.size", "100000000"),
        )
        .item(Item::file("unknown", "x").record("GNU.sparse.major", "2").record("GNU.sparse.minor", "0"))
        .end();
    for size in [stream.len(), 100] {
        let bed = Bed::new();
        let mut sink = Unpacker::new(bed.open(), Limits::default()).unwrap();
        bed.feed_with(&mut sink, &stream, size).unwrap();
        assert_eq!(bed.read("v00"), want(&[(1, b"ab"), (1000, b"cde")], 2000));
        assert_eq!(bed.read("v01"), want(&[(0, b"ab"), (7, b"cde")], 10));
        assert_eq!(bed.read("v10"), want(&[(600, b"ab"), (5000, b"cde")], 6000));
        assert_eq!((bed.stat("hole").len(), bed.stat("hole").blocks()), (100_000_000, 0));
        assert_eq!(bed.read("unknown"), b"x");
    }
}

#[test]
fn the_root_is_not_described_and_global_records_are_ignored() {
    let bed = Bed::new();
    let before = bed.stat("");
    let stream = Tape::new()
        .item(Item::dir("./").mode(0o700).owner(5, 5))
        .item(Item::dir("/").mode(0o700))
        .item(Item::new(b'Z', "a/../..").size(3).mode(0o700))
        .raw("abc")
        .padded()
        .records(b'g', &[(b"comment".to_vec(), b"git".to_vec()), (b"uid".to_vec(), b"5".to_vec())])
        .item(Item::file("f", "x"))
        .end();
    let unpacked = bed.feed(&stream).unwrap();
    assert_eq!((unpacked.entries, unpacked.bytes), (5, 1));
    assert_eq!((mode(&bed.stat("")), bed.stat("").uid()), (mode(&before), 0));
    assert_eq!(bed.stat("f").uid(), 0);
    assert!(!bed.exists("records") && !bed.exists("a"));
}

#[test]
fn the_end_is_where_go_sees_it() {
    let good = Tape::new().item(Item::file("f", "x"));
    let zeros = vec![0; 512];
    for tail in [&[][..], &zeros, &[&zeros[..], &zeros, b"garbage"].concat()] {
        let bed = Bed::new();
        bed.feed(&good.clone().raw(tail).cut()).unwrap();
        assert_eq!(bed.read("f"), b"x");
    }
    for tail in [&[0; 100][..], &[&zeros[..], b"x"].concat(), &[&zeros[..], &[1; 512]].concat()] {
        assert!(Bed::new().feed(&good.clone().raw(tail).cut()).is_err());
    }
}

#[test]
fn implied_directories_are_told_parents_first() {
    let bed = Bed::new();
    let unpacked = bed
        .unpack([
            Item::file("a/b/c/file", "x"),
            Item::dir("d"),
            Item::file("d/e/file", "x"),
            Item::dir("a/b"),
            Item::symlink("link", "away/further"),
            Item::file("link/file", "x"),
        ])
        .unwrap();
    let paths: Vec<PathBuf> = unpacked.implied.into_iter().map(|dir| dir.0).collect();
    assert_eq!(paths, ["a", "a/b/c", "d/e", "away", "away/further"].map(PathBuf::from));
    assert_eq!(mode(&bed.stat("away/further")), 0o755);
    assert!(bed.exists("away/further/file"));
}

fn adopt(bed: &Bed, implied: &[&str], lowers: &[&Bed]) -> Result<(), UnpackError> {
    let implied: Vec<ImpliedDir> = implied.iter().map(|path| ImpliedDir(path.into())).collect();
    let lowers: Vec<OwnedFd> = lowers.iter().map(|lower| lower.open()).collect();
    adopt_from_lowers(bed.open().as_fd(), &implied, &lowers)
}

#[test]
fn an_implied_directory_takes_after_the_nearest_lower() {
    let (top, near, far) = (Bed::new(), Bed::new(), Bed::new());
    for path in ["both", "only-far/deep", "link/deep", "file", "below-file/deep", "none"] {
        std::fs::create_dir_all(top.path(path)).unwrap();
    }
    near.unpack([
        Item::dir("both").mode(0o2750).owner(1, 2).mtime(77).xattr("user.note", "near"),
        Item::dir("real/deep").mode(0o711).owner(3, 3),
        Item::symlink("link", "/real"),
        Item::file("file", ""),
        Item::file("below-file", ""),
        Item::dir("both/.wh.none"),
    ])
    .unwrap();
    far.unpack([
        Item::dir("both").mode(0o700),
        Item::dir("only-far").mode(0o701).owner(4, 4),
        Item::dir("only-far/deep").mode(0o702),
        Item::dir("link/deep").mode(0o703),
        Item::dir("file").mode(0o704),
        Item::dir("below-file/deep").mode(0o705),
    ])
    .unwrap();
    let near_dir = File::open(near.path("both")).unwrap();
    rustix::fs::fsetxattr(near_dir, "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    let implied = ["both", "only-far", "only-far/deep", "link/deep", "file", "below-file/deep", "none"];
    adopt(&top, &implied, &[&near, &far]).unwrap();
    let both = top.stat("both");
    assert_eq!((mode(&both), both.uid(), both.gid(), both.mtime()), (0o2750, 1, 2, 77));
    assert_eq!(xattr(&top.path("both"), "user.note").unwrap(), b"near");
    assert_eq!(xattr(&top.path("both"), "trusted.overlay.opaque"), None);
    for (path, wanted) in [
        ("only-far", 0o701),
        ("only-far/deep", 0o702),
        ("link/deep", 0o711),
        ("file", 0o755),
        ("below-file/deep", 0o755),
        ("none", 0o755),
    ] {
        assert_eq!(mode(&top.stat(path)), wanted, "{path}");
    }
    assert_eq!(top.stat("only-far").uid(), 4);
}

#[test]
fn what_no_lower_has_belongs_to_the_group_of_the_setgid_directory_that_it_is_in() {
    let (top, lower) = (Bed::new(), Bed::new());
    std::fs::create_dir_all(top.path("a/b/c")).unwrap();
    lower.unpack([Item::dir("a").mode(0o2755).owner(1, 50)]).unwrap();
    adopt(&top, &["a", "a/b", "a/b/c"], &[&lower]).unwrap();
    assert_eq!((top.stat("a").gid(), top.stat("a/b").gid(), top.stat("a/b/c").gid()), (50, 50, 0));
    assert_eq!(mode(&top.stat("a/b")), 0o755);
}

#[test]
fn a_lowers_links_lead_nowhere_outside_it() {
    let (top, lower) = (Bed::new(), Bed::new());
    std::fs::create_dir_all(top.path("a/dir")).unwrap();
    std::fs::create_dir_all(top.path("b/dir")).unwrap();
    std::fs::set_permissions(top.canary().join("dir"), std::fs::Permissions::from_mode(0o777)).unwrap();
    symlink(top.canary(), lower.path("a")).unwrap();
    symlink("../../../../../../../../..".to_owned() + top.canary().to_str().unwrap(), lower.path("b"))
        .unwrap();
    adopt(&top, &["a", "a/dir", "b", "b/dir"], &[&lower]).unwrap();
    assert_eq!((mode(&top.stat("a/dir")), mode(&top.stat("b/dir"))), (0o755, 0o755));
    assert!(adopt(&top, &["absent"], &[&Bed::new()]).is_ok());
    let known = Bed::new();
    known.unpack([Item::dir("absent")]).unwrap();
    assert!(matches!(adopt(&top, &["absent"], &[&known]), Err(UnpackError::Write { .. })));
}

#[test]
fn a_new_root_keeps_what_the_snapshot_had() {
    let (real, scratch) = (Bed::new(), Bed::new());
    std::os::unix::fs::chown(real.root(), Some(3), Some(4)).unwrap();
    std::fs::set_permissions(real.root(), std::fs::Permissions::from_mode(0o1751)).unwrap();
    copy_root_attributes(real.open().as_fd(), scratch.open().as_fd()).unwrap();
    let stat = scratch.stat("");
    assert_eq!((mode(&stat), stat.uid(), stat.gid()), (0o1751, 3, 4));
}
