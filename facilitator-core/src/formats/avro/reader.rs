//! Reading containers: our frame, apache-avro's schemas, codecs and values.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::{Codec, Schema};

use super::decoder::{WriterSchema, decode_block, schema_of};
use super::{Fields, MAX_BLOCK_BYTES, Record, bounds};
use crate::formats::FormatError;

/// The container's metadata; ours has 1.5 KiB.
const MAX_METADATA_BYTES: u64 = 64 << 10;
/// The most records of an object: a batch of 400 MB has 2.4 million packets of 16 bins.
const MAX_RECORDS: u64 = 1 << 24;
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
    started: bool,
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
            started: false,
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
                return Ok(Some(record));
            }
            if self.at_end()? {
                return Ok(None);
            }
            if !self.started {
                self.started = true;
                self.container = Some(read_header::<T>(&mut self.source)?);
                continue;
            }
            self.read_block()?;
        }
    }

    fn at_end(&mut self) -> Result<bool, FormatError> {
        loop {
            match self.source.fill_buf() {
                Ok(buffer) => return Ok(buffer.is_empty()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(FormatError::Read {
                        record: T::NAME,
                        source,
                    });
                }
            }
        }
    }

    fn read_block(&mut self) -> Result<(), FormatError> {
        let Some(container) = &self.container else {
            return Ok(());
        };
        let count = read_long::<T>(&mut self.source)?;
        let size = read_long::<T>(&mut self.source)?;
        let (Ok(count), Ok(size)) = (u64::try_from(count), u64::try_from(size)) else {
            return Err(damaged::<T>("a block has a negative length"));
        };
        if self.only_one && count.saturating_add(self.index) > 1 {
            return Err(FormatError::ExtraRecord { record: T::NAME });
        }
        let mut block = read_bytes::<T>(&mut self.source, size, self.max_block, "a block")?;
        let mut marker = [0; 16];
        read_exact::<T>(&mut self.source, &mut marker)?;
        if marker != container.marker {
            return Err(damaged::<T>("a block doesn't end with the container's sync marker"));
        }
        bounds::decompress::<T>(container.codec, &mut block)?;
        // Every record of ours has a field of a byte or more, so that a count beyond the bytes is a lie.
        if count > block.len() as u64 {
            return Err(damaged::<T>("a block promises more records than it has bytes"));
        }
        if count > MAX_RECORDS.saturating_sub(self.index) {
            return Err(FormatError::TooLarge {
                record: T::NAME,
                what: "the number of records",
                limit: MAX_RECORDS,
            });
        }
        if T::DECODES
            && container.schema.ours
            && let Some(records) = decode_block(&block, count)
        {
            self.decoded.extend(records);
            self.index += count;
            return Ok(());
        }
        let reader = GenericDatumReader::builder(&container.schema.schema)
            .build()
            .map_err(|error| FormatError::Schema {
                record: T::NAME,
                detail: error.to_string(),
            })?;
        let mut rest = block.as_slice();
        for _ in 0..count {
            let wrong = |detail: String| FormatError::Record {
                record: T::NAME,
                index: self.index,
                detail,
            };
            let (mut ahead, mut items) = (rest, T::MAX_ITEMS);
            bounds::walk(&container.schema.schema, &mut ahead, &mut items)
                .map_err(|detail| wrong(detail.to_owned()))?;
            let value = reader.read_value(&mut rest).map_err(|error| wrong(error.to_string()))?;
            let Value::Record(values) = value else {
                return Err(wrong("it is no Avro record".to_owned()));
            };
            self.decoded
                .push_back(T::from_fields(&mut Fields::new(T::NAME, values))?);
            self.index += 1;
        }
        if !rest.is_empty() {
            return Err(damaged::<T>("a block has bytes after its last record"));
        }
        Ok(())
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

fn damaged<T: Record>(detail: &str) -> FormatError {
    FormatError::Container {
        record: T::NAME,
        detail: detail.to_owned(),
    }
}

fn read_exact<T: Record>(source: &mut impl Read, buffer: &mut [u8]) -> Result<(), FormatError> {
    source.read_exact(buffer).map_err(|source| match source.kind() {
        ErrorKind::UnexpectedEof => damaged::<T>("it ends too early"),
        _ => FormatError::Read {
            record: T::NAME,
            source,
        },
    })
}

/// Reads `size` bytes, of which no more is allocated than comes.
fn read_bytes<T: Record>(
    source: &mut impl Read,
    size: u64,
    limit: u64,
    what: &'static str,
) -> Result<Vec<u8>, FormatError> {
    if size > limit {
        return Err(FormatError::TooLarge {
            record: T::NAME,
            what,
            limit,
        });
    }
    let mut bytes = Vec::new();
    source
        .take(size)
        .read_to_end(&mut bytes)
        .map_err(|source| FormatError::Read {
            record: T::NAME,
            source,
        })?;
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
    let what = "the container's metadata";
    let limit = MAX_METADATA_BYTES;
    let cost = size.saturating_add(ENTRY_BYTES);
    let left = budget.checked_sub(cost).ok_or(FormatError::TooLarge {
        record: T::NAME,
        what,
        limit,
    })?;
    let bytes = read_bytes::<T>(source, size, *budget, what)?;
    *budget = left;
    Ok(bytes)
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
