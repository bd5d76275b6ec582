//! A fake of the three services that give AWS's keys to a pod or an instance, which can't run here: STS with
//! AssumeRoleWithWebIdentity, the EKS Pod Identity Agent, and the instance's metadata (IMDSv2). Plain HTTP on loopback.
//! The keys that it gives are those of an account of a real S3 server. That refuses session tokens that it hasn't given
//! itself, so the token beside them is empty. It has a thread and a runtime of its own: clients of metadata are impatient.

use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

/// What a pod shows for its identity, at STS and at the Pod Identity Agent.
pub(crate) const POD_TOKEN: &str = "pods-own-token";
/// The token that IMDSv2 gives first, and asks for afterwards.
const SESSION: &str = "session-of-imds";
/// The role of the instance, and of the pod.
const ROLE: &str = "reader";
pub(crate) const ROLE_ARN: &str = "arn:aws:iam::123456789012:role/reader";

/// The fake.
pub(crate) struct FakeAwsIdentity {
    host: String,
    told: Arc<Mutex<Told>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// How it answers whoever asks for keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// With keys.
    Gives,
    /// With a refusal.
    Refuses,
    /// Not at all.
    Hangs,
}

#[derive(Debug)]
struct Told {
    mood: Mood,
    access_key: String,
    secret_key: String,
    life: Duration,
    asked: Vec<String>,
}

impl FakeAwsIdentity {
    /// Starts one that gives these keys, good for an hour.
    pub(crate) fn start(access_key: &str, secret_key: &str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let host = listener.local_addr().expect("a listener has an address").to_string();
        let told = Arc::new(Mutex::new(Told {
            mood: Mood::Gives,
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            life: Duration::from_secs(3600),
            asked: Vec::new(),
        }));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&told));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // Dropping the runtime drops every connection's task with its sockets.
            runtime.expect("a runtime can be built").block_on(async move {
                let listener =
                    tokio::net::TcpListener::from_std(listener).expect("a listener of this runtime");
                tokio::select! {
                    () = stopped.cancelled() => {}
                    served = axum::serve(listener, router) => served.expect("it serves"),
                }
            });
        });
        Self { host, told, stop, thread: Some(thread) }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nobody panics with it")
    }

    /// `http://127.0.0.1:PORT`, of all three.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    /// From now on it answers so.
    pub(crate) fn is_in(&self, mood: Mood) {
        self.told().mood = mood;
    }

    /// From now on it gives these keys.
    pub(crate) fn gives(&self, access_key: &str, secret_key: &str) {
        let mut told = self.told();
        (told.access_key, told.secret_key) = (access_key.to_owned(), secret_key.to_owned());
    }

    /// What it gives from now on is good for so long.
    pub(crate) fn gives_for(&self, life: Duration) {
        self.told().life = life;
    }

    /// `METHOD PATH` of each request so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.told().asked.clone()
    }

    /// How often keys were asked for, whatever was answered.
    pub(crate) fn asked_for_keys(&self) -> usize {
        let is_for_keys = |line: &&String| {
            line.starts_with("POST ")
                || line.ends_with("/v1/credentials")
                || line.ends_with(&format!("/{ROLE}"))
        };
        self.told().asked.iter().filter(is_for_keys).count()
    }
}

impl Drop for FakeAwsIdentity {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn answer(State(told): State<Arc<Mutex<Told>>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (mood, keys) = {
        let mut told = told.lock().expect("nobody panics with it");
        told.asked.push(format!("{method} {path}"));
        (told.mood, Keys::of(&told))
    };
    if mood == Mood::Hangs {
        std::future::pending::<()>().await;
    }
    let (head, body) = request.into_parts();
    let header = |name: &str| text(&head.headers, name);
    let security = "/latest/meta-data/iam/security-credentials/";
    match (method, path.as_str()) {
        (Method::POST, "/") => {
            let body = to_bytes(body, 64 << 10).await.unwrap_or_default();
            sts(mood, &keys, &String::from_utf8_lossy(&body))
        }
        (Method::GET, "/v1/credentials") => match (mood, header("authorization").as_deref()) {
            (Mood::Gives, Some(POD_TOKEN)) => keys.json("").into_response(),
            _ => (StatusCode::FORBIDDEN, "no association").into_response(),
        },
        (Method::PUT, "/latest/api/token") => match header("x-aws-ec2-metadata-token-ttl-seconds") {
            Some(seconds) => ([("x-aws-ec2-metadata-token-ttl-seconds", seconds)], SESSION).into_response(),
            None => StatusCode::BAD_REQUEST.into_response(),
        },
        (Method::GET, _) if header("x-aws-ec2-metadata-token").as_deref() != Some(SESSION) => {
            StatusCode::UNAUTHORIZED.into_response()
        }
        (Method::GET, path) if path == security => ROLE.into_response(),
        (Method::GET, path) if path.strip_prefix(security) == Some(ROLE) => match mood {
            Mood::Gives => keys.json("\"Code\":\"Success\",\"Type\":\"AWS-HMAC\",").into_response(),
            _ => StatusCode::FORBIDDEN.into_response(),
        },
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// "AssumeRoleWithWebIdentity" in the API reference of STS.
fn sts(mood: Mood, keys: &Keys, form: &str) -> Response {
    let asked = |pair: &str| form.split('&').any(|field| field == pair);
    let role = format!("RoleArn={}", ROLE_ARN.replace(':', "%3A").replace('/', "%2F"));
    let is_right = asked("Action=AssumeRoleWithWebIdentity")
        && asked(&format!("WebIdentityToken={POD_TOKEN}"))
        && asked(&role);
    if mood != Mood::Gives || !is_right {
        let refusal = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
                       <Code>AccessDenied</Code><Message>Not authorized to perform \
                       sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>";
        return (StatusCode::FORBIDDEN, refusal).into_response();
    }
    let Keys { access_key, secret_key, expires } = keys;
    format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><AssumedRoleUser><Arn>{ROLE_ARN}</Arn><AssumedRoleId>A:stoker\
         </AssumedRoleId></AssumedRoleUser><Credentials><AccessKeyId>{access_key}</AccessKeyId><SecretAccessKey>\
         {secret_key}</SecretAccessKey><SessionToken></SessionToken><Expiration>{expires}</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
    .into_response()
}

struct Keys {
    access_key: String,
    secret_key: String,
    expires: Timestamp,
}

impl Keys {
    fn of(told: &Told) -> Self {
        let life = SignedDuration::try_from(told.life).expect("a life that fits");
        let (access_key, secret_key) = (told.access_key.clone(), told.secret_key.clone());
        Self { access_key, secret_key, expires: Timestamp::now() + life }
    }

    /// The document of the metadata service and the Pod Identity Agent; `more` begins it.
    fn json(&self, more: &str) -> String {
        let Self { access_key, secret_key, expires } = self;
        format!(
            "{{{more}\"LastUpdated\":\"2026-11-24T12:00:00Z\",\"AccessKeyId\":\"{access_key}\",\
             \"SecretAccessKey\":\"{secret_key}\",\"Token\":\"\",\"AccountId\":\"123456789012\",\
             \"Expiration\":\"{expires}\"}}"
        )
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
