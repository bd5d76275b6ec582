//! Layers that are more than a node can bear.

use stoker::types::ErrorKind;

use super::*;

fn over(words: &'static str) -> Refusal {
    Refusal(ErrorKind::Corrupt, "BadLayer", words)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_exceeds_a_limit_is_refused() {
    let bed = Bed::start().await;
    let long = "n".repeat(256);
    let parts = |count: usize| "d/".repeat(count) + "f";
    let huge = |name: &str| Item::file(name, "x").record("size", (1_u64 << 50).to_string());
    // Each link is the one before, twice: naming the last one walks 2^40 links.
    let mut doubled = vec![Item::symlink("l0", ".")];
    doubled.extend((1..40).map(|at| Item::symlink(format!("l{at}"), format!("l{0}/l{0}", at - 1))));
    doubled.push(Item::file("l39/f", "x"));
    let circle = vec![Item::symlink("a", "b"), Item::symlink("b", "a"), Item::file("a/f", "x")];
    let deeper: Vec<Item> = (0..20)
        .map(|at| {
            Item::symlink(
                format!("s{at}"),
                if at == 0 { parts(200) } else { format!("s{}/x", at - 1) + &"/y".repeat(20) },
            )
        })
        .chain([Item::file("s19/f", "x")])
        .collect();
    let sparse = Item::file("sparse", "")
        .record("GNU.sparse.major", "0")
        .record("GNU.sparse.minor", "1")
        .record("GNU.sparse.size", (1_u64 << 50).to_string())
        .record("GNU.sparse.numblocks", "0")
        .record("GNU.sparse.map", "");
    for (name, items, refusal) in [
        ("depth", vec![Item::file(parts(300), "x")], over("a path of 301 parts")),
        ("depth of directories", vec![Item::dir(parts(256))], over("a path of 257 parts")),
        ("depth behind links", deeper, over("parts")),
        ("a name", vec![Item::file(&long, "x")], over("longer than the file system takes")),
        ("a path", vec![Item::file(format!("{long}/").repeat(20), "x")], over("a name of")),
        (
            "a link's text",
            vec![Item::symlink("l", "t".repeat(5000))],
            over("longer than the file system takes"),
        ),
        ("records", vec![Item::file("f", "x").record("comment", "c".repeat(2 << 20))], over("of over 1 MiB")),
        ("a size", vec![huge("f")], over("bytes of content")),
        ("a sparse file", vec![sparse], over("bytes of content")),
        ("links of links", doubled, over("links in its path")),
        ("a circle of links", circle, over("links in its path")),
    ] {
        let image = Image::of([Forged::packed(&Tape::of(items))]);
        bed.refuses(name, &image, refusal).await;
    }
    bed.pulling.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_inflates_to_more_than_the_disk_has_ends_at_its_header() {
    let bed = Bed::start().await;
    let room = rustix::fs::statvfs(bed.pulling.bench.containerd.root()).unwrap();
    let room = room.f_bavail * room.f_frsize;
    // Half a MiB of zeros a KiB, and the next file says that there's more to come than the disk has.
    let zeros = vec![0; 64 << 20];
    let items = [Item::file("zeros", &zeros), Item::file("more", "").size(room.cast_signed())];
    let layer = Forged::packed(&Tape::of(items));
    assert!(layer.size < 1 << 20, "{} bytes", layer.size);
    let refusal = Refusal(ErrorKind::NoSpace, "NoSpace", "bytes of content");
    bed.refuses("a bomb", &Image::of([layer]), refusal).await;
    bed.pulling.end().await;
}
