//! Holds the house: who may use whom, which crate is imported where, how long a file may be.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a rule that can't be checked fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// The floors, from the ground up. A file uses its own folder and the floors below it, never a higher one, and rooms
/// on the same floor don't see each other.
const FLOORS: [&[&str]; 7] = [
    &["types"],
    &["list", "node", "rt"],
    &["source", "containerd", "gpu", "cluster"],
    &["fetch"],
    &["image", "weights"],
    &["agent"],
    &["api", "cli", "fuzzing", "run", "main", "lib"],
];

/// Doors see each other: run.rs wires what api/ and cli/ make, and cli/ starts run.rs.
const TOP: usize = 6;

/// Each outside system's client crate has one room.
const CLIENTS: [(&str, &[&str]); 21] = [
    ("reqwest", &["source"]),
    ("aws_sdk_s3", &["source"]),
    ("aws_config", &["source"]),
    ("aws_credential_types", &["source"]),
    ("aws_sigv4", &["source"]),
    ("aws_smithy_http_client", &["source"]),
    ("aws_smithy_runtime_api", &["source"]),
    ("object_store", &["source"]),
    ("quick_xml", &["source"]),
    ("containerd_client", &["containerd"]),
    ("k8s_cri", &["containerd"]),
    ("nvml_wrapper", &["gpu"]),
    ("isal", &["image"]),
    ("zstd", &["image"]),
    // hosts.toml, and containerd's own configuration.
    ("toml", &["source", "containerd"]),
    ("axum", &["api"]),
    ("tonic_health", &["api"]),
    ("kube", &["cluster"]),
    ("k8s_openapi", &["cluster"]),
    ("indicatif", &["cli"]),
    // YAML is what people write: the list, and the kubelet's configuration of credential providers.
    ("serde_saphyr", &["list", "image"]),
];

const MAX_LINES: usize = 600;

fn sources() -> Vec<(PathBuf, String)> {
    files_of("src")
}

fn files_of(place: &str) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(place);
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(found.len() > 30, "the walk found too little to prove anything: {}", found.len());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(&root).unwrap().to_owned(), text)
    };
    found.into_iter().map(read).collect()
}

/// Tests may reach further than the code they test.
fn without_tests(path: &Path, text: &str) -> String {
    let is_test = |part: &str| part == "tests" || part.ends_with("tests.rs");
    if path.components().any(|part| part.as_os_str().to_str().is_some_and(is_test)) {
        return String::new();
    }
    text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned()
}

fn room(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn floor(room: &str) -> usize {
    FLOORS.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| {
        panic!("src/{room} stands on no floor; give it one in tests/house.rs and ARCHITECTURE.md")
    })
}

/// The rooms that a text names as `crate::room` (also in a nested `use crate::{a::…, b::…}`).
fn rooms_named(text: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        let word =
            |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        match rest.strip_prefix('{') {
            None => rooms.push(word(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut start = 0;
                for (i, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => {
                            rooms.push(word(&group[start..i]));
                            break;
                        }
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            rooms.push(word(&group[start..i]));
                            start = i + 1;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    rooms.retain(|room: &String| !room.is_empty());
    rooms
}

#[test]
fn no_file_uses_a_higher_floor_or_a_neighbour() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = room(&path);
        for used in rooms_named(&without_tests(&path, &text)) {
            let is_room = FLOORS.iter().any(|rooms| rooms.contains(&used.as_str()));
            let allowed = used == own || floor(&own) == TOP || (is_room && floor(&used) < floor(&own));
            if is_room && !allowed {
                wrong.push(format!("{} uses crate::{used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_client_crate_stays_in_its_room() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let text = without_tests(&path, &text);
        for (name, rooms) in CLIENTS {
            let path_use = format!("{name}::");
            if text.contains(&path_use) && !rooms.contains(&room(&path).as_str()) {
                wrong.push(format!("{} uses {name}, which belongs to {rooms:?}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_rooms_reads_every_form() {
    let text = "use crate::types::{A, B};\nuse crate::{agent, cli::Exit, node::{x, y}};\ncrate::run::go(); subcrate::not";
    assert_eq!(rooms_named(text), ["types", "agent", "cli", "node", "run"]);
}

#[test]
fn files_are_short_and_named_for_what_they_hold() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines; more than one concept?", path.display()));
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        if ["util", "utils", "common", "helper", "helpers", "manager", "misc"].contains(&name) {
            wrong.push(format!("{}: the name says nothing", path.display()));
        }
        for left in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("] {
            if text.contains(left) {
                wrong.push(format!("{}: {left} is left in it", path.display()));
            }
        }
    }
    let main = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs")).unwrap();
    if main.lines().count() >= 40 {
        wrong.push("main.rs: 40 lines or more".to_owned());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_test_is_ignored_and_the_map_names_every_room() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    // This file names it.
    let tests = files_of("tests").into_iter().filter(|(path, _)| path != Path::new("house.rs"));
    for (path, text) in sources().into_iter().chain(tests) {
        if text.contains("#[ignore") {
            wrong.push(path.display().to_string());
        }
    }
    let architecture = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    assert!(architecture.lines().count() < 250, "ARCHITECTURE.md is longer than 250 lines");
    for rooms in FLOORS.iter().take(6) {
        for room in *rooms {
            assert!(
                architecture.contains(&format!("{room}/")),
                "ARCHITECTURE.md doesn't say where {room}/ is"
            );
        }
    }
    assert!(wrong.is_empty(), "ignored tests in {}", wrong.join(", "));
}
