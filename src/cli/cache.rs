use std::io::{self, Write as _};

use clap::{Args, Subcommand};

use super::Exit;
use super::flags::CacheFlags;
use crate::types::EntryId;
use crate::weights::names_at;

mod gc;
mod ls;
mod verify;

/// Look into the cache of weights, and after it
///
/// `ls`, `path` and `verify` only read: they need no agent, and disturb none that is at work.
#[derive(Debug, Clone, Args)]
pub(super) struct CacheArgs {
    #[command(flatten)]
    cache: CacheFlags,

    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum CacheCommand {
    /// List the weights that are warm, and what no entry needs any more
    Ls {
        /// As JSON, one object with the arrays `weights` and `unneeded`
        #[arg(long)]
        json: bool,
    },
    /// Print the directory of an entry's weights, to mount or to read from
    Path {
        /// The entry's id
        id: EntryId,
    },
    /// Read weights again and compare them with their digests; exit code 1 if some are corrupt
    Verify {
        /// Only what these entries show; everything if none is given
        ids: Vec<EntryId>,

        /// Mark what is corrupt, so that a running agent takes its label away and fetches it again within a minute
        #[arg(long)]
        mend: bool,
    },
    /// Remove what no entry needs, while no agent runs
    ///
    /// A running agent does so by itself when it needs room.
    Gc,
}

/// Runs it.
pub(super) fn run(args: &CacheArgs) -> anyhow::Result<Exit> {
    let root = &args.cache.cache_dir;
    let mut out = io::stdout().lock();
    match &args.command {
        CacheCommand::Ls { json } => ls::ls(root, *json, &mut out),
        CacheCommand::Verify { ids, mend } => verify::verify(root, ids, *mend, &mut out),
        CacheCommand::Gc => gc::gc(root, &mut out),
        CacheCommand::Path { id } => {
            let names = names_at(root)?;
            if names.get(id).is_some_and(|named| named.current.is_some()) {
                writeln!(out, "{}", root.join("weights").join(id.as_str()).join("current").display())?;
                return Ok(Exit::Done);
            }
            let known: Vec<&str> = names.keys().map(EntryId::as_str).collect();
            let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
            eprintln!(
                "stoker: no weights {id:?} are warm in {} (warm: {known}); see `stoker status` for why",
                root.display()
            );
            Ok(Exit::No)
        }
    }
}
