//! Plugins as real processes, good and bad.

use rustix::process::{Pid, test_kill_process};
use tokio::time::Instant;

use super::*;
use crate::types::ErrorKind;

const SOON: Duration = Duration::from_secs(20);

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The process whose number a plugin has written into `path`.
fn process(path: &Path) -> Option<Pid> {
    Pid::from_raw(fs::read_to_string(path).ok()?.trim().parse().ok()?)
}

/// A dead one that nobody has waited for counts as gone.
fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    test_kill_process(pid).is_err() || stat.is_ok_and(|stat| stat.contains(") Z "))
}

#[tokio::test]
async fn it_is_asked_as_the_kubelet_asks() {
    let node = Node::new();
    let more = "  args: [get, 'a b']\n  env: [{name: PLUGIN_X, value: '1'}, {name: HOME, value: /plugin}]\n";
    node.config(&provider("test", "[docker.io]", more));
    let answer = answers(r#""cacheKeyType":"Image","auth":{"docker.io":{"username":"u","password":"p"}}"#);
    node.plugin(
        "test",
        &format!("cat > $D/asked; echo \"$#|$1|$2|$PLUGIN_X|$HOME|$PATH\" > $D/said\n{answer}"),
    );
    assert_eq!(node.ask("nginx:1.27").await.unwrap(), [basic("u", "p")]);
    let asked: serde_json::Value = serde_json::from_slice(&fs::read(node.path("asked")).unwrap()).unwrap();
    let expected = serde_json::json!({
        "kind": "CredentialProviderRequest", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "image": "docker.io/library/nginx",
    });
    assert_eq!(asked, expected);
    let said = fs::read_to_string(node.path("said")).unwrap();
    let path = std::env::var("PATH").unwrap();
    assert_eq!(said.trim_end(), format!("2|get|a b|1|/plugin|{path}"), "our own environment is there, too");
}

#[tokio::test]
async fn only_providers_for_the_image_run_and_their_most_specific_credentials_come_first() {
    let node = Node::new();
    node.config(
        &[
            provider("wide", "['*.io']", ""),
            provider("narrow", "[a.io/team, 'b.io:5000']", ""),
            provider("other", "[c.io]", ""),
        ]
        .concat(),
    );
    node.plugin(
        "wide",
        &answers(
            r#""cacheKeyType":"Global","auth":{"*.io":{"username":"w1","password":"p"},"a.io":{"username":"w2","password":"p"},
            "d.io":{"username":"w3","password":"p"}}"#,
        ),
    );
    node.plugin(
        "narrow",
        &answers(r#""cacheKeyType":"Image","auth":{"a.io/team":{"username":"n","password":"p"}}"#),
    );
    node.plugin("other", "exit 1");
    assert_eq!(node.ask("a.io/team/x").await.unwrap(), [basic("n", "p"), basic("w2", "p"), basic("w1", "p")]);
    assert_eq!(node.runs(), 2);
    assert_eq!(node.ask("quay.example/x").await.unwrap(), [], "nobody is for it");
    assert_eq!(node.runs(), 2);
}

#[tokio::test]
async fn a_failing_one_is_told_with_its_message_and_never_with_its_output() {
    let node = Node::with_plugin("echo hunter2; printf 'no role:\\n\\tdenied\\033[0m' >&2; exit 3");
    let error = node.ask("a.io/x").await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Transient, "CredentialProviderFailed"));
    let problem = rt::chain(&error);
    assert!(
        problem.contains("\"test\"") && problem.contains("exit status: 3): no role: denied [0m"),
        "{problem}"
    );
    assert!(!problem.contains("hunter2"), "{problem}");
    assert_eq!(node.problem("a.io/x").await, problem, "a failure isn't kept");
    assert_eq!(node.runs(), 2);
}

#[tokio::test]
async fn one_that_crashes_or_answers_nonsense_is_an_error() {
    for (script, says) in [
        ("kill -SEGV $$", "signal: 11"),
        ("echo hunter2", "its answer can't be used"),
        ("", "its answer can't be used"),
        (&answers(r#""cacheKeyType":"Sometimes""#), "cacheKeyType"),
    ] {
        let node = Node::with_plugin(script);
        let problem = node.problem("a.io/x").await;
        assert!(problem.contains(says) && !problem.contains("hunter2"), "{script}: {problem}");
    }
}

#[tokio::test]
async fn one_that_can_not_be_started_is_named() {
    let node = Node::with_plugin("");
    let path = node.path("usr/libexec/plugins/test");
    let shown = path.display().to_string();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let problem = node.problem("a.io/x").await;
    assert!(problem.contains(&shown) && problem.contains("Permission denied"), "{problem}");
    fs::write(&path, "#!/not/there\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(node.problem("a.io/x").await.contains("an interpreter"));
    fs::remove_file(&path).unwrap();
    let error = node.ask("a.io/x").await.unwrap_err();
    assert!(rt::chain(&error).contains("No such file"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Local);
}

#[tokio::test]
async fn the_credentials_of_others_count_where_one_fails() {
    let node = Node::new();
    node.config(&[provider("bad", "['*.io']", ""), provider("good", "[a.io, b.io]", "")].concat());
    node.plugin("bad", "exit 1");
    node.plugin(
        "good",
        &answers(r#""cacheKeyType":"Image","auth":{"a.io":{"username":"u","password":"p"}}"#),
    );
    assert_eq!(node.ask("a.io/x").await.unwrap(), [basic("u", "p")]);
    assert!(node.problem("b.io/x").await.contains("\"bad\""), "the good one has none that fit");
}

#[tokio::test]
async fn one_that_hangs_is_killed_with_all_that_it_started() {
    let node = Node::with_patience(Duration::from_millis(300));
    node.config(&provider("test", "['*.io']", ""));
    node.plugin("test", "echo waiting >&2; sleep 600 & echo $! > $D/child; echo $$ > $D/parent; wait");
    let problem = node.problem("a.io/x").await;
    assert!(problem.contains("did not end within 0.3 s"), "{problem}");
    // Where the machine was so busy that the script didn't get so far, there is nothing left to kill.
    for file in ["child", "parent"] {
        if let Some(pid) = process(&node.path(file)) {
            until("the end of what the plugin started", || is_gone(pid)).await;
        }
    }
}

#[tokio::test]
async fn one_that_nobody_waits_for_any_more_is_killed() {
    let node = Node::with_plugin("sleep 600 & echo $! > $D/child; wait");
    let both = async { tokio::join!(node.ask("a.io/x"), node.ask("a.io/x")) };
    let child = async {
        until("the plugin's child", || process(&node.path("child")).is_some()).await;
        process(&node.path("child")).unwrap()
    };
    let child = tokio::select! {
        child = child => child,
        _ = both => unreachable!("it doesn't answer"),
    };
    until("its end", || is_gone(child)).await;
    assert_eq!(node.runs(), 1, "both waited for the same");
    let answer = answers(r#""cacheKeyType":"Image","auth":{"a.io":{"username":"u","password":"p"}}"#);
    node.plugin("test", &answer);
    assert_eq!(node.ask("a.io/x").await.unwrap(), [basic("u", "p")], "and nothing of it is in the way");
}

#[tokio::test]
async fn one_that_is_noisy_is_heard_and_one_without_end_is_stopped() {
    let good = answers(r#""cacheKeyType":"Image","auth":{"a.io":{"username":"u","password":"p"}}"#);
    let node = Node::with_plugin(&format!("head -c 3000000 /dev/zero >&2\n{good}"));
    assert_eq!(node.ask("a.io/x").await.unwrap(), [basic("u", "p")]);
    let node = Node::with_plugin("head -c 3000000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 1");
    let problem = node.problem("a.io/x").await;
    assert!(problem.ends_with("xthe end") && problem.len() < 1500, "{problem}");
    let node = Node::with_plugin("echo $$ > $D/parent; cat /dev/zero");
    assert!(node.problem("a.io/x").await.contains("more than 1048576 bytes"));
    let parent = process(&node.path("parent")).unwrap();
    until("its end", || is_gone(parent)).await;
}

#[tokio::test]
async fn one_whose_child_keeps_the_pipes_open_is_heard() {
    let good = answers(r#""cacheKeyType":"Image","auth":{"a.io":{"username":"u","password":"p"}}"#);
    let node = Node::with_plugin(&format!("{good}\nsleep 600 & echo $! > $D/child"));
    assert_eq!(node.ask("a.io/x").await.unwrap(), [basic("u", "p")]);
    let child = process(&node.path("child")).unwrap();
    until("the end of the child", || is_gone(child)).await;
}

#[tokio::test]
async fn one_that_wants_a_pods_token_is_told_and_not_run() {
    let node = Node::new();
    let token = "  tokenAttributes: {serviceAccountTokenAudience: x, cacheType: Token, requireServiceAccount: true}\n";
    node.config(&[provider("sa", "[a.io, b.io]", token), provider("plain", "[a.io]", "")].concat());
    node.plugin("sa", "exit 1");
    node.plugin(
        "plain",
        &answers(r#""cacheKeyType":"Image","auth":{"a.io":{"username":"u","password":"p"}}"#),
    );
    assert_eq!(node.ask("a.io/x").await.unwrap(), [basic("u", "p")]);
    let error = node.ask("b.io/x").await.unwrap_err();
    assert!(rt::chain(&error).contains("token of a pod's service account"));
    assert_eq!((error.kind(), node.runs()), (ErrorKind::Unsupported, 1));
}

#[tokio::test]
async fn what_is_known_of_them_shows_no_secret() {
    let node = Node::new();
    node.config(&provider("test", "[a.io]", "  env: [{name: KEY, value: hunter2}]\n"));
    node.plugin(
        "test",
        &answers(r#""cacheKeyType":"Image","auth":{"a.io":{"username":"u","password":"hunter2"}}"#),
    );
    let found = node.ask("a.io/x").await.unwrap();
    let listed = node.providers.listed().await.unwrap();
    let shown = format!("{found:?} {listed:?} {:?}", node.providers);
    assert!(!shown.contains("hunter2"), "{shown}");
}
