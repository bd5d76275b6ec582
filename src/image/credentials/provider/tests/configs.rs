use proptest::prelude::*;

use super::*;
use crate::image::credentials::provider::answer::ApiVersion;

fn unusable(more: &str) -> Option<&'static str> {
    let text = format!(
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- matchImages: [a.io]\n{more}"
    );
    config::parse(&text).unwrap()[0].unusable
}

#[test]
fn every_version_is_read_as_yaml_and_as_json() {
    for version in ["v1", "v1beta1", "v1alpha1"] {
        let yaml = format!(
            "# the cloud's\napiVersion: kubelet.config.k8s.io/{version}\nkind: CredentialProviderConfig\nproviders:\n\
             - name: ecr\n  apiVersion: {GROUP}/{version}\n  matchImages:\n  - '*.dkr.ecr.*.amazonaws.com'\n  - a.io/team\n  \
             defaultCacheDuration: \"12h0m0s\"\n  args: [get, --x]\n  env:\n  - name: AWS_PROFILE\n    value: p\n  later: true\n"
        );
        let json = format!(
            "\n{{\t\"apiVersion\": \"kubelet.config.k8s.io/{version}\",\n\t\"kind\": \"CredentialProviderConfig\",\n\t\"providers\": \
             [{{\"name\": \"ecr\", \"apiVersion\": \"{GROUP}/{version}\", \"matchImages\": [\"*.dkr.ecr.*.amazonaws.com\", \
             \"a.io/team\"],\n\t\"defaultCacheDuration\": \"12h\", \"args\": [\"get\", \"--x\"], \"env\": [{{\"name\": \
             \"AWS_PROFILE\", \"value\": \"p\"}}]}}]}}"
        );
        let expected = ProviderConfig {
            name: "ecr".to_owned(),
            match_images: vec!["*.dkr.ecr.*.amazonaws.com".to_owned(), "a.io/team".to_owned()],
            args: vec!["get".to_owned(), "--x".to_owned()],
            env: vec![("AWS_PROFILE".to_owned(), Secret::new("p".to_owned()))],
            version: ApiVersion::named(&format!("{GROUP}/{version}")).unwrap(),
            keep: Duration::from_secs(12 * 3600),
            unusable: None,
        };
        assert_eq!(config::parse(&yaml).unwrap(), std::slice::from_ref(&expected));
        assert_eq!(config::parse(&json).unwrap(), [expected]);
    }
}

#[test]
fn a_provider_that_can_not_be_used_says_why() {
    let good = format!("  name: p\n  apiVersion: {GROUP}/v1\n  defaultCacheDuration: 0s\n");
    assert_eq!(unusable(&good), None);
    for (from, to, says) in [
        ("name: p", "name: ''", "name"),
        ("name: p", "name: ..", "name"),
        ("name: p", "name: ../p", "name"),
        ("name: p", "name: a b", "name"),
        ("/v1", "/v2", "apiVersion"),
        ("0s", "-1s", "defaultCacheDuration"),
        ("0s", "soon", "defaultCacheDuration"),
        ("  defaultCacheDuration: 0s\n", "", "defaultCacheDuration"),
        (
            "0s",
            "0s\n  tokenAttributes: {serviceAccountTokenAudience: x, requireServiceAccount: true}",
            "token",
        ),
    ] {
        let reason = unusable(&good.replace(from, to)).unwrap_or_default();
        assert!(reason.contains(says), "{to}: {reason}");
    }
    let without =
        good + "  tokenAttributes: {serviceAccountTokenAudience: x, requireServiceAccount: false}\n";
    assert_eq!(unusable(&without), None, "the kubelet runs it without a token where there is none");
}

#[test]
fn what_is_malformed_is_told_by_its_place() {
    for (text, says) in [
        ("", "isn't a CredentialProviderConfig"),
        ("hunter2", "isn't a CredentialProviderConfig"),
        ("a: b", "isn't a CredentialProviderConfig"),
        ("apiVersion: v1\nkind: ConfigMap", "isn't a CredentialProviderConfig of"),
        (
            "apiVersion: kubelet.config.k8s.io/v2\nkind: CredentialProviderConfig",
            "isn't a CredentialProviderConfig of",
        ),
        (
            "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: p\n  env: hunter2",
            "line 5",
        ),
        ("{\"apiVersion\": \"x\",\n\"kind\": hunter2}", "line 2"),
    ] {
        let problem = config::parse(text).unwrap_err();
        assert!(problem.contains(says) && !problem.contains("hunter2"), "{text}: {problem}");
    }
    let none = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:";
    assert_eq!(config::parse(none).unwrap(), []);
}

#[test]
fn bombs_are_refused() {
    let mut laughs = String::from("x0: &x0 [a, a, a, a, a, a, a, a, a]\n");
    for level in 1..20 {
        laughs += &format!("x{level}: &x{level} [{}]\n", vec![format!("*x{}", level - 1); 9].join(", "));
    }
    for bomb in [laughs, "[".repeat(250_000), "{\"a\":".repeat(100_000), "- ".repeat(100_000)] {
        assert!(config::parse(&bomb).is_err());
    }
}

#[tokio::test]
async fn a_directory_of_files_counts_as_one_configuration() {
    let node = Node::new();
    let head = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n";
    let dir = node.path("etc/providers.yaml");
    fs::create_dir(&dir).unwrap();
    assert!(node.problem("a.io/x").await.contains("no .json, .yaml or .yml file"), "empty");
    fs::write(dir.join("2.yaml"), format!("{head}{}", provider("two", "[a.io]", ""))).unwrap();
    fs::write(dir.join("1.yml"), format!("{head}{}", provider("one", "[a.io]", ""))).unwrap();
    fs::write(dir.join("3.json"), format!("{head}{}", provider("one", "[b.io]", ""))).unwrap();
    fs::write(dir.join("4.txt"), "nothing for us").unwrap();
    node.plugin(
        "one",
        &answers(r#""cacheKeyType":"Image","auth":{"a.io":{"username":"one","password":"p"}}"#),
    );
    node.plugin(
        "two",
        &answers(r#""cacheKeyType":"Image","auth":{"a.io":{"username":"two","password":"p"}}"#),
    );
    assert_eq!(node.ask("a.io/x").await.unwrap(), [basic("one", "p"), basic("two", "p")]);
    assert!(node.problem("b.io/x").await.contains("another provider has the same name"));
    fs::write(dir.join("4.yaml"), "broken").unwrap();
    assert!(node.problem("a.io/x").await.contains("/etc/providers.yaml/4.yaml"), "which file it is");
}

#[tokio::test]
async fn a_configuration_that_can_not_be_read_is_named() {
    let node = Node::new();
    for write in [None, Some(b"\xff".to_vec()), Some(vec![b'#'; 1 << 21])] {
        if let Some(bytes) = write {
            fs::write(node.path("etc/providers.yaml"), bytes).unwrap();
        }
        let error = node.ask("a.io/x").await.unwrap_err();
        assert!(error.to_string().contains("/etc/providers.yaml: it "), "{error}");
        assert_eq!(error.code(), "CredentialProviderFailed");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}|[a-z:\\[\\]{}\" \n-]{0,80}") {
        let _ = config::parse(&text);
    }
}
