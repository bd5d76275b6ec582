//! How long answers are kept, for what, and who waits for whom.

use tokio::time::Instant;

use super::*;

fn answer(scope: &str, more: &str) -> String {
    answers(&format!(r#""cacheKeyType":"{scope}"{more},"auth":{{"*.io":{{"username":"u","password":"p"}}}}"#))
}

#[tokio::test]
async fn an_answer_is_kept_for_what_it_is_good_for() {
    for (scope, runs) in [("Image", 3), ("Registry", 2), ("Global", 1)] {
        let node = Node::with_plugin(&answer(scope, ""));
        for image in ["a.io/x:1", "a.io/x:2", "a.io/y", "b.io/x"] {
            assert_eq!(node.ask(image).await.unwrap(), [basic("u", "p")]);
        }
        assert_eq!(node.runs(), runs, "{scope}");
    }
}

#[tokio::test]
async fn what_is_not_to_be_kept_is_asked_again() {
    for more in [r#","cacheDuration":"0s""#, r#","cacheDuration":"-1h""#] {
        let node = Node::with_plugin(&answer("Global", more));
        for _ in 0..3 {
            node.ask("a.io/x").await.unwrap();
        }
        assert_eq!(node.runs(), 3, "{more}");
    }
    let node = Node::new();
    node.config(&provider("test", "['*.io']", "").replace("1h", "0s"));
    node.plugin("test", &answer("Global", ""));
    for _ in 0..2 {
        node.ask("a.io/x").await.unwrap();
    }
    assert_eq!(node.runs(), 2, "the default counts where the answer says nothing");
    node.plugin("test", &answer("Global", r#","cacheDuration":"1h""#));
    for _ in 0..2 {
        node.ask("a.io/x").await.unwrap();
    }
    assert_eq!(node.runs(), 3, "and the answer's word where it does");
}

#[tokio::test]
async fn what_has_expired_is_asked_again() {
    let node = Node::with_plugin(&answer("Global", r#","cacheDuration":"1s""#));
    let begin = Instant::now();
    node.ask("a.io/x").await.unwrap();
    while node.runs() < 2 {
        node.ask("a.io/x").await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(30), "it's kept for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begin.elapsed() >= Duration::from_secs(1), "it wasn't kept");
}

#[tokio::test]
async fn absurdly_long_is_long() {
    let node = Node::with_plugin(&answer("Global", r#","cacheDuration":"2562047h""#));
    for _ in 0..2 {
        node.ask("a.io/x").await.unwrap();
    }
    assert_eq!(node.runs(), 1);
}

#[tokio::test]
async fn those_who_ask_at_once_share_one_run() {
    for (scope, images) in [
        ("Global", ["a.io/x", "a.io/x", "b.io/y", "a.io/z"]),
        ("Registry", ["a.io/x", "a.io/x", "a.io/y", "a.io/z"]),
        ("Image", ["a.io/x", "a.io/x:2", "a.io/x", "a.io/x"]),
    ] {
        for more in ["", r#","cacheDuration":"0s""#] {
            // The plugin answers only when it's let: all have asked by then.
            let script = answer(scope, more);
            let node = Node::with_plugin(&format!("while [ ! -e $D/go ]; do sleep 0.01; done\n{script}"));
            let listed = node.providers.listed().await.unwrap();
            let images: Vec<ImageRef> = images.iter().map(|image| image.parse().unwrap()).collect();
            let (_, desk) = node.providers.desks(listed, &images[0]).remove(0);
            let all = futures::future::join_all(images.iter().map(|image| desk.ask(image)));
            let go = async { fs::write(node.path("go"), "").unwrap() };
            let (answers, ()) = tokio::join!(all, go);
            for answer in answers {
                assert_eq!(answer.unwrap().auths[0].1, basic("u", "p"));
            }
            assert_eq!(node.runs(), 1, "{scope} {more}");
        }
    }
}

#[tokio::test]
async fn nobody_gets_an_answer_that_is_for_another_image() {
    // It knows the image from the request, and says so as the user's name.
    let script = format!(
        "image=$(sed 's/.*\"image\":\"\\([^\"]*\\)\".*/\\1/')\ncat <<END\n{{\"kind\":\"CredentialProviderResponse\",\
         \"apiVersion\":\"{GROUP}/v1\",\"cacheKeyType\":\"Image\",\"auth\":{{\"*.io\":{{\"username\":\"$image\",\
         \"password\":\"p\"}}}}}}\nEND"
    );
    let node = Node::with_plugin(&script);
    let images = ["a.io/a", "a.io/b", "b.io/a", "a.io/a"];
    for _ in 0..2 {
        let answers = futures::future::join_all(images.iter().map(|image| node.ask(image))).await;
        for (image, answer) in images.iter().zip(answers) {
            assert_eq!(answer.unwrap(), [basic(image, "p")]);
        }
        assert_eq!(node.runs(), 3, "one run an image");
    }
}

#[tokio::test]
async fn one_images_failure_is_not_anothers() {
    let good = answer("Image", "");
    let node = Node::with_plugin(&format!("if grep -q bad; then exit 1; fi\n{good}"));
    let (bad, good) = tokio::join!(node.ask("a.io/bad"), node.ask("a.io/good"));
    assert!(bad.is_err());
    assert_eq!(good.unwrap(), [basic("u", "p")]);
}

#[tokio::test]
async fn a_changed_configuration_or_program_counts_at_once() {
    let node = Node::with_plugin(&answer("Global", ""));
    node.ask("a.io/x").await.unwrap();
    node.config(&provider("test", "['*.io']", "  args: [other]\n"));
    node.ask("a.io/x").await.unwrap();
    assert_eq!(node.runs(), 2, "what it said under another configuration isn't kept");
    node.config(&provider("test", "[b.io]", ""));
    assert_eq!(node.ask("a.io/x").await.unwrap(), []);
    let bin = node.path("usr/libexec/plugins");
    fs::rename(bin.join("test"), bin.join("test-v2")).unwrap();
    std::os::unix::fs::symlink("/usr/libexec/plugins/test-v2", bin.join("test")).unwrap();
    node.config(&provider("test", "['*.io']", "  args: [other]\n"));
    assert_eq!(node.ask("a.io/x").await.unwrap(), [basic("u", "p")]);
    assert_eq!(node.runs(), 3);
}
