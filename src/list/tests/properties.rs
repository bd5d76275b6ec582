use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::{from_json, manifest, parse, to_json};
use super::arbitrary::{entries, lists, written};
use super::*;

fn parsed(text: &str) -> Vec<Entry> {
    let list = merged(None, text);
    assert!(list.errors.is_empty() && !list.removals_held, "{:?}\n{text}", list.errors);
    let good = |listed: &Listed| match listed {
        Listed::Good(entry) => Entry::clone(entry),
        other => panic!("{other:?}\n{text}"),
    };
    list.entries.iter().map(good).collect()
}

/// One edit of a text: a byte replaced, a slice dropped, a slice repeated, or odd bytes put in.
fn mutated(mut text: Vec<u8>, edits: &[(u8, Index, Index, Vec<u8>)]) -> Vec<u8> {
    for (kind, a, b, bytes) in edits {
        if text.is_empty() {
            break;
        }
        let (a, b) = (a.index(text.len()), b.index(text.len()));
        let (from, to) = (a.min(b), a.max(b).min(a.min(b) + 200));
        match kind % 4 {
            0 => text[from] = bytes.first().copied().unwrap_or(0),
            1 => drop(text.drain(from..to)),
            2 => {
                let slice = text[from..to].to_vec();
                text.splice(to..to, slice);
            }
            _ => drop(text.splice(from..from, bytes.iter().copied())),
        }
    }
    text
}

/// Tokens that YAML gives a meaning.
fn yaml_soup() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        "[-?:,\\[\\]{}#&*!|>'\"%@` \\n\\t~]",
        proptest::sample::select(vec![
            "entries:",
            "- id: a",
            "  image: b",
            "nodes:",
            "<<: *a",
            "&a ",
            "*a",
            "---\n",
            "\n",
            "  ",
            "null",
            "apiVersion: stoker.dev/v1\n",
            "kind: PrefetchList\n",
            "!!binary ",
            "!!int ",
            "? ",
            "\u{feff}",
            "|2-\n",
            "sha256: {a: ",
            "fraction: .nan",
            "0x",
            "1e999",
        ])
        .prop_map(str::to_owned),
        "\\PC",
    ];
    vec(token, 0..80).prop_map(|tokens| tokens.concat())
}

fn survives(text: &[u8], previous: &List) {
    let allow = AllowList::default();
    let _ = parse(text, &allow);
    let next = merge(Some(previous), text, &allow);
    let shown: Vec<&str> = next.entries.iter().map(|listed| listed.id().as_str()).collect();
    let mut unique = shown.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), shown.len(), "an id stands once");
    if next.removals_held {
        for listed in &previous.entries {
            let still = next.entries.iter().find(|now| now.id() == listed.id());
            assert!(still.is_some(), "{:?} vanished while removals are held", listed.id());
            assert!(
                listed.entry().is_none() || still.unwrap().entry().is_some(),
                "its last good version is lost"
            );
        }
        assert!(!next.errors.is_empty(), "it is said why");
    }
    // Whatever came of it, it's kept over a restart.
    assert_eq!(from_json(to_json(&next).unwrap().as_bytes()).unwrap(), next);
    if let Ok(text) = std::str::from_utf8(text) {
        let _ = manifest(&format!("kind: ConfigMap\n{text}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_what_is_read(entries in entries()) {
        let document = written(&entries);
        prop_assert_eq!(&parsed(&serde_json::to_string(&document).unwrap()), &entries);
        prop_assert_eq!(&parsed(&serde_saphyr::to_string(&document).unwrap()), &entries);
    }

    #[test]
    fn a_stored_list_comes_back_exactly(list in lists()) {
        let text = to_json(&list).unwrap();
        prop_assert_eq!(from_json(text.as_bytes()).unwrap(), list);
    }

    #[test]
    fn a_damaged_stored_list_is_an_error_or_a_list(
        list in lists(),
        edits in vec((any::<u8>(), any::<Index>(), any::<Index>(), vec(any::<u8>(), 0..8)), 1..4),
    ) {
        let text = mutated(to_json(&list).unwrap().into_bytes(), &edits);
        let _ = from_json(&text);
    }

    #[test]
    fn no_bytes_are_too_odd(text in vec(any::<u8>(), 0..400), list in lists()) {
        survives(&text, &list);
    }

    #[test]
    fn no_yaml_is_too_odd(text in yaml_soup(), list in lists()) {
        survives(text.as_bytes(), &list);
        let text = format!("apiVersion: stoker.dev/v1\nkind: PrefetchList\nentries:\n- {text}");
        survives(text.as_bytes(), &list);
    }

    #[test]
    fn no_broken_document_is_too_odd(
        entries in entries(),
        json in any::<bool>(),
        list in lists(),
        edits in vec((any::<u8>(), any::<Index>(), any::<Index>(), vec(any::<u8>(), 0..8)), 1..6),
    ) {
        let document = written(&entries);
        let text =
            if json { serde_json::to_string(&document).unwrap() } else { serde_saphyr::to_string(&document).unwrap() };
        survives(&mutated(text.into_bytes(), &edits), &list);
    }
}
