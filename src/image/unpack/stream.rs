//! The tar stream, taken apart as it comes: any number of bytes at a time, cut anywhere. What an entry means for the
//! disk is [`Layer`]'s.

use super::entry::{Announced, Entry, Preceding, size};
use super::header::{BLOCK, Format, Header, text};
use super::pax::Records;
use super::sparse::{MapReader, Piece};
use super::trouble::Trouble;

/// Where the entries go.
pub(super) trait Layer {
    /// An entry begins. True where its content is wanted; then [`Self::content`] may follow, and [`Self::end`] does.
    fn begin(&mut self, entry: &Entry) -> Result<bool, Trouble>;

    /// Content of it, in order; what lies between two pieces is zeros.
    fn content(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Trouble>;

    /// It has all its content.
    fn end(&mut self, entry: &Entry) -> Result<(), Trouble>;
}

/// The most that an extended header or a long name may take, in bytes; Go's own limit.
const META_LIMIT: u64 = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Stream {
    state: State,
    /// A block that isn't whole yet.
    block: Box<Partial>,
    before: Preceding,
    /// What stands in an extended header, so far.
    meta: Vec<u8>,
    /// The entry whose content comes.
    entry: Option<Box<Entry>>,
    name: Vec<u8>,
    /// How much of a sparse file's data has come.
    progress: Progress,
    entries: u64,
    headers: u64,
    limit: u64,
}

#[derive(Debug, Default)]
enum State {
    /// A header comes next, or the end.
    #[default]
    Header,
    /// One block of zeros came; a second one ends the archive.
    Ending,
    /// An extended header's own content: its type flag, the bytes left, its padding.
    Meta(Header, u64),
    /// The map of a sparse file, before its content.
    Map(Box<Announced>, MapReader),
    /// Content: bytes left, padding after it; and whether anybody wants it.
    Content {
        left: u64,
        padding: u64,
        wanted: bool,
    },
    Padding(u64),
    /// What follows the end is nobody's.
    End,
}

#[derive(Debug)]
struct Partial {
    bytes: [u8; BLOCK],
    len: usize,
}

impl Default for Partial {
    fn default() -> Self {
        Self { bytes: [0; BLOCK], len: 0 }
    }
}

/// A position in a file's content: how many whole pieces came, and how much of the next one.
#[derive(Debug, Default)]
struct Progress {
    piece: usize,
    within: u64,
}

impl Stream {
    /// A stream of at most `limit` headers, those that announce names and attributes included.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Entries so far.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// The entry that is at work or was the last, for errors.
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Takes the next bytes in.
    pub(super) fn feed(&mut self, mut bytes: &[u8], layer: &mut impl Layer) -> Result<(), Trouble> {
        while !bytes.is_empty() {
            match std::mem::take(&mut self.state) {
                State::End => {
                    self.state = State::End;
                    return Ok(());
                }
                State::Padding(left) => {
                    let taken = take(&mut bytes, left).len() as u64;
                    self.state = padding(left - taken);
                }
                State::Meta(header, left) => {
                    let taken = take(&mut bytes, left);
                    self.meta.extend_from_slice(taken);
                    self.state = State::Meta(header, left - taken.len() as u64);
                    self.meta_done(layer)?;
                }
                State::Content { left, padding, wanted } => {
                    let taken = take(&mut bytes, left);
                    let left = left - taken.len() as u64;
                    self.state = State::Content { left, padding, wanted };
                    if wanted {
                        self.content(taken, layer)?;
                    }
                    self.content_done(layer)?;
                }
                state @ (State::Header | State::Ending | State::Map(..)) => {
                    self.state = state;
                    if let Some(rest) = self.whole_block(bytes, layer)? {
                        bytes = rest;
                    } else {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The stream has ended. Go's reader takes an end without its blocks of zeros, and within padding.
    pub(super) fn finish(&self) -> Result<(), Trouble> {
        let ended = match &self.state {
            State::Header | State::Ending => self.block.len == 0,
            State::Padding(_) | State::End => true,
            State::Meta(..) | State::Map(..) | State::Content { .. } => false,
        };
        if ended {
            Ok(())
        } else {
            Err(Trouble::malformed("the stream ends in the middle of it, or of the header after it"))
        }
    }

    /// Takes a block from `bytes` and says what is left; `None` where all of it isn't a block yet.
    fn whole_block<'a>(
        &mut self,
        bytes: &'a [u8],
        layer: &mut impl Layer,
    ) -> Result<Option<&'a [u8]>, Trouble> {
        if self.block.len == 0
            && let Some((block, rest)) = bytes.split_first_chunk()
        {
            self.take_block(block, layer)?;
            return Ok(Some(rest));
        }
        let (taken, rest) = bytes.split_at(bytes.len().min(BLOCK - self.block.len));
        let end = self.block.len + taken.len();
        self.block.bytes[self.block.len..end].copy_from_slice(taken);
        self.block.len = end;
        if end < BLOCK {
            return Ok(None);
        }
        self.block.len = 0;
        let block = self.block.bytes;
        self.take_block(&block, layer)?;
        Ok(Some(rest))
    }

    fn take_block(&mut self, block: &[u8; BLOCK], layer: &mut impl Layer) -> Result<(), Trouble> {
        match std::mem::take(&mut self.state) {
            State::Map(announced, reader) => self.map_block(announced, reader, block, layer),
            state => {
                let zeros = block == &[0; BLOCK];
                match (matches!(state, State::Ending), zeros) {
                    (false, true) => self.state = State::Ending,
                    (true, true) => self.state = State::End,
                    (true, false) => {
                        return Err(Trouble::malformed("the header after it stands behind a block of zeros"));
                    }
                    (false, false) => {
                        let format = Format::of(block)?;
                        self.name = text(&block[..100]).to_vec();
                        self.header(Header::read(block, format)?, layer)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn header(&mut self, header: Header, layer: &mut impl Layer) -> Result<(), Trouble> {
        self.headers += 1;
        if self.headers > self.limit {
            return Err(Trouble::OverLimit(format!("more than {} entries", self.limit)));
        }
        if let b'x' | b'g' | b'L' | b'K' = header.kind {
            let left = size(header.size)?;
            if left > META_LIMIT {
                let problem = "an extended header or a long name of over 1 MiB";
                return Err(Trouble::OverLimit(problem.to_owned()));
            }
            self.meta.clear();
            self.state = State::Meta(header, left);
            return self.meta_done(layer);
        }
        self.name.clone_from(&header.name);
        let announced = Announced::of(header, std::mem::take(&mut self.before))?;
        if announced.map_first {
            self.state = State::Map(Box::new(announced), MapReader::default());
            return Ok(());
        }
        self.begin(announced, 0, layer)
    }

    /// Keeps what an extended header says, once it's whole.
    fn meta_done(&mut self, layer: &mut impl Layer) -> Result<(), Trouble> {
        let header = match std::mem::take(&mut self.state) {
            State::Meta(header, 0) => header,
            other => {
                self.state = other;
                return Ok(());
            }
        };
        self.state = padding(pad(self.meta.len() as u64));
        match header.kind {
            b'x' => self.before.records = Records::parse(&self.meta)?,
            b'L' => self.before.long_name = Some(text(&self.meta).to_vec()),
            b'K' => self.before.long_link = Some(text(&self.meta).to_vec()),
            // It ends what stood before, as if it were an entry.
            _ => {
                self.before = Preceding::default();
                let global = Announced::global(header, &Records::parse(&self.meta)?)?.entry;
                self.entries += 1;
                self.name.clone_from(&global.name);
                layer.begin(&global)?;
            }
        }
        Ok(())
    }

    fn map_block(
        &mut self,
        mut announced: Box<Announced>,
        mut reader: MapReader,
        block: &[u8; BLOCK],
        layer: &mut impl Layer,
    ) -> Result<(), Trouble> {
        let read = reader.blocks_within(announced.stored).and_then(|()| reader.block(block));
        let Some(map) = read? else {
            self.state = State::Map(announced, reader);
            return Ok(());
        };
        announced.map(&map)?;
        self.begin(*announced, reader.taken(), layer)
    }

    /// `taken` bytes of the content were its map.
    fn begin(&mut self, announced: Announced, taken: u64, layer: &mut impl Layer) -> Result<(), Trouble> {
        let left = announced.stored.saturating_sub(taken);
        let padding = pad(announced.stored);
        self.entries += 1;
        self.progress = Progress::default();
        let entry = &*self.entry.insert(Box::new(announced.entry));
        self.name.clone_from(&entry.name);
        let wanted = layer.begin(entry)?;
        if let (true, Some(pieces)) = (wanted, &entry.pieces) {
            let data: u64 = pieces.iter().map(|piece| piece.len).sum();
            if data != left {
                return Err(Trouble::malformed("its map of a sparse file and its content differ in size"));
            }
        }
        self.state = State::Content { left, padding, wanted };
        self.content_done(layer)
    }

    fn content(&mut self, mut bytes: &[u8], layer: &mut impl Layer) -> Result<(), Trouble> {
        let Some(entry) = &self.entry else { return Ok(()) };
        let Some(pieces) = &entry.pieces else {
            layer.content(self.progress.within, bytes)?;
            self.progress.within += bytes.len() as u64;
            return Ok(());
        };
        while let (false, Some(&Piece { start, len })) = (bytes.is_empty(), pieces.get(self.progress.piece)) {
            let taken = take(&mut bytes, len - self.progress.within);
            layer.content(start + self.progress.within, taken)?;
            self.progress.within += taken.len() as u64;
            if self.progress.within == len {
                self.progress = Progress { piece: self.progress.piece + 1, within: 0 };
            }
        }
        Ok(())
    }

    /// Ends the entry once all of it came.
    fn content_done(&mut self, layer: &mut impl Layer) -> Result<(), Trouble> {
        let State::Content { left: 0, padding: after, wanted } = self.state else { return Ok(()) };
        if let (true, Some(entry)) = (wanted, &self.entry) {
            layer.end(entry)?;
        }
        self.entry = None;
        self.state = padding(after);
        Ok(())
    }
}

fn padding(left: u64) -> State {
    if left == 0 { State::Header } else { State::Padding(left) }
}

/// How many bytes are missing to a whole block.
fn pad(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// Takes at most `limit` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], limit: u64) -> &'a [u8] {
    let len = usize::try_from(limit).unwrap_or(usize::MAX).min(bytes.len());
    let (taken, rest) = bytes.split_at(len);
    *bytes = rest;
    taken
}
