use super::super::{from_json, recheck, to_json, without_document};
use super::*;

const A: &str = "{id: a, image: 'nginx:1'}";
const A2: &str = "{id: a, image: 'nginx:2'}";
const B: &str = "{id: b, weights: 's3://bucket/models/'}";
const BAD_A: &str = "{id: a, image: 'nginx:1', priority: 1001}";
const NAMELESS: &str = "{id: 'not an id', image: 'nginx:1'}";

fn image_of(list: &List, id: &str) -> String {
    let listed = list.entries.iter().find(|listed| listed.id().as_str() == id).unwrap();
    let Goods::Image(image) = &listed.entry().unwrap().goods else { panic!() };
    image.reference.to_string()
}

#[test]
fn one_bad_entry_does_not_stop_the_others() {
    let list = merged(None, &document(&[BAD_A, B]));
    assert_eq!(summary(&list), ["bad a", "good b"]);
    assert!(list.errors.is_empty() && !list.removals_held);
    let errors = list.entries[0].errors();
    assert!(errors[0].starts_with("field \"priority\": 1001 is out of range; write"), "{errors:?}");
    assert!(errors[0].ends_with("(line 4)"), "{errors:?}");
}

#[test]
fn a_bad_entry_keeps_its_last_good_version() {
    let first = merged(None, &document(&[A, B]));
    let second = merged(Some(&first), &document(&[BAD_A, B]));
    assert_eq!(summary(&second), ["last-good a", "good b"]);
    assert_eq!(image_of(&second, "a"), "docker.io/library/nginx:1");
    let third = merged(Some(&second), &document(&[BAD_A]));
    assert_eq!(summary(&third), ["last-good a"], "still, and b was removed");
    assert_eq!(summary(&merged(Some(&third), &document(&[A2]))), ["good a"]);
}

#[test]
fn a_bad_entry_that_was_never_good_says_whether_it_is_required() {
    let text = document(&["{id: a, required: true, image: '!'}", "{id: b, required: maybe, image: nginx}"]);
    assert_eq!(summary(&merged(None, &text)), ["bad! a", "bad b"]);
}

#[test]
fn duplicate_ids_are_all_bad() {
    let text = document(&[A, B, "{id: a, image: nginx, required: true}"]);
    let list = merged(None, &text);
    assert_eq!(summary(&list), ["bad! a", "good b"]);
    assert!(list.entries[0].errors()[0].contains("entry #3 has the same id"), "{:?}", list.entries[0]);
    let before = merged(None, &document(&[A]));
    assert_eq!(summary(&merged(Some(&before), &text)), ["last-good a", "good b"]);
}

#[test]
fn an_entry_without_a_readable_id_holds_all_removals() {
    let first = merged(None, &document(&[A, B]));
    for nameless in
        [NAMELESS, "{image: nginx}", "{id: 7, image: nginx}", "{id: c, id: d, image: nginx}", "word", "null"]
    {
        let held = merged(Some(&first), &document(&[nameless, A2]));
        assert!(held.removals_held, "{nameless}");
        assert_eq!(summary(&held), ["good a", "last-good b"], "{nameless}");
        assert_eq!(image_of(&held, "a"), "docker.io/library/nginx:2", "the others go on");
        assert!(held.errors[0].starts_with("entry #1"), "{:?}", held.errors);
        let mended = merged(Some(&held), &document(&[A2]));
        assert!(!mended.removals_held && mended.errors.is_empty());
        assert_eq!(summary(&mended), ["good a"]);
    }
}

#[test]
fn only_an_empty_list_empties() {
    let first = merged(None, &document(&[A, B]));
    let list = merged(Some(&first), &document(&[]));
    assert!(list.entries.is_empty() && list.errors.is_empty() && !list.removals_held);
}

#[test]
fn an_unreadable_document_changes_nothing_but_the_errors() {
    let good =
        "apiVersion: stoker.dev/v1\nkind: PrefetchList\npaused: true\nvalidUntil: 2030-01-01T00:00:00Z\n";
    let first = merged(None, &format!("{good}entries: [{A}, {BAD_A}, {B}]"));
    assert_eq!(summary(&first), ["bad a", "good b"]);
    let large = format!("{}#{}", document(&[A]), "x".repeat(256 * 1024));
    let many = document(&vec![A; 4097]);
    for (text, said) in [
        ("", "the document is empty"),
        (" \n\t\n", "the document is empty"),
        ("# a comment\n", "the document is empty"),
        ("null", "the document is empty"),
        ("---", "the document is empty"),
        ("[]", "it is a list, not a PrefetchList"),
        ("entries: [", "can't be read as YAML"),
        (good, "field \"entries\": it is missing"),
        (&format!("{good}entries:\n"), "field \"entries\": it is nothing, not a list"),
        (&format!("{good}entries: {{}}\n"), "field \"entries\": it is a mapping, not a list"),
        (&format!("{good}entries: []\nentries: []\n"), "field \"entries\": it is written twice"),
        (&format!("{good}entries: []\n---\n{good}entries: []\n"), "more than one YAML document"),
        ("apiVersion: stoker.dev/v2\nkind: PrefetchList\nentries: []", "it is \"stoker.dev/v2\""),
        ("kind: PrefetchList\nentries: []", "field \"apiVersion\": it is missing"),
        ("apiVersion: stoker.dev/v1\nkind: List\nentries: []", "it is \"List\""),
        (&document(&[]).replace("entries", "paused: 1\nentries"), "field \"paused\""),
        (&document(&[]).replace("entries", "validUntil: tomorrow\nentries"), "field \"validUntil\""),
        (&large, "larger than 256 KiB"),
        (&many, "it has 4097 entries"),
    ] {
        let list = merged(Some(&first), text);
        let shown: String = text.chars().take(80).collect();
        assert!(list.removals_held, "{shown}");
        assert!(list.errors.iter().any(|error| error.contains(said)), "{shown}: {:?}", list.errors);
        assert_eq!(list.entries, first.entries, "{shown}");
        assert_eq!((list.paused, list.valid_until), (true, first.valid_until), "{shown}");
        assert_eq!(list.content, Some(crate::types::Digest::of(text.as_bytes())));
    }
    let latin1 = merge(Some(&first), b"entries: []\n# caf\xe9", &AllowList::default());
    assert_eq!(latin1.errors, ["the document is not UTF-8; save it as UTF-8 (line 2)"]);
    assert_eq!(latin1.entries, first.entries);
}

#[test]
fn a_missing_document_is_not_an_empty_one() {
    let first = merged(None, &document(&[A]));
    let gone = without_document(Some(&first), "the file is gone".to_owned(), &AllowList::default());
    assert_eq!((summary(&gone), gone.removals_held), (vec!["good a".to_owned()], true));
    assert_eq!(gone.content, first.content);
    let never = without_document(None, "no file yet".to_owned(), &AllowList::default());
    assert_eq!((never.entries.len(), never.removals_held), (0, true));
}

#[test]
fn holding_survives_a_restart() {
    let first = merged(None, &document(&[A, B]));
    let held = merged(Some(&first), &document(&[NAMELESS]));
    let restarted = from_json(to_json(&held).unwrap().as_bytes()).unwrap();
    assert!(restarted.removals_held);
    assert_eq!(restarted, held);
}

#[test]
fn what_the_flags_no_longer_allow_is_not_kept() {
    let open = AllowList::new(&["http".to_owned(), "s3".to_owned()], &[], None).unwrap();
    let text = document(&["{id: w, weights: 'http://host/a', required: true}", B]);
    let first = merge(None, text.as_bytes(), &open);
    assert_eq!(summary(&first), ["good w", "good b"]);
    for list in [
        merged(Some(&first), &text),
        merged(Some(&first), ""),
        merged(Some(&first), &document(&[NAMELESS, B])),
        recheck(&first, &AllowList::default()),
    ] {
        assert!(summary(&list).contains(&"bad! w".to_owned()), "{:?}", summary(&list));
        let errors = list.entries.iter().find(|listed| listed.id().as_str() == "w").unwrap().errors();
        assert!(!errors[0].is_empty());
    }
}

#[test]
fn aliases_and_merge_keys_share_a_selector() {
    let text = "apiVersion: stoker.dev/v1\nkind: PrefetchList\nx-h100: &h100 {matchLabels: {gpu: h100}}\nentries:\n\
                - {id: a, image: nginx, nodes: *h100}\n- {id: b, image: nginx, nodes: {<<: *h100, fraction: 0.5}}\n";
    let list = merged(None, text);
    assert_eq!(summary(&list), ["good a", "good b"]);
    for listed in &list.entries {
        assert_eq!(listed.entry().unwrap().nodes.as_ref().unwrap().match_labels["gpu"], "h100");
    }
    assert_eq!(
        list.warnings,
        ["field \"x-h100\": this field is not known and is ignored; remove it (line 3)"]
    );
}

#[test]
fn a_damaged_stored_list_says_what_is_wrong() {
    let good = to_json(&merged(None, &document(&[A, B]))).unwrap();
    let twice = good.replace("\"id\": \"b\"", "\"id\": \"a\"");
    for (text, said) in [
        (good[..good.len() / 2].to_owned(), "damaged"),
        (String::new(), "damaged"),
        (good.replace("\"version\": 1", "\"version\": 2"), "version 2"),
        (good.replace("500", "5000"), "priority in entry a"),
        (twice, "entry a twice"),
    ] {
        let error = from_json(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_status_does_not_grow_with_what_is_wrong() {
    let unknown: String = (0..500).map(|number| format!("x{number}: 1, ")).collect();
    let labels: String = (0..500).map(|number| format!("x{number}: 1, ")).collect();
    let list = merged(
        None,
        &document(&[&format!("{{id: a, image: nginx, {unknown} nodes: {{matchLabels: {{{labels}}}}}}}")]),
    );
    let errors = list.entries[0].errors();
    assert_eq!((list.warnings.len(), errors.len()), (17, 17));
    for last in [list.warnings.last(), errors.last()] {
        assert_eq!(last.unwrap(), "and 484 more; stoker check shows all of them");
    }
    let nameless = merged(None, &document(&vec![NAMELESS; 100]));
    assert_eq!(nameless.errors.len(), 17);
}

#[test]
fn held_entries_do_not_pile_up_for_ever() {
    let mut list = List::empty();
    for round in 0..4 {
        let entries: Vec<String> =
            (0..1500).map(|number| format!("{{id: r{round}-{number}, image: nginx}}")).collect();
        let entries: Vec<&str> =
            std::iter::once(NAMELESS).chain(entries.iter().map(String::as_str)).collect();
        list = merged(Some(&list), &document(&entries));
    }
    assert_eq!(list.entries.len(), 4096);
    let ids = summary(&list);
    assert!(ids[0] == "good r3-0" && ids[1500] == "last-good r2-0" && ids[4095].starts_with("last-good r1-"));
}

#[test]
fn a_list_is_known_once_a_document_could_be_read() {
    let missing = without_document(None, "no such file".to_owned(), &AllowList::default());
    let broken = merged(None, "entries: [");
    let readable = merged(Some(&broken), &document(&[]));
    let gone = without_document(Some(&readable), "no such file".to_owned(), &AllowList::default());
    assert_eq!([&missing, &broken, &readable, &gone].map(|list| list.known), [false, false, true, true]);
    assert!(missing.removals_held && broken.removals_held && broken.content.is_some());
    assert!(merged(None, &document(&[NAMELESS])).known, "its other entries are what is listed");

    let older = to_json(&broken).unwrap().replace("  \"known\": false,\n", "");
    assert!(from_json(older.as_bytes()).unwrap().known, "an older agent's store said nothing of it");
}
