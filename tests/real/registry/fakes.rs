//! Fakes in front of a real registry: a token server, a registry that wants its tokens and sends blobs elsewhere, and
//! a store whose URLs are signed. The bytes are the real registry's; what is faked is who may have them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, HeaderName, LOCATION, WWW_AUTHENTICATE,
};
use tokio::task::JoinSet;

use crate::parts::Registry;

/// The three of them.
pub(crate) struct Fakes {
    pub(crate) registry_url: String,
    pub(crate) told: Arc<Told>,
    _serving: JoinSet<()>,
}

/// What they gave and what they saw.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) tokens: AtomicUsize,
    pub(crate) signatures: AtomicUsize,
    /// Requests to the store with an `Authorization`.
    pub(crate) leaks: AtomicUsize,
    /// Tokens and signatures with lower numbers aren't good any more.
    first_token: AtomicUsize,
    first_signature: AtomicUsize,
}

#[derive(Clone)]
struct Front {
    told: Arc<Told>,
    client: reqwest::Client,
    upstream: String,
    user: (&'static str, &'static str),
    token_url: String,
    store_url: String,
}

impl Fakes {
    pub(crate) async fn start(registry: &Registry) -> Self {
        Self::start_with(registry, str::to_owned).await
    }

    /// The same; `public` says at which URL others reach the store that is at this one.
    pub(crate) async fn start_with(registry: &Registry, public: impl Fn(&str) -> String) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..3 {
            listeners.push(tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free"));
        }
        let url = |at: usize| format!("http://{}", listeners[at].local_addr().expect("it has one"));
        let told = Arc::<Told>::default();
        let front = Front {
            told: Arc::clone(&told),
            client: reqwest::Client::builder().no_proxy().build().expect("a client"),
            upstream: registry.url(),
            user: registry.credentials().expect("it has a password"),
            token_url: url(0),
            store_url: public(&url(2)),
        };
        let registry_url = url(1);
        let mut serving = JoinSet::new();
        let routers = [
            Router::new().fallback(token).with_state(front.clone()),
            Router::new().fallback(guarded).with_state(front.clone()),
            Router::new().fallback(store).with_state(front),
        ];
        for (listener, router) in listeners.into_iter().zip(routers) {
            serving.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        }
        Self { registry_url, told, _serving: serving }
    }

    /// Ends every token and every signature that was given so far.
    pub(crate) fn revoke(&self) {
        self.told.first_token.store(self.told.tokens.load(SeqCst), SeqCst);
        self.told.first_signature.store(self.told.signatures.load(SeqCst), SeqCst);
    }
}

/// OAuth2 with a password, and nothing else.
async fn token(State(front): State<Front>, request: Request) -> Response {
    let body = axum::body::to_bytes(request.into_body(), 1 << 16).await.unwrap_or_default();
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&body).into_owned().collect();
    let is = |name: &str, value: &str| form.contains(&(name.to_owned(), value.to_owned()));
    let (user, password) = front.user;
    if !(is("grant_type", "password") && is("username", user) && is("password", password)) {
        return StatusCode::FORBIDDEN.into_response();
    }
    assert!(is("scope", "repository:team/app:pull"), "{form:?}");
    let number = front.told.tokens.fetch_add(1, SeqCst);
    format!(r#"{{"access_token":"token-{number}","expires_in":300}}"#).into_response()
}

async fn guarded(State(front): State<Front>, request: Request) -> Response {
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let number = shown.and_then(|shown| shown.strip_prefix("Bearer token-")?.parse::<usize>().ok());
    if number.is_none_or(|number| number < front.told.first_token.load(SeqCst)) {
        let scope = "repository:team/app:pull";
        let challenge = format!(r#"Bearer realm="{}/token",service="fake",scope="{scope}""#, front.token_url);
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response();
    }
    if !request.uri().path().contains("/blobs/") {
        return front.forward(request).await;
    }
    let number = front.told.signatures.fetch_add(1, SeqCst);
    let location = format!("{}{}?X-Signature={number}", front.store_url, request.uri().path());
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response()
}

async fn store(State(front): State<Front>, request: Request) -> Response {
    if request.headers().contains_key(AUTHORIZATION) {
        front.told.leaks.fetch_add(1, SeqCst);
        return StatusCode::BAD_REQUEST.into_response();
    }
    let query = request.uri().query().unwrap_or_default();
    let number = query.strip_prefix("X-Signature=").and_then(|number| number.parse::<usize>().ok());
    if number.is_none_or(|number| number < front.told.first_signature.load(SeqCst)) {
        return StatusCode::FORBIDDEN.into_response();
    }
    front.forward(request).await
}

impl Front {
    /// Asks the real registry the same, with its password.
    async fn forward(&self, request: Request) -> Response {
        let url = format!("{}{}", self.upstream, request.uri().path());
        let (user, password) = self.user;
        let mut headers = request.headers().clone();
        headers.remove(HOST);
        headers.remove(AUTHORIZATION);
        let asked = self.client.request(request.method().clone(), url).headers(headers);
        let answer = asked.basic_auth(user, Some(password)).send().await.expect("the registry answers");
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut told = Response::new(Body::from_stream(answer.bytes_stream()));
        *told.status_mut() = status;
        let kept =
            [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_RANGE, HeaderName::from_static("docker-content-digest")];
        for (name, value) in
            kept.into_iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())))
        {
            told.headers_mut().insert(name, value);
        }
        told
    }
}
