//! Bytes that the disk forgets, and the commands that look after the cache.

use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use serde_json::Value;

use crate::node::{SOON, assert_current, label_of, list, said};
use crate::parts::{Agent, Fault, Rule, Status, Stoker, until};

use super::capacity::{PATIENT, blob, entry, names_go};
use super::{Bed, gets};

/// Flips a byte in the middle of a file, as a disk may; nothing else about the file changes.
fn flip(path: &Path) {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.seek(std::io::SeekFrom::Start(middle)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(std::io::SeekFrom::Start(middle)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
    file.sync_all().unwrap();
}

/// Waits until a blob that was spoilt has its bytes again, and whatever shows it has them too.
async fn mended(agent: &Agent, weights: &[u8]) {
    let (path, names) = (blob(agent, weights), agent.cache().join("weights"));
    let is_right = async || {
        let entries = std::fs::read_dir(&names).ok()?;
        let shown = entries.filter_map(|entry| std::fs::read(entry.ok()?.path().join("current/a.bin")).ok());
        let mut all = shown.chain(std::fs::read(&path).ok());
        (path.exists() && all.all(|found| found == weights)).then_some(())
    };
    until("that it's fetched again", PATIENT, is_right).await;
}

#[tokio::test]
async fn a_flipped_byte_is_found_and_its_label_goes_before_it_is_fetched_again() {
    let bed = Bed::start().await;
    let agent = bed.agent.env("STOKER_SCRUB_RATE", "1000").env("STOKER_SCRUB_DAYS", "0.00001");
    let mut bed = Bed { agent, ..bed };
    let (a, a_bytes) = entry(&bed, "a", 3, "");
    let (b, b_bytes) = entry(&bed, "b", 3, "");
    bed.agent.write_list(&list(&[&a, &b]));
    bed.agent.start().await;
    bed.agent.wait_for("both", PATIENT, |status| status.entries.len() == 2 && status.all_warm()).await;
    let before = gets(&bed.http, "b.bin").len();
    bed.http.add(Rule::get("a.bin", Fault::Stall(1000)).always());
    flip(&blob(&bed.agent, &a_bytes));
    let gone = |status: &Status| !status.labels.contains_key("weights.stoker.dev/a");
    let status = bed.agent.wait_for("that it's found", PATIENT, gone).await;
    assert!(status.labels.contains_key("weights.stoker.dev/b"), "{status:?}");
    until("that it's fetched again", PATIENT, async || (bed.http.stalled() > 0).then_some(())).await;
    bed.http.clear();
    bed.agent.wait_for("both", PATIENT, |status| status.all_warm() && status.labels.len() >= 2).await;
    assert_current(&bed.agent, "a", &[("a.bin", &a_bytes)]);
    assert_current(&bed.agent, "b", &[("b.bin", &b_bytes)]);
    assert_eq!(gets(&bed.http, "b.bin").len(), before, "{:#?}", bed.http.seen());
}

#[tokio::test]
async fn a_round_goes_on_where_a_killed_agent_was() {
    let bed = Bed::start().await;
    let agent = bed.agent.env("STOKER_SCRUB_RATE", "1000");
    let mut bed = Bed { agent, ..bed };
    let (a, a_bytes) = entry(&bed, "a", 3, "");
    bed.agent.write_list(&list(&[&a]));
    bed.agent.start().await;
    bed.agent.wait_entry("a", "Warm", PATIENT).await;
    let state = bed.agent.cache().join("v1/scrub.json");
    let ended = async || {
        let text = std::fs::read_to_string(&state).ok()?;
        text.contains("\"ended\":true").then_some(text)
    };
    let round = until("the end of a round", PATIENT, ended).await;
    bed.agent.kill9();
    // Found wrong only by the next round, which is days away.
    flip(&blob(&bed.agent, &a_bytes));
    bed.agent.start().await;
    bed.agent.wait_entry("a", "Warm", PATIENT).await;
    assert_eq!(std::fs::read_to_string(&state).unwrap(), round, "the round isn't begun anew");

    // A round that was at its beginning goes on, and finds it.
    bed.agent.kill9();
    let began = serde_json::from_str::<Value>(&round).unwrap()["began"].clone();
    let half = serde_json::json!({"began": began, "after": null, "ended": false});
    std::fs::write(&state, half.to_string()).unwrap();
    bed.agent.start().await;
    mended(&bed.agent, &a_bytes).await;
    bed.agent.wait_entry("a", "Warm", PATIENT).await;
    assert_current(&bed.agent, "a", &[("a.bin", &a_bytes)]);
}

struct Run {
    code: Option<i32>,
    out: String,
    said: String,
}

async fn cache(agent: &Agent, args: &[&str]) -> Run {
    let run = Stoker::new(["cache", "--cache-dir"]).args([&agent.cache()]).args(args).output(SOON).await;
    let out = String::from_utf8_lossy(&run.stdout).into_owned();
    Run { code: run.status.code(), out, said: said(&run) }
}

#[tokio::test]
async fn the_commands_work_beside_a_running_agent() {
    let mut bed = Bed::start().await;
    let (a, a_bytes) = entry(&bed, "a", 2, "");
    let (b, b_bytes) = entry(&bed, "b", 1, "");
    let again = a.replace("id: a", "id: again");
    bed.agent.write_list(&list(&[&a, &b, &again]));
    bed.agent.start().await;
    bed.agent.wait_for("all", PATIENT, |status| status.entries.len() == 3 && status.all_warm()).await;
    bed.agent.write_list(&list(&[&a, &again]));
    names_go(&bed.agent, "b").await;

    let ls = cache(&bed.agent, &["ls"]).await;
    assert_eq!(ls.code, Some(0), "{}", ls.said);
    let row = |begin: &str| ls.out.lines().find(|line| line.starts_with(begin)).unwrap_or_default();
    assert!(row("a ").contains("2.0 MiB") && row("a ").contains("verified"), "{}", ls.said);
    let label = label_of(&[("b.bin", &b_bytes)]);
    assert!(row("(b)").contains(&label) && row("(b)").contains("unneeded for"), "{}", ls.said);
    let json: Value = serde_json::from_str(&cache(&bed.agent, &["ls", "--json"]).await.out).unwrap();
    assert_eq!(json["weights"][0]["sharedBytes"], 2 << 20, "{json}");
    assert_eq!(
        (&json["unneeded"][0]["ids"][0], &json["unneeded"][0]["bytes"]),
        (&"b".into(), &(1 << 20).into())
    );
    assert_eq!(json["bytes"], 3 << 20, "what is shared counts once: {json}");

    let right = cache(&bed.agent, &["verify"]).await;
    assert_eq!(
        (right.code, right.out.trim()),
        (Some(0), "2 files, 3.0 MiB: all as they should be"),
        "{}",
        right.said
    );
    let refused = cache(&bed.agent, &["gc"]).await;
    assert_eq!(refused.code, Some(4), "{}", refused.said);
    assert!(refused.said.contains("stop the agent first"), "{}", refused.said);
    assert!(blob(&bed.agent, &b_bytes).exists());

    flip(&blob(&bed.agent, &a_bytes));
    let wrong = cache(&bed.agent, &["verify", "a"]).await;
    assert_eq!(wrong.code, Some(1), "{}", wrong.said);
    assert!(wrong.out.contains("(a: a.bin)"), "{}", wrong.said);
    assert!(wrong.said.contains("--mend"), "{}", wrong.said);
    assert_eq!(cache(&bed.agent, &["verify", "--mend"]).await.code, Some(1));
    // Of requests there may have been two before: one that is late is made again.
    mended(&bed.agent, &a_bytes).await;
    bed.agent.wait_for("both", PATIENT, |status| status.all_warm() && status.done).await;
    let right = cache(&bed.agent, &["verify"]).await;
    assert_eq!(right.code, Some(0), "{}", right.said);
    assert_eq!(cache(&bed.agent, &["verify", "nobody"]).await.code, Some(1));

    bed.agent.stop(SOON).await;
    let gc = cache(&bed.agent, &["gc"]).await;
    assert_eq!((gc.code, gc.out.trim()), (Some(0), "removed 1 file, 1.0 MiB"), "{}", gc.said);
    assert!(!blob(&bed.agent, &b_bytes).exists());
    assert_current(&bed.agent, "a", &[("a.bin", &a_bytes)]);
    let nothing = Stoker::new(["cache", "--cache-dir", "/nonexistent/cache", "gc"]).output(SOON).await;
    assert_eq!(nothing.status.code(), Some(4), "{}", said(&nothing));
    assert!(!Path::new("/nonexistent").exists());
}
