use super::*;

fn basic(username: &str, password: &str) -> RegistryAuth {
    RegistryAuth::Basic { username: username.to_owned(), password: Secret::new(password.to_owned()) }
}

/// The user names that are tried for `image`, where each registry has a user called like it.
fn tried(registries: &[&str], image: &str) -> Vec<String> {
    let auths: serde_json::Map<_, _> = registries
        .iter()
        .map(|registry| ((*registry).to_owned(), serde_json::json!({"username": registry, "password": "p"})))
        .collect();
    let config = serde_json::json!({ "auths": auths }).to_string();
    let keyring = Keyring::parse(config.as_bytes()).unwrap();
    keyring
        .candidates(&image.parse().unwrap())
        .into_iter()
        .map(|auth| match auth {
            RegistryAuth::Basic { username, .. } => username,
            RegistryAuth::IdentityToken(_) => unreachable!(),
        })
        .collect()
}

#[test]
fn every_spelling_of_credentials_is_read() {
    let config = br#"{"auths": {
        "a.io": {"auth": "dXNlcjpwYTpzcw=="},
        "b.io": {"auth": "dXNlcjpwYTpzcw"},
        "c.io": {"username": "user", "password": "pa:ss", "email": "e"},
        "d.io": {"auth": "MDAwMDo=", "identitytoken": "token"},
        "e.io": {}, "null.io": null, "nulls.io": {"auth": null, "username": null},
        "g.io": {"auth": "dXNlcjpw\r\nYTpzcw==\n"},
        "h.io": {"auth": "dXNlcjpwYTpzcw==", "identitytoken": "token"}
    }, "credsStore": "x"}"#;
    let keyring = Keyring::parse(config).unwrap();
    let one = |host: &str| keyring.candidates(&format!("{host}/x").parse().unwrap());
    for host in ["a.io", "b.io", "c.io", "g.io"] {
        assert_eq!(one(host), [basic("user", "pa:ss")], "{host}");
    }
    let token = RegistryAuth::IdentityToken(Secret::new("token".to_owned()));
    assert_eq!(one("d.io"), std::slice::from_ref(&token));
    assert_eq!(one("h.io"), [token, basic("user", "pa:ss")], "the kubelet would take the password");
    for host in ["e.io", "f.io", "null.io", "nulls.io"] {
        assert_eq!(one(host), [], "{host}");
    }
    assert_eq!(Keyring::parse(br#"{"auths": null}"#).unwrap().candidates(&"a.io/x".parse().unwrap()), []);
}

#[test]
fn the_most_specific_is_tried_first_and_the_others_after_it() {
    let registries = ["gcr.io", "gcr.io/team", "gcr.io/team/app", "*.io", "quay.io", "gcr.io/other"];
    assert_eq!(tried(&registries, "gcr.io/team/app:1"), ["gcr.io/team/app", "gcr.io/team", "gcr.io", "*.io"]);
    assert_eq!(tried(&registries, "gcr.io/x"), ["gcr.io", "*.io"]);
}

#[test]
fn hosts_match_part_by_part_and_with_their_port() {
    for (registry, image, fits) in [
        ("*.dkr.ecr.*.amazonaws.com", "123.dkr.ecr.us-east-1.amazonaws.com/a", true),
        ("*.amazonaws.com", "123.dkr.ecr.us-east-1.amazonaws.com/a", false),
        ("*.azurecr.io", "me.azurecr.io/a", true),
        ("*.azurecr.io", "azurecr.io/a", false),
        ("reg?.io", "reg1.io/a", true),
        ("reg?.io", "reg.io/a", false),
        ("reg[1-3].io", "reg2.io/a", true),
        ("reg[1-3].io", "reg4.io/a", false),
        ("[ab].io", "a.io/x", true),
        ("reg[.io", "reg.io/a", false),
        ("user@host.io", "host.io/a", true),
        ("https://user@host.io/team@x", "host.io/a", false),
        ("host.io/te", "host.io/team/a", true),
        ("host.io/team/", "host.io/team/a", true),
        ("host.io/team/", "host.io/teams/a", false),
        ("*", "localhost/a", true),
        ("*", "gcr.io/a", false),
        ("host.io:*", "host.io:5000/a", false),
        ("[::1]", "[::1]/a", true),
        ("host.io:5000", "host.io:5000/a", true),
        ("host.io", "host.io:5000/a", false),
        ("host.io:5000", "host.io/a", false),
        ("https://host.io", "host.io/a", true),
        ("http://host.io/v2/", "host.io/a", true),
        ("https://host.io/v1/team", "host.io/team/a", true),
        ("https://host.io/v1/team", "host.io/other/a", false),
        ("[::1]:5000", "[::1]:5000/a", true),
        ("[::1]:5000", "[::2]:5000/a", false),
        ("*x*.io", "axxb.io/a", true),
        ("*x*y.io", "axbycy.io/a", true),
        ("*x*y.io", "axbyc.io/a", false),
    ] {
        assert_eq!(!tried(&[registry], image).is_empty(), fits, "{registry} for {image}");
    }
}

#[test]
fn docker_hub_has_several_names() {
    for registry in
        ["https://index.docker.io/v1/", "index.docker.io", "https://index.docker.io/v2/", "docker.io"]
    {
        assert_eq!(tried(&[registry], "nginx").len(), 1, "{registry}");
        assert_eq!(tried(&[registry], "quay.io/nginx").len(), 0, "{registry}");
    }
    assert_eq!(tried(&["docker.io", "index.docker.io"], "nginx"), ["docker.io"]);
}

#[test]
fn what_is_malformed_is_told_without_the_secret() {
    for config in [
        "",
        "7",
        r#"{"auths": "hunter2"}"#,
        r#"{"auths": {"a.io": "hunter2"}}"#,
        r#"{"auths": {"a.io": {"auth": "hunter2 is not base64"}}}"#,
        r#"{"auths": {"a.io": {"auth": "aHVudGVyMg=="}}}"#,
    ] {
        let error = Keyring::parse(config.as_bytes()).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
    let keyring = Keyring::parse(br#"{"auths":{"a.io":{"auth":"dXNlcjpwYTpzcw=="}}}"#).unwrap();
    assert_eq!(format!("{keyring:?}"), r#"{"a.io"}"#);
}

#[tokio::test]
async fn a_secret_is_read_from_its_directory_and_from_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    for (name, file) in [("kubernetes", ".dockerconfigjson"), ("docker", "config.json")] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        let config = format!(r#"{{"auths":{{"a.io":{{"username":"{name}","password":"p"}}}}}}"#);
        std::fs::write(dir.path().join(name).join(file), config).unwrap();
        let keyring = Keyring::read(dir.path(), name).await.unwrap().unwrap();
        assert_eq!(keyring.candidates(&"a.io/x".parse().unwrap()), [basic(name, "p")]);
    }
    std::fs::create_dir(dir.path().join("old")).unwrap();
    let config = r#"{"a.io":{"username":"old","password":"p","email":"e"}}"#;
    std::fs::write(dir.path().join("old/.dockercfg"), config).unwrap();
    let keyring = Keyring::read(dir.path(), "old").await.unwrap().unwrap();
    assert_eq!(keyring.candidates(&"a.io/x".parse().unwrap()), [basic("old", "p")]);
    assert!(Keyring::read(dir.path(), "absent").await.unwrap().is_none());
    assert!(Keyring::missing(dir.path(), "absent").contains(".dockerconfigjson"));
    for name in ["", ".", "..", "docker/../docker", "/etc", "a\0b"] {
        let error = Keyring::read(dir.path(), name).await.unwrap_err();
        assert!(error.contains("name of a mounted Secret"), "{name}: {error}");
    }
}
