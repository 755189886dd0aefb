//! Little-endian fields, and strings with their length before them.

use std::io::{ErrorKind, Read};

use aws_lc_rs::digest::{Context, SHA256};

use super::{MAX_STRING_BYTES, RecordError};

/// Collects fields.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.raw(&value.to_le_bytes());
    }

    /// A count that is bounded far below 2^32 by what it counts.
    pub(super) fn count32(&mut self, value: usize) {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX));
    }

    pub(super) fn string(&mut self, value: &str) {
        self.count32(value.len());
        self.raw(value.as_bytes());
    }

    pub(super) fn raw(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Hands fields out in order, and hashes what it hands out.
pub(super) struct Reader<R> {
    source: R,
    digest: Context,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            digest: Context::new(&SHA256),
        }
    }

    /// Fills `buffer`, which isn't hashed.
    pub(super) fn fill(&mut self, buffer: &mut [u8], field: &'static str) -> Result<(), RecordError> {
        self.source.read_exact(buffer).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => RecordError::Truncated { field },
            _ => RecordError::Read {
                detail: error.to_string(),
            },
        })
    }

    pub(super) fn hash(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// Takes `length` bytes, of which no more is allocated than comes.
    pub(super) fn take(&mut self, length: usize, field: &'static str) -> Result<Vec<u8>, RecordError> {
        let mut bytes = Vec::new();
        let taken = self.source.by_ref().take(length as u64).read_to_end(&mut bytes);
        taken.map_err(|error| RecordError::Read {
            detail: error.to_string(),
        })?;
        if bytes.len() < length {
            return Err(RecordError::Truncated { field });
        }
        self.hash(&bytes);
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], RecordError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, field)?;
        self.hash(&bytes);
        Ok(bytes)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, RecordError> {
        self.array(field).map(|[value]| value)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, RecordError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, RecordError> {
        self.array(field).map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, RecordError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, RecordError> {
        self.array(field).map(i64::from_le_bytes)
    }

    pub(super) fn string(&mut self, field: &'static str) -> Result<String, RecordError> {
        let length = self.u32(field)? as usize;
        if length > MAX_STRING_BYTES {
            return Err(RecordError::OutOfBounds { field });
        }
        String::from_utf8(self.take(length, field)?).map_err(|_| RecordError::OutOfBounds { field })
    }

    /// SHA-256 of what was hashed so far; from here on it counts for nothing.
    pub(super) fn digest(&mut self) -> [u8; 32] {
        let digest = std::mem::replace(&mut self.digest, Context::new(&SHA256)).finish();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        bytes
    }

    pub(super) fn end(&mut self) -> Result<(), RecordError> {
        match self.fill(&mut [0], "end") {
            Ok(()) => Err(RecordError::Trailing),
            Err(RecordError::Truncated { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
