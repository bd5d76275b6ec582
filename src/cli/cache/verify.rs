use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use super::super::Exit;
use super::super::format::{files, size};
use crate::types::{Digest, EntryId};
use crate::weights::{BlobUse, blobs_at, mark_corrupt, names_at, verify_blob};

/// Reads everything, or what these entries show, and says what is wrong.
pub(super) fn verify(root: &Path, ids: &[EntryId], mend: bool, out: &mut impl Write) -> anyhow::Result<Exit> {
    let names = names_at(root)?;
    let mut wrong = 0;
    for id in ids {
        let problem = match names.get(id) {
            None => Some("there are no such weights in the cache".to_owned()),
            Some(named) => named.problem.clone(),
        };
        if let Some(problem) = problem {
            writeln!(out, "not warm  {id}: {problem}")?;
            wrong += 1;
        }
    }
    let blobs = wanted(root, ids)?;
    let mut bytes = 0_u64;
    for (digest, blob) in &blobs {
        bytes = bytes.saturating_add(blob.bytes);
        let problem = match verify_blob(root, *digest) {
            Ok(Some(true) | None) => continue,
            Ok(Some(false)) => "its bytes are not those that its digest promises".to_owned(),
            Err(error) => crate::rt::chain(&error),
        };
        wrong += 1;
        writeln!(out, "corrupt  {digest}: {problem} ({})", places(blob))?;
        if mend {
            mark_corrupt(root, *digest)?;
        }
    }
    if wrong == 0 {
        writeln!(out, "{}, {}: all as they should be", files(blobs.len()), size(bytes))?;
        return Ok(Exit::Done);
    }
    if !mend {
        eprintln!("stoker: to have a running agent fetch it again, say `stoker cache verify --mend`");
    }
    Ok(Exit::No)
}

fn wanted(root: &Path, ids: &[EntryId]) -> anyhow::Result<BTreeMap<Digest, BlobUse>> {
    let asked: BTreeSet<Option<&EntryId>> =
        if ids.is_empty() { BTreeSet::from([None]) } else { ids.iter().map(Some).collect() };
    let mut blobs = BTreeMap::new();
    for id in asked {
        blobs.extend(blobs_at(root, id)?.into_iter().map(|blob| (blob.digest, blob)));
    }
    Ok(blobs)
}

fn places(blob: &BlobUse) -> String {
    if blob.places.is_empty() { "no entry needs it".to_owned() } else { blob.places.join(", ") }
}
