//! DEFLATE (RFC 1951) by ISA-L, through its raw bindings: the only unsafe code of the image path. It keeps no pointer
//! beyond a call.
#![allow(unsafe_code, reason = "ISA-L is C")]

use isal::isal_sys::igzip_lib as sys;

use super::{InflateError, Step};

/// The decoder of one gzip member's body and trailer: CRC-32 and length are checked against the trailer (RFC 1952,
/// section 2.3.1). The header isn't its business: ISA-L forgets half of one that is cut in two.
pub(super) struct RawInflate {
    /// Some 90 KB, and always the same memory.
    state: Box<sys::inflate_state>,
}

impl RawInflate {
    pub(super) fn new() -> Self {
        // SAFETY: `inflate_state` is plain C data: integers, arrays of them, a union of integers, and two raw pointers.
        // All zeros is a value of each.
        let mut state = unsafe { Box::<sys::inflate_state>::new_zeroed().assume_init() };
        // SAFETY: the pointer is to a whole `inflate_state` that nobody else has.
        unsafe { sys::isal_inflate_init(&raw mut *state) };
        state.crc_flag = sys::ISAL_GZIP_NO_HDR_VER;
        Self { state }
    }

    /// Goes on to the next member.
    pub(super) fn reset(&mut self) {
        // SAFETY: as in `new`. It leaves `crc_flag` as it is.
        unsafe { sys::isal_inflate_reset(&raw mut *self.state) };
    }

    /// Inflates until `input` is used up, `output` is full, or the member has ended, its trailer included. What doesn't
    /// fit into `output` is kept, and comes first the next time.
    ///
    /// # Errors
    /// When the bytes are no DEFLATE stream, or the trailer contradicts what came out.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, InflateError> {
        // Both are far below 4 GiB; were they not, the rest would be left for the next call.
        let input_len = u32::try_from(input.len()).unwrap_or(u32::MAX);
        let output_len = u32::try_from(output.len()).unwrap_or(u32::MAX);
        // ISA-L takes its input as *mut and doesn't write to it.
        self.state.next_in = input.as_ptr().cast_mut();
        self.state.avail_in = input_len;
        self.state.next_out = output.as_mut_ptr();
        self.state.avail_out = output_len;
        // SAFETY: `next_in` and `next_out` point to at least `avail_in` and `avail_out` bytes, which live until the call
        // returns and don't overlap, as one is borrowed mutably. The state was initialised and isn't shared.
        let code = unsafe { sys::isal_inflate(&raw mut *self.state) };
        self.state.next_in = std::ptr::null_mut();
        self.state.next_out = std::ptr::null_mut();
        let problem = match code {
            0 => {
                return Ok(Step {
                    read: input_len.saturating_sub(self.state.avail_in) as usize,
                    written: output_len.saturating_sub(self.state.avail_out) as usize,
                });
            }
            sys::ISAL_INVALID_BLOCK => "a block with an impossible header",
            sys::ISAL_INVALID_SYMBOL => "a symbol that stands for nothing",
            sys::ISAL_INVALID_LOOKBACK => "a reference to before the beginning",
            sys::ISAL_INCORRECT_CHECKSUM => "the CRC-32 or length in its trailer is wrong",
            other => return Err(InflateError(format!("corrupt gzip (ISA-L's code {other})"))),
        };
        Err(InflateError(format!("corrupt gzip: {problem}")))
    }

    /// Whether the member has ended, its trailer included.
    pub(super) fn is_finished(&self) -> bool {
        self.state.block_state == sys::isal_block_state_ISAL_BLOCK_FINISH
    }
}
