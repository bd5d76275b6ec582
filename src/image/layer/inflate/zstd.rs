use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use super::{Inflate, InflateError, Step};

/// The largest window, 128 MiB as a power of two: what `zstd -d` takes without being asked, and each layer's memory at
/// worst. containerd has no such limit; layers have 8 MiB at most, unless somebody used `--long`.
const WINDOW_LOG_MAX: u32 = 27;

/// Zstandard (RFC 8878): any number of frames, skippable ones among them.
pub(super) struct Zstd {
    decoder: Decoder<'static>,
    in_frame: bool,
}

impl Zstd {
    pub(super) fn new() -> Result<Self, InflateError> {
        let failed = |error| InflateError(format!("zstd can't start: {error}"));
        let mut decoder = Decoder::new().map_err(failed)?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(failed)?;
        Ok(Self { decoder, in_frame: false })
    }
}

impl Inflate for Zstd {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, InflateError> {
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around(output);
        // It stops at the end of each frame, and wants another call even without input where output is left.
        while input.pos < input.src.len() || self.in_frame {
            let before = (input.pos, output.pos());
            let hint = self
                .decoder
                .run(&mut input, &mut output)
                .map_err(|error| InflateError(format!("corrupt zstd: {error}")))?;
            self.in_frame = hint != 0;
            if before == (input.pos, output.pos()) || output.pos() == output.capacity() {
                break;
            }
        }
        Ok(Step { read: input.pos, written: output.pos() })
    }

    fn end(&self) -> Result<(), InflateError> {
        if self.in_frame { Err(InflateError("the zstd stream is cut short".to_owned())) } else { Ok(()) }
    }
}
