use super::header::{Header, Parsed};
use super::raw::RawInflate;
use super::{Inflate, InflateError, Step};

/// gzip (RFC 1952): any number of members, each with its checksum and length checked.
///
/// What follows the last member and doesn't begin like another one is ignored, be it padding or garbage. igzip and
/// unpigz do so too, which containerd prefers where they are installed; without them it refuses such a layer. An
/// incomplete header at the end is ignored as unpigz ignores it. Both digests still have to be right.
pub(super) struct Gzip {
    raw: RawInflate,
    at: At,
    members: u64,
}

enum At {
    Header(Header),
    Body,
    Trailing,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self { raw: RawInflate::new(), at: At::Header(Header::START), members: 0 }
    }
}

impl Inflate for Gzip {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, InflateError> {
        let mut step = Step::default();
        loop {
            match &mut self.at {
                At::Trailing => return Ok(Step { read: input.len(), ..step }),
                At::Header(header) => {
                    let (read, parsed) = header.take(&input[step.read..]);
                    step.read += read;
                    match parsed {
                        Parsed::More => return Ok(step),
                        Parsed::Whole => self.at = At::Body,
                        Parsed::Other if self.members > 0 => self.at = At::Trailing,
                        Parsed::Other => return Err(InflateError("it isn't gzip".to_owned())),
                    }
                }
                At::Body => {
                    let part = self.raw.step(&input[step.read..], &mut output[step.written..])?;
                    step.read += part.read;
                    step.written += part.written;
                    if !self.raw.is_finished() {
                        return Ok(step);
                    }
                    self.raw.reset();
                    self.members += 1;
                    self.at = At::Header(Header::START);
                }
            }
        }
    }

    fn end(&self) -> Result<(), InflateError> {
        match self.at {
            At::Body => Err(InflateError("the gzip stream is cut short".to_owned())),
            At::Header(_) if self.members == 0 => {
                Err(InflateError("the gzip header is cut short".to_owned()))
            }
            At::Header(_) | At::Trailing => Ok(()),
        }
    }
}
