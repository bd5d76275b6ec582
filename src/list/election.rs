//! Which nodes an entry is for. Nodes elect themselves: each decides alone, from its own name and labels, and no
//! other node's coming or going changes the answer.

use std::collections::BTreeMap;

use super::Entry;
use crate::types::{Digest, EntryId};

/// What an entry's `nodes` is held against.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node's name.
    pub name: String,
    /// Its labels; without a cluster those of `--node-labels`.
    pub labels: BTreeMap<String, String>,
}

/// Whether an entry is for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applies {
    /// It is.
    Yes,
    /// It isn't; this is why, for people.
    No(String),
}

impl Applies {
    /// Whether it is for the node.
    #[must_use]
    pub fn yes(&self) -> bool {
        matches!(self, Self::Yes)
    }
}

/// Whether `entry` is for `node`: all of `matchLabels` are there, and the node's share of the hash is below
/// `fraction`.
#[must_use]
pub fn applies(entry: &Entry, node: &NodeFacts) -> Applies {
    let Some(selector) = &entry.nodes else { return Applies::Yes };
    for (key, wanted) in &selector.match_labels {
        match node.labels.get(key) {
            Some(value) if value == wanted => {}
            Some(value) => {
                return Applies::No(format!(
                    "the entry is for nodes with {key}={wanted}; here it is {value:?}"
                ));
            }
            None => {
                return Applies::No(format!(
                    "the entry is for nodes with {key}={wanted}; this node has no such label (without a cluster, \
                     labels come from --node-labels)"
                ));
            }
        }
    }
    match selector.fraction {
        Some(fraction) if share(&node.name, &entry.id) >= fraction => Applies::No(format!(
            "the entry is for a fraction of {fraction} of the nodes, and this one is not among them"
        )),
        _ => Applies::Yes,
    }
}

/// Where the node stands for this entry, uniform in `0.0..1.0`: the first 52 bits of SHA-256 of both names. As each
/// node has a standing of its own, raising a fraction only adds nodes, and a node that goes changes no other's.
fn share(node: &str, id: &EntryId) -> f64 {
    let digest = Digest::of(format!("stoker.dev/fraction\n{node}\n{id}\n").as_bytes()).hex();
    let bits = digest.get(..13).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default();
    // Both are exact in an f64.
    #[expect(clippy::cast_precision_loss, reason = "52 bits fit")]
    let share = bits as f64 / (1_u64 << 52) as f64;
    share
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::super::{Entry, NodeSelector};
    use super::*;

    fn node(name: &str, labels: &[(&str, &str)]) -> NodeFacts {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        NodeFacts { name: name.to_owned(), labels }
    }

    fn selecting(id: &str, labels: &[(&str, &str)], fraction: Option<f64>) -> Entry {
        let match_labels = node("", labels).labels;
        Entry { nodes: Some(NodeSelector { match_labels, fraction }), ..entry(id) }
    }

    fn elected(id: &str, fraction: f64, nodes: std::ops::Range<u32>) -> Vec<u32> {
        let entry = selecting(id, &[], Some(fraction));
        nodes.filter(|number| applies(&entry, &node(&format!("node-{number}"), &[])).yes()).collect()
    }

    #[test]
    fn without_a_selector_every_node_is_meant() {
        assert_eq!(applies(&entry("a"), &node("n", &[])), Applies::Yes);
    }

    #[test]
    fn all_labels_must_be_there_and_the_reason_names_the_one_that_is_not() {
        let entry = selecting("a", &[("gpu", "h100"), ("zone", "b")], None);
        assert_eq!(applies(&entry, &node("n", &[("gpu", "h100"), ("zone", "b"), ("x", "y")])), Applies::Yes);
        let Applies::No(reason) = applies(&entry, &node("n", &[("gpu", "h100"), ("zone", "c")])) else {
            panic!()
        };
        assert!(reason.contains("zone=b") && reason.contains("\"c\""), "{reason}");
        let Applies::No(reason) = applies(&entry, &node("n", &[("zone", "b")])) else { panic!() };
        assert!(reason.contains("gpu=h100") && reason.contains("--node-labels"), "{reason}");
    }

    #[test]
    fn about_the_fraction_of_the_nodes_is_elected() {
        for (fraction, least, most) in [(0.01, 60, 140), (0.25, 2350, 2650), (0.5, 4850, 5150)] {
            let count = elected("llama-70b", fraction, 0..10_000).len();
            assert!((least..most).contains(&count), "{fraction}: {count}");
        }
        assert_eq!(elected("llama-70b", 1.0, 0..1000).len(), 1000);
    }

    #[test]
    fn a_larger_fraction_only_adds_nodes() {
        let (few, more) = (elected("a", 0.1, 0..2000), elected("a", 0.3, 0..2000));
        assert!(few.iter().all(|node| more.contains(node)));
    }

    #[test]
    fn two_entries_elect_independently() {
        let (a, b) = (elected("a", 0.5, 0..2000), elected("b", 0.5, 0..2000));
        let both = a.iter().filter(|node| b.contains(node)).count();
        assert!((400..600).contains(&both), "{both}");
    }

    #[test]
    fn the_choice_never_changes_between_versions() {
        // If this fails, a new version of the agent would move every fraction to other nodes.
        let chosen = elected("llama-70b", 0.25, 0..24);
        assert_eq!(chosen, [2, 3, 12, 19, 20]);
    }
}
