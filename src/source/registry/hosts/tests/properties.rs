use proptest::prelude::*;

use super::*;

/// Lines that may stand in the file, right or wrong.
fn line() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("true".to_owned()),
        Just("'https://a.example/x'".to_owned()),
        Just("['pull', 'resolve']".to_owned()),
        Just("[['a', 'b'], 'c']".to_owned()),
        Just("'30s'".to_owned()),
        "'[ -&(-~]{0,12}'",
        "[0-9]{1,4}",
    ];
    let key = prop::sample::select(vec![
        "server",
        "capabilities",
        "ca",
        "client",
        "skip_verify",
        "header.a",
        "override_path",
        "dial_timeout",
        "host.'https://m.example'",
        "other",
    ]);
    let table = prop_oneof![
        "\\[host\\.'https?://[a-z]{1,3}'\\]",
        "\\[host\\.\"[ -!#-\\[\\]-~]{0,8}\"(\\.header)?\\]",
        Just("[header]".to_owned()),
    ];
    prop_oneof![3 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")), 1 => table]
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_with_a_line_of_it(text in ".{0,200}") {
        if let Err(error) = HostsFile::parse(&text) {
            prop_assert!((1..=1 + text.matches('\n').count()).contains(&error.line));
        }
    }

    #[test]
    fn what_is_read_makes_hosts_that_can_be_asked(
        lines in prop::collection::vec(line(), 0..8),
        domain in "([a-z]{1,5}\\.)?[a-z]{1,5}(:[1-9][0-9]{0,3})?",
    ) {
        let text = lines.join("\n");
        if let Ok(file) = HostsFile::parse(&text) {
            let mirrors = file.mirrors.len();
            let hosts = assemble::hosts(file, &domain, true).unwrap();
            prop_assert_eq!(hosts.len(), mirrors + 1);
            for host in hosts {
                prop_assert!(matches!(host.base.scheme(), "http" | "https"));
                prop_assert!(host.base.query().is_none() && host.base.username().is_empty());
                prop_assert!(host.base.path() == "/" || !host.base.path().ends_with('/'));
            }
        }
    }

    #[test]
    fn mirrors_keep_the_files_order(names in prop::collection::hash_set("[a-z]{1,6}", 0..8)) {
        let names: Vec<String> = names.into_iter().collect();
        let tables: Vec<String> = names.iter().map(|name| format!("[host.'https://{name}']")).collect();
        let hosts = hosts_of(&tables.join("\n"), "r.example");
        let found: Vec<_> = hosts.iter().filter_map(|host| host.base.host_str()).collect();
        prop_assert_eq!(&found[..names.len()], names.as_slice());
    }
}

#[test]
fn deep_and_wide_files_are_no_danger() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("{} = 1", vec!["a"; 100_000].join(".")),
        format!("[{}]", vec!["a"; 100_000].join(".")),
        "[host.'https://a']\n".repeat(1000),
    ] {
        assert!(HostsFile::parse(&text).is_err(), "{}", &text[..20]);
    }
    let many: String = (0..20_000).map(|n| format!("[host.'https://m{n}']\n")).collect();
    assert_eq!(hosts_of(&many, "r.example").len(), 20_001);
    let headers: String = (0..40_000).map(|n| format!("h{n} = 'x'\n")).collect();
    assert!(HostsFile::parse(&format!("[header]\n{headers}")).is_err(), "more headers than a map holds");
}
