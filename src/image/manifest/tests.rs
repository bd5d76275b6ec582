use proptest::prelude::*;
use serde_json::{Value, json};

use super::config::Config;
use super::index::Index;
use super::unusual::Unusual;
use super::*;
use crate::image::layer::Compression;
use crate::types::{Descriptor, Digest, ErrorKind};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn descriptor(media_type: &str, name: &str) -> Value {
    json!({"mediaType": media_type, "digest": digest(name).to_string(), "size": 1234})
}

fn parse_as(media_type: &str, document: &Value) -> Result<Document, ManifestError> {
    parse_bytes(media_type, document.to_string().as_bytes())
}

fn parse_bytes(media_type: &str, bytes: &[u8]) -> Result<Document, ManifestError> {
    let descriptor =
        Descriptor { media_type: media_type.to_owned(), digest: Digest::of(bytes), size: bytes.len() as u64 };
    parse(&descriptor, bytes)
}

fn manifest(document: &Value) -> Result<Manifest, ManifestError> {
    match parse_as(OCI_MANIFEST, document)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(index) => panic!("{index:?}"),
    }
}

fn index(document: &Value) -> Index {
    match parse_as(OCI_INDEX, document).unwrap() {
        Document::Index(index) => index,
        Document::Manifest(manifest) => panic!("{manifest:?}"),
    }
}

/// A manifest with one layer like this.
fn with_layer(layer: &Value) -> Value {
    json!({"schemaVersion": 2, "config": descriptor(OCI_CONFIG, "config"), "layers": [layer]})
}

fn node(architecture: &str) -> Platform {
    Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: String::new() }
}

/// The name of what is chosen on a node from these `os/architecture/variant`; "-" is an offer without a platform.
fn chosen<'a>(architecture: &str, offered: &[&'a str]) -> Result<&'a str, ManifestError> {
    let offer = |name: &&str| {
        let mut offer = descriptor(OCI_MANIFEST, name);
        let words: Vec<&str> = name.split('/').collect();
        if let [os, architecture, variant @ ..] = words.as_slice() {
            offer["platform"] = json!({"os": os, "architecture": architecture});
            if let Some(variant) = variant.first() {
                offer["platform"]["variant"] = json!(variant);
            }
        }
        offer
    };
    let manifests: Vec<Value> = offered.iter().map(offer).collect();
    let chosen = index(&json!({"manifests": manifests})).choose(&node(architecture))?;
    Ok(offered.iter().find(|name| digest(name) == chosen.digest).unwrap())
}

#[test]
fn manifests_of_both_kinds_are_read() {
    let kinds = [
        (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER, true),
        (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER, false),
        (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER, true),
    ];
    for (own, config, layer, says_its_type) in kinds {
        let mut document = json!({
            "schemaVersion": 2,
            "config": descriptor(config, "config"),
            "layers": [descriptor(layer, "a"), descriptor(layer, "b"), descriptor(layer, "a")],
            "annotations": {"Layers": "free names are free", "org.opencontainers.image.created": "2026-01-01"},
        });
        if says_its_type {
            document["mediaType"] = json!(own);
        }
        let Document::Manifest(manifest) = parse_as(own, &document).unwrap() else { panic!("{own}") };
        assert_eq!(
            manifest.config,
            Descriptor { media_type: config.to_owned(), digest: digest("config"), size: 1234 }
        );
        let layers: Vec<Digest> = manifest.layers.iter().map(|layer| layer.descriptor.digest).collect();
        assert_eq!(layers, [digest("a"), digest("b"), digest("a")]);
        assert!(manifest.layers.iter().all(|layer| layer.compression == Compression::Gzip));
        assert_eq!(manifest.unusual(), None);
    }
}

#[test]
fn a_layers_type_says_how_it_is_packed() {
    for (media_type, compression) in [
        ("application/vnd.oci.image.layer.v1.tar", Compression::Plain),
        (OCI_LAYER, Compression::Gzip),
        ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
        (DOCKER_LAYER, Compression::Gzip),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", Compression::Zstd),
    ] {
        let manifest = manifest(&with_layer(&descriptor(media_type, "a"))).unwrap();
        assert_eq!(manifest.layers[0].compression, compression, "{media_type}");
        assert_eq!(manifest.unusual(), None, "{media_type}");
    }
}

#[test]
fn what_only_containerd_can_do_is_told() {
    let unusual = |layer: Value| manifest(&with_layer(&layer)).unwrap().unusual().cloned();
    let of = |media_type: &str| unusual(descriptor(media_type, "a"));
    let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    assert_eq!(of(encrypted), Some(Unusual::Encrypted(encrypted.to_owned())));
    for foreign in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        assert_eq!(of(foreign), Some(Unusual::Foreign(foreign.to_owned())));
    }
    for unknown in [
        "application/vnd.erofs.layer.v1",
        "application/vnd.oci.image.layer.v1.tar+bzip2",
        "",
        "APPLICATION/x",
    ] {
        assert_eq!(of(unknown), Some(Unusual::UnknownLayerType(unknown.to_owned())));
    }
    let undeclared = "application/vnd.docker.image.rootfs.diff.tar";
    assert_eq!(of(undeclared), Some(Unusual::UndeclaredCompression(undeclared.to_owned())));

    let mut elsewhere = descriptor(OCI_LAYER, "a");
    elsewhere["urls"] = json!(["https://elsewhere.example/blob?token=hush"]);
    assert_eq!(unusual(elsewhere.clone()), Some(Unusual::Foreign(OCI_LAYER.to_owned())));
    elsewhere["urls"] = json!([]);
    assert_eq!(unusual(elsewhere.clone()), None);
    elsewhere["urls"] = Value::Null;
    assert_eq!(unusual(elsewhere), None);

    let artifact = "application/vnd.oci.empty.v1+json";
    let chart = json!({"config": descriptor(artifact, "c"), "layers": [descriptor("text/plain", "a")]});
    assert_eq!(manifest(&chart).unwrap().unusual(), Some(&Unusual::UnknownConfigType(artifact.to_owned())));
    let long = "x".repeat(10_000);
    let told = of(&format!("a\n{long}")).unwrap().to_string();
    assert!(told.len() < 300 && !told.contains('\n'), "{told}");
}

#[test]
fn a_document_is_what_it_is_announced_as_and_nothing_else() {
    let layers = json!({"config": descriptor(OCI_CONFIG, "c"), "layers": []});
    let images = json!({"manifests": []});
    let and = |document: &Value, name: &str, value: Value| {
        let mut document = document.clone();
        document[name] = value;
        document
    };
    let ambiguous = [
        (OCI_MANIFEST, and(&layers, "manifests", json!([]))),
        (OCI_MANIFEST, and(&layers, "manifests", Value::Null)),
        (OCI_MANIFEST, and(&layers, "mediaType", json!(OCI_INDEX))),
        (OCI_MANIFEST, and(&layers, "mediaType", json!(DOCKER_LIST))),
        (OCI_MANIFEST, images.clone()),
        (OCI_INDEX, and(&images, "layers", json!([]))),
        (OCI_INDEX, and(&images, "layers", Value::Null)),
        (OCI_INDEX, and(&images, "config", Value::Null)),
        (DOCKER_LIST, and(&images, "config", descriptor(OCI_CONFIG, "c"))),
        (OCI_INDEX, and(&images, "mediaType", json!(DOCKER_MANIFEST))),
    ];
    for (announced, document) in ambiguous {
        let error = parse_as(announced, &document).unwrap_err();
        assert_eq!(error, ManifestError::Ambiguous { announced: announced.to_owned() }, "{document}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let schema_1 = [
        (OCI_MANIFEST, and(&layers, "fsLayers", json!([]))),
        (OCI_INDEX, and(&images, "fsLayers", Value::Null)),
        (DOCKER_MANIFEST, and(&layers, "schemaVersion", json!(1))),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", json!({})),
        ("application/vnd.docker.distribution.manifest.v1+json", json!({})),
    ];
    for (announced, document) in schema_1 {
        assert_eq!(parse_as(announced, &document).unwrap_err(), ManifestError::Schema1, "{document}");
    }
    for (announced, own) in [("text/html", ""), ("", ""), (OCI_MANIFEST, "application/vnd.oci.artifact")] {
        let error = parse_as(announced, &and(&layers, "mediaType", json!(own))).unwrap_err();
        assert!(matches!(error, ManifestError::UnknownType { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    // Docker's word for it and the OCI's are the same to containerd.
    assert!(parse_as(OCI_MANIFEST, &and(&layers, "mediaType", json!(DOCKER_MANIFEST))).is_ok());
    assert!(parse_as(OCI_INDEX, &and(&images, "mediaType", Value::Null)).is_ok());
}

#[test]
fn names_that_go_would_read_otherwise_are_refused() {
    let config = descriptor(OCI_CONFIG, "c").to_string();
    let documents = [
        format!(r#"{{"config":{config},"layers":[],"Layers":[]}}"#),
        format!(r#"{{"config":{config},"layers":[],"layerſ":[]}}"#),
        format!(r#"{{"config":{config},"layers":[],"layers":[]}}"#),
        format!(r#"{{"config":{config},"config":{config},"layers":[]}}"#),
        format!(r#"{{"Config":{config},"layers":[]}}"#),
        format!(r#"{{"config":{config},"layers":[],"FSLAYERS":[]}}"#),
        format!(r#"{{"config":{},"layers":[]}}"#, config.replacen("size", "Size", 1)),
        format!(r#"{{"config":{config},"layers":[{}]}}"#, config.replacen("digest", "DIGEST", 1)),
        format!(r#"[null,null,{config},[],null,null]"#),
    ];
    for document in documents {
        let error = parse_bytes(OCI_MANIFEST, document.as_bytes()).unwrap_err();
        assert!(matches!(error, ManifestError::Malformed { .. }), "{document}: {error:?}");
    }
    let rootfs = r#"{"os":"linux","architecture":"amd64","RootFS":{"diff_ids":[]}}"#;
    assert!(parse_config(rootfs.as_bytes()).is_err());
    let twice = r#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[],"DIFF_IDS":[]}}"#;
    assert!(parse_config(twice.as_bytes()).is_err());
}

#[test]
fn broken_and_hostile_manifests_are_refused() {
    let layer = |name: &str, value: Value| {
        let mut layer = descriptor(OCI_LAYER, "a");
        layer[name] = value;
        with_layer(&layer)
    };
    let malformed = [
        json!({}),
        json!({"config": null, "layers": []}),
        json!({"config": {}, "layers": []}),
        json!({"config": [], "layers": []}),
        json!({"layers": []}),
        layer("size", json!(-1)),
        layer("size", json!(1.5)),
        layer("size", json!("1234")),
        layer("size", json!(u64::MAX)),
        layer("digest", Value::Null),
        layer("digest", json!("sha256:00")),
        layer("digest", json!(digest("a").hex())),
        layer("digest", json!(digest("a").to_string().to_uppercase())),
        layer("digest", json!(format!("sha256:{}", digest("a").hex().to_uppercase()))),
        layer("digest", json!("../../etc/passwd")),
        layer("digest", json!("md5:d41d8cd98f00b204e9800998ecf8427e")),
        layer("mediaType", json!(7)),
    ];
    for document in malformed {
        let error = manifest(&document).unwrap_err();
        assert!(matches!(error, ManifestError::Malformed { .. }), "{document}: {error:?}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    for bytes in
        [&b""[..], b"null", b"{", b"[]", b"{}{}", b"\xef\xbb\xbf{}", b"\xff", b"<html>", &[b'['; 100_000]]
    {
        assert!(parse_bytes(OCI_MANIFEST, bytes).is_err(), "{bytes:?}");
        assert!(parse_config(bytes).is_err(), "{bytes:?}");
    }
    let sha512 = format!("sha512:{}", "0".repeat(128));
    let error = manifest(&layer("digest", json!(sha512))).unwrap_err();
    assert!(matches!(error, ManifestError::OtherDigest { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn what_is_too_much_is_refused_and_says_so() {
    let with_layers = |count: usize, size: u64| {
        let mut layer = descriptor(OCI_LAYER, "a");
        layer["size"] = json!(size);
        json!({"config": descriptor(OCI_CONFIG, "c"), "layers": vec![layer; count]})
    };
    assert_eq!(manifest(&with_layers(500, 1 << 30)).unwrap().layers.len(), 500);
    assert_eq!(
        manifest(&with_layers(10_000, 1)).unwrap_err().to_string(),
        "the manifest has 10000 layers, and overlayfs stacks at most 500; build the image with fewer"
    );
    assert_eq!(manifest(&with_layers(1, 1 << 40)).unwrap().layers[0].descriptor.size, 1 << 40);
    let error = manifest(&with_layers(2, i64::MAX as u64)).unwrap_err();
    assert_eq!(error, ManifestError::TooManyBytes { bytes: 2 * i64::MAX as u64, limit: 1 << 40 });
    let error = manifest(&with_layers(3, i64::MAX as u64)).unwrap_err();
    assert_eq!(error, ManifestError::TooManyBytes { bytes: u64::MAX, limit: 1 << 40 });

    let mut config = descriptor(OCI_CONFIG, "c");
    config["size"] = json!((8 << 20) + 1);
    let error = manifest(&json!({"config": config, "layers": []})).unwrap_err();
    assert!(matches!(error, ManifestError::TooLarge { what: "configuration", .. }), "{error:?}");

    let mut padded = with_layer(&descriptor(OCI_LAYER, "a")).to_string().into_bytes();
    padded.resize(4 << 20, b' ');
    assert!(parse_bytes(OCI_MANIFEST, &padded).is_ok());
    padded.push(b' ');
    let error = parse_bytes(OCI_MANIFEST, &padded).unwrap_err();
    assert_eq!(error, ManifestError::TooLarge { what: "manifest", bytes: (4 << 20) + 1, limit: 4 << 20 });
    assert!(parse_config(&vec![b' '; (8 << 20) + 1]).is_err());

    let crowd = format!(r#"{{"manifests":[{}{{}}]}}"#, "{},".repeat(1 << 20));
    let error = parse_bytes(OCI_INDEX, crowd.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("1048577 images"), "{error}");
}

#[test]
fn messages_are_short_and_on_one_line() {
    let long = "\n".repeat(1 << 16);
    let config = json!({"rootfs": {"type": long, "diff_ids": []}});
    let errors = [
        parse_as(OCI_MANIFEST, &json!({"mediaType": long})).unwrap_err(),
        parse_as(OCI_MANIFEST, &json!({"layers": long})).unwrap_err(),
        parse_as(OCI_MANIFEST, &json!({long.replace('\n', "é"): 1, "config": long})).unwrap_err(),
        manifest(&json!({"config": {"mediaType": OCI_CONFIG, "digest": long}})).unwrap_err(),
        manifest(&json!({"config": {"mediaType": OCI_CONFIG, "digest": format!("sha512:{long}")}}))
            .unwrap_err(),
        parse_config(config.to_string().as_bytes()).unwrap_err(),
        chosen("amd64", &[&format!("linux/{long}")]).unwrap_err(),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(text.len() < 1000 && !text.contains('\n'), "{text}");
    }
}

#[test]
fn the_best_platform_wins_and_then_the_first() {
    let amd64 = ["linux/amd64", "linux/386"];
    let arm64 = ["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"];
    for (architecture, best_first) in [("amd64", &amd64[..]), ("arm64", &arm64[..])] {
        for from in 0..best_first.len() {
            let mut offered = best_first[from..].to_vec();
            offered.extend(["linux/s390x", "windows/amd64", "unknown/unknown", "-"]);
            offered.reverse();
            assert_eq!(chosen(architecture, &offered), Ok(best_first[from]), "{offered:?}");
        }
    }
    // Each of these is the same to containerd; it tells no levels of amd64 on a node.
    let same = ["linux/arm64/v8", "LINUX/AARCH64", "linux/arm64/8", "linux/arm64"];
    for first in 0..same.len() {
        let mut offered = vec!["linux/arm64/v9", "linux/arm/v7"];
        offered.extend(&same[first..]);
        assert_eq!(chosen("arm64", &offered), Ok(same[first]));
    }
    assert_eq!(
        chosen("amd64", &["linux/amd64/v3", "linux/amd64/v2", "linux/x86_64/v1"]),
        Ok("linux/x86_64/v1")
    );
    assert_eq!(chosen("amd64", &["/amd64", "linux/amd64"]), Ok("/amd64"));
    assert_eq!(chosen("amd64", &["-", "linux/arm64"]), Ok("-"));
    assert_eq!(chosen("arm64", &["linux/armhf", "linux/armel"]), Ok("linux/armhf"));
    assert_eq!(chosen("amd64", &["linux/i386/v2"]), Ok("linux/i386/v2"));
}

#[test]
fn an_index_without_anything_for_the_node_tells_what_it_has() {
    let offered = [
        "linux/arm64/v8",
        "unknown/unknown",
        "windows/amd64",
        "linux/aarch64",
        "linux/amd64/v3",
        "unknown/unknown",
    ];
    assert_eq!(
        chosen("amd64", &offered).unwrap_err().to_string(),
        "no image for linux/amd64 (there is: linux/arm64, windows/amd64, linux/amd64/v3); \
         build it for that too, or keep the entry off such nodes"
    );
    let nothing = chosen("amd64", &[]).unwrap_err().to_string();
    assert!(nothing.contains("(there is: nothing)"), "{nothing}");
    let many: Vec<String> = (0..40).map(|i| format!("linux/chip{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let error = chosen("amd64", &many).unwrap_err();
    assert!(error.to_string().contains("chip10, linux/chip11, more)"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let none = index(&json!({"manifests": null})).choose(&node("amd64"));
    assert!(matches!(none, Err(ManifestError::NoPlatform { .. })), "{none:?}");
}

#[test]
fn where_versions_of_containerd_differ_it_is_left_to_them() {
    let offer = |name: &str, platform: Value| {
        let mut offer = descriptor(OCI_MANIFEST, name);
        offer["platform"] = platform;
        offer
    };
    let plain = offer("plain", json!({"os": "linux", "architecture": "amd64", "os.features": []}));
    let lazy = offer("lazy", json!({"os": "linux", "architecture": "amd64", "os.features": ["nydus"]}));
    let choose = |offers: &[&Value]| {
        index(&json!({"manifests": offers})).choose(&node("amd64")).map(|chosen| chosen.digest)
    };
    assert_eq!(choose(&[&plain, &lazy]), Ok(digest("plain")));
    let differ = Err(ManifestError::DependsOnVersion { wanted: "linux/amd64".to_owned() });
    assert_eq!(choose(&[&lazy, &plain]), differ);
    assert_eq!(choose(&[&lazy]), differ);
    assert_eq!(
        chosen("arm64", &["linux/arm64/v8.0", "linux/arm64"]),
        Err(ManifestError::DependsOnVersion { wanted: "linux/arm64".to_owned() })
    );
}

#[test]
fn only_the_chosen_offer_must_be_sound() {
    let good = json!({"platform": {"os": "linux", "architecture": "amd64"}, "mediaType": DOCKER_MANIFEST,
        "digest": digest("good").to_string(), "size": 7});
    let bad = json!({"platform": {"os": "linux", "architecture": "arm64"}, "mediaType": OCI_INDEX,
        "digest": "sha512:00", "size": -1});
    let index = index(&json!({"manifests": [bad, good, {}]}));
    let chosen = index.choose(&node("amd64")).unwrap();
    assert_eq!(
        chosen,
        Descriptor { media_type: DOCKER_MANIFEST.to_owned(), digest: digest("good"), size: 7 }
    );
    assert!(index.choose(&node("arm64")).is_err());
    assert_eq!(index.descriptors().collect::<Vec<_>>(), [chosen]);
}

#[test]
fn a_configuration_fits_its_manifest_and_the_node() {
    let ids = [digest("x"), digest("y")];
    let names: Vec<String> = ids.iter().map(Digest::to_string).collect();
    let config = |os: &str, architecture: &str, variant: Value, rootfs: Value| {
        let config = json!({"os": os, "architecture": architecture, "variant": variant, "rootfs": rootfs,
            "config": {"Labels": {"OS": "free"}}, "history": [{"empty_layer": true}], "os.version": "6"});
        parse_config(config.to_string().as_bytes())
    };
    let layers = json!({"type": "layers", "diff_ids": names});
    let two = manifest(&json!({"config": descriptor(OCI_CONFIG, "c"),
        "layers": [descriptor(OCI_LAYER, "a"), descriptor(OCI_LAYER, "b")]}))
    .unwrap();

    let amd64 = config("linux", "amd64", Value::Null, layers.clone()).unwrap();
    assert_eq!(amd64, Config { diff_ids: ids.to_vec(), platform: node("amd64") });
    assert_eq!(amd64.fits(&two, &node("amd64")), Ok(()));
    assert_eq!(
        amd64.fits(&two, &node("arm64")).unwrap_err().to_string(),
        "the image is for linux/amd64, and this node is linux/arm64"
    );
    let arm64 = config("linux", "arm64", json!("v8"), layers.clone()).unwrap();
    assert_eq!(arm64.fits(&two, &node("arm64")), Ok(()));
    let one = manifest(&with_layer(&descriptor(OCI_LAYER, "a"))).unwrap();
    assert_eq!(arm64.fits(&one, &node("arm64")), Err(ManifestError::LayerCount { layers: 1, diff_ids: 2 }));

    let empty = json!({"diff_ids": null});
    assert_eq!(config("linux", "amd64", Value::Null, empty).unwrap().diff_ids, []);
    assert_eq!(config("linux", "amd64", Value::Null, Value::Null).unwrap().diff_ids, []);
    let other = config("linux", "amd64", Value::Null, json!({"type": "ostree", "diff_ids": []}));
    assert_eq!(other, Err(ManifestError::OtherRootFs { found: "ostree".to_owned() }));
    let many = config("linux", "amd64", Value::Null, json!({"diff_ids": vec![&names[0]; 501]}));
    assert_eq!(many, Err(ManifestError::TooManyLayers { what: "configuration", count: 501, limit: 500 }));
    for bad in [json!([1]), json!(["sha256:00"]), json!([digest("x").hex()]), json!([null]), json!({})] {
        let config = config("linux", "amd64", Value::Null, json!({"diff_ids": bad}));
        assert!(matches!(config, Err(ManifestError::Malformed { .. })), "{bad}: {config:?}");
    }
}

#[test]
fn this_node_is_one_that_images_are_made_for() {
    let node = Platform::of_this_node();
    assert_eq!(node.os, "linux");
    assert!(["amd64", "arm64"].contains(&node.architecture.as_str()), "{node}");
    assert!(chosen(&node.architecture, &["linux/amd64", "linux/arm64/v8"]).is_ok());
}

#[test]
fn chains_name_each_layer_upon_those_below() {
    let (a, b, c) = (digest("a"), digest("b"), digest("c"));
    let ab = digest(&format!("{a} {b}"));
    assert_eq!(chain_ids(&[]), []);
    assert_eq!(chain_ids(&[a, b, c]), [a, ab, digest(&format!("{ab} {c}"))]);
}

/// Whatever comes of it, it's no panic, and what is accepted holds what is promised.
fn survives(bytes: &[u8]) {
    for media_type in [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST] {
        match parse_bytes(media_type, bytes) {
            Ok(Document::Manifest(manifest)) => assert!(manifest.layers.len() <= 500),
            Ok(Document::Index(index)) => {
                for architecture in ["amd64", "arm64", "s390x"] {
                    if let Ok(chosen) = index.choose(&node(architecture)) {
                        assert!(index.descriptors().any(|offered| offered == chosen));
                    }
                }
            }
            Err(error) => assert!(error.to_string().len() < 2000),
        }
    }
    if let Ok(config) = parse_config(bytes) {
        assert_eq!(chain_ids(&config.diff_ids).len(), config.diff_ids.len());
    }
}

fn sound_documents() -> [Vec<u8>; 3] {
    let mut offer = descriptor(OCI_MANIFEST, "m");
    offer["platform"] =
        json!({"os": "linux", "architecture": "arm64", "variant": "v8", "os.features": ["x"]});
    [
        with_layer(&descriptor(OCI_LAYER, "a")),
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [offer, descriptor(OCI_INDEX, "i")]}),
        json!({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest("x").to_string()]}}),
    ]
    .map(|document| document.to_string().into_bytes())
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        survives(&bytes);
    }

    #[test]
    fn damaged_documents_are_survived(
        which in 0..3_usize,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..3_u8), 1..8),
    ) {
        let mut bytes = sound_documents()[which].clone();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len().max(1));
            match how {
                0 if at < bytes.len() => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => bytes.truncate(at),
            }
        }
        survives(&bytes);
    }

    /// The choice is the first of the best, whatever else is there.
    #[test]
    fn the_choice_follows_the_model(offered in proptest::collection::vec(0..6_usize, 0..12)) {
        let kinds = ["linux/amd64", "linux/386", "-", "linux/arm64", "windows/amd64", "unknown/unknown"];
        let names: Vec<&str> = offered.iter().map(|kind| kinds[*kind]).collect();
        let best = (0..3).find(|kind| offered.contains(kind)).map(|kind| kinds[kind]);
        prop_assert_eq!(chosen("amd64", &names).ok(), best);
    }
}
