//! Stacks of layers that nobody would write.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::tape::{Item, Tape};
use super::zoo::{Case, Differs};

/// The same `count` stacks in every run.
pub(super) fn stacks(count: usize) -> Vec<Case> {
    let mut runner = TestRunner::deterministic();
    let mut stack = |number: usize| {
        let layers = (vec(item(false), 1..12), vec(vec(item(true), 1..12), 0..3));
        let (lowest, above) = layers.new_tree(&mut runner).expect("a stack").current();
        let layers: Vec<Vec<Item>> = std::iter::once(lowest).chain(above).collect();
        let name = format!("random {number}: {layers:#?}");
        Case::new(&name, layers.into_iter().map(Tape::of).collect::<Vec<_>>()).but(Differs::MayOnlyWeTake(
            "not a directory",
            "a directory is implied where a lower layer has a file on the way; overlayfs shows the directory",
        ))
    };
    (0..count).map(&mut stack).collect()
}

/// A path of few names, so that they meet. Mostly the name says what it is, so that not every layer is refused.
fn path(last: [&'static str; 3]) -> impl Strategy<Value = String> {
    let dir = || prop_oneof![5 => Just("a"), 5 => Just("b"), 2 => Just("l"), 1 => Just("..")];
    let last = prop_oneof![5 => Just(last[0]), 4 => Just(last[1]), 2 => Just(last[2]), 1 => dir()];
    (vec(dir(), 0..3), last).prop_map(|(dirs, last)| [dirs, vec![last]].concat().join("/"))
}

fn file() -> impl Strategy<Value = String> {
    path(["f", "g", "h"])
}

fn dir() -> impl Strategy<Value = String> {
    path(["a", "b", "d"])
}

fn link() -> impl Strategy<Value = String> {
    path(["l", "m", "n"])
}

/// `marks`: whiteouts, too. In the lowest layer they are no marks.
fn item(marks: bool) -> impl Strategy<Value = Item> {
    let whiteout = path(["w", "v", "u"]).prop_map(|path| match path.rsplit_once('/') {
        Some((dir, name)) => Item::file(format!("{dir}/.wh.{name}"), ""),
        None => Item::file(format!(".wh.{path}"), ""),
    });
    let marks = u32::from(marks);
    let kinds = prop_oneof![
        7 => (file(), vec(any::<u8>(), 0..1500)).prop_map(|(path, content)| Item::file(path, content)),
        2 => (link(), dir()).prop_map(|(path, target)| Item::symlink(path, target)),
        1 => (link(), file()).prop_map(|(path, target)| Item::symlink(path, format!("/{target}"))),
        1 => (file(), file()).prop_map(|(path, target)| Item::hard_link(path, target)),
        2 * marks => whiteout,
        marks => dir().prop_map(|path| Item::file(format!("{path}/.wh..wh..opq"), "")),
        1 => file().prop_map(|path| Item::new(b'6', path)),
        1 => (file(), 0i64..300, 0i64..1000)
            .prop_map(|(path, major, minor)| Item::new(b'3', path).device(major, minor)),
    ];
    // No attributes on directories: implied first, they would keep the lower's, which is one of the listed differences.
    let note = prop_oneof![3 => Just(None), 1 => vec(any::<u8>(), 0..30).prop_map(Some)];
    let kinds = (kinds, note).prop_map(|(item, note)| match note {
        Some(note) => item.xattr("user.note", note),
        None => item,
    });
    let kinds = prop_oneof![3 => kinds, 1 => dir().prop_map(Item::dir)];
    let mode = prop_oneof![Just(0o755u64), Just(0o644), 0u64..0o10000];
    let owner = (prop_oneof![Just(0i64), 1i64..70_000], prop_oneof![Just(0i64), 1i64..70_000]);
    let mtime = prop_oneof![Just(0i64), 1i64..1_700_000_000, Just(-5), Just(4_000_000_000)];
    (kinds, mode, owner, mtime)
        .prop_map(|(item, mode, (uid, gid), mtime)| item.mode(mode).owner(uid, gid).mtime(mtime))
}
