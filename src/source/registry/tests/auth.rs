use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::future::join_all;

use super::*;
use crate::types::ErrorKind;

/// A token server and a registry that takes the tokens it gave last. `grant` says what becomes of a request for one.
struct Bed {
    tokens: Server,
    registry: Server,
    /// The token that is good now: `t1`, `t2`, …
    newest: Arc<AtomicUsize>,
}

async fn bed(grant: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Bed {
    let newest = Arc::new(AtomicUsize::new(0));
    let given = Arc::clone(&newest);
    let tokens = Server::start(move |request| {
        let answer = grant(request, given.load(Relaxed) + 1);
        if answer.is_ok() {
            given.fetch_add(1, Relaxed);
        }
        answer
    })
    .await;
    let realm = tokens.url("/token");
    let good = Arc::clone(&newest);
    let registry = Server::start(move |request| {
        let wanted = format!("Bearer t{}", good.load(Relaxed));
        if request.header("authorization") == Some(&wanted) {
            return served(request);
        }
        let scope = "repository:team/app:pull";
        let challenge = format!("Bearer realm=\"{realm}\",service=\"reg, istry\",scope=\"{scope}\"");
        Answer::new(401).header("WWW-Authenticate", challenge)
    })
    .await;
    Bed { tokens, registry, newest }
}

fn token(number: usize, more: &str) -> Answer {
    Answer::new(200).body(format!(r#"{{"token":"t{number}"{more}}}"#))
}

#[tokio::test]
async fn a_token_is_asked_for_when_the_registry_wants_one_and_then_kept() {
    let bed = bed(|_, number| token(number, r#","expires_in":300"#)).await;
    let repository = at(vec![host(&bed.registry)], Vec::new());
    repository.resolve().await.unwrap();
    let layer = blob(&repository);
    join_all((0..16).map(|at| read(&*layer, at, at + 2)))
        .await
        .into_iter()
        .for_each(|read| drop(read.unwrap()));
    let asked = "GET /token?service=reg%2C+istry&scope=repository%3Ateam%2Fapp%3Apull";
    assert_eq!(targets(&bed.tokens), [asked]);
    assert_eq!(authorizations(&bed.tokens), [None]);
    let shown = authorizations(&bed.registry);
    assert_eq!((&shown[0], shown.len()), (&None, 18));
}

#[tokio::test]
async fn many_refused_at_once_ask_for_one_token() {
    let bed = bed(|_, number| token(number, "")).await;
    let repository = at(vec![host(&bed.registry)], Vec::new());
    let wanted = descriptor(br#"{"schemaVersion":2}"#);
    let manifests = join_all((0..16).map(|_| repository.manifest(&wanted))).await;
    manifests.into_iter().for_each(|manifest| drop(manifest.unwrap()));
    assert_eq!(bed.tokens.seen().len(), 1);
}

#[tokio::test]
async fn a_token_that_is_refused_in_mid_pull_is_renewed_once_for_all() {
    let bed = bed(|_, number| token(number, r#","expires_in":3600"#)).await;
    let layer = blob(&at(vec![host(&bed.registry)], vec![user("me")]));
    read(&*layer, 0, 2).await.unwrap();
    // The registry forgets what it gave: the next token will be the good one.
    bed.newest.store(10, Relaxed);
    let ranges = join_all((0..16).map(|at| read(&*layer, at, at + 2))).await;
    ranges.into_iter().for_each(|range| drop(range.unwrap()));
    assert_eq!(bed.tokens.seen().len(), 2);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let bed = bed(|_, number| token(number, r#","expires_in":100"#)).await;
    let repository = at(vec![host(&bed.registry)], Vec::new());
    repository.resolve().await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(74)).await;
    tokio::time::resume();
    repository.resolve().await.unwrap();
    assert_eq!(bed.tokens.seen().len(), 1);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    repository.resolve().await.unwrap();
    assert_eq!(bed.tokens.seen().len(), 2);
    assert_eq!(authorizations(&bed.registry).iter().filter(|shown| shown.is_none()).count(), 1);
}

#[tokio::test]
async fn a_password_goes_by_oauth2_or_in_the_older_way() {
    for refused in [0_u16, 302, 400, 401, 404, 405] {
        let bed = bed(move |request, number| match request.method.as_str() {
            "POST" if refused != 0 => Answer::new(refused),
            _ => Answer::new(200).body(format!(r#"{{"access_token":"t{number}"}}"#)),
        })
        .await;
        at(vec![host(&bed.registry)], vec![user("me")]).resolve().await.unwrap();
        let seen = bed.tokens.seen();
        assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("POST", "/token"));
        assert_eq!(seen[0].header("authorization"), None);
        assert_eq!(seen.len(), if refused == 0 { 1 } else { 2 }, "{refused}");
        let form = "scope=repository%3Ateam%2Fapp%3Apull&service=reg%2C+istry&client_id=stoker";
        assert_eq!(
            seen[0].body,
            format!("{form}&grant_type=password&username=me&password=hunter2"),
            "{refused}"
        );
        if let Some(get) = seen.get(1) {
            assert_eq!((get.method.as_str(), get.body.as_str()), ("GET", ""));
            assert_eq!(get.header("authorization"), Some("Basic bWU6aHVudGVyMg=="));
            assert!(get.target.contains("scope=repository%3Ateam%2Fapp%3Apull"), "{}", get.target);
        }
    }
    let denied = bed(|_, _| Answer::new(403).body(r#"{"details":"hunter2"}"#)).await;
    let error = at(vec![host(&denied.registry)], vec![user("me")]).resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(!crate::rt::chain(&error).contains("hunter2"));
    assert_eq!(denied.tokens.seen().len(), 1);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_and_not_shown_to_the_registry() {
    let bed = bed(|request, number| match request.body.contains("grant_type=refresh_token") {
        true => token(number, r#","access_token":"""#),
        false => Answer::new(403),
    })
    .await;
    let identity = RegistryAuth::IdentityToken(Secret::new("hush/1".to_owned()));
    at(vec![host(&bed.registry)], vec![identity]).resolve().await.unwrap();
    assert!(bed.tokens.seen()[0].body.ends_with("refresh_token=hush%2F1"), "{:?}", bed.tokens.seen());
    assert_eq!(authorizations(&bed.registry), [None, Some("Bearer t1".to_owned())]);
}

#[tokio::test]
async fn a_token_server_that_fails_fails_all_that_wait_for_it_at_once() {
    let bed = bed(|_, _| Answer::new(503).header("Retry-After", "9")).await;
    let layer = blob(&at(vec![host(&bed.registry)], Vec::new()));
    let ranges = join_all((0..16).map(|at| read(&*layer, at, at + 2))).await;
    for range in ranges {
        let retry_after = Some(Duration::from_secs(9));
        assert_eq!(range.unwrap_err().kind(), ErrorKind::Throttled { retry_after });
    }
    // The first range looks alone; the others wait for it, and then for one token together, but for a straggler.
    assert!((2..=4).contains(&bed.tokens.seen().len()), "{}", bed.tokens.seen().len());
}

#[tokio::test]
async fn whoever_gives_up_takes_nobodys_token_with_him() {
    let bed = Arc::new(bed(|_, number| token(number, "")).await);
    let repository = at(vec![host(&bed.registry)], Vec::new());
    let wanted = descriptor(br#"{"schemaVersion":2}"#);
    for _ in 0..50 {
        // Cut off after a random number of its turns.
        let mut asking = Box::pin(repository.manifest(&wanted));
        for _ in 0..fastrand::usize(1..6) {
            if futures::poll!(&mut asking).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(repository.manifest(&wanted).await.unwrap().len(), 19);
}

#[tokio::test]
async fn several_credentials_are_tried_in_order() {
    let bed = bed(|request, number| match request.header("authorization") {
        _ if request.method == "POST" => Answer::new(404),
        Some("Basic c2Vjb25kOmh1bnRlcjI=") => token(number, ""),
        _ => Answer::new(401),
    })
    .await;
    let auths = vec![user("first"), user("second"), user("third")];
    at(vec![host(&bed.registry)], auths).resolve().await.unwrap();
    assert_eq!(bed.tokens.seen().len(), 4);
    let basic = Server::start(|request| match request.header("authorization") {
        Some("Basic c2Vjb25kOmh1bnRlcjI=") => served(request),
        Some(_) => Answer::new(403),
        None => Answer::new(401).header("WWW-Authenticate", "Basic realm=\"ecr\""),
    })
    .await;
    let auths = vec![
        RegistryAuth::IdentityToken(Secret::new("no password".to_owned())),
        user("first"),
        user("second"),
    ];
    let repository = at(vec![host(&basic)], auths);
    repository.resolve().await.unwrap();
    read(&*blob(&repository), 0, 4).await.unwrap();
    assert_eq!(basic.seen().len(), 4);
    let error = at(vec![host(&basic)], Vec::new()).resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(crate::rt::chain(&error).contains("pull secret"), "{}", crate::rt::chain(&error));
}

#[tokio::test]
async fn who_was_refused_may_be_let_in_another_time() {
    let is_open = Arc::new(AtomicUsize::new(0));
    let open = Arc::clone(&is_open);
    let server = Server::start(move |request| match request.header("authorization") {
        Some(_) if open.load(Relaxed) == 1 => served(request),
        _ => Answer::new(401).header("WWW-Authenticate", "Basic realm=x"),
    })
    .await;
    let repository = at(vec![host(&server)], vec![user("me")]);
    assert_eq!(repository.resolve().await.unwrap_err().kind(), ErrorKind::Denied);
    is_open.store(1, Relaxed);
    repository.resolve().await.unwrap();
}

#[tokio::test]
async fn a_token_server_that_cannot_be_trusted_is_never_asked() {
    for realm in
        ["http://169.254.169.254/token?x=hunter2", "ftp://a/token", "/token", "file:///etc/passwd", ""]
    {
        let challenge = format!("Bearer realm=\"{realm}\"");
        let server =
            Server::start(move |_| Answer::new(401).header("WWW-Authenticate", challenge.clone())).await;
        let layer = blob(&at(vec![host(&server)], vec![user("me")]));
        let error = read(&*layer, 0, 2).await.unwrap_err();
        let text = crate::rt::chain(&error);
        assert!(text.contains("token") && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_an_error_that_shows_nothing() {
    for answer in [
        r#"{"token":"hunter2\n"}"#,
        r#"{"token":["hunter2"]}"#,
        "{}",
        "hunter2",
        r#"{"token":"","access_token":""}"#,
    ] {
        let bed = bed(move |_, _| Answer::new(200).body(answer)).await;
        let layer = blob(&at(vec![host(&bed.registry)], Vec::new()));
        let error = read(&*layer, 0, 2).await.unwrap_err();
        let text = crate::rt::chain(&error);
        assert!(matches!(error, SourceError::Token { .. }) && !text.contains("hunter2"), "{text}");
    }
    let long = bed(|_, number| token(number, r#","expires_in":18446744073709551615"#)).await;
    at(vec![host(&long.registry)], Vec::new()).resolve().await.unwrap();
}

#[tokio::test]
async fn a_password_that_was_good_is_shown_once_more_and_not_for_ever() {
    let (asked, refuses) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
    let (count, last) = (Arc::clone(&asked), Arc::clone(&refuses));
    let registry = Server::start(move |request| {
        let number = count.fetch_add(1, Relaxed);
        match request.header("authorization") {
            Some(_) if number != 3 && number < last.load(Relaxed) => served(request),
            _ => Answer::new(401).header("WWW-Authenticate", "Basic realm=x"),
        }
    })
    .await;
    let layer = blob(&at(vec![host(&registry)], vec![user("me")]));
    // The challenge, two good answers, one refusal by mistake, and the same again.
    read(&*layer, 0, 2).await.unwrap();
    read(&*layer, 0, 2).await.unwrap();
    read(&*layer, 0, 2).await.unwrap();
    assert_eq!(asked.load(Relaxed), 5);
    // From now on it's wrong.
    refuses.store(5, Relaxed);
    assert_eq!(read(&*layer, 0, 2).await.unwrap_err().kind(), ErrorKind::Denied);
    assert!(asked.load(Relaxed) < 10, "{}", asked.load(Relaxed));
}
