//! What a document makes of the list before it, and what no document can do.

mod arbitrary;
mod fields;
mod last_good;
mod properties;

use super::{AllowList, Entry, Goods, ImageGoods, List, Listed, merge};

/// A plain image entry.
pub(super) fn entry(id: &str) -> Entry {
    Entry {
        id: id.parse().unwrap(),
        goods: Goods::Image(ImageGoods { reference: "nginx:1".parse().unwrap(), pin: true }),
        required: false,
        priority: 500,
        needed_by: None,
        expires_at: None,
        nodes: None,
        credentials: None,
    }
}

/// A document with these entries, each a flow mapping.
fn document(entries: &[&str]) -> String {
    let entries: String = entries.iter().map(|entry| format!("- {entry}\n")).collect();
    let entries = if entries.is_empty() { " []\n".to_owned() } else { format!("\n{entries}") };
    format!("apiVersion: stoker.dev/v1\nkind: PrefetchList\nentries:{entries}")
}

fn merged(previous: Option<&List>, text: &str) -> List {
    merge(previous, text.as_bytes(), &AllowList::default())
}

/// `good vllm`, `last-good vllm`, `bad vllm` or `bad! vllm` (required).
fn summary(list: &List) -> Vec<String> {
    let word = |listed: &Listed| match listed {
        Listed::Good(_) => "good",
        Listed::LastGood { .. } => "last-good",
        Listed::Bad { required: false, .. } => "bad",
        Listed::Bad { required: true, .. } => "bad!",
    };
    list.entries.iter().map(|listed| format!("{} {}", word(listed), listed.id())).collect()
}
