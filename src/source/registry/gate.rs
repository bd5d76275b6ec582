use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};
use tokio::time::{Duration, Instant};

use super::challenge::{Challenge, parse_challenges};
use super::token::{self, TokenRequest};
use super::wire::{Stop, Wire};
use crate::source::SourceError;
use crate::types::{ErrorKind, RegistryAuth};

/// A token is renewed in the last quarter of its life, and not earlier than this before its end.
const EARLY: Duration = Duration::from_secs(30);

/// Who we are to one host for one repository: which credentials it takes, and the token they gave. Nothing is
/// shown to a host before it asks. However many requests are refused at once, one token is asked for.
pub(super) struct Gate {
    /// Tried in this order; `None` is nobody.
    candidates: Vec<Option<RegistryAuth>>,
    /// Asked for beside the scope in the challenge.
    scope: Option<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Grows with each renewal that ended, well or not.
    generation: u64,
    grant: Option<Arc<Grant>>,
    renewal: Option<Renewal>,
}

type Renewal = Shared<BoxFuture<'static, Result<Arc<Grant>, Arc<SourceError>>>>;

/// What is shown.
struct Grant {
    header: HeaderValue,
    candidate: usize,
    way: Way,
    renew_at: Option<Instant>,
    /// Whether the host let it in once: a later refusal then means that it expired.
    proved: AtomicBool,
}

#[derive(Clone)]
enum Way {
    Basic,
    Bearer(TokenRequest),
}

/// What one request shows.
pub(super) struct Pass {
    generation: u64,
    grant: Option<Arc<Grant>>,
}

impl Pass {
    pub(super) fn header(&self) -> Option<&HeaderValue> {
        self.grant.as_ref().map(|grant| &grant.header)
    }

    /// The host let it in.
    pub(super) fn worked(&self) {
        if let Some(grant) = &self.grant {
            grant.proved.store(true, Relaxed);
        }
    }
}

impl Gate {
    pub(super) fn new(auths: &[RegistryAuth], scope: Option<String>) -> Self {
        let mut candidates: Vec<_> = auths.iter().cloned().map(Some).collect();
        if candidates.is_empty() {
            candidates.push(None);
        }
        Self { candidates, scope, state: Mutex::default() }
    }

    /// How many tries a request needs at most: each candidate, an expired token, and somebody else's renewal in
    /// between.
    pub(super) fn tries(&self) -> usize {
        self.candidates.len() + 3
    }

    /// Whether there is a token that is worth keeping.
    pub(super) fn is_in_use(&self) -> bool {
        let state = self.state();
        let is_fresh = |grant: &Arc<Grant>| grant.renew_at.is_none_or(|at| Instant::now() < at);
        state.renewal.is_some() || state.grant.as_ref().is_some_and(is_fresh)
    }

    /// What to show now; a token that is about to expire is renewed first.
    pub(super) async fn pass(self: &Arc<Self>, stop: &Stop, wire: &Wire) -> Result<Pass, SourceError> {
        let (generation, grant) = {
            let state = self.state();
            (state.generation, state.grant.clone())
        };
        match &grant {
            Some(old) if old.renew_at.is_some_and(|at| at <= Instant::now()) => {
                self.renew(generation, old.candidate, old.way.clone(), stop, wire).await
            }
            _ => Ok(Pass { generation, grant }),
        }
    }

    /// What to show after `pass` was refused with 401 or 403, or `None` where nothing is left to be shown.
    pub(super) async fn refused(
        self: &Arc<Self>,
        pass: &Pass,
        is_forbidden: bool,
        headers: &HeaderMap,
        stop: &Stop,
        wire: &Wire,
    ) -> Result<Option<Pass>, SourceError> {
        let (generation, grant) = {
            let state = self.state();
            (state.generation, state.grant.clone())
        };
        if generation != pass.generation {
            return Ok(Some(Pass { generation, grant }));
        }
        let way = match self.way(headers, stop)? {
            Some(way) => way,
            None => match &pass.grant {
                Some(grant) => grant.way.clone(),
                None => return Ok(None),
            },
        };
        let candidate = match &pass.grant {
            None if is_forbidden => return Ok(None),
            None => 0,
            // Who was let in before and now isn't allowed this won't be by another token.
            Some(grant) if grant.proved.load(Relaxed) && is_forbidden => return Ok(None),
            // A token has expired then; a password gets one more try, since a busy registry says 401 by mistake.
            Some(grant) if grant.proved.load(Relaxed) => grant.candidate,
            Some(grant) => grant.candidate + 1,
        };
        if candidate >= self.candidates.len() {
            self.forget(generation);
            return Ok(None);
        }
        self.renew(generation, candidate, way, stop, wire).await.map(Some)
    }

    /// How the host wants it proved: by a token rather than by a password, as containerd chooses.
    fn way(&self, headers: &HeaderMap, stop: &Stop) -> Result<Option<Way>, SourceError> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = values.flat_map(parse_challenges).collect();
        let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        if let Some(bearer) = of("bearer") {
            return Ok(Some(Way::Bearer(TokenRequest::new(bearer, self.scope.as_deref(), stop)?)));
        }
        Ok(of("basic").map(|_| Way::Basic))
    }

    /// Gets a new grant, or waits for the one that somebody else is getting.
    async fn renew(
        self: &Arc<Self>,
        generation: u64,
        candidate: usize,
        way: Way,
        stop: &Stop,
        wire: &Wire,
    ) -> Result<Pass, SourceError> {
        let renewal = {
            let mut state = self.state();
            if state.generation != generation {
                return Ok(Pass { generation: state.generation, grant: state.grant.clone() });
            }
            let start = || {
                let (gate, stop, wire) = (Arc::clone(self), stop.clone(), wire.clone());
                async move { gate.obtain(candidate, way, &stop, &wire).await.map_err(Arc::new) }
                    .boxed()
                    .shared()
            };
            state.renewal.get_or_insert_with(start).clone()
        };
        let result = renewal.await;
        let mut state = self.state();
        if state.generation == generation {
            state.generation += 1;
            state.renewal = None;
            match &result {
                Ok(grant) => state.grant = Some(Arc::clone(grant)),
                Err(error) if error.kind() == ErrorKind::Denied => state.grant = None,
                // The old one may still do.
                Err(_) => {}
            }
        }
        match result {
            Ok(grant) => Ok(Pass { generation: generation + 1, grant: Some(grant) }),
            Err(cause) => Err(SourceError::Token { host: stop.origin(), cause }),
        }
    }

    async fn obtain(
        &self,
        first: usize,
        way: Way,
        stop: &Stop,
        wire: &Wire,
    ) -> Result<Arc<Grant>, SourceError> {
        let mut denied = None;
        for (candidate, auth) in self.candidates.iter().enumerate().skip(first) {
            let grant = |header, lifetime: Option<Duration>| {
                let renew_at = lifetime.map(|all| Instant::now() + all - EARLY.min(all / 4));
                Arc::new(Grant {
                    header,
                    candidate,
                    way: way.clone(),
                    renew_at,
                    proved: AtomicBool::new(false),
                })
            };
            match &way {
                Way::Basic => {
                    if let Some(auth @ RegistryAuth::Basic { .. }) = auth {
                        return Ok(grant(token::basic(auth, stop)?, None));
                    }
                }
                Way::Bearer(request) => match request.ask(wire, auth.as_ref()).await {
                    Ok(token) => return Ok(grant(token.authorization, Some(token.lifetime))),
                    Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Invalid) => {
                        denied = Some(error);
                    }
                    Err(error) => return Err(error),
                },
            }
        }
        Err(denied.unwrap_or_else(|| SourceError::Refused {
            what: stop.what.clone(),
            status: 401,
            says: "it asks for a user and a password; name a pull secret that has them for it".to_owned(),
            retry_after: None,
        }))
    }

    /// What was refused may be let in another time: whoever asks next begins anew.
    fn forget(&self, generation: u64) {
        let mut state = self.state();
        if state.generation == generation && state.renewal.is_none() {
            state.generation += 1;
            state.grant = None;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
