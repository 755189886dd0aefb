//! A deflated block, inflated piece by piece, to no more than it can honestly have been.

use std::fmt;
use std::io::BufRead;

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use super::Record;
use super::bounds::{cant_be_decompressed, decompressed_limit, decompressed_too_large};
use super::reader::{at_end, read_failed};
use crate::formats::FormatError;

/// What of a deflated block wasn't inflated yet.
pub(super) struct Inflating {
    state: Box<InflateState>,
    /// Deflated bytes that are still in the source.
    unread: u64,
    /// The most bytes of the whole, inflated.
    limit: u64,
    inflated: u64,
    is_over: bool,
}

impl fmt::Debug for Inflating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflating")
            .field("unread", &self.unread)
            .field("limit", &self.limit)
            .field("inflated", &self.inflated)
            .finish_non_exhaustive()
    }
}

impl Inflating {
    /// A block of `size` bytes, deflated.
    pub(super) fn new(size: u64) -> Self {
        Self {
            state: InflateState::new_boxed(DataFormat::Raw),
            unread: size,
            limit: decompressed_limit(size),
            inflated: 0,
            is_over: false,
        }
    }

    /// The most bytes that may still come, inflated; 0 once it is known that none do.
    pub(super) fn at_most(&self) -> u64 {
        if self.is_over {
            0
        } else {
            self.limit - self.inflated + 1
        }
    }

    /// Fills `out`, or as much of it as there is left; how much that is.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] beyond the limit, [`FormatError::Container`] of what can't be inflated.
    pub(super) fn read<T: Record>(&mut self, source: &mut impl BufRead, out: &mut [u8]) -> Result<usize, FormatError> {
        let mut written = 0;
        while written < out.len() && !self.is_over {
            let there: &[u8] = if self.unread == 0 {
                &[]
            } else if at_end::<T>(source)? {
                return Err(cant_be_decompressed::<T>("it ends too early"));
            } else {
                source.fill_buf().map_err(read_failed::<T>)?
            };
            let there = &there[..there.len().min(usize::try_from(self.unread).unwrap_or(usize::MAX))];
            let inflated = inflate(&mut self.state, there, &mut out[written..], MZFlush::None);
            self.unread -= inflated.bytes_consumed as u64;
            source.consume(inflated.bytes_consumed);
            written += inflated.bytes_written;
            self.inflated += inflated.bytes_written as u64;
            if self.inflated > self.limit {
                return Err(decompressed_too_large::<T>(self.limit));
            }
            match inflated.status {
                Ok(MZStatus::StreamEnd) => self.end::<T>(source)?,
                Ok(_) => {}
                Err(MZError::Buf) => return Err(cant_be_decompressed::<T>("it ends too early")),
                Err(_) => return Err(cant_be_decompressed::<T>("it is no deflated data")),
            }
        }
        Ok(written)
    }

    /// Passes over what follows the deflated data in its block, as others do.
    fn end<T: Record>(&mut self, source: &mut impl BufRead) -> Result<(), FormatError> {
        self.is_over = true;
        while self.unread > 0 {
            if at_end::<T>(source)? {
                return Err(cant_be_decompressed::<T>("it ends too early"));
            }
            let there = source.fill_buf().map_err(read_failed::<T>)?.len();
            let passed = there.min(usize::try_from(self.unread).unwrap_or(usize::MAX));
            source.consume(passed);
            self.unread -= passed as u64;
        }
        Ok(())
    }
}
