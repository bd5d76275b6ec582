use std::io::{self, Write};
use std::path::Path;

use clap::{Args, Subcommand};

use super::Exit;
use super::flags::CacheFlags;
use super::format::size;
use super::table::{Cell, Table};
use super::terminal::{Look, Paint};
use crate::types::EntryId;
use crate::weights::{Named, names_at};

/// Look into the cache of weights
///
/// It only reads, so it needs no agent and disturbs none.
#[derive(Debug, Clone, Args)]
pub(super) struct CacheArgs {
    #[command(flatten)]
    cache: CacheFlags,

    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum CacheCommand {
    /// List the weights that are warm
    Ls {
        /// As JSON, one object with an array `weights`
        #[arg(long)]
        json: bool,
    },
    /// Print the directory of an entry's weights, to mount or to read from
    Path {
        /// The entry's id
        id: EntryId,
    },
}

/// Runs it.
pub(super) fn run(args: &CacheArgs) -> anyhow::Result<Exit> {
    let root = &args.cache.cache_dir;
    let names = names_at(root)?;
    let mut out = io::stdout().lock();
    match &args.command {
        CacheCommand::Ls { json: true } => ls_json(&names, root, &mut out)?,
        CacheCommand::Ls { json: false } => ls(&names, &mut out)?,
        CacheCommand::Path { id } => match names.get(id).and_then(|named| named.current.as_ref()) {
            Some(_) => writeln!(out, "{}", root.join("weights").join(id.as_str()).join("current").display())?,
            None => {
                let known: Vec<&str> = names.keys().map(EntryId::as_str).collect();
                let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
                eprintln!(
                    "stoker: no weights {id:?} are warm in {} (warm: {known}); see `stoker status` for why",
                    root.display()
                );
                return Ok(Exit::No);
            }
        },
    }
    Ok(Exit::Done)
}

type Names = std::collections::BTreeMap<EntryId, Named>;

fn ls(names: &Names, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(["ID", "REVISION", "SIZE", "CHECKED", "SOURCE"]);
    for (id, named) in names {
        let Some(current) = &named.current else { continue };
        let checked = if current.verified { "verified" } else { "recorded" };
        let cells = [id.as_str(), &current.revision.short(), &size(current.bytes), checked, &current.source];
        table.row(cells.map(|text| Cell::new(text, Paint::Plain)));
    }
    out.write_all(table.render(Look::of(&io::stdout())).as_bytes())
}

fn ls_json(names: &Names, root: &Path, out: &mut impl Write) -> io::Result<()> {
    let weights: Vec<_> = names
        .iter()
        .filter_map(|(id, named)| {
            let current = named.current.as_ref()?;
            Some(serde_json::json!({
                "id": id,
                "revision": current.revision.hex(),
                "bytes": current.bytes,
                "verified": current.verified,
                "source": current.source,
                "path": root.join("weights").join(id.as_str()).join("current"),
            }))
        })
        .collect();
    writeln!(out, "{}", serde_json::json!({ "weights": weights }))
}
