//! The page cache, made as on a node that has had the files for long and used its memory for other things.

use std::fs::File;
use std::path::Path;

use rustix::fs::Advice;

/// Has the kernel forget what it keeps in memory of all files below `dir`. What is dirty is written first.
pub(crate) fn forget(dir: &Path) {
    let root = File::open(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    rustix::fs::syncfs(&root).expect("the file system can be synced");
    forget_below(dir);
}

fn forget_below(dir: &Path) {
    // What containers come and go with may vanish on the way.
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            forget_below(&entry.path());
        } else if let (true, Ok(file)) = (kind.is_file(), File::open(entry.path())) {
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("a file's pages can be given up");
        }
    }
}
