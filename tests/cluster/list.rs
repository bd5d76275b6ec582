//! The list from a ConfigMap, against a real API server, with the rights that the agent has and no more.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stoker::cluster::{Cluster, spawn_config_map_list};
use stoker::list::{AllowList, List};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::parts::{ControlPlane, until};

const DEADLINE: Duration = Duration::from_secs(90);

const MAP: &str = "/api/v1/namespaces/stoker-system/configmaps/stoker-list";

const ACCOUNT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: stoker-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stoker, namespace: stoker-system}
";

const RIGHTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: stoker, namespace: stoker-system}
rules:
- {apiGroups: [''], resources: [configmaps], resourceNames: [stoker-list], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: stoker, namespace: stoker-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: stoker}
subjects: [{kind: ServiceAccount, name: stoker, namespace: stoker-system}]
";

const USER: &str = "system:serviceaccount:stoker-system:stoker";

fn document(ids: &[&str]) -> String {
    let entries: Vec<_> = ids.iter().map(|id| json!({"id": id, "image": "nginx"})).collect();
    json!({"apiVersion": "stoker.dev/v1", "kind": "PrefetchList", "entries": entries}).to_string()
}

/// Makes the ConfigMap what this says, whether it's there or not.
async fn put(control: &ControlPlane, content: Value) {
    let mut map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "stoker-list", "namespace": "stoker-system"},
    });
    map.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
    if control.try_call("PUT", MAP, Some(&map)).await.is_err() {
        control.call("POST", MAP.trim_end_matches("/stoker-list"), Some(&map)).await;
    }
}

async fn put_list(control: &ControlPlane, document: &str) {
    put(control, json!({"data": {"list.yaml": document}})).await;
}

struct Running {
    lists: watch::Receiver<Option<Arc<List>>>,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    async fn start(kubeconfig: &Path, state: &Path) -> Self {
        let stop = CancellationToken::new();
        let cluster = Cluster::connect(Some(kubeconfig)).await.unwrap();
        let source = "stoker-system/stoker-list".parse().unwrap();
        let allow = AllowList::default();
        let (lists, task) = spawn_config_map_list(cluster, source, state.to_owned(), allow, stop.clone());
        Self { lists, task, stop }
    }

    async fn published(&mut self, what: &str, wanted: impl Fn(&List) -> bool) -> Arc<List> {
        let wanted = self.lists.wait_for(|list| list.as_deref().is_some_and(&wanted));
        let found = tokio::time::timeout(DEADLINE, wanted).await;
        found.unwrap_or_else(|_| panic!("never {what}")).unwrap().clone().unwrap()
    }

    /// The next list that has exactly these entries, all of them well, and lets removals go on.
    async fn lists(&mut self, ids: &[&str]) {
        self.published(&format!("{ids:?}"), |list| list.errors.is_empty() && listed(list) == ids).await;
    }

    /// The next list with an error that says this, which keeps these entries and holds removals.
    async fn kept(&mut self, error: &str, ids: &[&str]) {
        let wanted = |list: &List| list.errors.iter().any(|said| said.contains(error));
        let list = self.published(error, wanted).await;
        assert_eq!(listed(&list), ids, "{error}");
        assert!(list.removals_held, "{error}");
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn listed(list: &List) -> Vec<&str> {
    let good = list.entries.iter().filter(|listed| listed.entry().is_some());
    good.map(|listed| listed.id().as_str()).collect()
}

async fn prepared(rights: &str) -> ControlPlane {
    let control = ControlPlane::start().await;
    control.apply(ACCOUNT).await;
    if !rights.is_empty() {
        control.apply(rights).await;
    }
    control
}

async fn kubeconfig(control: &ControlPlane) -> PathBuf {
    control.kubeconfig_for_token(&control.token("stoker-system", "stoker", None, 3600).await)
}

/// Requests of the agent's own account, as `VERB CODE`.
async fn requests(control: &ControlPlane) -> Vec<String> {
    let log = control.audit_log().await;
    // A watch has two events: when it begins and when it ends.
    let mut seen = HashSet::new();
    let own = log.iter().filter(|event| event["user"]["username"] == USER);
    let own = own.filter(|event| seen.insert(event["auditID"].to_string()));
    own.map(|event| format!("{} {}", event["verb"].as_str().unwrap(), event["responseStatus"]["code"]))
        .collect()
}

#[tokio::test]
async fn the_list_follows_its_config_map_and_outlives_it() {
    let control = prepared(RIGHTS).await;
    put_list(&control, &document(&["a"])).await;
    let state = tempfile::tempdir().unwrap();
    let mut running = Running::start(&kubeconfig(&control).await, state.path()).await;
    running.lists(&["a"]).await;
    put_list(&control, &document(&["a", "b"])).await;
    running.lists(&["a", "b"]).await;
    put_list(&control, "entries: [").await;
    running.kept("line 1", &["a", "b"]).await;
    put(&control, json!({"data": {"other": "x"}})).await;
    running.kept("no key \"list.yaml\" (it has other)", &["a", "b"]).await;
    put(&control, json!({"binaryData": {"list.yaml": "eA=="}})).await;
    running.kept("put the list under data", &["a", "b"]).await;
    put_list(&control, &format!("{}{}", document(&["c"]), " ".repeat(256 << 10))).await;
    running.kept("larger than 256 KiB", &["a", "b"]).await;
    control.call("DELETE", MAP, None).await;
    running.kept("there is no such ConfigMap", &["a", "b"]).await;
    put_list(&control, &document(&["c"])).await;
    running.lists(&["c"]).await;
    put_list(&control, &document(&[])).await;
    running.lists(&[]).await;

    // The same content again is no news.
    running.lists.mark_unchanged();
    let touched = json!({"metadata": {"annotations": {"touched": "yes"}}});
    control.call("PATCH", MAP, Some(&touched)).await;
    put_list(&control, &document(&["d"])).await;
    running.lists.changed().await.unwrap();
    assert_eq!(listed(running.lists.borrow_and_update().as_ref().unwrap()), ["d"]);
    running.stop().await;
    // All of it by reading once and watching once.
    assert_eq!(requests(&control).await, ["list 200", "watch 200"]);
}

#[tokio::test]
async fn rights_that_come_late_are_waited_for_and_named() {
    let control = prepared("").await;
    put_list(&control, &document(&["a"])).await;
    let state = tempfile::tempdir().unwrap();
    let mut running = Running::start(&kubeconfig(&control).await, state.path()).await;
    running.kept("cannot list resource \"configmaps\"", &[]).await;
    // First all but the right to watch.
    control.apply(&RIGHTS.replace(", watch]", "]")).await;
    running.lists(&["a"]).await;
    put_list(&control, &document(&["b"])).await;
    running.lists(&["b"]).await;
    control.apply(RIGHTS).await;
    until("a watch", DEADLINE, async || {
        requests(&control).await.contains(&"watch 200".to_owned()).then_some(())
    })
    .await;
    running.stop().await;
    let refused = requests(&control).await.iter().filter(|request| request.ends_with("403")).count();
    assert!(refused < 40, "{refused} requests were refused");
}

#[tokio::test]
async fn a_killed_api_server_costs_nothing_but_time() {
    let mut control = prepared(RIGHTS).await;
    put_list(&control, &document(&["a"])).await;
    let state = tempfile::tempdir().unwrap();
    let mut running = Running::start(&kubeconfig(&control).await, state.path()).await;
    running.lists(&["a"]).await;
    for ids in [&["b"], &["c"]] {
        control.kill_api_server();
        running.lists.mark_unchanged();
        control.start_api_server().await;
        put_list(&control, &document(ids)).await;
        // The next one that is published is the new one: nothing that went wrong meanwhile is said in a list.
        running.lists.changed().await.unwrap();
        let list = running.lists.borrow_and_update().clone().unwrap();
        assert_eq!((listed(&list), &list.errors[..]), (ids.to_vec(), &[][..]));
    }
    running.stop().await;
    let requests = requests(&control).await;
    assert!(requests.len() < 20, "{requests:?}");
}

#[tokio::test]
async fn a_token_that_no_longer_holds_is_replaced_by_the_one_in_its_file() {
    const PODS: &str = "/api/v1/namespaces/stoker-system/pods";
    let mut control = prepared(RIGHTS).await;
    control.fake_node("fake-a").await;
    put_list(&control, &document(&["a"])).await;
    let mut tokens = Vec::new();
    for name in ["first", "second"] {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "serviceAccountName": "stoker",
                "nodeName": "fake-a",
                "containers": [{"name": "c", "image": "none"}],
            },
        });
        let pod = control.call("POST", PODS, Some(&pod)).await;
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        tokens.push(control.token("stoker-system", "stoker", Some((name, uid)), 3600).await);
    }
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, format!("{}\n", tokens[0])).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(kubeconfig(&control).await).unwrap()).unwrap();
    config["users"][0]["user"] = json!({"tokenFile": token});
    let path = dir.path().join("kubeconfig");
    fs::write(&path, config.to_string()).unwrap();
    let mut running = Running::start(&path, &dir.path().join("state")).await;
    running.lists(&["a"]).await;

    // The token of a pod that is gone isn't one any more; a server that was started again has no watch to go on with.
    control.call("DELETE", &format!("{PODS}/first?gracePeriodSeconds=0"), None).await;
    control.kill_api_server();
    control.start_api_server().await;
    running.kept("check the token", &["a"]).await;
    let new = dir.path().join("new");
    fs::write(&new, &tokens[1]).unwrap();
    fs::rename(&new, &token).unwrap();
    running.lists(&["a"]).await;
    put_list(&control, &document(&["b"])).await;
    running.lists(&["b"]).await;
    running.stop().await;
}

#[tokio::test]
async fn without_an_api_server_a_start_goes_on_with_the_stored_list() {
    let mut control = prepared(RIGHTS).await;
    put_list(&control, &document(&["a"])).await;
    let kubeconfig = kubeconfig(&control).await;
    let (stored, nothing) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut running = Running::start(&kubeconfig, stored.path()).await;
    running.lists(&["a"]).await;
    running.stop().await;

    control.call("DELETE", MAP, None).await;
    control.kill_api_server();
    let mut with = Running::start(&kubeconfig, stored.path()).await;
    let mut without = Running::start(&kubeconfig, nothing.path()).await;
    with.lists(&["a"]).await;
    assert!(without.lists.borrow().is_none(), "nothing is known");
    control.start_api_server().await;
    with.kept("there is no such ConfigMap", &["a"]).await;
    without.kept("there is no such ConfigMap", &[]).await;
    put_list(&control, &document(&["b"])).await;
    with.lists(&["b"]).await;
    without.lists(&["b"]).await;
    with.stop().await;
    without.stop().await;
}
