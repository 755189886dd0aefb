//! Bounds before allocation: what a schema may hold, what a compressed block may become, and whether every length in a
//! record is followed by so many bytes. apache-avro believes lengths; nothing gets there that wasn't walked here first.

use apache_avro::schema::UuidSchema;
use apache_avro::{Codec, Schema};

use self::Unwalkable::Wrong;
use super::reader::damaged;
use super::{MAX_BLOCK_BYTES, MAX_SNAPPY_BYTES, Record};
use crate::formats::FormatError;

/// The fields of a schema, of all its records together. Ours have 12 at most.
const MAX_FIELDS: usize = 64;
/// The longest `fixed` of a schema, in bytes.
const MAX_FIXED_BYTES: usize = 64 << 10;
/// What a compressed block may become besides [`MAX_RATIO`] times its length, in bytes: lists of zeros compress well.
const SMALL_BLOCK_BYTES: u64 = 1 << 20;
/// Packets hold ciphertexts and UUIDs, which hardly compress.
const MAX_RATIO: u64 = 32;

/// Refuses schemas by which a few bytes decode to much: recursion, lists of what takes no bytes or holds names, and many
/// fields.
pub(super) fn check_schema(schema: &Schema) -> Result<(), &'static str> {
    let mut fields = 0;
    check(schema, &mut fields)
}

fn check(schema: &Schema, fields: &mut usize) -> Result<(), &'static str> {
    match schema {
        Schema::Ref { .. } => Err("types that refer to other types by name aren't read here"),
        Schema::Map(_) => Err("maps aren't read here"),
        Schema::Decimal(_) | Schema::BigDecimal | Schema::Duration(_) => Err("decimals and durations aren't read here"),
        Schema::Array(list) => match &*list.items {
            Schema::Int | Schema::Long | Schema::Float | Schema::Double => Ok(()),
            Schema::String | Schema::Bytes | Schema::TimestampMillis => Ok(()),
            Schema::Uuid(UuidSchema::String | UuidSchema::Bytes) => Ok(()),
            _ => Err("lists of this type aren't read here"),
        },
        Schema::Union(union) => union.variants().iter().try_for_each(|variant| check(variant, fields)),
        Schema::Record(record) => {
            *fields += record.fields.len();
            if *fields > MAX_FIELDS {
                return Err("it has more than 64 fields");
            }
            record.fields.iter().try_for_each(|field| check(&field.schema, fields))
        }
        Schema::Fixed(fixed) if fixed.size > MAX_FIXED_BYTES => Err("fixed bytes are longer than 64 KiB"),
        _ => Ok(()),
    }
}

/// The most bytes that a compressed block of `size` bytes can honestly have been.
pub(super) fn decompressed_limit(size: u64) -> u64 {
    MAX_BLOCK_BYTES.min(MAX_RATIO.saturating_mul(size).saturating_add(SMALL_BLOCK_BYTES))
}

pub(super) fn decompressed_too_large<T: Record>(limit: u64) -> FormatError {
    FormatError::TooLarge {
        record: T::NAME,
        what: "a decompressed block",
        limit,
    }
}

pub(super) fn cant_be_decompressed<T: Record>(detail: &str) -> FormatError {
    damaged::<T>(&format!("a block can't be decompressed: {detail}"))
}

/// Decompresses a block of snappy, whose length is in front, before the bytes.
pub(super) fn decompress_snappy<T: Record>(block: &mut Vec<u8>) -> Result<(), FormatError> {
    let promised = varint(block).ok_or_else(|| cant_be_decompressed::<T>("it has no length"))?;
    let limit = decompressed_limit(block.len() as u64).min(MAX_SNAPPY_BYTES);
    if promised > limit {
        return Err(decompressed_too_large::<T>(limit));
    }
    let decompressed = Codec::Snappy.decompress(block);
    decompressed.map_err(|error| cant_be_decompressed::<T>(&error.to_string()))
}

fn varint(bytes: &[u8]) -> Option<u64> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Why a value can't be walked over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwalkable {
    /// It goes on beyond the bytes that were read, and may be right.
    NotWhole,
    /// What is wrong, for the message.
    Wrong(&'static str),
}

/// What a walk over one record knows besides its bytes.
#[derive(Debug)]
pub(super) struct Bounds {
    /// How many items its lists may still have.
    pub items: usize,
    /// Bytes of the block that weren't read yet.
    pub unread: u64,
}

impl Bounds {
    fn too_few(&self, detail: &'static str) -> Unwalkable {
        match self.unread {
            0 => Wrong(detail),
            _ => Unwalkable::NotWhole,
        }
    }

    /// Refuses what takes more bytes than can come.
    fn check(&self, bytes: u64, rest: &[u8], detail: &'static str) -> Result<(), Unwalkable> {
        if bytes > (rest.len() as u64).saturating_add(self.unread) {
            return Err(Wrong(detail));
        }
        Ok(())
    }

    /// Walks over one value without decoding it: every length is followed by so many bytes, and every number ends.
    pub(super) fn walk(&mut self, schema: &Schema, rest: &mut &[u8]) -> Result<(), Unwalkable> {
        match schema {
            Schema::Null => Ok(()),
            Schema::Boolean => self.skip(rest, 1),
            Schema::Float => self.skip(rest, 4),
            Schema::Double => self.skip(rest, 8),
            Schema::Fixed(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => self.skip(rest, fixed.size as u64),
            Schema::Bytes | Schema::String | Schema::Uuid(_) => {
                let length = u64::try_from(self.long(rest)?).map_err(|_| Wrong("a length is negative"))?;
                self.skip(rest, length)
            }
            Schema::Record(record) => record
                .fields
                .iter()
                .try_for_each(|field| self.walk(&field.schema, rest)),
            Schema::Union(union) => {
                let variant = usize::try_from(self.long(rest)?)
                    .ok()
                    .and_then(|index| union.variants().get(index));
                let variant = variant.ok_or(Wrong("a union's branch isn't one of its schema's"))?;
                self.walk(variant, rest)
            }
            Schema::Enum(_) => self.long(rest).map(drop),
            Schema::Array(list) => loop {
                let count = self.long(rest)?;
                if count == 0 {
                    return Ok(());
                }
                if count < 0 {
                    // A negative count is followed by the size of the items.
                    self.long(rest)?;
                }
                // Every item that is allowed takes a byte or more.
                let count = count.unsigned_abs();
                self.check(count, rest, "a list promises more items than there are bytes")?;
                let count = usize::try_from(count).ok().filter(|count| *count <= self.items);
                let count = count.ok_or(Wrong("its lists have too many items"))?;
                self.items -= count;
                (0..count).try_for_each(|_| self.walk(&list.items, rest))?;
            },
            Schema::Map(_) | Schema::Decimal(_) | Schema::BigDecimal | Schema::Duration(_) | Schema::Ref { .. } => {
                Err(Wrong("the type isn't read here"))
            }
            // Ints, longs, and the times that they stand for.
            _ => self.long(rest).map(drop),
        }
    }

    fn skip(&self, rest: &mut &[u8], length: u64) -> Result<(), Unwalkable> {
        self.check(length, rest, "it promises more bytes than there are")?;
        let after = usize::try_from(length).ok().and_then(|length| rest.get(length..));
        *rest = after.ok_or(Unwalkable::NotWhole)?;
        Ok(())
    }

    fn long(&self, rest: &mut &[u8]) -> Result<i64, Unwalkable> {
        let mut zigzag = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, after) = rest.split_first().ok_or_else(|| self.too_few("it ends too early"))?;
            *rest = after;
            zigzag |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
            }
        }
        Err(Wrong("a number is longer than 64 bits"))
    }
}
