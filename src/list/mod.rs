//! The prediction list: what it may say, and what is made of a document that says it badly.
//!
//! Pure: text in, [`List`] out. Where the text comes from is `cluster/`'s business, and so is where the list is kept;
//! what is done about it is the agent's.

mod address;
mod allow;
mod document;
mod election;
mod entry;
mod fields;
mod listed;
mod manifest;
mod merge;
mod order;
mod parse;
mod parse_entry;
mod problem;
mod rules;
mod stored;
mod tree;

#[cfg(test)]
mod tests;

pub use address::is_forbidden_address;
pub use allow::{AllowList, InvalidAllowList, Refused};
pub use document::{API_VERSION, EntryDocument, KIND, ListDocument, NodesDocument, json_schema};
pub use election::{Applies, NodeFacts, applies};
pub use entry::{Entry, Goods, ImageGoods, NodeSelector, WeightsGoods};
pub use listed::{List, Listed};
pub use manifest::{Manifest, manifest};
pub use merge::{merge, recheck, without_document};
pub use order::by_urgency;
pub use parse::{ListHead, MAX_BYTES, MAX_ENTRIES, ParsedEntry, ParsedList, parse};
pub use problem::{EntryName, Place, Problem, Severity};
pub use rules::is_label_key;
pub use stored::{StoredListError, from_json, to_json};
