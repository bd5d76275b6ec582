use super::super::{ParsedEntry, Place, Severity, parse};
use super::*;

fn only(entry: &str) -> ParsedEntry {
    let text = document(&[entry]);
    let parsed = parse(text.as_bytes(), &AllowList::default());
    assert_eq!(parsed.problems, [], "{entry}");
    parsed.entries.into_iter().next().unwrap()
}

/// The problems of the entry, each as `field: message; fix`.
fn said(entry: &str) -> Vec<String> {
    let problems = only(entry).problems;
    let shown = |problem: &super::super::Problem| {
        let field = problem.field.clone().unwrap_or_default();
        assert!(!problem.fix.is_empty() && problem.place.is_some(), "{problem:?}");
        format!(
            "{}{field}: {}",
            if problem.severity == Severity::Warning { "~" } else { "" },
            problem.message
        )
    };
    problems.iter().map(shown).collect()
}

#[test]
fn every_field_that_is_wrong_is_named() {
    for (entry, problem) in [
        ("{id: a}", ": it has neither image nor weights"),
        ("{id: a, image: null}", ": it has neither image nor weights"),
        ("{id: a, image: nginx, weights: 's3://b/'}", "weights: it has both image and weights"),
        ("{id: a, image: 7}", "image: it is a number, not text"),
        ("{id: a, image: 'a/UPPER'}", "image: not an image reference: \"a/UPPER\": the repository"),
        (
            "{id: a, image: 'https://user:hunter2@host/a'}",
            "image: it is not an image reference: it has a scheme",
        ),
        ("{id: a, image: nginx, pin: 'no'}", "pin: it is text, not true or false"),
        ("{id: a, image: nginx, pin: no}", "pin: it is text, not true or false"),
        ("{id: a, image: nginx, index: true}", "index: this field is for weights only"),
        ("{id: a, image: nginx, include: ['*']}", "include: this field is for weights only"),
        ("{id: a, image: nginx, exclude: []}", "exclude: this field is for weights only"),
        ("{id: a, image: nginx, sha256: {}}", "sha256: this field is for weights only"),
        ("{id: a, weights: 's3://b/', pin: true}", "pin: this field is for images only"),
        ("{id: a, weights: 'ftp://b/'}", "weights: not a weights URI: the scheme \"ftp\" is not known"),
        ("{id: a, weights: 'http://b/c'}", "weights: http:// is not allowed here"),
        ("{id: a, weights: 'file:///etc/shadow'}", "weights: this agent reads no file:// weights"),
        ("{id: a, weights: 'https://169.254.169.254/'}", "weights: \"169.254.169.254\" is a link-local"),
        ("{id: a, image: '169.254.169.254/a'}", "image: \"169.254.169.254\" is a link-local"),
        ("{id: a, weights: 's3://b/', index: true}", "index: s3:// lists its files itself"),
        ("{id: a, weights: 's3://b/', include: '*.json'}", "include: it is text, not a list"),
        ("{id: a, weights: 's3://b/', include: ['ok', '[']}", "include: not a pattern: \"[\""),
        ("{id: a, weights: 's3://b/', exclude: [1]}", "exclude: it is a number, not text"),
        ("{id: a, weights: 's3://b/', exclude: ['[']}", "exclude: not a pattern: \"[\""),
        ("{id: a, weights: 's3://b/', sha256: []}", "sha256: it is a list, not a mapping"),
        (
            &format!("{{id: a, weights: 's3://b/', sha256: {{../x: '{}'}}}}", "0".repeat(64)),
            "sha256: not a safe relative path: \"../x\"",
        ),
        ("{id: a, weights: 's3://b/', sha256: {x: 'e'}}", "sha256: not a SHA-256 digest: \"e\""),
        ("{id: a, weights: 's3://b/', sha256: {x: 12}}", "sha256: it is a number, not text"),
        (
            &format!("{{id: a, weights: 's3://b/', exclude: [{}]}}", "a,".repeat(129)),
            "exclude: it has 129 patterns; at most 128",
        ),
        ("{id: a, image: nginx, required: 1}", "required: it is a number, not true or false"),
        ("{id: a, image: nginx, priority: -1}", "priority: -1 is out of range"),
        ("{id: a, image: nginx, priority: 1001}", "priority: 1001 is out of range"),
        ("{id: a, image: nginx, priority: 1e9}", "priority: it is not a whole number"),
        ("{id: a, image: nginx, priority: '5'}", "priority: it is text, not a number"),
        ("{id: a, image: nginx, neededBy: 2026-01-01}", "neededBy: it can't be read as a time"),
        ("{id: a, image: nginx, neededBy: 1700000000}", "neededBy: it is a number, not a time"),
        ("{id: a, image: nginx, expiresAt: '2026-01-01T00:00:00'}", "expiresAt: it can't be read as a time"),
        ("{id: a, image: nginx, nodes: null}", "nodes: it is nothing, not a mapping"),
        ("{id: a, image: nginx, nodes: {}}", "nodes: it selects nothing"),
        ("{id: a, image: nginx, nodes: [x]}", "nodes: it is a list, not a mapping"),
        ("{id: a, image: nginx, nodes: {matchLabel: {a: b}}}", "nodes.matchLabel: this field is not known"),
        ("{id: a, image: nginx, nodes: {7: {a: b}}}", "nodes.a number: this field is not known"),
        (
            "{id: a, image: nginx, nodes: {matchLabels: null}}",
            "nodes.matchLabels: it is nothing, not a mapping",
        ),
        ("{id: a, image: nginx, nodes: {matchLabels: {}}}", "nodes.matchLabels: it selects nothing"),
        ("{id: a, image: nginx, nodes: {matchLabels: {a: true}}}", "nodes.matchLabels: it is true or false"),
        ("{id: a, image: nginx, nodes: {matchLabels: {a: 'b c'}}}", "nodes.matchLabels: \"a: b c\" can't be"),
        (
            "{id: a, image: nginx, nodes: {matchLabels: {a: b, a: c}}}",
            "nodes.matchLabels: the label is written",
        ),
        ("{id: a, image: nginx, nodes: {fraction: 0}}", "nodes.fraction: it is not more than 0"),
        ("{id: a, image: nginx, nodes: {fraction: 1.01}}", "nodes.fraction: it is not more than 0"),
        ("{id: a, image: nginx, nodes: {fraction: 25}}", "nodes.fraction: it is not more than 0"),
        ("{id: a, image: nginx, nodes: {fraction: .nan}}", "nodes.fraction: it is not more than 0"),
        ("{id: a, image: nginx, nodes: {fraction: '0.5'}}", "nodes.fraction: it is text, not a number"),
        ("{id: a, image: nginx, nodes: {fraction: null}}", "nodes.fraction: it is nothing, not a number"),
        ("{id: a, image: nginx, credentials: ../other}", "credentials: it is not the name of a Secret"),
        ("{id: a, image: nginx, credentials: [x]}", "credentials: it is a list, not text"),
        ("{id: a, image: nginx, priority: 1, priority: 2}", "priority: it is written twice"),
    ] {
        let problems = said(entry);
        assert!(
            problems.len() == 1 && problems[0].starts_with(problem),
            "{entry}\n{problems:?}\nnot {problem:?}"
        );
        assert_eq!(only(entry).entry, None, "{entry}");
    }
}

#[test]
fn unreadable_ids_are_explained() {
    for (entry, problem) in [
        ("{image: nginx}", "id: it is missing"),
        ("{id: null, image: nginx}", "id: it is nothing, not text"),
        ("{id: 12, image: nginx}", "id: it is a number, not text"),
        ("{id: 'a/b', image: nginx}", "id: not an id: \"a/b\""),
        ("{id: a, id: b, image: nginx}", "id: it is written twice"),
        ("text", ": it is text, not an entry"),
        ("null", ": it is nothing, not an entry"),
    ] {
        let problems = said(entry);
        assert!(problems.len() == 1 && problems[0].starts_with(problem), "{entry}\n{problems:?}");
        assert_eq!(only(entry).id, None);
    }
}

#[test]
fn unknown_fields_warn_and_the_entry_is_taken() {
    let parsed = only("{id: a, image: nginx, needed_by: x, 5: y}");
    assert!(parsed.entry.is_some());
    let fixes: Vec<&str> = parsed.problems.iter().map(|problem| problem.fix.as_str()).collect();
    assert_eq!(fixes, ["did you mean \"neededBy\"?", "remove it"]);
    assert!(parsed.problems.iter().all(|problem| problem.severity == Severity::Warning));
    let expired =
        "{id: a, image: nginx, neededBy: 2026-01-02T00:00:00Z, expiresAt: 2026-01-01T00:00:00+00:00}";
    assert_eq!(said(expired), ["~expiresAt: the entry expires before it is needed"]);
}

#[test]
fn all_problems_of_an_entry_are_told_at_once() {
    let problems = said("{id: a, weights: 7, priority: x, nodes: {fractoin: 1}, pin: true}");
    assert_eq!(
        problems,
        [
            "pin: this field is for images only",
            "weights: it is a number, not text",
            "priority: it is text, not a number",
            "nodes.fractoin: this field is not known",
        ]
    );
}

#[test]
fn a_problem_stands_where_its_value_does() {
    let text = "apiVersion: stoker.dev/v1\nkind: PrefetchList\nentries:\n- id: a\n  image: nginx\n  priority: 2000\n";
    let parsed = parse(text.as_bytes(), &AllowList::default());
    assert_eq!(parsed.all_problems()[0].place, Some(Place { line: 6, column: 13 }));
}

#[test]
fn no_problem_repeats_a_secret() {
    for entry in [
        "{id: a, image: 'user:hunter2@registry/a'}",
        "{id: a, image: 'https://user:hunter2@host/a'}",
        "{id: a, image: nginx, credentials: 'hunter2 '}",
        "{id: a, weights: 'https://user:hunter2@host/a'}",
        "{id: a, weights: 'http://host/a?X-Amz-Signature=hunter2'}",
        "{id: a, weights: 'https://host/a?sig=hunter2', index: x}",
    ] {
        let parsed = only(entry);
        assert!(!parsed.problems.is_empty(), "{entry}");
        assert!(!format!("{:?}", parsed.problems).contains("hunter2"), "{:?}", parsed.problems);
    }
}

#[test]
fn defaults_are_as_documented_and_null_is_the_same_as_nothing() {
    let nulls = "{id: a, image: 'nginx:1', required: null, priority: null, pin: null, neededBy: null, \
                 expiresAt: null, credentials: null, include: null, index: null}";
    for entry_text in ["{id: a, image: 'nginx:1'}", nulls] {
        assert_eq!(only(entry_text).entry.as_deref(), Some(&entry("a")));
    }
}

#[test]
fn json_is_read_too() {
    let text = "{\"apiVersion\":\"stoker.dev/v1\",\"kind\":\"PrefetchList\",\"entries\":[\n\
                \t{\"id\":\"a\",\"image\":\"nginx:1\"}]}";
    assert_eq!(summary(&merged(None, text)), ["good a"]);
}
