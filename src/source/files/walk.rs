use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FileType};

use super::beneath::{Kind, Root, Seen};
use crate::source::SourceError;
use crate::source::index::MOST_FILES;
use crate::types::RelPath;

/// What is below a directory.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Regular files, and links to such.
    pub(super) files: Vec<(RelPath, Seen)>,
    /// What can't be read as one, with the reason: an error only where it's wanted.
    pub(super) unfit: Vec<(RelPath, &'static str)>,
}

/// Names in all, whatever they are.
const MOST_NAMES: usize = 2 * MOST_FILES;

/// Finds everything below `below`. Links to directories aren't followed: they may lead in circles.
pub(super) fn walk(root: &Root, below: &Path) -> Result<Walked, SourceError> {
    let mut walked = Walked::default();
    let mut names = 0;
    let mut ahead = vec![PathBuf::new()];
    while let Some(directory) = ahead.pop() {
        let place = below.join(&directory);
        let fd = root.directory(&place)?;
        let failed = |cause| root.failed("list", &place, cause);
        for entry in Dir::read_from(&fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = Path::new(std::ffi::OsStr::from_bytes(entry.file_name().to_bytes()));
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            names += 1;
            let within = directory.join(name);
            let invalid =
                |problem: String| SourceError::Invalid { what: root.shown(&below.join(&within)), problem };
            if names > MOST_NAMES || walked.files.len() > MOST_FILES {
                let problem = format!("there are more than {MOST_FILES} files");
                return Err(SourceError::Invalid { what: root.shown(below), problem });
            }
            let stat = fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|cause| root.failed("stat", &below.join(&within), cause))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                ahead.push(within);
                continue;
            }
            let path: RelPath = within
                .to_str()
                .and_then(|path| path.parse().ok())
                .ok_or_else(|| invalid("its name can't be a file's in the cache; rename it".to_owned()))?;
            match found(root, &below.join(&within), &stat) {
                Ok(seen) => walked.files.push((path, seen)),
                Err(problem) => walked.unfit.push((path, problem)),
            }
        }
    }
    Ok(walked)
}

/// The file that a name stands for, or why it stands for none.
fn found(root: &Root, place: &Path, stat: &fs::Stat) -> Result<Seen, &'static str> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => root.look(place).map_err(|error| match error.kind() {
            crate::types::ErrorKind::NotFound => "is a link to nothing",
            crate::types::ErrorKind::Denied => "is a link to what the agent may not see",
            _ => "is a link that leads out of --file-root, or nowhere",
        })?,
        _ => Kind::of(stat),
    };
    match kind {
        Kind::File(seen) => Ok(seen),
        Kind::Directory => Err("is a link to a directory, which is not followed"),
        Kind::Special(_) => Err("is a pipe, a socket or a device, and only files are read"),
    }
}
