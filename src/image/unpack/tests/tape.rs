//! Writes tar streams, right ones and wrong ones, for tests: every field can be said.

use std::fmt;

/// A tar stream as it's written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tape(Vec<u8>);

/// One entry. What isn't said is a regular file of root's, 0644, at [`MTIME`].
#[derive(Clone)]
pub(crate) struct Item {
    kind: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    mode: u64,
    uid: i64,
    gid: i64,
    mtime: i64,
    device: (i64, i64),
    content: Vec<u8>,
    size: Option<i64>,
    records: Vec<(Vec<u8>, Vec<u8>)>,
    magic: Magic,
    changes: Vec<(usize, Vec<u8>)>,
}

/// Whose header it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Magic {
    Ustar,
    Gnu,
    V7,
}

pub(crate) const MTIME: i64 = 1_700_000_000;

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name, link) = (char::from(self.kind), self.name.escape_ascii(), self.link.escape_ascii());
        let Self { mode, uid, gid, mtime, device, .. } = self;
        write!(f, "{kind} {name} > {link} {mode:o} {uid}:{gid} @{mtime} {device:?}")?;
        write!(f, " {} bytes, {} records", self.content.len(), self.records.len())
    }
}

impl Item {
    pub(crate) fn new(kind: u8, name: impl AsRef<[u8]>) -> Self {
        Self {
            kind,
            name: name.as_ref().to_vec(),
            link: Vec::new(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: MTIME,
            device: (0, 0),
            content: Vec::new(),
            size: None,
            records: Vec::new(),
            magic: Magic::Ustar,
            changes: Vec::new(),
        }
    }

    pub(crate) fn file(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        Self { content: content.as_ref().to_vec(), ..Self::new(b'0', name) }
    }

    pub(crate) fn dir(name: impl AsRef<[u8]>) -> Self {
        Self::new(b'5', name).mode(0o755)
    }

    pub(crate) fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(b'2', name).link(target).mode(0o777)
    }

    pub(crate) fn hard_link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(b'1', name).link(target)
    }

    pub(crate) fn mode(self, mode: u64) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn owner(self, uid: i64, gid: i64) -> Self {
        Self { uid, gid, ..self }
    }

    pub(crate) fn mtime(self, mtime: i64) -> Self {
        Self { mtime, ..self }
    }

    pub(crate) fn link(self, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..self }
    }

    pub(crate) fn device(self, major: i64, minor: i64) -> Self {
        Self { device: (major, minor), ..self }
    }

    pub(crate) fn magic(self, magic: Magic) -> Self {
        Self { magic, ..self }
    }

    /// The size that its header says, whatever its content is.
    pub(crate) fn size(self, size: i64) -> Self {
        Self { size: Some(size), ..self }
    }

    /// A record of a PAX header before it.
    pub(crate) fn record(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.records.push((key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.record(format!("SCHILY.xattr.{name}"), value)
    }

    pub(crate) fn kind(self, kind: u8) -> Self {
        Self { kind, ..self }
    }

    /// Bytes of its header, in place of what they would be; the checksum is right for them.
    pub(crate) fn bytes_at(mut self, offset: usize, bytes: impl AsRef<[u8]>) -> Self {
        self.changes.push((offset, bytes.as_ref().to_vec()));
        self
    }

    fn header(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |offset: usize, len: usize, bytes: &[u8]| {
            let len = bytes.len().min(len);
            block[offset..offset + len].copy_from_slice(&bytes[..len]);
        };
        put(0, 100, &self.name);
        put(100, 8, &number(self.mode.cast_signed(), 8));
        put(108, 8, &number(self.uid, 8));
        put(116, 8, &number(self.gid, 8));
        put(124, 12, &number(self.size.unwrap_or(self.content.len() as i64), 12));
        put(136, 12, &number(self.mtime, 12));
        put(156, 1, &[self.kind]);
        put(157, 100, &self.link);
        match self.magic {
            Magic::V7 => {}
            Magic::Ustar => put(257, 8, b"ustar\x0000"),
            Magic::Gnu => put(257, 8, b"ustar  \0"),
        }
        if self.magic != Magic::V7 {
            put(329, 8, &number(self.device.0, 8));
            put(337, 8, &number(self.device.1, 8));
        }
        for (offset, bytes) in &self.changes {
            put(*offset, bytes.len(), bytes);
        }
        sum(&mut block);
        block
    }
}

impl Tape {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The entries in order, and the end.
    pub(crate) fn of(items: impl IntoIterator<Item = Item>) -> Vec<u8> {
        items.into_iter().fold(Self::new(), Self::item).end()
    }

    /// Adds an entry, with a PAX header where it needs one.
    pub(crate) fn item(self, item: Item) -> Self {
        let mut records = item.records.clone();
        let said = |key: &[u8]| item.records.iter().any(|(own, _)| own == key);
        let ustar = item.magic == Magic::Ustar && !matches!(item.kind, b'x' | b'g' | b'L' | b'K');
        if ustar && item.name.len() > 100 && !said(b"path") {
            records.push((b"path".to_vec(), item.name.clone()));
        }
        if ustar && item.link.len() > 100 && !said(b"linkpath") {
            records.push((b"linkpath".to_vec(), item.link.clone()));
        }
        let tape = if records.is_empty() { self } else { self.records(b'x', &records) };
        tape.raw(item.header()).raw(&item.content).padded()
    }

    /// Adds a header of records: `x` for the next entry, `g` for all.
    pub(crate) fn records(self, kind: u8, records: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let content: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.item(Item { content, ..Item::new(kind, "records") })
    }

    /// Adds GNU's way to say a long name (`L`) or link (`K`).
    pub(crate) fn long(self, kind: u8, text: impl AsRef<[u8]>) -> Self {
        let content = [text.as_ref(), b"\0"].concat();
        self.item(Item { content, ..Item::new(kind, "././@LongLink").magic(Magic::Gnu) })
    }

    /// Adds bytes as they are.
    pub(crate) fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    /// Fills the last block.
    pub(crate) fn padded(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// The stream, with the blocks that end it.
    pub(crate) fn end(self) -> Vec<u8> {
        self.raw([0; 1024]).0
    }

    /// The stream as it is.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.0
    }
}

/// Octal where it fits, else GNU's base 256.
fn number(value: i64, len: usize) -> Vec<u8> {
    let octal = format!("{value:0width$o}\0", width = len - 1);
    if value >= 0 && octal.len() == len {
        return octal.into_bytes();
    }
    let fill = if value < 0 { 0xff } else { 0 };
    let mut bytes = vec![fill; len];
    let value = value.to_be_bytes();
    let shown = value.len().min(len);
    let start = len - shown;
    bytes[start..].copy_from_slice(&value[value.len() - shown..]);
    bytes[0] |= 0x80;
    bytes
}

fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    [format!("{len} ").as_bytes(), key, b"=", value, b"\n"].concat()
}

fn sum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
