//! The labels that containerd's own pull leaves on blobs, and that its garbage collection goes by. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{Descriptor, Digest, ImageRef};

/// Beginning of the key that says which repositories of a registry have a blob.
pub const SOURCE: &str = "containerd.io/distribution.source.";

/// On a layer's blob: the digest of what is inside.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

const CONTENT: &str = "containerd.io/gc.ref.content.";

/// The most bytes of a label's key and value together (containerd, `pkg/labels/validate.go`).
const LONGEST: usize = 4096;

/// Of an index or a manifest: what it refers to, so that it isn't collected; without the layers where their blobs aren't
/// kept. All children of an index are named, also those for other platforms, that aren't there.
pub fn of_children(children: &[Descriptor], with_layers: bool) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for child in children {
        let kind = kind(&child.media_type);
        if kind == "l." && !with_layers {
            continue;
        }
        let count = counts.entry(kind).or_default();
        let number = if *count == 0 && kind == "config" { String::new() } else { count.to_string() };
        *count += 1;
        labels.insert(format!("{CONTENT}{kind}{number}"), child.digest.to_string());
    }
    labels
}

/// Of a configuration: the top snapshot that it holds, in that snapshotter. It is this label that keeps an unpacked
/// image from being collected.
pub fn of_config(snapshotter: &str, top: Option<Digest>) -> BTreeMap<String, String> {
    let label = |top: Digest| (format!("containerd.io/gc.ref.snapshot.{snapshotter}"), top.to_string());
    top.map(label).into_iter().collect()
}

/// Of a layer's blob.
pub fn of_layer(diff: Digest) -> BTreeMap<String, String> {
    BTreeMap::from([(UNCOMPRESSED.to_owned(), diff.to_string())])
}

/// Of every blob: where it comes from. The registry goes by its host, without a port.
pub fn of_source(image: &ImageRef) -> BTreeMap<String, String> {
    let domain = image.domain();
    let host = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => domain.split_once(':').map_or(domain, |(host, _)| host),
    };
    BTreeMap::from([(format!("{SOURCE}{host}"), image.repository().to_owned())])
}

/// `labels`, where those of [`of_source`] name also the repositories that `there` names already: in order, each once. One
/// that gets too long is left as it is there.
pub fn joined(
    mut labels: BTreeMap<String, String>,
    there: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    labels.retain(|key, value| {
        let Some(old) = there.get(key).filter(|_| key.starts_with(SOURCE)) else { return true };
        let all: BTreeSet<&str> =
            old.split(',').chain(value.split(',')).filter(|name| !name.is_empty()).collect();
        *value = all.into_iter().collect::<Vec<_>>().join(",");
        key.len() + value.len() <= LONGEST
    });
    labels
}

/// What a child is to its parent, in a label's key.
fn kind(media_type: &str) -> &'static str {
    match media_type {
        "application/vnd.oci.image.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v2+json" => "m.",
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json" => {
            "config"
        }
        layer
            if layer.starts_with("application/vnd.oci.image.layer.")
                || layer.starts_with("application/vnd.docker.image.rootfs.") =>
        {
            "l."
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

    fn child(media_type: &str, name: &str) -> Descriptor {
        Descriptor { media_type: media_type.to_owned(), digest: Digest::of(name.as_bytes()), size: 1 }
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, name)| ((*key).to_owned(), Digest::of(name.as_bytes()).to_string())).collect()
    }

    #[test]
    fn children_are_counted_by_what_they_are() {
        let index = [child(MANIFEST, "a"), child(INDEX, "i"), child(MANIFEST, "b")];
        assert_eq!(
            of_children(&index, true),
            labels(&[
                ("containerd.io/gc.ref.content.m.0", "a"),
                ("containerd.io/gc.ref.content.0", "i"),
                ("containerd.io/gc.ref.content.m.1", "b"),
            ])
        );
        let manifest = [child(CONFIG, "c"), child(LAYER, "l"), child(DOCKER_LAYER, "m"), child(LAYER, "l")];
        assert_eq!(
            of_children(&manifest, true),
            labels(&[
                ("containerd.io/gc.ref.content.config", "c"),
                ("containerd.io/gc.ref.content.l.0", "l"),
                ("containerd.io/gc.ref.content.l.1", "m"),
                ("containerd.io/gc.ref.content.l.2", "l"),
            ])
        );
        assert_eq!(of_children(&manifest, false), labels(&[("containerd.io/gc.ref.content.config", "c")]));
    }

    #[test]
    fn the_source_is_the_host_without_its_port() {
        let source = |text: &str| of_source(&text.parse().unwrap()).into_iter().next().unwrap();
        let pair = |host: &str, name: &str| (format!("{SOURCE}{host}"), name.to_owned());
        assert_eq!(source("nginx"), pair("docker.io", "library/nginx"));
        assert_eq!(source("127.0.0.1:5000/team/app:v1"), pair("127.0.0.1", "team/app"));
        assert_eq!(source("[::1]:5000/a"), pair("::1", "a"));
    }

    #[test]
    fn sources_are_joined_in_order_and_other_labels_replaced() {
        let key = format!("{SOURCE}quay.io");
        let map = |repositories: &str| {
            BTreeMap::from([(key.clone(), repositories.to_owned()), ("other".to_owned(), "new".to_owned())])
        };
        let of = |new: &str, old: &str| joined(map(new), &map(old)).remove(&key);
        assert_eq!(of("b", "c,a"), Some("a,b,c".to_owned()));
        assert_eq!(of("a", "a"), Some("a".to_owned()));
        assert_eq!(of("a", ""), Some("a".to_owned()));
        assert_eq!(joined(map("b"), &BTreeMap::new()), map("b"));
        assert_eq!(of("b", &"a".repeat(LONGEST - 20)), None, "too long: left as it is");
        assert_eq!(joined(map("b"), &map("a"))["other"], "new");
    }
}
