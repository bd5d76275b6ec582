//! The API server goes away for a while, in the midst of fetching.

use std::time::Duration;

use serde_json::Value;

use crate::parts::{Bed, Fault, FaultProxy, Installed, Nginx, Rule, START, Status, list_of};
use crate::workload::bytes;

const AGENT: &str = "stoker agent --list-configmap";
/// How long it is away, told by the bytes that come meanwhile at this rate.
const AWAY: u64 = 60;
const RATE: u64 = 256 << 10;
const MODEL: u64 = (AWAY + 20) * RATE;
/// What the agent may ask for until all is as it should be: reading and watching the list and the Node, writing labels
/// and conditions, each of them once or twice.
const HANDFUL: usize = 16;

/// The containers of the agent's pod as kubelet tells: which they are, and how often they were started again.
async fn containers(installed: &Installed) -> Vec<(Value, Value)> {
    let pod = installed.agent_ready("node-a").await;
    let statuses = pod["status"]["containerStatuses"].as_array().expect("its containers");
    statuses.iter().map(|one| (one["containerID"].clone(), one["restartCount"].clone())).collect()
}

fn agent(installed: &Installed) -> u32 {
    let processes = installed.bed.node("node-a").processes();
    processes.iter().find(|(_, line)| line.contains(AGENT)).expect("the agent runs").0
}

/// Waits until so many more bytes of the weights have come.
async fn more_bytes(installed: &Installed, slow: &FaultProxy, count: u64) {
    let end = slow.body_bytes() + count;
    let deadline = START + Duration::from_secs(count / RATE);
    let come = async || (slow.body_bytes() >= end).then_some(());
    installed.wait("node-a", &format!("{count} bytes more"), deadline, come).await;
}

/// The agent's requests since a moment, as the audit log has them.
async fn requests(installed: &Installed, since: jiff::Timestamp) -> Vec<String> {
    let log = installed.bed.control.audit_log().await.into_iter().filter(|event| {
        let at = event["requestReceivedTimestamp"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        event["user"]["username"] == "system:serviceaccount:stoker-system:stoker"
            && at.is_some_and(|at| at >= since)
    });
    let line = |event: Value| {
        let (verb, uri, code) = (&event["verb"], &event["requestURI"], &event["responseStatus"]["code"]);
        format!("{} {verb} {uri} {code}", event["requestReceivedTimestamp"])
    };
    log.map(line).collect()
}

#[tokio::test]
async fn g_while_the_api_server_is_away_fetching_goes_on_and_then_the_labels_come_without_a_burst() {
    let nginx = Nginx::start().await;
    let model = bytes(1, usize::try_from(MODEL).unwrap());
    nginx.put("model.bin", &model);
    nginx.put("later.bin", bytes(2, 1 << 20));
    let mut installed = Installed::on(Bed::start(&["node-a"]).await).await;
    installed.wait_labels("node-a", &["stoker.dev/gpu", "stoker.dev/ready"]).await;
    let app = installed.push_app("team/app", "app").await;
    let (weights, registry) =
        (FaultProxy::start(&nginx.host()), FaultProxy::start(&installed.bed.registry.host()));
    weights.throttle(Some(RATE));
    registry.add(Rule::get("/team/app/", Fault::Stall(0)).always());
    installed.bed.node("node-a").trust(&installed.bed.registry.host(), &registry.url());
    let image = format!("id: app, image: \"{}\"", app.by_tag());
    let slow = format!("id: model, weights: \"{}/model.bin\"", weights.url());
    installed.list(&[&image, &slow]).await;
    let under_way = async || (weights.body_bytes() > 0 && registry.stalled() > 0).then_some(());
    installed.wait("node-a", "both to be under way", START, under_way).await;
    let before = (agent(&installed), containers(&installed).await);

    installed.bed.control.kill_api_server();
    more_bytes(&installed, &weights, AWAY / 2 * RATE).await;
    registry.clear();
    let warm = |status: &Status, id: &str| status.entry(id).is_some_and(|entry| entry.state == "Warm");
    installed.wait_status("node-a", "the image", |status| warm(status, "app")).await;
    assert!(installed.bed.node("node-a").images().await.contains(&app.by_tag()));
    more_bytes(&installed, &weights, AWAY / 2 * RATE).await;
    weights.throttle(None);
    let status = installed.wait_status("node-a", "the weights", |status| warm(status, "model")).await;
    assert!(status.all_warm() && status.ready, "{status:?}");
    // A look at what is there takes a byte.
    assert!((MODEL..MODEL + 1024).contains(&weights.body_bytes()), "fetched twice: {}", weights.body_bytes());
    let place = installed.bed.node("node-a").host_path("/var/cache/stoker/weights/model/current/model.bin");
    assert!(std::fs::read(place).unwrap() == model);

    let back = jiff::Timestamp::now();
    installed.bed.control.start_api_server().await;
    let later = format!("id: later, weights: \"{}\"", nginx.url("later.bin"));
    installed.apply_list(&list_of(&[&image, &slow, &later])).await;
    let keys = [
        "image.stoker.dev/app",
        "stoker.dev/gpu",
        "stoker.dev/ready",
        "weights.stoker.dev/later",
        "weights.stoker.dev/model",
    ];
    installed.wait_labels("node-a", &keys).await;
    let requests = requests(&installed, back).await;
    assert!(requests.len() <= HANDFUL, "{} requests: {requests:#?}", requests.len());
    assert_eq!((agent(&installed), containers(&installed).await), before, "kubelet left the pod alone");
}
