//! An agent with a full cache and nothing to do: how soon after its start everything is warm, what it has in memory
//! and what it uses.

use std::time::Duration;

use serde_json::json;
use stoker::types::Digest;
use tokio::time::Instant;

use crate::measure::usage;
use crate::parts::{Agent, Gpus, Nginx, Status};

/// Entries, and blobs of each.
const ENTRIES: u32 = 20;
const BLOBS: u32 = 500;
/// Nothing takes as long.
const LONGEST: Duration = Duration::from_secs(600);
/// For so long it's watched.
const WATCHED: Duration = Duration::from_secs(60);

/// Runs it: filled once, killed with -9, started again.
pub(crate) async fn run() {
    println!("\nan idle agent with {ENTRIES} sets of {BLOBS} blobs: {} in all", ENTRIES * BLOBS);
    let nginx = Nginx::start().await;
    let (mut agent, _gpus) = filled(&nginx).await;
    agent.kill9();
    rustix::fs::sync();
    usage::drop_page_cache();
    let begun = Instant::now();
    agent.start().await;
    agent.wait_for("all to be warm again", LONGEST, is_warm).await;
    let start = begun.elapsed();
    let pid = agent.running().pid();
    let (cpu, peak) = (usage::cpu(pid), usage::peak(pid));
    tokio::time::sleep(WATCHED).await;
    let used = usage::cpu(pid).saturating_sub(cpu);
    println!(
        "  warm {:.2} s after its start, nothing of the disk in memory; {:.1} MiB resident then at most, {:.1} MiB now; \
         {:.2} CPU s in {} s",
        start.as_secs_f64(),
        mib(peak),
        mib(usage::resident(pid)),
        used.as_secs_f64(),
        WATCHED.as_secs()
    );
    println!(
        "  - the blobs have 1,000 bytes each: what an idle agent does depends on how many there are, not on their length"
    );
}

fn is_warm(status: &Status) -> bool {
    status.entries.len() == ENTRIES as usize && status.all_warm()
}

/// An agent that has it all.
async fn filled(nginx: &Nginx) -> (Agent, Gpus) {
    let mut list = "apiVersion: stoker.dev/v1\nkind: PrefetchList\nentries:\n".to_owned();
    for set in 0..ENTRIES {
        let files = (0..BLOBS).map(|number| {
            let mut bytes = vec![0; 1000];
            fastrand::Rng::with_seed(u64::from(set * BLOBS + number)).fill(&mut bytes);
            let path = format!("{number}.bin");
            nginx.put(&format!("{set}/{path}"), &bytes);
            json!({"path": path, "size": bytes.len(), "sha256": Digest::of(&bytes).hex()})
        });
        let index = json!({ "files": files.collect::<Vec<_>>() });
        nginx.put(&format!("{set}/index.json"), index.to_string());
        let url = nginx.url(&format!("{set}/index.json"));
        list.push_str(&format!("- id: set-{set}\n  weights: \"{url}\"\n  index: true\n"));
    }
    let gpus = Gpus::healthy(1);
    let agent = Agent::new().args(gpus.args());
    let list = agent.write_list(&list);
    let nobody = agent.scratch().join("no-containerd.sock");
    let mut agent = agent
        .env("STOKER_LIST", list.display().to_string())
        .env("STOKER_CONTAINERD_ADDRESS", nobody.display().to_string())
        .env("STOKER_ALLOW_SCHEMES", "https,http");
    let begun = Instant::now();
    agent.start().await;
    agent.wait_for("all to be warm", LONGEST, is_warm).await;
    println!("  filled in {:.1} s", begun.elapsed().as_secs_f64());
    (agent, gpus)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
