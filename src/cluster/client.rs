use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderValue, Request};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connect, HttpConnector, proxy::Tunnel};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::{Config, InClusterError, Kubeconfig, KubeconfigError};
use tower::ServiceBuilder;

use super::error::{ClusterError, asked_to_wait};
use super::proxy::{self, Proxy};
use super::token::TokenFile;

/// For everything but a watch. A healthy API server answers these in milliseconds.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A watch may be silent for minutes, so it has no read timeout. That the other side is gone without a word is noticed
/// by TCP: after this much silence it is asked, this often, this many times.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

const AGENT: &str = concat!("stoker/", env!("CARGO_PKG_VERSION"));

/// The API server of the cluster, with our credentials. Cheap to clone; it connects at the first request, and again
/// whenever the API server has gone and come back.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    server: Arc<str>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Why it isn't even known how to reach the API server.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum ConnectError {
    #[error(
        "the kubeconfig {} can't be used: {problem}; try it with kubectl --kubeconfig, or name another one with \
         --kubeconfig", path.display()
    )]
    Kubeconfig { path: PathBuf, problem: String },
    #[error(
        "no cluster is configured: this is not a pod (KUBERNETES_SERVICE_HOST is not set), and neither KUBECONFIG nor \
         ~/.kube/config gives one ({problem}); name a kubeconfig with --kubeconfig"
    )]
    Unconfigured { problem: String },
    #[error(
        "the pod's own credentials can't be used: {problem}; check that its service account's token is mounted \
         (automountServiceAccountToken), or name a kubeconfig with --kubeconfig"
    )]
    InCluster { problem: String },
    #[error(
        "the token file {} can't be read: {problem}; check the mount, or tokenFile in the kubeconfig",
        path.display()
    )]
    Token { path: PathBuf, problem: String },
    #[error(
        "{proxy} can't be used to reach the API server at {server}: only http:// proxies can; name another one, or add \
         the server to NO_PROXY"
    )]
    Proxy { proxy: String, server: String },
    #[error("the credentials for the API server at {server} can't be used: {problem}; try them with kubectl")]
    Credentials { server: String, problem: String },
}

impl Cluster {
    /// The cluster that `kubeconfig` names; without one, the cluster that this pod is in; and outside a pod, that of
    /// `KUBECONFIG` or `~/.kube/config`. The API server isn't asked anything yet, so it may be down.
    ///
    /// # Errors
    /// There is no usable configuration or credential; the message says which one was tried.
    pub async fn connect(kubeconfig: Option<&Path>) -> Result<Self, ConnectError> {
        let kubeconfig = kubeconfig.map(Path::to_path_buf);
        // Files are read, and a kubeconfig may name a program to run.
        let connected =
            tokio::task::spawn_blocking(move || Self::build(configured(kubeconfig.as_deref())?)).await;
        connected.unwrap_or_else(|error| {
            let problem = error.to_string();
            Err(ConnectError::Unconfigured { problem })
        })
    }

    fn build(mut found: Configured) -> Result<Self, ConnectError> {
        let server = found.config.cluster_url.to_string();
        let token = take_token_file(&mut found.config)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        // What was sent and never acknowledged: keepalive isn't asked about that.
        tcp.set_tcp_user_timeout(Some(DEADLINE));
        let config = &found.config;
        let client = match found.proxy {
            None => {
                config.rustls_https_connector_with_connector(tcp).and_then(|tls| client(config, token, tls))
            }
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.uri, tcp);
                if let Some(auth) = proxy.auth {
                    tunnel = tunnel.with_auth(auth);
                }
                config
                    .rustls_https_connector_with_connector(tunnel)
                    .and_then(|tls| client(config, token, tls))
            }
        };
        match client {
            Ok(client) => Ok(Self { client, server: server.into() }),
            Err(error) => Err(ConnectError::Credentials { server, problem: error.to_string() }),
        }
    }

    /// A cluster that `client` answers for.
    #[cfg(test)]
    pub(super) fn of(client: kube::Client) -> Self {
        Self { client, server: "https://test".into() }
    }

    /// Where the API server is.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    pub(super) fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Waits for `request`, which is described by `what` ("read the Node a"), but not for ever. For a watch, this is
    /// the wait until it begins.
    pub(super) async fn ask<T>(
        &self,
        what: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        match tokio::time::timeout(DEADLINE, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.error(what, &error)),
            Err(_) => Err(ClusterError::late(&self.server, what, DEADLINE)),
        }
    }

    /// What `error` means for the request, or the watch under way, that is described by `what`.
    pub(super) fn error(&self, what: &str, error: &kube::Error) -> ClusterError {
        ClusterError::of(&self.server, what, error)
    }
}

struct Configured {
    config: Config,
    proxy: Option<Proxy>,
}

fn configured(kubeconfig: Option<&Path>) -> Result<Configured, ConnectError> {
    if let Some(path) = kubeconfig {
        let problem = |error: KubeconfigError| ConnectError::Kubeconfig {
            path: path.to_path_buf(),
            problem: error.to_string(),
        };
        return from_kubeconfig(Kubeconfig::read_from(path), problem);
    }
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        // Straight there, whatever proxy the environment names for registries: the address is the cluster's own.
        let config = Config::incluster_env()
            .map_err(|error: InClusterError| ConnectError::InCluster { problem: error.to_string() })?;
        return Ok(Configured { config, proxy: None });
    }
    from_kubeconfig(Kubeconfig::read(), |error| ConnectError::Unconfigured { problem: error.to_string() })
}

fn from_kubeconfig(
    kubeconfig: Result<Kubeconfig, KubeconfigError>,
    error: impl Fn(KubeconfigError) -> ConnectError,
) -> Result<Configured, ConnectError> {
    let mut kubeconfig = kubeconfig.map_err(&error)?;
    let own_proxy = take_proxy(&mut kubeconfig);
    let mut config = Config::try_from(kubeconfig).map_err(&error)?;
    config.proxy_url = None;
    let proxy = proxy::find(own_proxy.as_deref(), &config.cluster_url).map_err(|proxy| {
        let server = config.cluster_url.to_string();
        ConnectError::Proxy { proxy, server }
    })?;
    Ok(Configured { config, proxy })
}

/// The proxy that the current context's cluster names itself. Another stands there afterwards, so that kube doesn't look
/// in the environment: it would take the proxy there without regard to `NO_PROXY`, or fail on it.
fn take_proxy(kubeconfig: &mut Kubeconfig) -> Option<String> {
    let current = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|named| named.name == *current)?.context.as_ref()?;
    let cluster =
        kubeconfig.clusters.iter_mut().find(|named| named.name == context.cluster)?.cluster.as_mut()?;
    cluster.proxy_url.replace("http://unused.invalid".to_owned()).filter(|proxy| !proxy.is_empty())
}

/// Takes a token file over from kube, which reads it once a minute and takes a newline at its end for part of it.
fn take_token_file(config: &mut Config) -> Result<Option<TokenFile>, ConnectError> {
    let auth = &mut config.auth_info;
    let goes_first = auth.auth_provider.is_some() || auth.token.is_some() || auth.username.is_some();
    if goes_first {
        return Ok(None);
    }
    let Some(path) = auth.token_file.take().map(PathBuf::from) else { return Ok(None) };
    match TokenFile::open(&path) {
        Ok(token) => Ok(Some(token)),
        Err(error) => Err(ConnectError::Token { path, problem: error.to_string() }),
    }
}

/// kube's own stack, but for what would get in the way: its retries, which tell nobody (ours do), its error log line
/// for each answer that is one, and its timeouts, which know no difference between a watch and a request.
fn client<C>(config: &Config, token: Option<TokenFile>, connector: C) -> Result<kube::Client, kube::Error>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let http: legacy::Client<C, Body> = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .map_request(|mut request: Request<Body>| {
            request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
            request
        })
        .map_request(move |request: Request<Body>| match &token {
            Some(token) => token.add_to(request),
            None => request,
        })
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_result(asked_to_wait)
        .service(http);
    Ok(kube::Client::new(service, config.default_namespace.clone()))
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
