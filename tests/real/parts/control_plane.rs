//! A real control plane on loopback: etcd and kube-apiserver, with the scheduler and the controllers where they
//! are asked for.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::cluster_access::{BriefClient, write_kubeconfig};
use super::free_port::FreePort;
use super::pki::{Pki, Usage};
use super::process::Process;
use super::programs::{part, system};
use super::scratch::Scratch;
use super::wait::{START, until};

/// The release of everything here.
pub(super) const KUBERNETES: &str = "kubernetes-1.36.3";
/// Where the API server listens, which is also the first address of the range that Services take theirs from: the
/// Service `kubernetes` has it, so that pods on the host's network reach the API server as in any cluster, though
/// nothing here forwards a Service's address.
pub(super) const API_ADDRESS: &str = "127.96.0.1";
pub(super) const ISSUER: &str = "https://kubernetes.default.svc";

const SERVICE_ADDRESSES: &str = "127.96.0.0/16";
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
";
/// More than these side by side would only make each slow. A test that has one never starts another: two such tests
/// could wait for each other.
static ROOM: Semaphore = Semaphore::const_new(2);

/// A control plane with certificates of its own. Dropped, it stops in the order in which nothing lingers: an API
/// server without its etcd would keep its port.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    // Dropped in this order.
    pub(super) controllers: Vec<Process>,
    api_server: Option<Process>,
    etcd: Process,
    address: SocketAddr,
    _api_port: FreePort,
    etcd_port: FreePort,
    _etcd_peer_port: FreePort,
    pub(super) pki: Pki,
    ca: PathBuf,
    kubeconfig: PathBuf,
    pub(super) brief: BriefClient,
    pub(super) scratch: Scratch,
    _room: SemaphorePermit<'static>,
}

impl ControlPlane {
    /// Starts etcd and the API server. No controller runs: a namespace has no default service account, a DaemonSet
    /// makes no pods.
    pub(crate) async fn start() -> Self {
        Self::start_naming(&[]).await
    }

    /// The same with the scheduler and the controller manager. A Node whose kubelet is silent stays ready.
    pub(crate) async fn start_with_controllers() -> Self {
        let mut control = Self::start().await;
        control.controllers = control.start_controllers().await;
        control
    }

    /// The same as [`Self::start`], with the names of nodes that the API server is to find on this machine.
    pub(super) async fn start_naming(nodes: &[&str]) -> Self {
        let room = ROOM.acquire().await.expect("it is never closed");
        let scratch = Scratch::new("control");
        let pki = Pki::make(scratch.dir("pki"));
        issue_all(&pki);
        scratch.file("audit-policy.yaml", AUDIT_POLICY);
        scratch.file("hosts", format!("127.0.0.1 localhost {}\n", nodes.join(" ")));
        let (api_port, etcd_port, etcd_peer_port) = (FreePort::find(), FreePort::find(), FreePort::find());
        let etcd = start_etcd(&scratch, &etcd_port, &etcd_peer_port);
        let address = SocketAddr::new(API_ADDRESS.parse().expect("an address"), api_port.number());
        let kubeconfig = write_user(&scratch, &pki, address, "admin");
        let mut control = Self {
            controllers: Vec::new(),
            api_server: None,
            etcd,
            address,
            _api_port: api_port,
            etcd_port,
            _etcd_peer_port: etcd_peer_port,
            ca: pki.certificate("ca"),
            brief: BriefClient::new(&kubeconfig).await,
            kubeconfig,
            pki,
            scratch,
            _room: room,
        };
        control.start_api_server().await;
        control
    }

    /// Where the API server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of the authority that signed the API server's.
    pub(crate) fn ca(&self) -> &Path {
        &self.ca
    }

    /// A kubeconfig of somebody who may do everything.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Its own directory.
    pub(crate) fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// Kills the API server with SIGKILL; etcd stays, and the port stays its own.
    pub(crate) fn kill_api_server(&mut self) {
        if let Some(server) = self.api_server.take() {
            server.kill9();
        }
    }

    /// Starts the API server, again on the same port where it was stopped before; ready when it says so.
    pub(crate) async fn start_api_server(&mut self) {
        self.api_server = None;
        let server = Process::start("kube-apiserver", &self.api_command(), &self.api_log());
        let ready = async || self.brief.gets("/readyz").await.then_some(());
        server.wait_ready("its /readyz", START, ready).await;
        self.api_server = Some(server);
        self.publish_service().await;
    }

    /// All that the API server has logged, over its restarts.
    pub(crate) fn api_server_log(&self) -> String {
        std::fs::read_to_string(self.api_log()).unwrap_or_default()
    }

    /// Each request to the API server that was answered before this call, and each watch that began, as its audit log
    /// has them (audit.k8s.io/v1 Event), over its restarts.
    pub(crate) async fn audit_log(&self) -> Vec<Value> {
        const MARK: &str = "audit-is-settled";
        // An event is written after its answer, so a marked request is made and its event waited for.
        let mark = format!("{MARK}-{}", fastrand::u64(..));
        let read = || std::fs::read_to_string(self.scratch.join("audit.log")).unwrap_or_default();
        if self.api_server.is_some() {
            self.call("GET", &format!("/version?{mark}"), None).await;
            until("an event of the audit log", Duration::from_secs(10), async || {
                read().contains(&mark).then_some(())
            })
            .await;
        }
        let text = read();
        let events = text.lines().filter(|line| !line.contains(MARK));
        // A killed server may have left half a line.
        events.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The Service `kubernetes` is told the API server's real port; its own choice is 443.
    async fn publish_service(&self) {
        const SERVICE: &str = "/api/v1/namespaces/default/services/kubernetes";
        let port = self.address.port();
        let ports = json!([{"name": "https", "protocol": "TCP", "port": port, "targetPort": port}]);
        let patch = json!({"spec": {"ports": ports}});
        let published = async || self.try_call("PATCH", SERVICE, Some(&patch)).await.ok();
        until("the Service kubernetes", START, published).await;
    }

    /// Starts the scheduler and the controllers; ready when a service account has been made.
    pub(super) async fn start_controllers(&self) -> Vec<Process> {
        let mut scheduler = Command::new(part(KUBERNETES, "kube-scheduler"));
        scheduler
            .arg(flag("--kubeconfig", &self.write_user("scheduler")))
            .args(["--secure-port=0", "--leader-elect=false"]);
        let scheduler = Process::start("kube-scheduler", &scheduler, &self.scratch.join("scheduler.log"));
        let mut manager = Command::new(part(KUBERNETES, "kube-controller-manager"));
        manager
            .arg(flag("--kubeconfig", &self.write_user("controllers")))
            .args(["--secure-port=0", "--leader-elect=false", "--use-service-account-credentials=true"])
            // Each controller asks for an account and a token first, which takes seconds at its usual rate.
            .args(["--kube-api-qps=1000", "--kube-api-burst=1000"])
            // Nodes without a kubelet stay ready; nodes with one too while the API server is away.
            .args(["--node-monitor-grace-period=24h"])
            // By itself it makes a directory below /usr/libexec.
            .arg(flag("--flex-volume-plugin-dir", &self.scratch.join("volume-plugins")))
            .arg(flag("--service-account-private-key-file", &self.pki.tokens_key()))
            .arg(flag("--root-ca-file", &self.ca));
        let log = self.scratch.join("controllers.log");
        let manager = Process::start("kube-controller-manager", &manager, &log);
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        let works = async || self.try_call("GET", account, None).await.ok();
        manager.wait_ready("a service account", START, works).await;
        assert!(scheduler.exit_status().is_none(), "kube-scheduler ended{}", scheduler.last_lines());
        vec![manager, scheduler]
    }

    fn api_command(&self) -> Command {
        let mut command = Command::new(system("unshare"));
        command
            // Its own /etc/hosts: kubelets are asked for logs by their nodes' names.
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
            .arg(self.scratch.join("hosts"))
            .arg(part(KUBERNETES, "kube-apiserver"))
            .arg(format!("--etcd-servers=http://{}", self.etcd_port.address()))
            .arg(format!("--bind-address={API_ADDRESS}"))
            .arg(format!("--advertise-address={API_ADDRESS}"))
            .arg(format!("--secure-port={}", self.address.port()))
            .arg(format!("--service-cluster-ip-range={SERVICE_ADDRESSES}"))
            .arg(format!("--service-account-issuer={ISSUER}"))
            .arg(flag("--service-account-key-file", &self.pki.tokens_key()))
            .arg(flag("--service-account-signing-key-file", &self.pki.tokens_key()))
            .arg(flag("--tls-cert-file", &self.pki.certificate("apiserver")))
            .arg(flag("--tls-private-key-file", &self.pki.key("apiserver")))
            .arg(flag("--client-ca-file", &self.ca))
            .arg(flag("--kubelet-client-certificate", &self.pki.certificate("kubelet-client")))
            .arg(flag("--kubelet-client-key", &self.pki.key("kubelet-client")))
            .arg(flag("--kubelet-certificate-authority", &self.ca))
            .arg(flag("--audit-policy-file", &self.scratch.join("audit-policy.yaml")))
            .arg(flag("--audit-log-path", &self.scratch.join("audit.log")))
            .args(["--audit-log-mode=blocking", "--audit-log-maxsize=0"])
            .args(["--kubelet-preferred-address-types=Hostname", "--endpoint-reconciler-type=none"])
            .args(["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"])
            .args(["--allow-privileged=true", "--profiling=false"]);
        command
    }

    fn api_log(&self) -> PathBuf {
        self.scratch.join("apiserver.log")
    }

    /// Writes a kubeconfig for the certificate called `user`.
    pub(super) fn write_user(&self, user: &str) -> PathBuf {
        write_user(&self.scratch, &self.pki, self.address, user)
    }
}

fn write_user(scratch: &Scratch, pki: &Pki, server: SocketAddr, user: &str) -> PathBuf {
    let login = json!({"client-certificate": pki.certificate(user), "client-key": pki.key(user)});
    write_kubeconfig(scratch, user, server, &pki.certificate("ca"), &login)
}

fn start_etcd(scratch: &Scratch, clients: &FreePort, peers: &FreePort) -> Process {
    let (clients, peers) = (format!("http://{}", clients.address()), format!("http://{}", peers.address()));
    let mut command = Command::new(part(KUBERNETES, "etcd"));
    command
        .arg(flag("--data-dir", &scratch.join("etcd")))
        .arg(format!("--listen-client-urls={clients}"))
        .arg(format!("--advertise-client-urls={clients}"))
        .arg(format!("--listen-peer-urls={peers}"))
        .arg(format!("--initial-advertise-peer-urls={peers}"))
        .arg(format!("--initial-cluster=default={peers}"))
        // Nothing here outlives a power cut.
        .args(["--unsafe-no-fsync", "--log-level=warn"]);
    Process::start("etcd", &command, &scratch.join("etcd.log"))
}

fn issue_all(pki: &Pki) {
    let api = format!("IP:{API_ADDRESS}");
    let names = [api.as_str(), "DNS:localhost", "DNS:kubernetes", "DNS:kubernetes.default.svc"];
    pki.issue("apiserver", "/CN=kube-apiserver", Usage::Server, &names);
    let masters = "/O=system:masters/CN=";
    pki.issue("admin", &format!("{masters}admin"), Usage::Client, &[]);
    pki.issue("kubelet-client", &format!("{masters}apiserver-kubelet-client"), Usage::Client, &[]);
    pki.issue("scheduler", "/CN=system:kube-scheduler", Usage::Client, &[]);
    pki.issue("controllers", "/CN=system:kube-controller-manager", Usage::Client, &[]);
}

pub(super) fn flag(name: &str, value: &Path) -> String {
    format!("{name}={}", value.display())
}
