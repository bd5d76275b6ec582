//! Killed and run again: what was marked isn't fetched again, what isn't right isn't believed, and nothing half-done is
//! ever visible.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use stoker::types::{ByteRange, Digest};
use stoker::weights::Journal;

use crate::node::{BUCKET, SOON, assert_current, bytes, index, leftovers, list, said};
use crate::parts::{Agent, Fault, FaultProxy, Process, Rule, Stoker, until};

use super::{Bed, asked, gets};

const MIB: usize = 1 << 20;

/// The least that an agent takes: two ranges of 16 MiB at once.
const MEMORY: u64 = 32 << 20;

/// With an agent that has so little: a file comes range after range, and not all of them at once.
async fn frugal_bed() -> Bed {
    let bed = Bed::start().await;
    Bed { agent: bed.agent.env("STOKER_MEMORY", (MEMORY >> 20).to_string()), ..bed }
}

/// What journals below the cache's `v1/partial` say is on the disk, by the digest of the file.
fn marked(cache: &Path) -> BTreeMap<String, Vec<ByteRange>> {
    let dirs = std::fs::read_dir(cache.join("v1/partial")).into_iter().flatten().flatten();
    let journal = |dir: std::fs::DirEntry| {
        let journal = Journal::read(&std::fs::read(dir.path().join("journal")).ok()?)?;
        Some((dir.file_name().into_string().unwrap(), journal.marked().collect()))
    };
    dirs.filter_map(journal).collect()
}

/// How many bytes that is.
fn marked_bytes(cache: &Path) -> u64 {
    marked(cache).values().flatten().map(|range| range.len()).sum()
}

/// Waits until the agent has `bytes` marked in the cache, and kills it.
async fn kill_when_marked(agent: &mut Agent, bytes: u64) {
    let cache = agent.cache();
    let far = async || (marked_bytes(&cache) >= bytes).then_some(());
    agent.running().wait_ready("marks", SOON, far).await;
    agent.kill9();
}

/// The directory of the one file that is on its way.
fn partial(agent: &Agent) -> PathBuf {
    let partials: Vec<_> = std::fs::read_dir(agent.cache().join("v1/partial")).unwrap().flatten().collect();
    assert_eq!(partials.len(), 1, "{partials:?}");
    partials[0].path()
}

/// A set of weights that comes from nginx by an index, in one generation after the other.
struct Model {
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Model {
    fn new(generation: u64) -> Self {
        let sizes = [("one.safetensors", 70 * MIB + 5), ("two.safetensors", 40 * MIB), ("config.json", 900)];
        let files =
            sizes.iter().zip(0..).map(|((name, size), n)| (*name, bytes(100 * generation + n, *size)));
        Self { files: files.collect() }
    }

    fn files(&self) -> Vec<(&str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (*name, &**bytes)).collect()
    }

    fn serve(&self, bed: &Bed) {
        for (name, bytes) in &self.files {
            bed.nginx.put(&format!("m/{name}"), bytes);
        }
        bed.nginx.put("m/index.json", index(&self.files()));
    }

    fn size(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// Bytes that are on the disk as they should be and not marked: what a kill costs beside what was in flight.
    fn unmarked(&self, cache: &Path) -> u64 {
        let marked = marked(cache);
        let of_file = |(_, bytes): &(&str, Vec<u8>)| {
            let key = Digest::of(bytes).hex();
            let data = std::fs::read(cache.join("v1/partial").join(&key).join("data")).unwrap_or_default();
            let pages = data.chunks(4096).zip(bytes.chunks(4096));
            let right: usize =
                pages.filter(|(here, right)| here == right).map(|(_, right)| right.len()).sum();
            let marked: u64 = marked.get(&key).into_iter().flatten().map(|range| range.len()).sum();
            (right as u64).saturating_sub(marked)
        };
        self.files.iter().map(of_file).sum()
    }
}

/// Of what was asked of the server since `before`, nothing had been marked by then.
fn assert_not_asked_again(
    http: &FaultProxy,
    before: usize,
    model: &Model,
    marked: &BTreeMap<String, Vec<ByteRange>>,
) {
    for (name, bytes) in &model.files {
        let Some(marked) = marked.get(&Digest::of(bytes).hex()) else { continue };
        let seen = http.seen();
        for seen in seen.iter().skip(before).filter(|seen| seen.path.ends_with(name)) {
            let asked = asked(seen);
            let again =
                marked.iter().find(|range| asked.start() < range.end() && range.start() < asked.end());
            assert_eq!(again, None, "{name}: {asked} was asked for again");
        }
    }
}

#[tokio::test]
async fn killed_fifty_times_it_ends_warm_and_asks_for_nothing_that_was_marked() {
    let mut bed = frugal_bed().await;
    bed.agent.write_list(&list(&[&format!("{}, index: true", bed.bare("m", "m/index.json"))]));
    let mut random = fastrand::Rng::with_seed(50);
    let mut generation = 0;
    let mut model = Model::new(generation);
    model.serve(&bed);
    let (mut sent, mut allowed, mut kept) = (0, model.size(), BTreeMap::new());
    for _ in 0..50 {
        let (before, asked_before) = (bed.http.body_bytes(), bed.http.seen().len());
        bed.agent.spawn();
        let far = random.u64(0..64 << 20);
        let current = bed.agent.cache().join("weights/m/current");
        let shown = std::fs::read_link(&current).ok();
        let is_warm = || current.is_symlink() && std::fs::read_link(&current).ok() != shown;
        let reached = async || (bed.http.body_bytes() - before >= far || is_warm()).then_some(());
        bed.agent.running().wait_ready("its bytes", SOON, reached).await;
        bed.agent.kill9();
        sent += bed.http.body_bytes() - before;
        assert_not_asked_again(&bed.http, asked_before, &model, &kept);
        if is_warm() {
            // Whole, and then there is a new generation to fetch.
            assert_current(&bed.agent, "m", &model.files());
            generation += 1;
            model = Model::new(generation);
            model.serve(&bed);
            allowed += model.size();
        }
        kept = marked(&bed.agent.cache());
        // What was in memory, what the sockets held, and what was on the disk without a mark.
        allowed += MEMORY + (8 << 20) + model.unmarked(&bed.agent.cache());
    }
    let (before, asked_before) = (bed.http.body_bytes(), bed.http.seen().len());
    bed.agent.start().await;
    let label = crate::node::label_of(&model.files());
    let warm = |status: &crate::parts::Status| status.labels.get("weights.stoker.dev/m") == Some(&label);
    bed.agent.wait_for("warmth", 2 * SOON, warm).await;
    sent += bed.http.body_bytes() - before;
    assert_not_asked_again(&bed.http, asked_before, &model, &kept);
    assert_current(&bed.agent, "m", &model.files());
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
    assert!(sent <= allowed, "{sent} bytes were sent, where {allowed} were to be expected");
}

#[tokio::test]
async fn an_object_that_changed_meanwhile_begins_again_alone() {
    let mut bed = frugal_bed().await;
    let (same, old, new) = (bytes(1, 64 * MIB), bytes(2, 64 * MIB + 1), bytes(3, 64 * MIB + 2));
    // By parts, so that the store publishes no SHA-256 and the ETag is all there is.
    bed.s3.put_in_parts(BUCKET, "m/same.bin", &same, 16 * MIB).await;
    bed.s3.put_in_parts(BUCKET, "m/changes.bin", &old, 16 * MIB).await;
    bed.agent.write_list(&list(&[&format!("id: m, weights: s3://{BUCKET}/m/")]));
    bed.objects.throttle(Some(60 << 20));
    bed.agent.spawn();
    let (cache, count) = (bed.agent.cache(), |cache: &Path| marked(cache).len());
    bed.agent.running().wait_ready("marks of both", SOON, async || (count(&cache) == 2).then_some(())).await;
    bed.agent.kill9();
    let kept: Vec<ByteRange> = marked(&cache).into_values().flatten().collect();
    bed.s3.put_in_parts(BUCKET, "m/changes.bin", &new, 16 * MIB).await;
    let before = bed.objects.seen().len();
    bed.objects.throttle(None);
    bed.agent.start().await;
    bed.agent.wait_entry("m", "Warm", SOON).await;
    assert_current(&bed.agent, "m", &[("changes.bin", &new), ("same.bin", &same)]);
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
    let asked_since = |path: &str| -> Vec<ByteRange> {
        let seen = bed.objects.seen();
        let gets = seen.iter().skip(before).filter(|seen| seen.method == "GET" && seen.path.contains(path));
        gets.filter(|seen| seen.range.is_some()).map(asked).collect()
    };
    let bytes_of = |ranges: &[ByteRange]| ranges.iter().map(|range| range.len()).sum::<u64>();
    assert_eq!(bytes_of(&asked_since("changes.bin")), new.len() as u64, "the new version, all of it");
    let of_same = bytes_of(&asked_since("same.bin"));
    assert!(of_same < same.len() as u64, "{of_same} of what hadn't changed, though {kept:?} were marked");
}

/// Bytes that were asked for at least once: what is late is asked for twice.
fn covered(mut ranges: Vec<ByteRange>) -> u64 {
    ranges.sort_by_key(|range| range.start());
    let (mut bytes, mut upto) = (0, 0);
    for range in ranges {
        bytes += range.end().saturating_sub(range.start().max(upto));
        upto = upto.max(range.end());
    }
    bytes
}

#[tokio::test]
async fn a_flipped_byte_in_what_was_fetched_before_is_found() {
    let mut bed = frugal_bed().await;
    let weights = bytes(1, 80 * MIB);
    bed.nginx.put("m.bin", &weights);
    bed.agent.write_list(&list(&[&bed.with_digest("m", "m.bin", &weights)]));
    bed.http.throttle(Some(60 << 20));
    bed.agent.spawn();
    kill_when_marked(&mut bed.agent, 32 << 20).await;
    let kept: Vec<ByteRange> = marked(&bed.agent.cache()).into_values().flatten().collect();
    let data = std::fs::OpenOptions::new().write(true).open(partial(&bed.agent).join("data")).unwrap();
    let at = kept[0].start() + 4_567_890;
    data.write_all_at(&[weights[at as usize] ^ 1], at).unwrap();
    drop(data);
    bed.http.throttle(None);
    let before = gets(&bed.http, "m.bin").len();
    bed.agent.start().await;
    bed.agent.wait_entry("m", "Warm", SOON).await;
    assert_current(&bed.agent, "m", &[("m.bin", &weights)]);
    let again: Vec<ByteRange> = gets(&bed.http, "m.bin").iter().skip(before).map(asked).collect();
    assert!(again.iter().any(|range| range.start() <= at && at < range.end()), "{again:?}");
    let sent = covered(again.clone());
    let right: u64 = kept[1..].iter().map(|range| range.len()).sum();
    assert!(
        sent <= weights.len() as u64 - right,
        "only the range that was wrong: {sent}, {again:?}, {kept:?}"
    );
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_fetched_of_an_entry_that_is_no_longer_listed_is_cleaned() {
    let mut bed = frugal_bed().await;
    let (weights, other) = (bytes(1, 80 * MIB), bytes(2, 1000));
    bed.nginx.put("m.bin", &weights);
    bed.nginx.put("other.bin", &other);
    let (entry, other_entry) =
        (bed.with_digest("m", "m.bin", &weights), bed.with_digest("o", "other.bin", &other));
    bed.agent.write_list(&list(&[&entry]));
    bed.http.throttle(Some(60 << 20));
    bed.agent.spawn();
    kill_when_marked(&mut bed.agent, 16 << 20).await;
    // Listed still, it would be gone on with; but the agent starts with a list that doesn't name it.
    bed.agent.write_list(&list(&[&other_entry]));
    bed.agent.start().await;
    bed.agent.wait_entry("o", "Warm", SOON).await;
    until("its end", SOON, async || leftovers(&bed.agent).is_empty().then_some(())).await;
    bed.agent.stop(SOON).await;
}

#[tokio::test]
async fn what_nobody_goes_on_with_gives_way_on_a_full_disk() {
    let mut bed = frugal_bed().await;
    let (gone, wanted) = (bytes(1, 60 * MIB), bytes(2, 50 * MIB));
    bed.nginx.put("gone.bin", &gone);
    bed.nginx.put("wanted.bin", &wanted);
    super::refusals::small_cache(&bed.agent, 100);
    bed.agent.write_list(&list(&[&bed.with_digest("gone", "gone.bin", &gone)]));
    bed.http.throttle(Some(60 << 20));
    bed.agent.spawn();
    kill_when_marked(&mut bed.agent, 16 << 20).await;
    bed.http.throttle(None);
    // It's listed, but its source has it no longer.
    bed.http.add(Rule::get("gone.bin", Fault::Status { code: 404, retry_after: None }).always());
    let entries =
        [bed.with_digest("gone", "gone.bin", &gone), bed.with_digest("wanted", "wanted.bin", &wanted)];
    bed.agent.write_list(&list(&entries.each_ref().map(String::as_str)));
    bed.agent.start().await;
    bed.agent.wait_entry("wanted", "Warm", SOON).await;
    assert_current(&bed.agent, "wanted", &[("wanted.bin", &wanted)]);
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
}

/// `stoker pull URL --to DIR`.
fn pull(bed: &Bed, dir: &Path) -> Stoker {
    let url = format!("{}/m/index.json", bed.http.url());
    Stoker::new(["pull", "--index", "--memory", "32", &url, "--to"]).args([dir])
}

/// What journals of files that aren't finished say in `dir`.
fn marked_beside(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|file| file.path());
    let journals = files.filter(|path| path.extension().is_some_and(|extension| extension == "journal"));
    let journals = journals.filter_map(|path| Journal::read(&std::fs::read(path).ok()?));
    journals.map(|journal| journal.marked().map(|range| range.len()).sum::<u64>()).sum()
}

#[tokio::test]
async fn a_pull_goes_on_after_ctrl_c_and_after_a_kill() {
    let bed = frugal_bed().await;
    let model = Model::new(7);
    model.serve(&bed);
    let dir = bed.agent.scratch().dir("pulled");
    bed.http.throttle(Some(60 << 20));
    let mut least = 0;
    for (how, far) in [("interrupted", 20 << 20), ("killed", 50 << 20)] {
        let run = Process::start("stoker pull", &pull(&bed, &dir).command(), &bed.agent.scratch().join(how));
        run.wait_ready("marks", SOON, async || (marked_beside(&dir) >= far).then_some(())).await;
        if how == "killed" {
            run.kill9();
        } else {
            run.terminate();
            assert_eq!(run.wait(SOON).await.code(), Some(130), "{}", run.log());
        }
        least = marked_beside(&dir);
        assert!(least >= far);
        assert!(!dir.join("one.safetensors").exists(), "nothing half-done has its name");
    }
    bed.http.throttle(None);
    // What the proxy was still sending to the run that was killed isn't the next one's.
    until("the end of what was under way", SOON, async || (bed.http.relaying() == 0).then_some(())).await;
    let before = bed.http.body_bytes();
    let ended = pull(&bed, &dir).output(SOON).await;
    assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
    let sent = bed.http.body_bytes() - before;
    assert!(
        sent <= model.size() - least + MIB as u64,
        "{sent} were sent, though {least} of {} were there",
        model.size()
    );
    for (name, bytes) in &model.files {
        assert!(std::fs::read(dir.join(name)).unwrap() == *bytes, "{name}");
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), model.files.len());
}

/// A server, or a proxy on the way, that takes ranges no longer: nothing is gained, and nothing is lost.
#[tokio::test]
async fn a_server_without_ranges_is_read_from_its_beginning() {
    let mut bed = frugal_bed().await;
    let weights = bytes(1, 60 * MIB);
    bed.nginx.put("m.bin", &weights);
    bed.agent.write_list(&list(&[&bed.with_digest("m", "m.bin", &weights)]));
    bed.http.throttle(Some(60 << 20));
    bed.agent.spawn();
    kill_when_marked(&mut bed.agent, 16 << 20).await;
    bed.http.throttle(None);
    bed.http.add(Rule::get("m.bin", Fault::IgnoreRange).always());
    bed.agent.start().await;
    bed.agent.wait_entry("m", "Warm", SOON).await;
    assert_current(&bed.agent, "m", &[("m.bin", &weights)]);
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
}
