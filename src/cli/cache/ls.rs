use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::super::Exit;
use super::super::format::{duration, files, size};
use super::super::table::{Cell, Table};
use super::super::terminal::{Look, Paint};
use crate::types::EntryId;
use crate::weights::{Inventory, Unneeded, inventory_at};

/// Lists what is in the cache.
pub(super) fn ls(root: &Path, json: bool, out: &mut impl Write) -> anyhow::Result<Exit> {
    let inventory = inventory_at(root)?;
    if json {
        as_json(&inventory, root, out)?;
    } else {
        as_table(&inventory, Timestamp::now(), out)?;
    }
    Ok(Exit::Done)
}

fn as_table(inventory: &Inventory, now: Timestamp, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(["ID", "REVISION", "SIZE", "SHARED", "STATE", "SOURCE"]);
    let mut row = |cells: [&str; 6]| table.row(cells.map(|text| Cell::new(text, Paint::Plain)));
    for (id, shown) in &inventory.shown {
        if let Some(current) = &shown.named.current {
            let state = if current.verified { "verified" } else { "recorded" };
            let (bytes, shared) = (size(current.bytes), size(shown.shared));
            row([id.as_str(), &current.revision.short(), &bytes, &shared, state, &current.source]);
        }
        if let Some(problem) = &shown.named.problem {
            row([id.as_str(), "", "", "", "not warm", problem]);
        }
        for older in &shown.named.other {
            row([id.as_str(), older, "", "", "replaced", ""]);
        }
    }
    for unneeded in &inventory.unneeded {
        let revision = unneeded.revision.map(|revision| revision.short()).unwrap_or_default();
        let since = Duration::try_from(now.duration_since(unneeded.since)).unwrap_or_default();
        let state = format!("unneeded for {}", duration(since));
        let source = match unneeded.revision {
            Some(_) => unneeded.source.clone(),
            None => format!("{} of no revision", files(unneeded.blobs)),
        };
        row([&names(unneeded), &revision, &size(unneeded.bytes), "", &state, &source]);
    }
    out.write_all(table.render(Look::of(&io::stdout())).as_bytes())
}

fn names(unneeded: &Unneeded) -> String {
    let ids: Vec<&str> = unneeded.ids.iter().map(EntryId::as_str).collect();
    format!("({})", ids.join(", "))
}

fn as_json(inventory: &Inventory, root: &Path, out: &mut impl Write) -> io::Result<()> {
    let weights: Vec<_> = inventory
        .shown
        .iter()
        .filter_map(|(id, shown)| {
            let current = shown.named.current.as_ref()?;
            Some(serde_json::json!({
                "id": id,
                "revision": current.revision.hex(),
                "bytes": current.bytes,
                "sharedBytes": shown.shared,
                "verified": current.verified,
                "source": current.source,
                "path": root.join("weights").join(id.as_str()).join("current"),
                "olderRevisions": shown.named.other,
            }))
        })
        .collect();
    let unneeded = inventory.unneeded.iter().map(|unneeded| {
        serde_json::json!({
            "revision": unneeded.revision.map(|revision| revision.hex()),
            "ids": unneeded.ids,
            "source": unneeded.source,
            "bytes": unneeded.bytes,
            "since": unneeded.since,
        })
    });
    let unneeded: Vec<_> = unneeded.collect();
    let all = serde_json::json!({ "weights": weights, "unneeded": unneeded, "bytes": inventory.bytes });
    writeln!(out, "{all}")
}
