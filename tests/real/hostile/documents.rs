//! Manifests, indexes and configurations that are no such thing, or more than they may be.

use serde_json::json;
use stoker::types::{Digest, ErrorKind};

use super::*;
use forged::{INDEX, MANIFEST, descriptor, layer};

fn invalid(words: &'static str) -> Refusal {
    Refusal(ErrorKind::Invalid, "BadManifest", words)
}

fn good() -> Image {
    Image::of([Forged::packed(&innocent())])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_of_ten_thousand_layers_is_refused_before_any_of_them_is_fetched() {
    let bed = Bed::start().await;
    let mut image = good();
    let (digest, size) = (image.layers[0].digest(), image.layers[0].size);
    image.manifest = Some(image.manifest_of(vec![layer(digest, size); 10_000]).to_string().into_bytes());
    bed.refuses("layers", &image, invalid("the manifest has 10000 layers")).await;
    // Nor does it help to have as many in the configuration.
    let diffs = vec![image.layers[0].diff.to_string(); 10_000];
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}});
    let many = Image { config: Some(config.to_string().into_bytes()), manifest: None, ..good() };
    bed.refuses("diff ids", &many, invalid("the configuration has 10000 layers")).await;
    let asked = bed.registry.pulls();
    let layers = asked.iter().filter(|pull| pull.starts_with("GET") && pull.contains(&digest.hex()));
    // The bed's own good image has the same one.
    assert_eq!(layers.filter(|pull| !pull.contains("/hostile/good/")).count(), 0, "{asked:?}");
    bed.pulling.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_none_is_refused() {
    let bed = Bed::start().await;
    let diff = good().layers[0].diff;
    let of = |diffs: serde_json::Value| json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}});
    for (name, config, words) in [
        ("not JSON", b"evil".to_vec(), "the configuration can't be read"),
        ("binary", vec![0xff; 1000], "the configuration can't be read"),
        ("empty", Vec::new(), "the configuration can't be read"),
        ("a list", b"[]".to_vec(), "the configuration can't be read"),
        ("nested too deep", "[".repeat(100_000).into_bytes(), "the configuration can't be read"),
        ("no layers", of(json!([])).to_string().into_bytes(), "names 0"),
        ("more layers", of(json!([diff, diff])).to_string().into_bytes(), "names 2"),
        (
            "a path for a digest",
            of(json!(["sha256:../../../../etc/passwd"])).to_string().into_bytes(),
            "is no digest",
        ),
        ("layers twice", br#"{"rootfs":{},"rootfs":{}}"#.to_vec(), "the configuration can't be read"),
    ] {
        let image = Image { config: Some(config), ..good() };
        bed.refuses(&format!("configuration {name}"), &image, invalid(words)).await;
    }
    bed.pulling.end().await;
}

/// A registry that serves these bytes under the tag, and has all of a good image too.
async fn lying(bed: &Bed, media_type: &'static str, document: &[u8], said: Option<Digest>) -> Liar {
    let digest = said.unwrap_or_else(|| Digest::of(document));
    let lies = Lies::default()
        .image(&good())
        .manifest("v1", media_type, document, said)
        .manifest(digest, media_type, document, said);
    bed.lying(lies).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_is_none_is_refused() {
    let bed = Bed::start().await;
    let image = good();
    let (digest, size) = (image.layers[0].digest(), image.layers[0].size);
    let one = || layer(digest, size);
    let with = |more: serde_json::Value| {
        let mut manifest = image.manifest_of(vec![one()]);
        manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        manifest.to_string().into_bytes()
    };
    let climbing = json!({"mediaType": one()["mediaType"], "digest": "sha256:../../../evil", "size": 5});
    let negative = json!({"mediaType": one()["mediaType"], "digest": one()["digest"], "size": -5});
    for (name, document, words) in [
        ("not JSON", b"evil".to_vec(), "can't be read"),
        ("both", with(json!({"manifests": []})), "has the fields of something else"),
        ("layers twice", with(json!({"Layers": []})), "can't be read"),
        ("a path for a digest", image.manifest_of(vec![climbing]).to_string().into_bytes(), "is no digest"),
        ("a negative size", image.manifest_of(vec![negative]).to_string().into_bytes(), "a size is negative"),
    ] {
        let liar = lying(&bed, MANIFEST, &document, Some(Digest::of(&document))).await;
        bed.refuses_from(&liar, &format!("manifest {name}"), invalid(words)).await;
    }
    let large = with(json!({"annotations": {"evil": "e".repeat(5 << 20)}}));
    let liar = lying(&bed, MANIFEST, &large, Some(Digest::of(&large))).await;
    let refusal = Refusal(ErrorKind::Invalid, "Invalid", "are allowed");
    bed.refuses_from(&liar, "a manifest of five MiB", refusal).await;
    bed.pulling.end().await;
}

fn index(to: &[Digest], size: u64) -> Vec<u8> {
    let manifests: Vec<_> = to.iter().map(|digest| descriptor(INDEX, *digest, size)).collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_leads_to_itself_ends() {
    let bed = Bed::start().await;
    // Nobody can make one; a registry can only say so.
    let own = Digest::of(b"itself");
    let size = index(&[own], 100).len() as u64;
    let document = index(&[own], size);
    let liar = lying(&bed, INDEX, &document, Some(own)).await;
    let refusal = Refusal(ErrorKind::Corrupt, "PullFailed", "its bytes are not those of");
    bed.refuses_from(&liar, "an index that says it's itself", refusal).await;
    // Without saying so, one step later.
    let lies = Lies::default()
        .manifest("v1", INDEX, &document, None)
        .manifest(Digest::of(&document), INDEX, &document, None)
        .manifest(own, INDEX, &document, None);
    let liar = bed.lying(lies).await;
    bed.refuses_from(&liar, "an index that leads to itself", refusal).await;
    bed.pulling.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_that_lead_on_and_on_are_left_to_containerd() {
    let bed = Bed::start().await;
    let image = good();
    let manifest = image.manifest();
    let mut lies = Lies::default().image(&image);
    let mut document = {
        let one = descriptor(MANIFEST, Digest::of(&manifest), manifest.len() as u64);
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [one]}).to_string().into_bytes()
    };
    for _ in 0..50 {
        let digest = Digest::of(&document);
        lies = lies.manifest(digest, INDEX, &document, Some(digest));
        document = index(&[digest], document.len() as u64);
    }
    let digest = Digest::of(&document);
    let lies =
        lies.manifest("v1", INDEX, &document, Some(digest)).manifest(digest, INDEX, &document, Some(digest));
    let liar = bed.lying(lies).await;
    let pulled = bed.pulling.pull(&liar.tag()).await;
    match pulled {
        Ok(warm) => {
            assert!(warm.unable.is_some_and(|unable| unable.to_string().contains("indexes lead to others")));
            bed.pulling.bench.is_empty_without(&liar.tag()).await;
        }
        Err(error) => panic!("{}", stoker::rt::chain(&error)),
    }
    bed.pulling.end().await;
}
