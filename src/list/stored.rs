//! The list as it is kept over restarts, with the last good version of each entry.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::rules::{MAX_PRIORITY, is_credentials_name, is_fraction};
use super::{Entry, Goods, ImageGoods, List, Listed, NodeSelector, WeightsGoods};
use crate::types::{Digest, EntryId, Globs, RelPath, WeightsUri};

/// Counts incompatible changes of the form below.
const VERSION: u32 = 1;

/// Why a stored list can't be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum StoredListError {
    #[error("the stored list is damaged")]
    Malformed(#[source] serde_json::Error),
    #[error("the stored list has version {0}, which this agent doesn't read")]
    Version(u32),
    #[error("the stored list has an invalid {field} in entry {id}")]
    Field { id: EntryId, field: &'static str },
    #[error("the stored list has entry {0} twice")]
    Twice(EntryId),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredList {
    version: u32,
    valid_until: Option<Timestamp>,
    paused: bool,
    removals_held: bool,
    /// Missing in what older agents stored.
    known: Option<bool>,
    content: Option<Digest>,
    errors: Vec<String>,
    warnings: Vec<String>,
    entries: Vec<StoredListed>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StoredListed {
    Good(StoredEntry),
    LastGood { entry: StoredEntry, errors: Vec<String> },
    Bad { id: EntryId, required: bool, errors: Vec<String> },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredEntry {
    id: EntryId,
    goods: StoredGoods,
    required: bool,
    priority: u16,
    needed_by: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    nodes: Option<StoredNodes>,
    credentials: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StoredGoods {
    Image {
        reference: String,
        pin: bool,
    },
    Weights {
        uri: String,
        index: bool,
        include: Vec<String>,
        exclude: Vec<String>,
        sha256: BTreeMap<RelPath, Digest>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredNodes {
    match_labels: BTreeMap<String, String>,
    /// As text: JSON's numbers come back exactly only by luck.
    fraction: Option<String>,
}

/// The list as text, to be read back by [`from_json`] exactly.
///
/// # Errors
/// None that can happen; serde's signature has one.
pub fn to_json(list: &List) -> Result<String, serde_json::Error> {
    let stored = StoredList {
        version: VERSION,
        valid_until: list.valid_until,
        paused: list.paused,
        removals_held: list.removals_held,
        known: Some(list.known),
        content: list.content,
        errors: list.errors.clone(),
        warnings: list.warnings.clone(),
        entries: list.entries.iter().map(store_listed).collect(),
    };
    serde_json::to_string_pretty(&stored)
}

/// Reads back what [`to_json`] wrote.
///
/// # Errors
/// Anything that [`to_json`] can't have written; then nothing of it is used.
pub fn from_json(text: &[u8]) -> Result<List, StoredListError> {
    let version: StoredVersion = serde_json::from_slice(text).map_err(StoredListError::Malformed)?;
    if version.version != VERSION {
        return Err(StoredListError::Version(version.version));
    }
    let stored: StoredList = serde_json::from_slice(text).map_err(StoredListError::Malformed)?;
    let entries: Vec<Listed> = stored.entries.into_iter().map(load_listed).collect::<Result<_, _>>()?;
    let mut seen = HashSet::new();
    if let Some(twice) = entries.iter().find(|listed| !seen.insert(listed.id().clone())) {
        return Err(StoredListError::Twice(twice.id().clone()));
    }
    Ok(List {
        valid_until: stored.valid_until,
        paused: stored.paused,
        entries,
        removals_held: stored.removals_held,
        errors: stored.errors,
        warnings: stored.warnings,
        known: stored.known.unwrap_or(stored.content.is_some()),
        current: true,
        content: stored.content,
    })
}

#[derive(Deserialize)]
struct StoredVersion {
    version: u32,
}

fn store_listed(listed: &Listed) -> StoredListed {
    match listed {
        Listed::Good(entry) => StoredListed::Good(store_entry(entry)),
        Listed::LastGood { entry, errors } => {
            StoredListed::LastGood { entry: store_entry(entry), errors: errors.clone() }
        }
        Listed::Bad { id, required, errors } => {
            StoredListed::Bad { id: id.clone(), required: *required, errors: errors.clone() }
        }
    }
}

fn load_listed(stored: StoredListed) -> Result<Listed, StoredListError> {
    Ok(match stored {
        StoredListed::Good(entry) => Listed::Good(load_entry(entry)?),
        StoredListed::LastGood { entry, errors } => Listed::LastGood { entry: load_entry(entry)?, errors },
        StoredListed::Bad { id, required, errors } => Listed::Bad { id, required, errors },
    })
}

fn store_entry(entry: &Entry) -> StoredEntry {
    let goods = match &entry.goods {
        Goods::Image(image) => StoredGoods::Image { reference: image.reference.to_string(), pin: image.pin },
        Goods::Weights(weights) => StoredGoods::Weights {
            // Display hides a URL's query, which decides the bytes as much as the path does.
            uri: match &weights.uri {
                WeightsUri::Http(url) => url.as_str().to_owned(),
                uri => uri.to_string(),
            },
            index: weights.index,
            include: weights.globs.include().to_vec(),
            exclude: weights.globs.exclude().to_vec(),
            sha256: weights.sha256.clone(),
        },
    };
    StoredEntry {
        id: entry.id.clone(),
        goods,
        required: entry.required,
        priority: entry.priority,
        needed_by: entry.needed_by,
        expires_at: entry.expires_at,
        nodes: entry.nodes.as_ref().map(|nodes| StoredNodes {
            match_labels: nodes.match_labels.clone(),
            fraction: nodes.fraction.map(|fraction| fraction.to_string()),
        }),
        credentials: entry.credentials.clone(),
    }
}

fn load_entry(stored: StoredEntry) -> Result<Arc<Entry>, StoredListError> {
    let id = stored.id.clone();
    let invalid = |field| StoredListError::Field { id: id.clone(), field };
    if stored.priority > MAX_PRIORITY {
        return Err(invalid("priority"));
    }
    if stored.credentials.as_deref().is_some_and(|name| !is_credentials_name(name)) {
        return Err(invalid("credentials"));
    }
    let goods = match stored.goods {
        StoredGoods::Image { reference, pin } => {
            Goods::Image(ImageGoods { reference: reference.parse().map_err(|_| invalid("image"))?, pin })
        }
        StoredGoods::Weights { uri, index, include, exclude, sha256 } => Goods::Weights(WeightsGoods {
            uri: load_uri(&uri).ok_or_else(|| invalid("weights"))?,
            index,
            globs: Globs::new(&include, &exclude).map_err(|_| invalid("include or exclude"))?,
            sha256,
        }),
    };
    let nodes = match stored.nodes {
        None => None,
        Some(StoredNodes { match_labels, fraction }) => {
            let fraction = fraction.map(|text| text.parse().ok().filter(|fraction| is_fraction(*fraction)));
            let fraction =
                fraction.map(|fraction| fraction.ok_or_else(|| invalid("nodes.fraction"))).transpose()?;
            Some(NodeSelector { match_labels, fraction })
        }
    };
    Ok(Arc::new(Entry {
        id: stored.id,
        goods,
        required: stored.required,
        priority: stored.priority,
        needed_by: stored.needed_by,
        expires_at: stored.expires_at,
        nodes,
        credentials: stored.credentials,
    }))
}

/// A URL grows when it is percent-encoded, so the limit for what a list may say doesn't hold for what was made of it.
fn load_uri(text: &str) -> Option<WeightsUri> {
    if text.starts_with("https://") || text.starts_with("http://") {
        return url::Url::parse(text).ok().map(WeightsUri::Http);
    }
    text.parse().ok()
}
