//! How a test speaks to its control plane: clients, kubectl, tokens, Nodes without a kubelet.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use super::control_plane::{ControlPlane, ISSUER, KUBERNETES};
use super::programs::part;
use super::scratch::Scratch;

/// How long a request of a fixture may take. A server that has just been killed may leave a connection that never
/// answers.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The API server makes no token for less than this.
const SHORTEST_TOKEN: u64 = 600;

impl ControlPlane {
    /// A client that may do everything.
    pub(crate) async fn client(&self) -> kube::Client {
        self.client_of(self.kubeconfig()).await
    }

    /// A client with somebody else's kubeconfig.
    pub(crate) async fn client_of(&self, kubeconfig: &Path) -> kube::Client {
        // No timeout on reading: it would cut watches.
        let config = read_config(kubeconfig).await;
        kube::Client::try_from(config).expect("a client can be made")
    }

    /// Runs kubectl as somebody who may do everything. The output is given whatever the exit status is.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_with(self.kubeconfig(), args).await
    }

    /// The same with somebody else's kubeconfig.
    pub(crate) async fn kubectl_with(&self, kubeconfig: &Path, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(part(KUBERNETES, "kubectl"));
        // It keeps a cache in its home.
        command.args(args).env("KUBECONFIG", kubeconfig).env("HOME", self.scratch.path());
        command.kill_on_drop(true).output().await.expect("kubectl can be run")
    }

    /// Runs kubectl and gives its standard output.
    ///
    /// # Panics
    /// When it fails.
    pub(crate) async fn kubectl_ok(&self, args: &[&str]) -> String {
        let output = self.kubectl(args).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {args:?}: {}: {errors}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Applies these objects; what others have set is overruled.
    pub(crate) async fn apply(&self, yaml: &str) {
        let file = self.scratch.file(numbered("applied", "yaml"), yaml);
        let file = file.to_str().expect("a path in text");
        self.kubectl_ok(&["apply", "--server-side", "--force-conflicts", "-f", file]).await;
    }

    /// A token of a service account, bound to a pod of its namespace (name and uid) where one is given; it then also
    /// carries the name of that pod's node. For less than ten minutes the API server makes none: such a token is
    /// signed here with the server's own key, and is as good.
    pub(crate) async fn token(
        &self,
        namespace: &str,
        account: &str,
        pod: Option<(&str, &str)>,
        seconds: u64,
    ) -> String {
        if seconds < SHORTEST_TOKEN {
            return self.sign_token(namespace, account, pod, seconds).await;
        }
        let bound =
            pod.map(|(name, uid)| json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}));
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds, "boundObjectRef": bound},
        });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let answer = self.call("POST", &path, Some(&request)).await;
        text(&answer, "/status/token")
    }

    async fn sign_token(
        &self,
        namespace: &str,
        account: &str,
        pod: Option<(&str, &str)>,
        seconds: u64,
    ) -> String {
        let place = format!("/api/v1/namespaces/{namespace}");
        let found = self.call("GET", &format!("{place}/serviceaccounts/{account}"), None).await;
        let account = json!({"name": account, "uid": found["metadata"]["uid"]});
        let mut bound = json!({"namespace": namespace, "serviceaccount": account});
        if let Some((name, uid)) = pod {
            bound["pod"] = json!({"name": name, "uid": uid});
            let pod = self.call("GET", &format!("{place}/pods/{name}"), None).await;
            if let Some(node) = pod["spec"]["nodeName"].as_str() {
                let uid = &self.call("GET", &format!("/api/v1/nodes/{node}"), None).await["metadata"]["uid"];
                bound["node"] = json!({"name": node, "uid": uid});
            }
        }
        let now = jiff::Timestamp::now().as_second();
        let account = account["name"].as_str().unwrap_or_default();
        self.pki.sign(&json!({
            "iss": ISSUER,
            "aud": [ISSUER],
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "jti": format!("{:x}", fastrand::u128(..)),
            "iat": now,
            "nbf": now,
            "exp": now + i64::try_from(seconds).expect("less than ten minutes"),
            "kubernetes.io": bound,
        }))
    }

    /// A kubeconfig with this token.
    pub(crate) fn kubeconfig_for_token(&self, token: &str) -> PathBuf {
        let login = json!({"token": token});
        write_kubeconfig(&self.scratch, &numbered("token", "user"), self.address(), self.ca(), &login)
    }

    /// Makes a Node that no kubelet stands behind: ready, without a taint, with the usual labels of a Linux node.
    pub(crate) async fn fake_node(&self, name: &str) {
        let labels = json!({
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        });
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
        self.call("POST", "/api/v1/nodes", Some(&node)).await;
        let room = json!({"cpu": "8", "memory": "64Gi", "pods": "110"});
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let ready = json!({
            "type": "Ready",
            "status": "True",
            "reason": "Fake",
            "message": "no kubelet stands behind this node",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        });
        let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
        let path = format!("/api/v1/nodes/{name}");
        self.call("PATCH", &format!("{path}/status"), Some(&status)).await;
        // The API server itself taints a new Node as not ready; only then is it untainted for good.
        self.call("PATCH", &path, Some(&json!({"spec": {"taints": null}}))).await;
    }

    /// Asks the API server; a PATCH is a JSON merge patch.
    ///
    /// # Panics
    /// When it refuses.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = self.try_call(method, path, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The same, with the API server's own words when it refuses.
    pub(crate) async fn try_call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, kube::Error> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
        let client = brief_client(self.kubeconfig()).await;
        client.request(request.body(body).expect("a request")).await
    }
}

/// Writes `NAME.kubeconfig`.
pub(super) fn write_kubeconfig(
    scratch: &Scratch,
    name: &str,
    server: SocketAddr,
    ca: &Path,
    login: &Value,
) -> PathBuf {
    let cluster = json!({"server": format!("https://{server}"), "certificate-authority": ca});
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": login}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    });
    scratch.file(format!("{name}.kubeconfig"), config.to_string())
}

async fn read_config(kubeconfig: &Path) -> kube::Config {
    let read = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    kube::Config::from_custom_kubeconfig(read, &options).await.expect("a usable kubeconfig")
}

/// A client for short requests. One per call: a connection belongs to the runtime of the test that opened it.
pub(super) async fn brief_client(kubeconfig: &Path) -> kube::Client {
    let mut config = read_config(kubeconfig).await;
    config.read_timeout = Some(TIMEOUT);
    config.connect_timeout = Some(TIMEOUT);
    kube::Client::try_from(config).expect("a client can be made")
}

fn numbered(name: &str, end: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}.{end}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("{pointer} isn't in {value}")).to_owned()
}
