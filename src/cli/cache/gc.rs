use std::io::Write;
use std::path::Path;

use super::super::Exit;
use super::super::format::{files, size};
use crate::weights::{Cache, CacheError, RootFsPolicy, names_at};

/// Removes what no entry needs. It asks no agent to do so: whoever reaches the socket could empty the cache then, and
/// one that runs needs no telling.
pub(super) fn gc(root: &Path, out: &mut impl Write) -> anyhow::Result<Exit> {
    // Not to make one where there is none.
    names_at(root)?;
    let cache = match Cache::open(root, &RootFsPolicy::Allow) {
        Ok(cache) => cache,
        Err(CacheError::Locked { holder, .. }) => {
            let holder = holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
            eprintln!(
                "stoker: an agent{holder} has the cache {}: it gives up what no entry needs when it needs the room; to \
                 remove it now, stop the agent first",
                root.display()
            );
            return Ok(Exit::Broken);
        }
        Err(error) => return Err(error.into()),
    };
    let freed = cache.collect()?;
    writeln!(out, "removed {}, {}", files(freed.blobs), size(freed.bytes))?;
    if freed.in_use > 0 {
        writeln!(out, "{} stay: a process has them open or mapped", size(freed.in_use))?;
    }
    Ok(Exit::Done)
}
