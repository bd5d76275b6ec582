use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::super::{
    EntryDocument, Goods, ImageGoods, ListDocument, Listed, NodeSelector, NodesDocument, WeightsGoods,
};
use super::*;
use crate::types::{Digest, Globs, WeightsUri};

fn id() -> impl Strategy<Value = String> {
    "[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
}

fn image() -> impl Strategy<Value = Goods> {
    let name = "([a-z]{1,8}\\.io(:[0-9]{1,4})?/)?[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}";
    let version = prop_oneof!["", ":[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", "@sha256:[0-9a-f]{64}"];
    (name, version, any::<bool>()).prop_map(|(name, version, pin)| {
        Goods::Image(ImageGoods { reference: format!("{name}{version}").parse().unwrap(), pin })
    })
}

fn weights() -> impl Strategy<Value = Goods> {
    let uri = prop_oneof![
        "https://[a-z]{1,8}\\.example(:[0-9]{2,4})?/[a-zA-Z0-9 é%/._~-]{0,20}(\\?[a-z]{1,5}=[a-zA-Z0-9%&+'\"]{0,9})?",
        "s3://[a-z0-9.-]{1,20}/[ -~é]{0,30}",
        "gs://[a-z0-9_-]{1,20}",
        "az://[a-z0-9]{3,10}(@[a-z0-9]{3,10})?/[a-z/]{0,9}",
        "hf://[A-Za-z][a-z]{0,8}/[A-Za-z][a-z]{0,8}(@[0-9a-f]{6,40})?",
        "oci://ghcr\\.io/[a-z]{1,8}(:[a-z0-9]{1,8})?",
    ];
    let patterns = || vec("(\\*|\\?|[a-zA-Z0-9._/{} é-]){1,12}", 0..4);
    let digests = btree_map("[a-zA-Z0-9_é-]{1,12}(/[a-zA-Z0-9_.-]{1,12}x){0,2}", any::<[u8; 32]>(), 0..4);
    (uri, any::<bool>(), patterns(), patterns(), digests).prop_map(
        |(uri, index, include, exclude, digests)| {
            let uri: WeightsUri = uri.parse().unwrap();
            Goods::Weights(WeightsGoods {
                index: index && matches!(uri, WeightsUri::Http(_)),
                uri,
                globs: Globs::new(&include, &exclude).unwrap(),
                sha256: digests
                    .into_iter()
                    .map(|(path, digest)| (path.parse().unwrap(), Digest::from_bytes(digest)))
                    .collect(),
            })
        },
    )
}

fn time() -> impl Strategy<Value = jiff::Timestamp> {
    (0..4_000_000_000_i64, 0..1_000_000_000_i32)
        .prop_map(|(second, nano)| jiff::Timestamp::new(second, nano).unwrap())
}

fn nodes() -> impl Strategy<Value = NodeSelector> {
    let labels = btree_map("([a-z]{1,5}\\.io/)?[A-Za-z0-9]{1,9}", "([A-Za-z0-9]{1,9})?", 1..4);
    let fraction =
        || (1_u64..=u64::MAX).prop_map(|n| (n as f64 / u64::MAX as f64).clamp(f64::MIN_POSITIVE, 1.0));
    prop_oneof![
        (labels, option::of(fraction()))
            .prop_map(|(match_labels, fraction)| NodeSelector { match_labels, fraction }),
        fraction()
            .prop_map(|fraction| NodeSelector { match_labels: BTreeMap::new(), fraction: Some(fraction) }),
    ]
}

/// Any entry that a document can make.
pub(super) fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let fields = (
        prop_oneof![image(), weights()],
        any::<bool>(),
        0..=1000_u16,
        option::of(time()),
        option::of(time()),
        option::of(nodes()),
        option::of("[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}"),
    );
    btree_map(id(), fields, 0..8).prop_map(|map| {
        map.into_iter()
            .map(|(id, (goods, required, priority, needed_by, expires_at, nodes, credentials))| Entry {
                id: id.parse().unwrap(),
                goods,
                required,
                priority,
                needed_by,
                expires_at,
                nodes,
                credentials,
            })
            .collect()
    })
}

/// Any list that documents can make.
pub(super) fn lists() -> impl Strategy<Value = List> {
    let errors = || vec(".{1,40}", 1..3);
    let texts = vec(".{0,40}", 0..3);
    let fates = vec((0..3_u8, errors()), 8);
    let flags =
        (any::<bool>(), any::<bool>(), any::<bool>(), option::of(time()), option::of(any::<[u8; 32]>()));
    (entries(), fates, flags, texts.clone(), texts).prop_map(|(entries, fates, flags, errors, warnings)| {
        List {
            paused: flags.0,
            removals_held: flags.1,
            known: flags.2,
            current: true,
            valid_until: flags.3,
            content: flags.4.map(Digest::from_bytes),
            entries: entries
                .into_iter()
                .zip(fates)
                .map(|(entry, (fate, errors))| match fate {
                    0 => Listed::Good(Arc::new(entry)),
                    1 => Listed::LastGood { entry: Arc::new(entry), errors },
                    _ => Listed::Bad { id: entry.id, required: entry.required, errors },
                })
                .collect(),
            errors,
            warnings,
        }
    })
}

/// The document that says these entries, with every field written out.
pub(super) fn written(entries: &[Entry]) -> ListDocument {
    ListDocument {
        api_version: "stoker.dev/v1".to_owned(),
        kind: "PrefetchList".to_owned(),
        valid_until: None,
        paused: Some(false),
        entries: entries.iter().map(write_entry).collect(),
    }
}

fn write_entry(entry: &Entry) -> EntryDocument {
    let common = EntryDocument {
        id: entry.id.to_string(),
        required: Some(entry.required),
        priority: Some(entry.priority),
        needed_by: entry.needed_by.map(|time| time.to_string()),
        expires_at: entry.expires_at.map(|time| time.to_string()),
        nodes: entry.nodes.as_ref().map(|nodes| NodesDocument {
            match_labels: Some(nodes.match_labels.clone()).filter(|labels| !labels.is_empty()),
            fraction: nodes.fraction,
        }),
        credentials: entry.credentials.clone(),
        ..EntryDocument::default()
    };
    match &entry.goods {
        Goods::Image(image) => {
            EntryDocument { image: Some(image.reference.to_string()), pin: Some(image.pin), ..common }
        }
        Goods::Weights(weights) => EntryDocument {
            weights: Some(match &weights.uri {
                WeightsUri::Http(url) => url.to_string(),
                uri => uri.to_string(),
            }),
            index: Some(weights.index),
            include: Some(weights.globs.include().to_vec()),
            exclude: Some(weights.globs.exclude().to_vec()),
            sha256: Some(
                weights.sha256.iter().map(|(path, digest)| (path.to_string(), digest.to_string())).collect(),
            ),
            ..common
        },
    }
}
