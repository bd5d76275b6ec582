use super::header::Header;
use super::number::Moment;
use super::pax::Records;
use super::sparse::{self, Described, Piece};
use super::trouble::Trouble;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
    /// Records for all that follow (`g`), which Go's reader and containerd ignore; but its name counts as an entry's.
    Global,
    /// Nothing that a layer may hold.
    Other(u8),
}

/// One entry, with all its headers put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// As the stream has it.
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    /// Of the file, holes included.
    pub(super) size: u64,
    /// Permissions, setuid, setgid and sticky.
    pub(super) mode: u32,
    /// All ones leaves the owner as it is, as in chown(2).
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: Moment,
    pub(super) accessed: Moment,
    pub(super) major: i64,
    pub(super) minor: i64,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where its data lies, if it is sparse.
    pub(super) pieces: Option<Vec<Piece>>,
}

/// What stands before an entry's own header.
#[derive(Debug, Default)]
pub(super) struct Preceding {
    pub(super) records: Records,
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
}

/// An entry, and how its content lies in the stream.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) entry: Entry,
    /// Bytes in the stream.
    pub(super) stored: u64,
    /// The content begins with a map, which [`Entry::pieces`] doesn't have yet.
    pub(super) map_first: bool,
}

impl Kind {
    fn of(flag: u8, name: &[u8]) -> Self {
        match flag {
            // Before POSIX a directory was told by its name.
            0 if name.ends_with(b"/") => Self::Directory,
            0 | b'0' => Self::File,
            b'1' => Self::HardLink,
            b'2' => Self::Symlink,
            b'3' => Self::CharDevice,
            b'4' => Self::BlockDevice,
            b'5' => Self::Directory,
            b'6' => Self::Fifo,
            b'g' => Self::Global,
            other => Self::Other(other),
        }
    }

    /// Whether content may follow its header; where none may, a size means nothing.
    pub(super) fn has_content(self) -> bool {
        matches!(self, Self::File | Self::Global | Self::Other(_))
    }
}

impl Announced {
    /// Puts the headers together, in Go's order: the records over the header, GNU's long names over both.
    pub(super) fn of(header: Header, before: Preceding) -> Result<Self, Trouble> {
        let records = before.records;
        let text = |key, own: Vec<u8>| records.get(key).map_or(own, <[u8]>::to_vec);
        let mut name = text("path", header.name);
        let link = text("linkpath", header.link);
        let uid = records.number("uid")?.unwrap_or(header.uid);
        let gid = records.number("gid")?.unwrap_or(header.gid);
        let stored = records.number("size")?.unwrap_or(header.size);
        let time = |key| records.get(key).map(Moment::parse).transpose();
        let modified = time("mtime")?.unwrap_or(header.modified);
        let accessed = time("atime")?.or(header.accessed).unwrap_or(modified);
        time("ctime")?;
        if let Some(long) = before.long_name.filter(|long| !long.is_empty()) {
            name = long;
        }
        let link = before.long_link.filter(|long| !long.is_empty()).unwrap_or(link);
        let kind = Kind::of(header.kind, &name);
        let stored = if kind.has_content() { size(stored)? } else { 0 };
        let mut announced = Self {
            entry: Entry {
                kind,
                name,
                link,
                size: stored,
                mode: header.mode as u32 & 0o7777,
                // The system call takes 32 bits, and Go hands it what it read.
                uid: uid as u32,
                gid: gid as u32,
                modified: modified.bound(),
                accessed: accessed.max(modified).bound(),
                major: header.major,
                minor: header.minor,
                xattrs: Vec::new(),
                pieces: None,
            },
            stored,
            map_first: false,
        };
        announced.sparse(&records)?;
        announced.entry.xattrs = records.into_xattrs();
        Ok(announced)
    }

    /// A global header: its records say nothing but, perhaps, its own name.
    pub(super) fn global(header: Header, records: &Records) -> Result<Self, Trouble> {
        let Header { kind, name, link, .. } = header;
        let name = records.get("path").map_or(name, <[u8]>::to_vec);
        let nothing = Header {
            kind,
            name,
            link,
            size: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            modified: Moment::default(),
            accessed: None,
            major: 0,
            minor: 0,
        };
        Self::of(nothing, Preceding::default())
    }

    fn sparse(&mut self, records: &Records) -> Result<(), Trouble> {
        let described = sparse::described(records);
        if described == Described::Whole {
            return Ok(());
        }
        if let Some(name) = records.get("GNU.sparse.name") {
            self.entry.name = name.to_vec();
        }
        if !self.entry.kind.has_content() {
            return Err(Trouble::malformed("it is sparse and no file"));
        }
        if let Some(real) = sparse::real_size(records)? {
            self.entry.size = size(real)?;
        }
        self.map_first = described == Described::ByContent;
        if described == Described::ByRecords {
            self.map(&sparse::from_records(records)?)?;
        }
        Ok(())
    }

    /// Says where the data lies.
    pub(super) fn map(&mut self, map: &[(i64, i64)]) -> Result<(), Trouble> {
        let size = i64::try_from(self.entry.size).unwrap_or(i64::MAX);
        self.entry.pieces = Some(sparse::checked(map, size)?);
        self.map_first = false;
        Ok(())
    }
}

/// A size that may be one.
pub(super) fn size(number: i64) -> Result<u64, Trouble> {
    u64::try_from(number).map_err(|_| Trouble::malformed("its size is negative"))
}
