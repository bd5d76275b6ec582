//! `hub/`: what entries of `hf://` show, once more, as the Hugging Face Hub's own clients keep it (`HF_HUB_CACHE`):
//! `models--org--name/snapshots/<commit>/…`, hard links to blobs; `refs/<revision>`, the commit without a newline; and
//! `trees/<commit>.json`, by which a client without a network knows a partial snapshot from a whole one.
//!
//! What belongs there follows from what the entries show under `weights/`, so nothing is kept about it: entries of one
//! repository share its directory, and what none of them shows any more leaves, refs first. A directory without our
//! mark is somebody else's and isn't touched.

mod place;
mod repository;
mod shown;
mod tree_file;

pub(super) use place::HubPlace;
pub(super) use repository::{Hub, points, problem};
pub(super) use shown::{Shown, shown};
