//! Reading containers: our frame, apache-avro's schemas. What is in their blocks: `block.rs`.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use apache_avro::{Codec, Schema};

use super::block::Block;
use super::decoder::{WriterSchema, schema_of};
use super::{MAX_BLOCK_BYTES, Record, bounds};
use crate::formats::FormatError;

/// The container's metadata; ours has 1.5 KiB.
const MAX_METADATA_BYTES: u64 = 64 << 10;
/// What an entry of the metadata costs besides its length, so that a million empty ones don't pass.
const ENTRY_BYTES: u64 = 16;
/// What apache-avro may allocate for one value: inline packets of a single-object validation (an object of 1 GiB).
const MAX_ALLOCATION_BYTES: usize = 1 << 30;

/// Reads the records of a container one after another; no bytes at all are no records.
///
/// Stops after the first error.
#[derive(Debug)]
pub struct RecordReader<R, T> {
    source: BufReader<R>,
    container: Option<Container>,
    /// The block that was begun and not left.
    block: Option<Block>,
    failed: bool,
    max_block: u64,
    /// The object must hold one record alone: a block of more isn't looked into.
    only_one: bool,
    decoded: VecDeque<T>,
    index: u64,
    record: PhantomData<T>,
}

#[derive(Debug)]
struct Container {
    schema: Arc<WriterSchema>,
    codec: Codec,
    marker: [u8; 16],
}

impl<R: Read, T: Record> RecordReader<R, T> {
    /// Reads from `source`, of which blocks of at most [`MAX_BLOCK_BYTES`] are taken.
    pub fn new(source: R) -> Self {
        Self::with_block_limit(source, MAX_BLOCK_BYTES)
    }

    fn with_block_limit(source: R, max_block: u64) -> Self {
        Self {
            source: BufReader::new(source),
            container: None,
            block: None,
            failed: false,
            max_block,
            only_one: false,
            decoded: VecDeque::new(),
            index: 0,
            record: PhantomData,
        }
    }

    fn next_record(&mut self) -> Result<Option<T>, FormatError> {
        loop {
            if let Some(record) = self.decoded.pop_front() {
                self.index += 1;
                return Ok(Some(record));
            }
            let Some(container) = &self.container else {
                if at_end::<T>(&mut self.source)? {
                    return Ok(None);
                }
                self.container = Some(read_header::<T>(&mut self.source)?);
                continue;
            };
            match &mut self.block {
                Some(block) if block.is_over() => {
                    block.end::<T>(&mut self.source, &container.marker)?;
                    self.block = None;
                }
                Some(block) => {
                    block.decode(&mut self.source, &container.schema, self.index, &mut self.decoded)?;
                }
                None if at_end::<T>(&mut self.source)? => return Ok(None),
                None => {
                    let codec = container.codec;
                    self.block = Some(self.begin_block(codec)?);
                }
            }
        }
    }

    fn begin_block(&mut self, codec: Codec) -> Result<Block, FormatError> {
        let count = read_long::<T>(&mut self.source)?;
        let size = read_long::<T>(&mut self.source)?;
        let (Ok(count), Ok(size)) = (u64::try_from(count), u64::try_from(size)) else {
            return Err(damaged::<T>("a block has a negative length"));
        };
        if self.only_one && count.saturating_add(self.index) > 1 {
            return Err(FormatError::ExtraRecord { record: T::NAME });
        }
        if size > self.max_block {
            return Err(FormatError::TooLarge {
                record: T::NAME,
                what: "a block",
                limit: self.max_block,
            });
        }
        Block::begin::<T>(&mut self.source, codec, (count, size), self.index)
    }
}

impl<R: Read, T: Record> Iterator for RecordReader<R, T> {
    type Item = Result<T, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.next_record();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// Reads the only record of an object.
///
/// # Errors
/// [`FormatError::NoRecord`] and [`FormatError::ExtraRecord`] besides what is wrong with the container or the record.
pub fn read_one<T: Record>(bytes: &[u8]) -> Result<T, FormatError> {
    let mut records = RecordReader::<_, T>::with_block_limit(bytes, bytes.len() as u64);
    records.only_one = true;
    let record = records
        .next()
        .unwrap_or(Err(FormatError::NoRecord { record: T::NAME }))?;
    match records.next() {
        None => Ok(record),
        Some(Ok(_)) => Err(FormatError::ExtraRecord { record: T::NAME }),
        Some(Err(error)) => Err(error),
    }
}

/// Reads all records of an object; 0 bytes hold none.
///
/// # Errors
/// [`FormatError`] of the first record that can't be read.
pub fn read_all<T: Record>(bytes: &[u8]) -> Result<Vec<T>, FormatError> {
    RecordReader::with_block_limit(bytes, bytes.len() as u64).collect()
}

pub(super) fn at_end<T: Record>(source: &mut impl BufRead) -> Result<bool, FormatError> {
    loop {
        match source.fill_buf() {
            Ok(buffer) => return Ok(buffer.is_empty()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(read_failed::<T>(error)),
        }
    }
}

pub(super) fn read_failed<T: Record>(source: std::io::Error) -> FormatError {
    FormatError::Read {
        record: T::NAME,
        source,
    }
}

pub(super) fn damaged<T: Record>(detail: &str) -> FormatError {
    FormatError::Container {
        record: T::NAME,
        detail: detail.to_owned(),
    }
}

pub(super) fn read_exact<T: Record>(source: &mut impl Read, buffer: &mut [u8]) -> Result<(), FormatError> {
    source.read_exact(buffer).map_err(|source| match source.kind() {
        ErrorKind::UnexpectedEof => damaged::<T>("it ends too early"),
        _ => read_failed::<T>(source),
    })
}

/// Reads `size` bytes, of which no more is allocated than comes.
pub(super) fn read_bytes<T: Record>(source: &mut impl Read, size: u64) -> Result<Vec<u8>, FormatError> {
    let mut bytes = Vec::new();
    source.take(size).read_to_end(&mut bytes).map_err(read_failed::<T>)?;
    if bytes.len() as u64 != size {
        return Err(damaged::<T>("it ends too early"));
    }
    Ok(bytes)
}

/// Avro's long: a zig-zag number in at most ten groups of seven bits.
fn read_long<T: Record>(source: &mut impl Read) -> Result<i64, FormatError> {
    let mut zigzag = 0_u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        read_exact::<T>(source, &mut byte)?;
        zigzag |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
        }
    }
    Err(damaged::<T>("a number is longer than 64 bits"))
}

fn read_header<T: Record>(source: &mut impl Read) -> Result<Container, FormatError> {
    let mut magic = [0; 4];
    read_exact::<T>(source, &mut magic)?;
    if &magic != b"Obj\x01" {
        return Err(damaged::<T>("it doesn't begin with `Obj1`"));
    }
    let (mut schema, mut codec) = (None, None);
    let mut budget = MAX_METADATA_BYTES;
    loop {
        let mut entries = read_long::<T>(source)?;
        if entries == 0 {
            break;
        }
        if entries < 0 {
            // A negative count is followed by the size of the entries, which we don't need.
            entries = entries.saturating_neg();
            read_long::<T>(source)?;
        }
        for _ in 0..entries {
            let key = read_entry::<T>(source, &mut budget)?;
            if str::from_utf8(&key).is_err() {
                return Err(damaged::<T>("its metadata has a key that isn't UTF-8"));
            }
            let value = read_entry::<T>(source, &mut budget)?;
            match key.as_slice() {
                b"avro.schema" => schema = Some(value),
                b"avro.codec" => codec = Some(value),
                _ => {}
            }
        }
    }
    let mut marker = [0; 16];
    read_exact::<T>(source, &mut marker)?;
    let schema = schema.ok_or_else(|| damaged::<T>("it holds no schema"))?;
    Ok(Container {
        schema: schema_of::<T, _>(&schema, parse_schema::<T>)?,
        codec: parse_codec::<T>(codec)?,
        marker,
    })
}

fn read_entry<T: Record>(source: &mut impl Read, budget: &mut u64) -> Result<Vec<u8>, FormatError> {
    let size =
        u64::try_from(read_long::<T>(source)?).map_err(|_| damaged::<T>("its metadata has a negative length"))?;
    let cost = size.saturating_add(ENTRY_BYTES);
    *budget = budget.checked_sub(cost).ok_or(FormatError::TooLarge {
        record: T::NAME,
        what: "the container's metadata",
        limit: MAX_METADATA_BYTES,
    })?;
    read_bytes::<T>(source, size)
}

fn parse_codec<T: Record>(codec: Option<Vec<u8>>) -> Result<Codec, FormatError> {
    let Some(codec) = codec else { return Ok(Codec::Null) };
    let name = String::from_utf8_lossy(&codec).into_owned();
    let known = matches!(name.as_str(), "null" | "deflate" | "snappy");
    Codec::from_str(&name).ok().filter(|_| known).ok_or(FormatError::Codec {
        record: T::NAME,
        codec: name,
    })
}

fn parse_schema<T: Record>(text: &[u8]) -> Result<Schema, FormatError> {
    apache_avro::util::max_allocation_bytes(MAX_ALLOCATION_BYTES);
    let wrong = |detail: String| FormatError::Schema {
        record: T::NAME,
        detail,
    };
    let text = std::str::from_utf8(text).map_err(|error| wrong(error.to_string()))?;
    let schema = Schema::parse_str(text).map_err(|error| wrong(error.to_string()))?;
    let Schema::Record(record) = &schema else {
        return Err(wrong("it is no record".to_owned()));
    };
    bounds::check_schema(&schema).map_err(|detail| wrong(detail.to_owned()))?;
    for field in &record.fields {
        // The original's non-standard form: the logical type beside the field's type.
        let logical = field
            .custom_attributes
            .get("logicalType")
            .and_then(|value| value.as_str());
        if logical.is_some_and(|logical| logical.starts_with("timestamp-") && logical != "timestamp-millis") {
            return Err(wrong(format!("field {:?}: times are in milliseconds here", field.name)));
        }
    }
    Ok(schema)
}
