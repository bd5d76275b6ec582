//! What `kubectl apply -k` installs: the shipped DaemonSet's pod, on a real node.

use crate::parts::{Bed, Installed};

#[tokio::test]
async fn the_shipped_daemon_set_runs_and_the_node_says_so() {
    let installed = Installed::on(Bed::start(&["node-a"]).await).await;
    let labels = installed.wait_labels("node-a", &["stoker.dev/gpu", "stoker.dev/ready"]).await;
    assert_eq!(labels["stoker.dev/gpu"], "ready");
    assert_eq!(labels["stoker.dev/ready"], "true");
    let status = installed.status("node-a").await.expect("an answer");
    assert_eq!((status.gpu["devices"].as_u64(), status.ready), (Some(2), true));
    assert_eq!(installed.metric("stoker_list_errors").await, Some(0.0));

    let pod = installed.agent_ready("node-a").await;
    let containers = pod["status"]["containerStatuses"].as_array().expect("its containers");
    let restarts: Vec<_> = containers.iter().map(|one| (&one["name"], &one["restartCount"])).collect();
    assert_eq!(restarts, [(&"agent".into(), &0.into()), (&"gpu-probe".into(), &0.into())]);
}
