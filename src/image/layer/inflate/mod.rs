//! Compressed bytes in, the tar stream out, both in pieces of any length. No threads, no digests.

mod detect;
mod gzip;
mod header;
mod raw;
mod zstd;

use self::gzip::Gzip;
use self::zstd::Zstd;
use super::Compression;
pub(super) use detect::Detect;

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Step {
    /// Bytes of the input that are done with.
    pub(super) read: usize,
    /// Bytes of the output that are filled.
    pub(super) written: usize,
}

/// What is wrong with a compressed stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InflateError(pub(super) String);

/// A decompressor.
pub(super) trait Inflate {
    /// Goes on until `input` is used up or `output`, which isn't empty, is full. After the latter there can be more to
    /// come, also without input.
    ///
    /// # Errors
    /// When the stream is corrupt. It isn't used again then.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, InflateError>;

    /// Whether the stream may end here.
    ///
    /// # Errors
    /// When something is missing.
    fn end(&self) -> Result<(), InflateError>;
}

/// The decompressor for a stream of this kind.
///
/// # Errors
/// When there is no memory for it.
fn inflate(compression: Compression) -> Result<Box<dyn Inflate>, InflateError> {
    Ok(match compression {
        Compression::Plain => Box::new(Plain),
        Compression::Gzip => Box::new(Gzip::new()),
        Compression::Zstd => Box::new(Zstd::new()?),
    })
}

/// No compression.
struct Plain;

impl Inflate for Plain {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, InflateError> {
        let len = input.len().min(output.len());
        output[..len].copy_from_slice(&input[..len]);
        Ok(Step { read: len, written: len })
    }

    fn end(&self) -> Result<(), InflateError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
