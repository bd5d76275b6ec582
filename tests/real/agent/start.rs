//! What stands in the way of a start, and what answers once it has started.

use std::time::Duration;

use crate::node::{SOON, agent, list, said};
use crate::parts::{FreePort, Gpus, Nginx, Scratch, Status, Stoker};

async fn get(url: &str) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn metrics_and_probes_answer_while_it_runs() {
    let gpus = Gpus::healthy(3);
    let nginx = Nginx::start().await;
    nginx.put("a.bin", b"first");
    let port = FreePort::find();
    let mut agent = agent(&gpus).env("STOKER_HTTP", port.address());
    agent.write_list(&list(&[&format!("id: a, weights: \"{}\"", nginx.url("a.bin"))]));
    agent.start().await;
    agent.wait_for("warmth", SOON, Status::all_warm).await;
    let at = |path: &str| format!("http://{}{path}", port.address());
    assert_eq!(get(&at("/livez")).await, (200, "ok\n".to_owned()));
    assert_eq!(get(&at("/readyz")).await, (200, "ok\n".to_owned()));
    let (status, metrics) = get(&at("/metrics")).await;
    assert_eq!(status, 200);
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("{name}: {metrics}"))
    };
    assert!((value("stoker_gpu_devices") - 3.0).abs() < 0.1);
    assert!((value("stoker_gpu_gate_open") - 1.0).abs() < 0.1);
    assert!((value("stoker_ready") - 1.0).abs() < 0.1);
    let warm = "stoker_entries{state=\"warm\",kind=\"weights\"}";
    assert!((value(warm) - 1.0).abs() < 0.1);
    assert!(metrics.ends_with("# EOF\n"));
    let (status, page) = get(&at("/")).await;
    assert!(status == 200 && page.contains("weights.stoker.dev/a"), "{page}");
}

#[tokio::test]
async fn a_second_agent_on_one_cache_is_refused_and_told_what_to_do() {
    let gpus = Gpus::healthy(1);
    let mut first = agent(&gpus);
    first.start().await;
    let second = Scratch::new("second");
    let run = Stoker::new(["agent", "--no-gpu=proceed", "--allow-root-fs", "--http=off"])
        .args(["--list".as_ref(), second.file("list.yaml", list(&[])).as_os_str()])
        .args(["--cache-dir".as_ref(), first.cache().as_os_str()])
        .args(["--state-dir".as_ref(), second.join("state").as_os_str()])
        .args(["--socket".as_ref(), second.join("s.sock").as_os_str()])
        .output(Duration::from_secs(20))
        .await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(4), "{told}");
    let pid = format!("pid {}", first.running().pid());
    for part in ["another agent", &*pid, first.cache().to_str().unwrap(), "--cache-dir"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(first.status().await.is_some(), "the first one goes on");
    // A lock that a killed agent left is none.
    first.kill9();
    first.start().await;
}

#[tokio::test]
async fn a_socket_that_another_agent_answers_on_is_left_to_it() {
    let gpus = Gpus::healthy(1);
    let mut first = agent(&gpus);
    first.start().await;
    let second = Scratch::new("second");
    let run = Stoker::new(["agent", "--no-gpu=proceed", "--allow-root-fs", "--http=off"])
        .args(["--list".as_ref(), second.file("list.yaml", list(&[])).as_os_str()])
        .args(["--cache-dir".as_ref(), second.join("cache").as_os_str()])
        .args(["--state-dir".as_ref(), second.join("state").as_os_str()])
        .args(["--socket".as_ref(), first.socket().as_os_str()])
        .output(Duration::from_secs(20))
        .await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(4), "{told}");
    assert!(told.contains(first.socket().to_str().unwrap()), "{told}");
    assert!(first.status().await.is_some(), "the first one goes on");
}

#[tokio::test]
async fn a_cache_on_the_root_file_system_is_refused() {
    let scratch = Scratch::new("root-fs");
    // What is the root is told by a flag, so this holds wherever the test's directories are.
    let run = Stoker::new(["agent", "--once", "--no-gpu=proceed", "--http=off"])
        .args(["--list".as_ref(), scratch.file("list.yaml", list(&[])).as_os_str()])
        .args(["--cache-dir".as_ref(), scratch.join("cache").as_os_str()])
        .args(["--state-dir".as_ref(), scratch.join("state").as_os_str()])
        .args(["--socket".as_ref(), scratch.join("s.sock").as_os_str()])
        .args(["--host-root".as_ref(), scratch.path().as_os_str()])
        .output(Duration::from_secs(20))
        .await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(4), "{told}");
    assert!(
        told.contains("--allow-root-fs") && told.contains(scratch.join("cache").to_str().unwrap()),
        "{told}"
    );
    assert!(!scratch.join("cache/v1").exists(), "nothing is made there");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_at_once() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let gpus = Gpus::none();
    let run = agent(&gpus).env("STOKER_HTTP", &address).once(SOON).await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(4), "{told}");
    assert!(told.contains(&address) && told.contains("--http"), "{told}");
}

#[tokio::test]
async fn a_list_that_was_never_there_is_no_success() {
    let gpus = Gpus::healthy(1);
    let agent = agent(&gpus).env("STOKER_LIST", "/nonexistent/list.yaml");
    let run = agent.once(SOON).await;
    let told = said(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("/nonexistent/list.yaml"), "{told}");
}
