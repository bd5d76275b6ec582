use super::header::MAGIC as GZIP_MAGIC;
use super::{Compression, Inflate, InflateError, Step, inflate};

const ZSTD_MAGIC: u32 = 0xfd2f_b528;

/// Skippable frames have sixteen magics in a row (RFC 8878, section 3.1.2).
const ZSTD_SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184d_2a50..=0x184d_2a5f;

/// So many bytes tell one kind from another.
const ENOUGH: usize = 4;

/// Decompresses what the stream's first bytes say it is. containerd goes by them as soon as the media type names any
/// compression, so layers exist whose type is wrong; an uncompressed one is taken at its word.
pub(in super::super) struct Detect {
    first: [u8; ENOUGH],
    len: usize,
    /// How much of `first` the decompressor has taken in.
    taken: usize,
    found: Option<(Compression, Box<dyn Inflate>)>,
}

impl Detect {
    /// # Errors
    /// When there is no memory for a decompressor.
    pub(in super::super) fn new(said: Compression) -> Result<Self, InflateError> {
        let found = match said {
            Compression::Plain => Some((said, inflate(said)?)),
            Compression::Gzip | Compression::Zstd => None,
        };
        Ok(Self { first: [0; ENOUGH], len: 0, taken: 0, found })
    }

    /// Says that no input follows, which decides about a stream of a few bytes.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(in super::super) fn no_more(&mut self) -> Result<(), InflateError> {
        if self.found.is_none() {
            let found = by_magic(&self.first[..self.len]);
            self.found = Some((found, inflate(found)?));
        }
        Ok(())
    }
}

fn by_magic(first: &[u8]) -> Compression {
    if first.starts_with(&GZIP_MAGIC) {
        return Compression::Gzip;
    }
    match first.first_chunk().map(|magic| u32::from_le_bytes(*magic)) {
        Some(magic) if magic == ZSTD_MAGIC || ZSTD_SKIPPABLE.contains(&magic) => Compression::Zstd,
        _ => Compression::Plain,
    }
}

impl Inflate for Detect {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, InflateError> {
        let mut step = Step::default();
        if self.found.is_none() {
            step.read = input.len().min(ENOUGH - self.len);
            self.first[self.len..self.len + step.read].copy_from_slice(&input[..step.read]);
            self.len += step.read;
            if self.len == ENOUGH {
                self.no_more()?;
            }
        }
        let Some((_, inflate)) = &mut self.found else { return Ok(step) };
        while self.taken < self.len && step.written < output.len() {
            let first = inflate.step(&self.first[self.taken..self.len], &mut output[step.written..])?;
            self.taken += first.read;
            step.written += first.written;
            if first == Step::default() {
                break;
            }
        }
        if self.taken == self.len && step.written < output.len() {
            let rest = inflate.step(&input[step.read..], &mut output[step.written..])?;
            step.read += rest.read;
            step.written += rest.written;
        }
        Ok(step)
    }

    fn end(&self) -> Result<(), InflateError> {
        self.found.as_ref().map_or(Ok(()), |(_, inflate)| inflate.end())
    }
}
