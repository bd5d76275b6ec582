use proptest::prelude::*;

use super::*;
use crate::image::credentials::provider::answer::{Answer, ApiVersion, Scope, parse};

fn text(kind: &str, version: &str, rest: &str) -> String {
    format!(r#"{{"kind":"{kind}","apiVersion":"{GROUP}/{version}",{rest}}}"#)
}

fn read(rest: &str) -> Result<Answer, String> {
    parse(ApiVersion::V1, text("CredentialProviderResponse", "v1", rest).as_bytes())
}

#[test]
fn an_answer_says_for_what_and_for_how_long_it_is_good() {
    let auth =
        r#""auth":{"*.io/x":{"username":"u","password":"p"},"b.io":{"username":"","password":""},"c.io":{}}"#;
    for (fields, scope, keep) in [
        (r#""cacheKeyType":"Image""#, Scope::Image, None),
        (r#""cacheKeyType":"Registry","cacheDuration":null"#, Scope::Registry, None),
        (r#""cacheKeyType":"Global","cacheDuration":"6h0m0s","more":1"#, Scope::Global, Some(6 * 3600)),
        (r#""cacheKeyType":"Global","cacheDuration":"0s""#, Scope::Global, Some(0)),
        (r#""cacheKeyType":"Global","cacheDuration":"-5m""#, Scope::Global, Some(0)),
    ] {
        let answer = read(&format!("{fields},{auth}")).unwrap();
        assert_eq!((answer.scope, answer.keep), (scope, keep.map(Duration::from_secs)), "{fields}");
        assert_eq!(answer.auths, [("*.io/x".to_owned(), basic("u", "p"))]);
        assert_eq!(read(fields).unwrap().auths, [], "no credentials are an answer, too");
    }
    for version in ["v1", "v1beta1", "v1alpha1"] {
        let api = ApiVersion::named(&format!("{GROUP}/{version}")).unwrap();
        let answer = text("CredentialProviderResponse", version, r#""cacheKeyType":"Image""#);
        assert!(parse(api, answer.as_bytes()).is_ok(), "{version}");
    }
}

#[test]
fn what_is_wrong_is_told_without_anything_from_the_answer() {
    let kind = "CredentialProviderResponse";
    for answer in [
        String::new(),
        "hunter2".to_owned(),
        text("hunter2", "v1", r#""cacheKeyType":"Image""#),
        text(kind, "hunter2", r#""cacheKeyType":"Image""#),
        text(kind, "v1beta1", r#""cacheKeyType":"Image""#),
        text(kind, "v1", r#""cacheKeyType":"hunter2""#),
        text(kind, "v1", r#""cacheKeyType":"Image","cacheDuration":"hunter2""#),
        text(kind, "v1", r#""cacheKeyType":"Image","cacheDuration":7"#),
        text(kind, "v1", r#""cacheKeyType":"Image","auth":"hunter2""#),
        text(kind, "v1", r#""cacheKeyType":"Image","auth":{"a.io":"hunter2"}"#),
        text(kind, "v1", r#""auth":{}"#),
        text(kind, "v1", r#""cacheKeyType":"Image"}{"#),
    ] {
        let problem = parse(ApiVersion::V1, answer.as_bytes()).unwrap_err();
        assert!(!problem.contains("hunter2"), "{answer}: {problem}");
    }
}

#[test]
fn a_scope_covers_what_it_says() {
    let covers = |scope: Scope, asked: &str, image: &str| {
        scope.covers(&asked.parse().unwrap(), &image.parse().unwrap())
    };
    for (image, by_image, by_registry) in [
        ("a.io/x:2", true, true),
        ("a.io/y", false, true),
        ("a.io:5000/x", false, false),
        ("x", false, false),
    ] {
        assert_eq!(covers(Scope::Image, "a.io/x", image), by_image, "{image}");
        assert_eq!(covers(Scope::Registry, "a.io/x", image), by_registry, "{image}");
        assert!(covers(Scope::Global, "a.io/x", image));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(ApiVersion::V1, &bytes);
    }
}
