use super::*;
use crate::source::oci::document::{Document, artifact_files, parse};

/// The files of a manifest of these layers.
fn files(layers: &[Value]) -> Result<Vec<(String, u64)>, String> {
    let files = artifact_files(MANIFEST, model(layers).to_string().as_bytes())?;
    Ok(files.into_iter().map(|(path, size)| (path.to_string(), size)).collect())
}

/// What is wrong with an artifact of one layer, which it must name by its digest.
#[track_caller]
fn problem(layer: &Value) -> String {
    let problem = files(std::slice::from_ref(layer)).unwrap_err();
    let digest = layer["digest"].as_str().unwrap();
    assert!(problem.contains(digest), "{problem}");
    problem
}

#[test]
fn raw_layers_and_files_of_oras_are_files_and_configurations_are_not() {
    let kinds = ["weight.v1.raw", "weight.config.v1.raw", "doc.v1.raw", "code.v1.raw", "dataset.v1.raw"];
    for kind in kinds {
        let layer = noted(&format!("application/vnd.cncf.model.{kind}"), b"abc", [(PATH, "a/b.bin")]);
        assert_eq!(files(&[layer]), Ok(vec![("a/b.bin".to_owned(), 3)]), "{kind}");
    }
    // Whatever ORAS calls it, its bytes are the file's.
    for kind in
        [TAR, "application/vnd.oci.image.layer.v1.tar+gzip", "application/json", "x", "application/gzip"]
    {
        assert_eq!(
            files(&[noted(kind, b"abc", [(TITLE, "a.tgz")])]),
            Ok(vec![("a.tgz".to_owned(), 3)]),
            "{kind}"
        );
    }
    // Docker's model runner has types of its own.
    let gguf = noted("application/vnd.docker.ai.gguf.v3", b"", [(PATH, "m.gguf")]);
    assert_eq!(files(&[gguf, of(EMPTY, b"{}")]), Ok(vec![("m.gguf".to_owned(), 0)]));
    assert_eq!(files(&[of(EMPTY, b"{}")]), Ok(Vec::new()));
}

#[test]
fn of_two_names_the_one_of_the_model_counts() {
    let both = noted(RAW, b"abc", [(TITLE, "title"), (PATH, "path")]);
    let blank = noted(RAW, b"abcd", [(TITLE, "title"), (PATH, "")]);
    assert_eq!(files(&[both, blank]), Ok(vec![("path".to_owned(), 3), ("title".to_owned(), 4)]));
}

#[test]
fn what_is_packed_is_refused_with_the_next_step() {
    for kind in ["weight", "weight.config", "doc", "code", "dataset"] {
        for packing in ["tar", "tar+gzip", "tar+zstd"] {
            let kind = format!("application/vnd.cncf.model.{kind}.v1.{packing}");
            // ModelPack's own word counts, also where ORAS pushed it.
            for name in [PATH, TITLE] {
                let problem = problem(&noted(&kind, b"abc", [(name, "model")]));
                for word in ["(model, ", &kind, "packed", ".raw", "exclude"] {
                    assert!(problem.contains(word), "{word}: {problem}");
                }
            }
        }
    }
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let directory = noted(gzip, b"abc", [(TITLE, "dir"), (UNPACK, "true")]);
    for layer in [
        directory,
        noted(TAR, b"abc", [(PATH, "dir")]),
        of("application/vnd.docker.image.rootfs.diff.tar.zstd", b"abc"),
        of("application/x-tar", b"abc"),
        of("application/octet-stream+zstd", b"abc"),
        of("application/vnd.kitops.modelkit.model.v1.tar", b"abc"),
    ] {
        assert!(problem(&layer).contains("is packed"), "{}", problem(&layer));
    }
    let encrypted = noted("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", b"abc", [(TITLE, "a")]);
    assert!(problem(&encrypted).contains("unencrypted"));
    let unpacked = noted(gzip, b"abc", [(TITLE, "dir"), (UNPACK, "false")]);
    assert!(files(&[unpacked]).is_ok());
}

#[test]
fn an_image_is_told_from_an_artifact() {
    for (config, layer) in [
        ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"),
        (
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ),
    ] {
        for layer in [of(layer, b"abc"), noted(layer, b"abc", [(TITLE, "models/a.bin")])] {
            let mut image = model(&[layer]);
            image["config"] = of(config, b"{}");
            let problem = artifact_files(MANIFEST, image.to_string().as_bytes()).unwrap_err();
            let digest = Digest::of(b"abc").to_string();
            assert!(problem.contains("`image:`") && problem.contains(&digest), "{problem}");
        }
    }
}

#[test]
fn layers_that_lack_something_are_named() {
    assert!(problem(&of(RAW, b"abc")).contains("has no name"));
    assert!(problem(&of("application/vnd.ollama.image.model", b"abc")).contains(TITLE));
    for path in ["../up", "/etc/passwd", "a//b", "a/./b", "a\\b", "a\nb", "."] {
        let problem = problem(&noted(RAW, b"abc", [(PATH, path)]));
        assert!(problem.contains("no file can be") && !problem.contains('\n'), "{problem}");
    }
    let mut foreign = noted(RAW, b"abc", [(PATH, "a")]);
    foreign["urls"] = json!(["https://elsewhere.example/"]);
    assert!(problem(&foreign).contains("push its bytes") && !problem(&foreign).contains("elsewhere"));
    foreign["urls"] = json!([]);
    assert!(files(&[foreign]).is_ok());
    let mut sizeless = noted(RAW, b"abc", [(PATH, "a")]);
    sizeless["size"] = Value::Null;
    assert!(problem(&sizeless).contains("size"));
    for (field, value) in [
        ("digest", json!(format!("sha512:{}", "a".repeat(128)))),
        ("digest", json!(format!("sha256:{}", "A".repeat(64)))),
        ("digest", json!("a".repeat(64))),
        ("digest", json!("sha256:../../x")),
        ("size", json!(-1)),
        ("size", json!(1.5)),
        ("annotations", json!({PATH: 7})),
    ] {
        let mut layer = noted(RAW, b"abc", [(PATH, "a")]);
        layer[field] = value;
        assert!(files(std::slice::from_ref(&layer)).is_err(), "{layer}");
    }
    let one = noted(RAW, b"abc", [(PATH, "a/b")]);
    let twice = files(&[one.clone(), noted(RAW, b"abcd", [(TITLE, "a/b")])]).unwrap_err();
    assert!(twice.contains("called a/b"), "{twice}");
    let packed = noted("application/vnd.cncf.model.doc.v1.tar", b"x", [(PATH, "a/b")]);
    assert!(files(&[one, packed]).unwrap_err().contains("called a/b"), "also where one of them is no file");
}

#[test]
fn documents_that_say_two_things_are_refused() {
    let layer = noted(RAW, b"abc", [(PATH, "a")]);
    let good = model(std::slice::from_ref(&layer));
    let with = |field: &str, value: Value| {
        let mut document = good.clone();
        document[field] = value;
        document.to_string()
    };
    assert!(parse(MANIFEST, good.to_string().as_bytes()).is_ok());
    assert!(parse(MANIFEST, with("mediaType", Value::Null).as_bytes()).is_ok());
    for document in [
        with("manifests", json!([])),
        with("mediaType", json!(INDEX)),
        with("mediaType", json!(MODEL)),
        with("fsLayers", json!([])),
        with("schemaVersion", json!(1)),
        good.to_string().replacen("\"layers\"", "\"layers\":[],\"layers\"", 1),
        "null".to_owned(),
        String::new(),
        "<html>".to_owned(),
    ] {
        let problem = parse(MANIFEST, document.as_bytes()).unwrap_err();
        assert!(problem.contains("push it again"), "{document}: {problem}");
    }
    let index = json!({"mediaType": INDEX, "manifests": [], "layers": []}).to_string();
    assert!(parse(INDEX, index.as_bytes()).is_err());
    for kind in ["application/vnd.oci.artifact.manifest.v1+json", "text/html", ""] {
        assert!(parse(kind, good.to_string().as_bytes()).unwrap_err().contains("OCI 1.1"), "{kind}");
    }
}

/// What an index of these manifests leads to.
fn chosen(manifests: &[Value]) -> Result<String, String> {
    let document = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
    match parse(INDEX, document.as_bytes())? {
        Document::Index(index) => index.choose("ghcr.io/a/b").map(|it| it.digest.to_string()),
        Document::Artifact(artifact) => panic!("{artifact:?}"),
    }
}

#[test]
fn of_an_index_only_what_leaves_no_doubt_is_chosen() {
    let of_platform = |bytes: &[u8], architecture: &str| {
        let mut offer = of(MANIFEST, bytes);
        offer["platform"] = json!({"os": "linux", "architecture": architecture});
        offer
    };
    let digest = |bytes: &[u8]| Ok(Digest::of(bytes).to_string());
    let (one, other) = (of_platform(b"1", "amd64"), of_platform(b"2", "arm64"));
    let mut weights = of(MANIFEST, b"3");
    weights["artifactType"] = json!(MODEL);
    let mut attestation = of(MANIFEST, b"4");
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let told = noted(MANIFEST, b"5", [("vnd.docker.reference.type", "attestation-manifest")]);
    assert_eq!(chosen(std::slice::from_ref(&other)), digest(b"2"), "whatever this node is");
    assert_eq!(chosen(&[one.clone(), attestation.clone(), told]), digest(b"1"));
    assert_eq!(chosen(&[one.clone(), weights.clone(), other.clone()]), digest(b"3"));
    let doubt = chosen(&[one.clone(), other]).unwrap_err();
    for word in
        [Digest::of(b"1").to_string().as_str(), "linux/amd64", "linux/arm64", "oci://ghcr.io/a/b@sha256:"]
    {
        assert!(doubt.contains(word), "{word}: {doubt}");
    }
    let mut second = of(MANIFEST, b"6");
    second["artifactType"] = json!(MODEL);
    assert!(chosen(&[weights, second, one]).unwrap_err().contains("index of 3"));
    assert!(chosen(&[]).unwrap_err().contains("names no manifest"));
    assert!(chosen(&[attestation]).is_err());
    let many: Vec<Value> = (0..100_u8).map(|at| of(MANIFEST, &[at])).collect();
    assert!(chosen(&many).unwrap_err().len() < 1500);
}

proptest::proptest! {
    #[test]
    fn whatever_comes_ends_in_files_or_in_a_line(text in "[ -~]{0,300}|\\{\"layers\":\\[\\{\"size\":[0-9]{1,3}[,:\"a-z{}]{0,40}") {
        for media_type in [MANIFEST, INDEX] {
            if let Err(problem) = artifact_files(media_type, text.as_bytes()) {
                proptest::prop_assert!(!problem.contains('\n') && problem.len() < 1000, "{}", problem);
            }
        }
    }
}
