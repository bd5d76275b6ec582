//! Layers that name what lies outside.

use stoker::types::ErrorKind;

use super::*;
use crate::node::files_below;

/// What becomes of a layer.
enum Fate {
    /// It's taken, and all that it wrote is in the snapshot: these paths, among others.
    Held(&'static [&'static str]),
    /// It's refused, with these words.
    Refused(ErrorKind, &'static str),
}

struct Case {
    name: &'static str,
    items: Vec<Item>,
    fate: Fate,
}

fn held(name: &'static str, items: impl Into<Vec<Item>>, at: &'static [&'static str]) -> Case {
    Case { name, items: items.into(), fate: Fate::Held(at) }
}

fn refused(name: &'static str, items: impl Into<Vec<Item>>, kind: ErrorKind, words: &'static str) -> Case {
    Case { name, items: items.into(), fate: Fate::Refused(kind, words) }
}

/// `DIR` stands for the canary's directory, without its first slash.
fn traversals(dir: &str) -> Vec<Case> {
    let at = |path: &str| path.replace("DIR", dir.trim_start_matches('/'));
    let up = "../".repeat(40);
    let evil = |path: &str| Item::file(at(path), "evil");
    vec![
        held("up", [evil("../canary"), evil("a/../../../b")], &["canary", "b"]),
        held("up to the host", [evil(&format!("{up}DIR/file"))], &["dir/file"]),
        held("absolute", [evil("/DIR/file"), evil("//DIR/new")], &["dir/file", "dir/new"]),
        held(
            "up in records",
            [Item::file("a", "evil").record("path", at(&format!("{up}DIR/file")))],
            &["dir/file"],
        ),
        held("a link to the host", [Item::symlink("out", at("/DIR")), evil("out/file")], &["dir/file"]),
        held(
            "a link upwards",
            [Item::symlink("out", at(&format!("{up}DIR"))), evil("out/file")],
            &["dir/file"],
        ),
        held(
            "a chain of links",
            [
                Item::dir("d"),
                Item::symlink("d/one", "two"),
                Item::symlink("d/two", "../three/four"),
                Item::symlink("three", "/"),
                Item::symlink("four", at(&format!("{up}DIR"))),
                evil("d/one/file"),
            ],
            &["dir/file"],
        ),
        held(
            "a directory that becomes a link",
            [Item::dir("d").mtime(5), evil("d/old"), Item::symlink("d", at("/DIR")), evil("d/file")],
            &["dir/file"],
        ),
        held(
            "a file over a link",
            [Item::symlink("link", at("/DIR/file")), evil("link").mode(0o7777).owner(7, 7)],
            &["link"],
        ),
        held(
            "a directory over a link",
            [Item::symlink("link", at("/DIR")), Item::dir("link").mode(0o700).owner(7, 7), evil("link/file")],
            &["link/file"],
        ),
        held(
            "attributes of a link",
            [
                Item::symlink("link", at("/DIR/file")).owner(7, 7).mode(0o7777).mtime(5),
                Item::symlink("dirlink", at("/DIR")).owner(7, 7).mtime(5).xattr("user.evil", "x"),
            ],
            &[],
        ),
        held("the root itself", [Item::dir("..").mode(0), Item::dir("/").mode(0), evil("f")], &["f"]),
        held(
            "a node over the root",
            [Item::symlink("..", at("/DIR")), Item::symlink(".", "/etc"), evil("f")],
            &["f"],
        ),
    ]
}

fn links(dir: &str) -> Vec<Case> {
    let at = |path: &str| path.replace("DIR", dir.trim_start_matches('/'));
    let up = "../".repeat(40);
    let evil = |path: &str| Item::file(at(path), "evil");
    let corrupt = ErrorKind::Corrupt;
    let absent = "which isn't in the layer";
    vec![
        refused(
            "a hard link to the host",
            [Item::hard_link("h", at("/DIR/file")), evil("h")],
            corrupt,
            absent,
        ),
        refused(
            "a hard link upwards",
            [Item::hard_link("h", at(&format!("{up}DIR/file"))), evil("h")],
            corrupt,
            absent,
        ),
        refused(
            "a hard link through a link",
            [Item::symlink("out", at("/DIR")), Item::hard_link("h", "out/file"), evil("h")],
            corrupt,
            absent,
        ),
        refused("a hard link to the root", [Item::hard_link("h", "/")], corrupt, "hard link"),
        refused("a hard link to what is above", [Item::hard_link("h", "..")], corrupt, "hard link"),
        held(
            "a hard link to a link",
            [
                Item::symlink("out", at("/DIR/file")),
                Item::hard_link("h", "out").mode(0o777).owner(7, 7),
                evil("h"),
            ],
            &["h"],
        ),
    ]
}

fn whiteouts(dir: &str) -> Vec<Case> {
    let at = |path: &str| path.replace("DIR", dir.trim_start_matches('/'));
    let up = "../".repeat(40);
    let gone = |path: &str| Item::file(at(path), "");
    let corrupt = ErrorKind::Corrupt;
    let nothing = "names nothing in its directory";
    vec![
        held("a whiteout upwards", [gone("../.wh.1"), gone(&format!("{up}DIR/.wh.file"))], &[]),
        held("an absolute whiteout", [gone("/DIR/.wh.file"), gone("/DIR/.wh.link")], &[]),
        held("a whiteout through a link", [Item::symlink("out", at("/DIR")), gone("out/.wh.file")], &[]),
        held(
            "an opaque mark through a link",
            [Item::symlink("out", at("/DIR")), gone("out/.wh..wh..opq")],
            &[],
        ),
        held("an opaque mark on the root", [gone(".wh..wh..opq"), gone("../.wh..wh..opq")], &[]),
        refused("a whiteout of what is above", [gone(".wh...")], corrupt, nothing),
        refused("a whiteout of its own directory", [gone("d/.wh..")], corrupt, nothing),
        refused("a whiteout of nothing", [gone("d/.wh.")], corrupt, nothing),
        held("a link that is a whiteout", [Item::symlink(".wh.etc", at("/DIR")), gone("f")], &["f"]),
        held("a directory that is a whiteout", [Item::dir(".wh.d"), gone(".wh.d/f")], &[]),
    ]
}

impl Bed {
    /// As the only layer, where whiteouts remove, and above another, where they mark.
    async fn meets(&self, case: Case) {
        let layer = Forged::packed(&Tape::of(case.items));
        for (place, image) in [("alone", Image::of([layer.clone()])), ("above", Image::above(layer.clone()))]
        {
            let name = format!("{} {place}", case.name);
            match case.fate {
                Fate::Refused(kind, words) => {
                    self.refuses(&name, &image, Refusal(kind, "BadLayer", words)).await;
                }
                Fate::Held(paths) => self.holds(&name, &image, paths).await,
            }
        }
    }

    async fn holds(&self, name: &str, image: &Image, paths: &[&str]) {
        let (tag, pulled) = self.pull(name, image).await;
        if let Err(error) = pulled {
            panic!("{name}: {}", stoker::rt::chain(&error));
        }
        self.pulling.bench.collect().await;
        let unpacked = files_below(&self.pulling.bench.containerd.snapshots());
        let dir = self.canary.dir();
        for path in paths {
            let path = path.replace("dir", dir.trim_start_matches('/'));
            let is_there = unpacked.keys().any(|found| found.ends_with(&format!("/fs/{path}")));
            assert!(is_there, "{name}: {path} isn't in the snapshot, but {:?}", unpacked.keys());
        }
        self.canary.assert_untouched(name);
        self.pulling.bench.is_empty_without(&tag).await;
        // Removing it followed nothing either.
        self.canary.assert_untouched(name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_and_links_lead_nowhere_outside() {
    let bed = Bed::start().await;
    let dir = bed.canary.dir();
    for case in traversals(&dir).into_iter().chain(links(&dir)) {
        bed.meets(case).await;
    }
    bed.pulling.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whiteouts_take_nothing_away_outside() {
    let bed = Bed::start().await;
    let dir = bed.canary.dir();
    for case in whiteouts(&dir) {
        bed.meets(case).await;
    }
    bed.pulling.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_of_a_lower_layer_leads_nowhere_outside() {
    let bed = Bed::start().await;
    let dir = bed.canary.dir();
    let lower = Tape::of([Item::symlink("out", &dir), Item::symlink("root", "/")]);
    let below = dir.trim_start_matches('/');
    let upper = [
        Item::file("out/file", "evil"),
        Item::file("root/new", "evil"),
        Item::file("out/.wh.link", ""),
        Item::file(format!("root/{below}/.wh.file"), ""),
    ];
    let image = Image::of([Forged::packed(&lower), Forged::packed(&Tape::of(upper))]);
    bed.holds("a link below", &image, &["out/file", "root/new"]).await;
    bed.pulling.end().await;
}
