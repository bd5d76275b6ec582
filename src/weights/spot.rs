use std::fs::File;
use std::path::PathBuf;

use super::error::OpError;
use super::layout;
use super::ops::Dir;

/// Where a file on its way in lies: its name, its journal's, and the directory that was made for them alone, if one
/// was.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) dir: Dir,
    pub(super) data: String,
    journal: String,
    /// That directory, by its parent and name.
    home: Option<(Dir, String)>,
}

impl Spot {
    /// Beside other files in `dir`, under names that begin with `name`.
    pub(super) fn beside(dir: Dir, name: &str) -> Self {
        Self { dir, data: name.to_owned(), journal: format!("{name}.{}", layout::JOURNAL), home: None }
    }

    /// In a directory of its own under `partials`, which is made where it's missing.
    pub(super) fn in_own(partials: Dir, key: &str) -> Result<Self, OpError> {
        let dir = partials.make(key, layout::PRIVATE_DIR)?;
        let (data, journal) = (layout::DATA.to_owned(), layout::JOURNAL.to_owned());
        Ok(Self { dir, data, journal, home: Some((partials, key.to_owned())) })
    }

    /// The file's, for messages.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join(&self.data)
    }

    /// What the journal says, as bytes; `None` where there is none that can be read.
    pub(super) fn read_journal(&self) -> Option<Vec<u8>> {
        self.dir.read_file(&self.journal, super::journal::LONGEST).ok().flatten()
    }

    /// A journal that isn't one yet.
    pub(super) fn new_journal(&self) -> Result<File, OpError> {
        let name = self.unplaced();
        self.dir.unlink(&name)?;
        self.dir.create_file(&name, 0o600)
    }

    /// Makes it the journal, and durable by its name: it and the file, down from where others would look for them.
    pub(super) fn place_journal(&self) -> Result<(), OpError> {
        self.dir.rename_from(&self.dir, &self.unplaced(), &self.journal)?;
        self.dir.sync()?;
        self.home.as_ref().map_or(Ok(()), |(parent, _)| parent.sync())
    }

    fn unplaced(&self) -> String {
        format!("{}.new", self.journal)
    }

    /// Takes away what is under these names. The journal goes first: it never stands beside another file than its own.
    pub(super) fn clear(&self) -> Result<(), OpError> {
        self.dir.remove_tree(&self.journal)?;
        self.dir.remove_tree(self.unplaced())?;
        self.dir.remove_tree(&self.data)
    }

    /// Takes them away, and their directory.
    pub(super) fn remove(&self) -> Result<(), OpError> {
        self.clear()?;
        self.home.as_ref().map_or(Ok(()), |(parent, name)| parent.remove_dir(name).map(drop))
    }
}
