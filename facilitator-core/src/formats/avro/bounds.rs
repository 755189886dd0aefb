//! Bounds before allocation: what a schema may hold, what a compressed block may become, and whether every length in a
//! record is followed by so many bytes. apache-avro believes lengths; nothing gets there that wasn't walked here first.

use apache_avro::schema::UuidSchema;
use apache_avro::{Codec, Schema};

use super::{MAX_BLOCK_BYTES, Record};
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

/// Decompresses a block in place, to no more than the block can honestly have been.
pub(super) fn decompress<T: Record>(codec: Codec, block: &mut Vec<u8>) -> Result<(), FormatError> {
    let limit = MAX_BLOCK_BYTES.min(SMALL_BLOCK_BYTES + MAX_RATIO * block.len() as u64);
    let too_large = || FormatError::TooLarge {
        record: T::NAME,
        what: "a decompressed block",
        limit,
    };
    let wrong = |detail: String| FormatError::Container {
        record: T::NAME,
        detail: format!("a block can't be decompressed: {detail}"),
    };
    match codec {
        Codec::Null => Ok(()),
        Codec::Deflate(_) => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            *block = miniz_oxide::inflate::decompress_to_vec_with_limit(block, limit).map_err(|error| {
                let is_limit = error.status == miniz_oxide::inflate::TINFLStatus::HasMoreOutput;
                if is_limit {
                    too_large()
                } else {
                    wrong(error.to_string())
                }
            })?;
            Ok(())
        }
        codec => {
            // Snappy: the length is in front, before the bytes.
            let promised = varint(block).ok_or_else(|| wrong("it has no length".to_owned()))?;
            if promised > limit {
                return Err(too_large());
            }
            codec.decompress(block).map_err(|error| wrong(error.to_string()))
        }
    }
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

/// Walks over one value without decoding it: every length is followed by so many bytes, and every number ends. `items` is
/// how many items its lists may still have.
///
/// # Errors
/// What is wrong, for the message.
pub(super) fn walk(schema: &Schema, rest: &mut &[u8], items: &mut usize) -> Result<(), &'static str> {
    match schema {
        Schema::Null => Ok(()),
        Schema::Boolean => skip(rest, 1),
        Schema::Float => skip(rest, 4),
        Schema::Double => skip(rest, 8),
        Schema::Fixed(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => skip(rest, fixed.size as u64),
        Schema::Bytes | Schema::String | Schema::Uuid(_) => {
            let length = u64::try_from(long(rest)?).map_err(|_| "a length is negative")?;
            skip(rest, length)
        }
        Schema::Record(record) => record
            .fields
            .iter()
            .try_for_each(|field| walk(&field.schema, rest, items)),
        Schema::Union(union) => {
            let variant = usize::try_from(long(rest)?)
                .ok()
                .and_then(|index| union.variants().get(index));
            walk(
                variant.ok_or("a union's branch isn't one of its schema's")?,
                rest,
                items,
            )
        }
        Schema::Enum(_) => long(rest).map(drop),
        Schema::Array(list) => loop {
            let count = long(rest)?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // A negative count is followed by the size of the items.
                long(rest)?;
            }
            // Every item that is allowed takes a byte or more.
            let count = usize::try_from(count.unsigned_abs())
                .ok()
                .filter(|count| *count <= rest.len());
            let count = count.ok_or("a list promises more items than there are bytes")?;
            *items = items.checked_sub(count).ok_or("its lists have too many items")?;
            (0..count).try_for_each(|_| walk(&list.items, rest, items))?;
        },
        Schema::Map(_) | Schema::Decimal(_) | Schema::BigDecimal | Schema::Duration(_) | Schema::Ref { .. } => {
            Err("the type isn't read here")
        }
        // Ints, longs, and the times that they stand for.
        _ => long(rest).map(drop),
    }
}

fn skip(rest: &mut &[u8], length: u64) -> Result<(), &'static str> {
    let after = usize::try_from(length).ok().and_then(|length| rest.get(length..));
    *rest = after.ok_or("it promises more bytes than there are")?;
    Ok(())
}

fn long(rest: &mut &[u8]) -> Result<i64, &'static str> {
    let mut zigzag = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or("it ends too early")?;
        *rest = after;
        zigzag |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
        }
    }
    Err("a number is longer than 64 bits")
}
