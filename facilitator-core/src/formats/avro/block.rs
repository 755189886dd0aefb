//! Blocks of containers, decoded piece by piece: a partner's blocks may be long, and none of ours is held whole.

use std::collections::VecDeque;
use std::io::{BufRead, Read};

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::{Codec, Schema};

use super::bounds::{Bounds, Unwalkable, decompress_snappy};
use super::decoder::{Decoder, WriterSchema};
use super::inflate::Inflating;
use super::reader::{damaged, read_bytes, read_exact};
use super::{Fields, MAX_SNAPPY_BYTES, Record};
use crate::formats::FormatError;

/// The most records of an object: a batch of 400 MB has 2.4 million packets of 16 bins.
const MAX_RECORDS: u64 = 1 << 24;
/// What of a block is read and decoded at a time, in bytes: some 800 packets of 16 bins. A longer record has as much as it
/// needs.
const PIECE_BYTES: usize = 128 << 10;

/// The rest of the block that a reader is in.
#[derive(Debug)]
pub(super) struct Block {
    /// Records that weren't decoded yet.
    records: u64,
    unread: Unread,
    /// Bytes that were read, decompressed.
    bytes: Vec<u8>,
    /// How many of these were decoded.
    decoded: usize,
}

/// What of a block is still in the source.
#[derive(Debug)]
enum Unread {
    /// So many bytes.
    Plain(u64),
    Deflated(Inflating),
}

impl Unread {
    /// How many bytes may still be asked for, decompressed.
    fn at_most(&self) -> u64 {
        match self {
            Self::Plain(bytes) => *bytes,
            Self::Deflated(inflating) => inflating.at_most(),
        }
    }

    /// Appends so many bytes to `out`, or as many as there are left.
    fn read<T: Record>(
        &mut self,
        source: &mut impl BufRead,
        out: &mut Vec<u8>,
        length: usize,
    ) -> Result<(), FormatError> {
        match self {
            Self::Plain(unread) => {
                let (before, length) = (out.len(), length.min(usize::try_from(*unread).unwrap_or(usize::MAX)));
                out.reserve_exact(length);
                out.resize(before + length, 0);
                read_exact::<T>(source, &mut out[before..])?;
                *unread -= length as u64;
                Ok(())
            }
            Self::Deflated(inflating) => inflating.read::<T>(source, out, length),
        }
    }
}

impl Block {
    /// A block that promises `count` records in `size` bytes, of an object that had `before` records before it.
    pub(super) fn begin<T: Record>(
        source: &mut impl Read,
        codec: Codec,
        (count, size): (u64, u64),
        before: u64,
    ) -> Result<Self, FormatError> {
        let (unread, bytes) = match codec {
            Codec::Null => (Unread::Plain(size), Vec::new()),
            Codec::Deflate(_) => (Unread::Deflated(Inflating::new(size)), Vec::new()),
            _ => (Unread::Plain(0), snappy::<T>(source, size)?),
        };
        let block = Self {
            records: count,
            unread,
            bytes,
            decoded: 0,
        };
        // Every record of ours has a field of a byte or more, so that a count beyond the bytes is a lie.
        if count > block.unread.at_most() + block.bytes.len() as u64 {
            return Err(damaged::<T>("a block promises more records than it has bytes"));
        }
        if count > MAX_RECORDS.saturating_sub(before) {
            return Err(FormatError::TooLarge {
                record: T::NAME,
                what: "the number of records",
                limit: MAX_RECORDS,
            });
        }
        Ok(block)
    }

    /// Whether all of its records were decoded.
    pub(super) fn is_over(&self) -> bool {
        self.records == 0
    }

    /// What comes after the last record: the container's sync marker, and nothing before it.
    pub(super) fn end<T: Record>(&mut self, source: &mut impl BufRead, marker: &[u8; 16]) -> Result<(), FormatError> {
        // Whether anything is left of a deflated block is known once more was asked for.
        if self.decoded == self.bytes.len() {
            self.unread.read::<T>(source, &mut self.bytes, 1)?;
        }
        if self.decoded < self.bytes.len() {
            return Err(damaged::<T>("a block has bytes after its last record"));
        }
        let mut found = [0; 16];
        read_exact::<T>(source, &mut found)?;
        if found != *marker {
            return Err(damaged::<T>("a block doesn't end with the container's sync marker"));
        }
        Ok(())
    }

    /// Decodes some records, one at least where one is left; `index` is that of the first in its object.
    pub(super) fn decode<T: Record>(
        &mut self,
        source: &mut impl BufRead,
        schema: &WriterSchema,
        index: u64,
        records: &mut VecDeque<T>,
    ) -> Result<(), FormatError> {
        let (already, mut taken) = (records.len(), 0);
        let mut reader = None;
        while self.records > 0 && taken < PIECE_BYTES {
            let rest = &self.bytes[self.decoded..];
            let index = index + (records.len() - already) as u64;
            match decode_record(schema, &mut reader, rest, index, self.unread.at_most())? {
                Some((record, length)) => {
                    records.push_back(record);
                    self.records -= 1;
                    self.decoded += length;
                    taken += length;
                }
                None if taken > 0 => break,
                None => self.read_on::<T>(source)?,
            }
        }
        Ok(())
    }

    /// Reads another piece, at least as long as what wasn't decoded: a long record isn't begun too often.
    fn read_on<T: Record>(&mut self, source: &mut impl BufRead) -> Result<(), FormatError> {
        self.bytes.drain(..self.decoded);
        self.decoded = 0;
        let more = self.bytes.len().max(PIECE_BYTES);
        self.unread.read::<T>(source, &mut self.bytes, more)
    }
}

/// A block of snappy is held whole.
fn snappy<T: Record>(source: &mut impl Read, size: u64) -> Result<Vec<u8>, FormatError> {
    if size > MAX_SNAPPY_BYTES {
        return Err(FormatError::TooLarge {
            record: T::NAME,
            what: "a block of codec snappy",
            limit: MAX_SNAPPY_BYTES,
        });
    }
    let mut bytes = read_bytes::<T>(source, size)?;
    decompress_snappy::<T>(&mut bytes)?;
    Ok(bytes)
}

/// The first record of these bytes, of whose block others are `unread`, and how many of them it takes; `None`: it isn't whole.
fn decode_record<'a, T: Record>(
    schema: &'a WriterSchema,
    reader: &mut Option<GenericDatumReader<'a>>,
    bytes: &[u8],
    index: u64,
    unread: u64,
) -> Result<Option<(T, usize)>, FormatError> {
    if T::DECODES && schema.ours {
        let mut decoder = Decoder::new(bytes);
        if let Some(record) = T::decode(&mut decoder) {
            return Ok(Some((record, bytes.len() - decoder.rest().len())));
        }
    }
    let wrong = |detail: String| FormatError::Record {
        record: T::NAME,
        index,
        detail,
    };
    let mut bounds = Bounds {
        items: T::MAX_ITEMS,
        unread,
    };
    match bounds.walk(&schema.schema, &mut { bytes }) {
        Ok(()) => {}
        Err(Unwalkable::NotWhole) => return Ok(None),
        Err(Unwalkable::Wrong(detail)) => return Err(wrong(detail.to_owned())),
    }
    let reader = match reader {
        Some(reader) => reader,
        None => reader.insert(reader_of::<T>(&schema.schema)?),
    };
    let mut rest = bytes;
    let value = reader.read_value(&mut rest).map_err(|error| wrong(error.to_string()))?;
    let Value::Record(values) = value else {
        return Err(wrong("it is no Avro record".to_owned()));
    };
    let record = T::from_fields(&mut Fields::new(T::NAME, values))?;
    Ok(Some((record, bytes.len() - rest.len())))
}

fn reader_of<T: Record>(schema: &Schema) -> Result<GenericDatumReader<'_>, FormatError> {
    let reader = GenericDatumReader::builder(schema).build();
    reader.map_err(|error| FormatError::Schema {
        record: T::NAME,
        detail: error.to_string(),
    })
}
