//! Writing containers: a pure function of the records.

use std::io::Write;

use super::{BLOCK_BYTES, BLOCK_RECORDS, Record, SYNC_MARKER};
use crate::formats::FormatError;

/// Appends values in Avro's binary encoding.
#[derive(Debug)]
pub struct Encoder<'a>(&'a mut Vec<u8>);

impl<'a> Encoder<'a> {
    /// Appends to `buffer`.
    pub fn new(buffer: &'a mut Vec<u8>) -> Self {
        Self(buffer)
    }

    /// An int or a long: zig-zag, seven bits a byte, least first.
    pub fn long(&mut self, value: i64) {
        let mut zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while zigzag > 0x7f {
            self.0.push((zigzag & 0x7f) as u8 | 0x80);
            zigzag >>= 7;
        }
        self.0.push(zigzag as u8);
    }

    /// An int.
    pub fn int(&mut self, value: i32) {
        self.long(i64::from(value));
    }

    /// A double.
    pub fn double(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes or a string.
    pub fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.0.extend_from_slice(value);
    }

    /// A UUID as 36 characters.
    pub fn uuid(&mut self, value: uuid::Uuid) {
        self.bytes(
            value
                .hyphenated()
                .encode_lower(&mut uuid::Uuid::encode_buffer())
                .as_bytes(),
        );
    }

    /// `["null", bytes or string]`.
    pub fn optional_bytes(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.long(0),
            Some(value) => {
                self.long(1);
                self.bytes(value);
            }
        }
    }

    /// `["int", "null"]`: int first, as the original has it.
    pub fn int_or_null(&mut self, value: Option<i32>) {
        match value {
            Some(value) => {
                self.long(0);
                self.int(value);
            }
            None => self.long(1),
        }
    }

    /// A list, in one block.
    pub fn list<T>(&mut self, values: &[T], mut write: impl FnMut(&mut Self, &T)) {
        if !values.is_empty() {
            self.length(values.len());
            values.iter().for_each(|value| write(self, value));
        }
        self.long(0);
    }

    /// The length of bytes or a string that follow.
    pub fn length(&mut self, length: usize) {
        self.long(i64::try_from(length).unwrap_or(i64::MAX));
    }
}

/// Writes records to a container, block by block. Without a record nothing is written, not even a header.
#[derive(Debug)]
pub struct RecordWriter<W, T> {
    target: W,
    block: Vec<u8>,
    records: usize,
    most_records: usize,
    most_bytes: usize,
    started: bool,
    record: std::marker::PhantomData<T>,
}

impl<W: Write, T: Record> RecordWriter<W, T> {
    /// Writes to `target`, in blocks as ours are.
    pub fn new(target: W) -> Self {
        Self::with_blocks(target, BLOCK_RECORDS, BLOCK_BYTES)
    }

    /// Writes as a partner may: a block ends after `records` records, or after the one with which it has `bytes` bytes.
    pub fn with_blocks(target: W, records: usize, bytes: usize) -> Self {
        Self {
            target,
            block: Vec::new(),
            records: 0,
            most_records: records,
            most_bytes: bytes,
            started: false,
            record: std::marker::PhantomData,
        }
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`FormatError::Write`] of the target.
    pub fn write(&mut self, record: &T) -> Result<(), FormatError> {
        record.encode(&mut Encoder::new(&mut self.block));
        self.records += 1;
        if self.records >= self.most_records || self.block.len() >= self.most_bytes {
            self.end_block()?;
        }
        Ok(())
    }

    /// Ends the last block and gives the target back.
    ///
    /// # Errors
    /// [`FormatError::Write`] of the target.
    pub fn finish(mut self) -> Result<W, FormatError> {
        self.end_block()?;
        Ok(self.target)
    }

    fn end_block(&mut self) -> Result<(), FormatError> {
        if self.records == 0 {
            return Ok(());
        }
        let mut frame = Vec::new();
        if !self.started {
            write_header::<T>(&mut frame);
            self.started = true;
        }
        let mut encoder = Encoder::new(&mut frame);
        encoder.length(self.records);
        encoder.bytes(&self.block);
        frame.extend_from_slice(&SYNC_MARKER);
        self.block.clear();
        self.records = 0;
        self.target.write_all(&frame).map_err(|source| FormatError::Write {
            record: T::NAME,
            source,
        })
    }
}

fn write_header<T: Record>(frame: &mut Vec<u8>) {
    frame.extend_from_slice(b"Obj\x01");
    let mut encoder = Encoder::new(frame);
    encoder.long(2);
    for (key, value) in [("avro.codec", "null"), ("avro.schema", T::SCHEMA)] {
        encoder.bytes(key.as_bytes());
        encoder.bytes(value.as_bytes());
    }
    encoder.long(0);
    frame.extend_from_slice(&SYNC_MARKER);
}

/// An object with one record, whose last field is long: `begin` appends the encoding of all before its bytes, their length
/// included, and the buffer of the bytes becomes the object's.
pub fn write_one_around<T: Record>(begin: impl FnOnce(&mut Encoder<'_>), mut last: Vec<u8>) -> Vec<u8> {
    let (mut block, mut frame) = (Vec::new(), Vec::new());
    begin(&mut Encoder::new(&mut block));
    write_header::<T>(&mut frame);
    let mut encoder = Encoder::new(&mut frame);
    encoder.length(1);
    encoder.length(block.len() + last.len());
    frame.extend_from_slice(&block);
    last.reserve_exact(frame.len() + SYNC_MARKER.len());
    last.splice(0..0, frame);
    last.extend_from_slice(&SYNC_MARKER);
    last
}

/// An object with one record.
pub fn write_one<T: Record>(record: &T) -> Vec<u8> {
    write_all(std::slice::from_ref(record))
}

/// An object with these records; no bytes for none.
pub fn write_all<T: Record>(records: &[T]) -> Vec<u8> {
    let mut writer = RecordWriter::new(Vec::new());
    for record in records {
        // A Vec takes everything.
        let _ = writer.write(record);
    }
    writer.finish().unwrap_or_default()
}
