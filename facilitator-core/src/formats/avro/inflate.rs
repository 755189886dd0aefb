//! A deflated block, inflated piece by piece, to no more than it can honestly have been.
//!
//! What is said of a bad block doesn't depend on the pieces in which it comes: all that it has before its fault is given out
//! first.

use std::fmt;
use std::io::BufRead;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::bounds::{cant_be_decompressed, decompressed_limit, decompressed_too_large};
use super::reader::{at_end, read_failed};
use super::{MAX_VALUE_BYTES, Record};
use crate::formats::FormatError;

/// How far back deflated bytes may point.
const WINDOW_BYTES: usize = 32 << 10;
/// The window, and what is inflated after it at a time.
const BUFFER_BYTES: usize = 4 * WINDOW_BYTES;

/// What of a deflated block wasn't inflated yet.
pub(super) struct Inflating {
    state: Box<DecompressorOxide>,
    /// Deflated bytes that are still in the source.
    unread: u64,
    /// The most bytes of the whole, inflated.
    limit: u64,
    given_out: u64,
    /// Inflated bytes, which further ones may point back to; up to `given` they were given out.
    buffer: Vec<u8>,
    given: usize,
    inflated: usize,
    end: Option<End>,
}

/// How inflating ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    TooEarly,
    Wrong,
}

impl fmt::Debug for Inflating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflating")
            .field("unread", &self.unread)
            .field("limit", &self.limit)
            .field("given_out", &self.given_out)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Inflating {
    /// A block of `size` bytes, deflated.
    pub(super) fn new(size: u64) -> Self {
        Self {
            state: Box::default(),
            unread: size,
            limit: decompressed_limit(size),
            given_out: 0,
            buffer: vec![0; BUFFER_BYTES],
            given: 0,
            inflated: 0,
            end: None,
        }
    }

    /// The most bytes that may still be asked for, inflated; 0 once it is known that none come.
    pub(super) fn at_most(&self) -> u64 {
        match self.end {
            Some(End::Whole) => (self.inflated - self.given) as u64,
            // A record that goes on beyond what is allowed is asked for, and refused for that.
            _ => self.limit - self.given_out + MAX_VALUE_BYTES as u64,
        }
    }

    /// Fills `out`, or as much of it as there is left; how much that is.
    ///
    /// # Errors
    /// Where nothing is left before it: [`FormatError::TooLarge`] beyond the limit, [`FormatError::Container`] of what can't be
    /// inflated.
    pub(super) fn read<T: Record>(&mut self, source: &mut impl BufRead, out: &mut [u8]) -> Result<usize, FormatError> {
        let mut written = 0;
        while written < out.len() {
            let allowed = usize::try_from(self.limit - self.given_out).unwrap_or(usize::MAX);
            let there = &self.buffer[self.given..self.inflated];
            let length = there.len().min(out.len() - written).min(allowed);
            out[written..written + length].copy_from_slice(&there[..length]);
            written += length;
            self.given += length;
            self.given_out += length as u64;
            if written == out.len() {
                break;
            }
            let fault = match self.end {
                _ if length == allowed && self.inflated > self.given => Some(decompressed_too_large::<T>(self.limit)),
                None => None,
                Some(End::Whole) => break,
                Some(End::TooEarly) => Some(cant_be_decompressed::<T>("it ends too early")),
                Some(End::Wrong) => Some(cant_be_decompressed::<T>("it is no deflated data")),
            };
            match fault {
                Some(_) if written > 0 => break,
                Some(fault) => return Err(fault),
                None => self.inflate::<T>(source)?,
            }
        }
        Ok(written)
    }

    /// Inflates what comes next of the source, once all was given out.
    fn inflate<T: Record>(&mut self, source: &mut impl BufRead) -> Result<(), FormatError> {
        if self.inflated == BUFFER_BYTES {
            self.buffer.copy_within(BUFFER_BYTES - WINDOW_BYTES.., 0);
            (self.given, self.inflated) = (WINDOW_BYTES, WINDOW_BYTES);
        }
        let at_end = self.unread == 0 || at_end::<T>(source)?;
        let there: &[u8] = match at_end {
            true => &[],
            false => source.fill_buf().map_err(read_failed::<T>)?,
        };
        let there = &there[..there.len().min(usize::try_from(self.unread).unwrap_or(usize::MAX))];
        // A buffer that doesn't wrap has nothing before its first byte, and what points there is refused.
        let flags = TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, read, inflated) = decompress(&mut self.state, there, &mut self.buffer, self.inflated, flags);
        self.inflated += inflated;
        self.unread -= read as u64;
        source.consume(read);
        self.end = match status {
            TINFLStatus::Done => {
                self.pass_over_rest::<T>(source)?;
                Some(End::Whole)
            }
            TINFLStatus::NeedsMoreInput if at_end => Some(End::TooEarly),
            TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => None,
            _ => Some(End::Wrong),
        };
        Ok(())
    }

    /// Passes over what follows the deflated data in its block, as others do.
    fn pass_over_rest<T: Record>(&mut self, source: &mut impl BufRead) -> Result<(), FormatError> {
        while self.unread > 0 {
            if at_end::<T>(source)? {
                // The container's marker will be missed.
                break;
            }
            let there = source.fill_buf().map_err(read_failed::<T>)?.len();
            let passed = there.min(usize::try_from(self.unread).unwrap_or(usize::MAX));
            source.consume(passed);
            self.unread -= passed as u64;
        }
        Ok(())
    }
}
