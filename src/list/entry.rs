use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::types::{Digest, EntryId, Globs, Hasher, ImageRef, RelPath, WeightsUri};

/// One valid line of the list. See the list's documentation for what each field means to its writer.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Names the label and the directory.
    pub id: EntryId,
    /// What is wanted.
    pub goods: Goods,
    /// Whether the node's `stoker.dev/ready` waits for it.
    pub required: bool,
    /// 0..=1000; more is sooner.
    pub priority: u16,
    /// When it should be warm; sooner goes first.
    pub needed_by: Option<Timestamp>,
    /// When it stops being listed.
    pub expires_at: Option<Timestamp>,
    /// Which nodes it is for; `None` is every node.
    pub nodes: Option<NodeSelector>,
    /// Name of a directory under `--credentials-dir`: one path part, no `/`, not hidden.
    pub credentials: Option<String>,
}

/// What an entry wants on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goods {
    /// A container image, in containerd.
    Image(ImageGoods),
    /// Files, in the cache.
    Weights(WeightsGoods),
}

/// A container image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageGoods {
    /// Which one, as containerd spells it.
    pub reference: ImageRef,
    /// Whether kubelet's image garbage collection must leave it alone while it is listed.
    pub pin: bool,
}

/// A set of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightsGoods {
    /// Where they are.
    pub uri: WeightsUri,
    /// Whether `uri` is a JSON index of path, size and sha256, and not the file itself.
    pub index: bool,
    /// Which of them are wanted.
    pub globs: Globs,
    /// Digests by path, for sources that publish none.
    pub sha256: BTreeMap<RelPath, Digest>,
}

/// Which nodes an entry is for.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSelector {
    /// All of these labels must be on the node.
    pub match_labels: BTreeMap<String, String>,
    /// Of the matching nodes, about this share takes the entry: more than 0, at most 1.
    pub fraction: Option<f64>,
}

impl WeightsGoods {
    /// A digest of all that decides which bytes are meant; the cache keeps it beside a revision to know, without
    /// asking the source, that the revision was made for this very request.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        let mut hasher = Hasher::new();
        let mut line = |key: &str, value: &str| {
            hasher.update(format!("{key}\t{}\t{value}\n", value.len()).as_bytes());
        };
        // Display hides a URL's query, which decides the bytes as much as the path does.
        match &self.uri {
            WeightsUri::Http(url) => line("uri", url.as_str()),
            uri => line("uri", &uri.to_string()),
        }
        line("index", if self.index { "true" } else { "false" });
        self.globs.include().iter().for_each(|glob| line("include", glob));
        self.globs.exclude().iter().for_each(|glob| line("exclude", glob));
        for (path, digest) in &self.sha256 {
            line("path", path.as_str());
            line("sha256", &digest.hex());
        }
        hasher.finish()
    }
}
