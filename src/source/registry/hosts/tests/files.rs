use std::time::Duration;

use super::*;

#[test]
fn mirrors_come_in_the_files_order_and_the_registry_last() {
    let text = r#"
        server = "https://registry-1.docker.io"
        [host."https://z.example/cache"]
          capabilities = ["pull"]
        [host."http://a.example:5000"]
          capabilities = ["Pull", "Resolve", "referrers"]
        [host."m.example"]
          capabilities = ["resolve"]
        [host."https://z.example/cache".header]
          x = "1"
    "#;
    let hosts = hosts_of(text, "docker.io");
    assert_eq!(
        bases(&hosts),
        [
            "https://z.example/cache/v2",
            "http://a.example:5000/v2",
            "https://m.example/v2",
            "https://registry-1.docker.io/v2"
        ]
    );
    let can: Vec<_> = hosts.iter().map(|host| (host.can_pull, host.can_resolve)).collect();
    assert_eq!(can, [(true, false), (true, true), (false, false), (true, true)]);
    let namespaces: Vec<_> = hosts.iter().map(|host| host.namespace.as_deref()).collect();
    assert_eq!(namespaces, [Some("docker.io"), Some("docker.io"), Some("docker.io"), None]);
}

#[test]
fn the_keys_outside_a_table_are_the_servers() {
    let text = r#"
        server = "https://up.example"
        capabilities = ["pull", "push"]
        ca = "ca.pem"
        skip_verify = true
        dial_timeout = "1m0.5s"
        [host."https://mirror.example"]
        [header]
          x-key = ["a", "b"]
    "#;
    let hosts = hosts_of(text, "r.example");
    let [mirror, server] = hosts.as_slice() else { panic!("{hosts:?}") };
    assert_eq!((server.can_pull, server.can_resolve), (true, false));
    assert_eq!(server.tls, HostTls { ca: vec!["ca.pem".into()], client: Vec::new(), skip_verify: true });
    assert_eq!(server.dial_timeout, Some(Duration::from_millis(60_500)));
    assert_eq!(server.headers.get_all("x-key").iter().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(
        server.namespace.as_deref(),
        Some("r.example"),
        "another server is told whose images it serves"
    );
    assert_eq!(mirror.tls, HostTls::default());
    assert!(mirror.headers.is_empty() && mirror.dial_timeout.is_none());
}

#[test]
fn a_registry_without_a_server_is_itself_and_can_do_all() {
    for text in ["", "server = \"\"", "capabilities = [\"pull\"]"] {
        let hosts = hosts_of(text, "r.example:5000");
        assert_eq!(bases(&hosts), ["https://r.example:5000/v2"], "{text}");
        assert!(hosts[0].can_pull && hosts[0].can_resolve && hosts[0].namespace.is_none(), "{text}");
    }
    let hosts = hosts_of("skip_verify = true\n[header]\na = \"b\"", "docker.io");
    assert_eq!(bases(&hosts), ["https://registry-1.docker.io/v2"]);
    assert!(hosts[0].tls.skip_verify && hosts[0].headers.contains_key("a") && hosts[0].namespace.is_none());
}

#[test]
fn addresses_become_what_paths_are_appended_to() {
    for (address, override_path, base) in [
        ("https://m.example", false, Some("https://m.example/v2")),
        ("https://m.example/", false, Some("https://m.example/v2")),
        ("m.example:5000", false, Some("https://m.example:5000/v2")),
        ("httpbin.example", false, Some("https://httpbin.example/v2")),
        ("HTTP://m.example", false, Some("http://m.example/v2")),
        ("https://m.example/v2", false, Some("https://m.example/v2")),
        ("https://m.example/v2/", false, Some("https://m.example/v2")),
        ("https://m.example/a//b/../c/", false, Some("https://m.example/a/c/v2")),
        ("https://m.example/v2/proxy", false, Some("https://m.example/v2/proxy/v2")),
        ("https://m.example/v2/proxy", true, Some("https://m.example/v2/proxy")),
        ("https://m.example/xv2", false, Some("https://m.example/xv2/v2")),
        ("https://m.example", true, Some("https://m.example/")),
        ("https://u:p@m.example/a?b=c#d", false, Some("https://m.example/a/v2")),
        ("http://[::1]:5000", false, Some("http://[::1]:5000/v2")),
        ("https://", false, None),
        ("https:///v2", false, None),
        ("ftp://m.example", false, None),
        ("unix:///run/x", false, None),
        ("https://m example", false, None),
        ("https://m.example\\x", false, None),
        ("https://m.example:99999", false, None),
    ] {
        let text = format!("server = '{address}'\noverride_path = {override_path}");
        let found = HostsFile::parse(&text).map(|file| assemble::hosts(file, "r.example", true).unwrap());
        assert_eq!(found.as_ref().ok().map(|hosts| hosts[0].base.as_str()), base, "{address}");
    }
}

#[test]
fn a_mirror_is_told_whose_images_it_serves() {
    for (server, domain, namespace) in [
        ("https://registry-1.docker.io", "docker.io", None),
        ("https://docker.io", "docker.io", None),
        ("https://registry-1.docker.io", "quay.io", Some("quay.io")),
        ("http://r.example:5000", "r.example:5000", None),
        ("https://r.example", "r.example:443", Some("r.example:443")),
        ("https://r.example:443", "r.example", Some("r.example")),
    ] {
        let hosts = hosts_of(&format!("server = \"{server}\""), domain);
        assert_eq!(hosts[0].namespace.as_deref(), namespace, "{server} for {domain}");
    }
}

#[test]
fn registries_on_this_machine_are_asked_as_containerd_asks_them() {
    for (domain, configured, scheme, skip_verify) in [
        ("localhost:5000", true, "http", true),
        ("127.0.0.1:5000", true, "http", true),
        ("127.9.9.9:5000", true, "http", true),
        ("[::1]:5000", true, "http", true),
        ("localhost:80", true, "http", false),
        ("localhost", true, "https", true),
        ("localhost:443", true, "https", true),
        ("localhost", false, "http", true),
        ("localhost:5000", false, "http", true),
        ("10.0.0.1:5000", true, "https", false),
        ("localhost.example", true, "https", false),
        ("r.example", false, "https", false),
    ] {
        let hosts = assemble::hosts(HostsFile::default(), domain, configured).unwrap();
        assert_eq!((hosts[0].base.scheme(), hosts[0].tls.skip_verify), (scheme, skip_verify), "{domain}");
        assert_eq!(hosts[0].namespace, None, "{domain}");
    }
    let hosts = hosts_of("ca = \"/ca.pem\"", "localhost:5000");
    assert_eq!(hosts[0].base.scheme(), "https", "whoever gives it certificates means TLS");
}

#[test]
fn certificates_may_be_written_in_every_way() {
    let tls = |text: &str| hosts_of(text, "r.example").remove(0).tls;
    assert_eq!(tls("ca = '/a'").ca, [PathBuf::from("/a")]);
    assert_eq!(tls("ca = ['/a', 'b']").ca, [PathBuf::from("/a"), PathBuf::from("b")]);
    let both = |certificate: &str| (PathBuf::from(certificate), None);
    let pair = |certificate: &str, key: &str| (PathBuf::from(certificate), Some(PathBuf::from(key)));
    assert_eq!(tls("client = 'a'").client, [both("a")]);
    assert_eq!(tls("client = ['a', 'b']").client, [both("a"), both("b")]);
    assert_eq!(tls("client = [['a', 'b'], 'c']").client, [pair("a", "b"), both("c")]);
}

#[test]
fn headers_that_gos_client_would_not_send_are_left_out() {
    let text = "[header]\nHost = 'x'\nContent-Length = '1'\nAuthorization = 'Bearer hunter2'";
    let hosts = hosts_of(text, "r.example");
    assert_eq!(hosts[0].headers.keys().collect::<Vec<_>>(), ["authorization"]);
    assert!(!format!("{hosts:?}").contains("hunter2"), "{hosts:?}");
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_never_with_a_value() {
    for (text, line) in [
        ("server = hunter2", 1),
        ("\nserver = 7", 2),
        ("server = 'ftp://hunter2'", 1),
        ("a = 1\nhost = 'hunter2'", 2),
        ("[[host]]\na = 1", 1),
        ("\n\nhost.'https://a' = 'hunter2'", 3),
        ("[host.'']", 1),
        ("[host.'https://a']\n\nca = 7", 3),
        ("ca = ['a', 7]", 1),
        ("ca = ''\nca = ''", 2),
        ("client = [\n['hunter2']]", 2),
        ("client = [['a', 'b', 'c']]", 1),
        ("skip_verify = 'hunter2'", 1),
        ("override_path = 1", 1),
        ("capabilities = 'pull'", 1),
        ("capabilities = ['pull',\n'hunter2']", 2),
        ("dial_timeout = 'hunter2'", 1),
        ("dial_timeout = 30", 1),
        ("dial_timeout = '-1s'", 1),
        ("header = 'hunter2'", 1),
        ("[header]\na = 1", 2),
        ("[header]\na = ['hunter2', 1]", 2),
        ("[header]\na = \"hunter2\\nhunter2\"", 2),
        ("[header]\n'a b' = 'hunter2'", 2),
        ("[header]\na = 'hunter2", 2),
        ("[header]\na = hunter2", 2),
        ("[header]\na = 'hunter2' hunter2", 2),
        ("[header\na = 'hunter2'", 1),
    ] {
        let error = HostsFile::parse(text).unwrap_err();
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error}");
    }
}
