//! A deflated block, inflated piece by piece, to no more than it can honestly have been.
//!
//! What is said of a bad block doesn't depend on the pieces in which it comes: all that it has before its fault is given out
//! first.

use std::fmt;
use std::io::{self, BufRead, Read};

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::bounds::{cant_be_decompressed, decompressed_limit, decompressed_too_large};
use super::reader::{at_end, read_failed};
use super::{MAX_VALUE_BYTES, Record};
use crate::formats::FormatError;

/// How far back deflated bytes may point.
const WINDOW_BYTES: usize = 32 << 10;
/// What is held of a long block: the window, and what is inflated after it at a time.
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
    /// Whoever read the block was told that nothing is left.
    is_over: bool,
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
            // A short one needs no more.
            buffer: vec![
                0;
                usize::try_from(size.saturating_mul(4))
                    .unwrap_or(BUFFER_BYTES)
                    .clamp(1 << 10, BUFFER_BYTES)
            ],
            given: 0,
            inflated: 0,
            end: None,
            is_over: false,
        }
    }

    /// How many bytes may be asked for; 0 once it was told that nothing is left. A record that goes on beyond the limit is
    /// asked for as far as any may go, and refused for the limit.
    pub(super) fn at_most(&self) -> u64 {
        match self.is_over {
            true => 0,
            false => self.allowed() + MAX_VALUE_BYTES as u64,
        }
    }

    /// Appends so many bytes to `out`, or as many as there are left.
    ///
    /// # Errors
    /// Where nothing is left before it: [`FormatError::TooLarge`] beyond the limit, [`FormatError::Container`] of what can't be
    /// inflated.
    pub(super) fn read<T: Record>(
        &mut self,
        source: &mut impl BufRead,
        out: &mut Vec<u8>,
        length: usize,
    ) -> Result<(), FormatError> {
        let (start, end) = (out.len(), out.len() + length);
        loop {
            self.give(out, end);
            if out.len() == end {
                return Ok(());
            }
            match self.fault::<T>() {
                // What comes before it is looked at first.
                Some(_) if out.len() > start => return Ok(()),
                Some(fault) => return Err(fault),
                None if self.end == Some(End::Whole) => {
                    self.is_over = true;
                    return Ok(());
                }
                None => self.inflate::<T>(source)?,
            }
        }
    }

    fn allowed(&self) -> u64 {
        self.limit - self.given_out
    }

    /// Gives out what is at hand, until `out` has so many bytes.
    fn give(&mut self, out: &mut Vec<u8>, end: usize) {
        let allowed = usize::try_from(self.allowed()).unwrap_or(usize::MAX);
        let length = (self.inflated - self.given).min(end - out.len()).min(allowed);
        out.extend_from_slice(&self.buffer[self.given..self.given + length]);
        self.given += length;
        self.given_out += length as u64;
    }

    /// Why no more is given out, if anything is wrong.
    fn fault<T: Record>(&self) -> Option<FormatError> {
        if self.inflated > self.given {
            return Some(decompressed_too_large::<T>(self.limit));
        }
        match self.end {
            None | Some(End::Whole) => None,
            Some(End::TooEarly) => Some(cant_be_decompressed::<T>("it ends too early")),
            Some(End::Wrong) => Some(cant_be_decompressed::<T>("it is no deflated data")),
        }
    }

    /// Inflates what comes next of the source, once all was given out.
    fn inflate<T: Record>(&mut self, source: &mut impl BufRead) -> Result<(), FormatError> {
        match self.buffer.len() {
            full if self.inflated < full => {}
            BUFFER_BYTES => {
                self.buffer.copy_within(BUFFER_BYTES - WINDOW_BYTES.., 0);
                (self.given, self.inflated) = (WINDOW_BYTES, WINDOW_BYTES);
            }
            short => self.buffer.resize(BUFFER_BYTES.min(4 * short), 0),
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

    /// Passes over what follows the deflated data in its block, as others do. Where that isn't whole, the container's marker
    /// will be missed.
    fn pass_over_rest<T: Record>(&mut self, source: &mut impl BufRead) -> Result<(), FormatError> {
        io::copy(&mut source.take(self.unread), &mut io::sink()).map_err(read_failed::<T>)?;
        self.unread = 0;
        Ok(())
    }
}

#[cfg(test)]
#[path = "inflate_tests.rs"]
mod tests;
